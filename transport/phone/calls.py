"""All telephone calls of a server: those that ring, those that go on, and who decides about them."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from realtime.errors import ClientError
from transport.auth import Denied
from transport.phone.call import About, Leg, PhoneCall
from transport.phone.policy import Policy
from transport.phone.webhook import WebhookFailed, post
from transport.service import Service

log = logging.getLogger(__name__)

RING_S = 30.0
"""An application that was told of a call must take or reject it within so much."""
MAX_RINGING = 200
_ADDRESS = re.compile(r"\+?[0-9]{2,20}|sip:[^\s<>\"@]{1,100}@[^\s<>\"@/?]{1,200}")
DECLINED = 603  # SIP: nobody anywhere wants this call (RFC 3261 section 21.6.2)


class Turned(Exception):
    """A call is not taken. ``code`` is a word for logs and metrics, ``status`` a SIP status where the application chose
    one."""

    def __init__(self, code: str, status: int | None = None) -> None:
        super().__init__(code)
        self.code, self.status = code, status


@dataclass
class Ringing:
    """A call that an application decides about."""

    about: About
    verdict: asyncio.Future[Mapping[str, Any]]
    """The session it shall have; or Turned."""


def new_id() -> str:
    """Of a call; who knows it may control it, with an API key."""
    return "rtc_phone_" + secrets.token_urlsafe(18)


class PhoneCalls:
    """Made once, by ``app``; all on its loop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ringing: dict[str, Ringing] = {}
        self._calls: dict[str, PhoneCall] = {}
        self.dialler: Callable[[str, About, Policy, Mapping[str, Any]], None] | None = None
        """Calls somebody; None: this server can't."""

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._calls or id_ in self._ringing

    # --- a call comes in, or goes out ------------------------------------------------

    def policy(self, about: About) -> Policy:
        """How the call is answered. Raises Turned where it is not."""
        config = self._service.config.phone
        policy = config.policy(about.number)
        objection = "" if about.outbound else config.objection(about.number, about.caller, datetime.now(UTC))
        if policy is None or objection:
            raise Turned(objection or "number_not_served")
        try:
            self._service.check_room()
        except Denied as denied:
            raise Turned(denied.code) from None
        busy = [call.about for call in self._calls.values()] + [ringing.about for ringing in self._ringing.values()]
        taken = sum(config.policy(each.number) is policy for each in busy)
        if (policy.max_calls and taken >= policy.max_calls) or len(self._ringing) >= MAX_RINGING:
            raise Turned("too_many_calls")
        return policy

    async def decide(self, about: About, policy: Policy) -> Mapping[str, Any]:
        """The session it shall have, as the number's application says; {} where none is asked. Raises Turned."""
        if not policy.webhook or about.outbound:
            return {}
        ringing = Ringing(about, asyncio.get_running_loop().create_future())
        self._ringing[about.id] = ringing
        try:
            await post(policy.webhook, self._service.config.phone.webhook_secret, about)
            async with asyncio.timeout(RING_S):
                return await ringing.verdict
        except WebhookFailed as error:
            log.error("a call to %.40r can't be decided: %s", about.number, error)
            raise Turned("webhook_failed") from None
        except TimeoutError:
            raise Turned("no_answer") from None
        finally:
            del self._ringing[about.id]
            ringing.verdict.cancel()

    def open(self, about: About, policy: Policy, session: Mapping[str, Any], leg: Leg) -> PhoneCall:
        """The call as a session, not started. Raises Turned."""
        try:
            call = PhoneCall(self._service, about, policy, session, leg)
        except ClientError as error:
            log.error("the number %.40r can't be answered: %s", about.number, error)
            raise Turned("policy_invalid") from None
        self._calls[about.id] = call
        log.info("session %d: a call to %.40r over %s", call.number, about.number, about.carrier)
        return call

    def dial(self, to: str, number: str, session: Mapping[str, Any]) -> str:
        """We call ``to``, as ``number`` of ours; the call's id, while it rings. Raises Turned."""
        config = self._service.config.phone
        if self.dialler is None:
            raise Turned("no_sip")
        if not _ADDRESS.fullmatch(to):
            raise Turned("bad_address")
        if not config.may_call(to):
            raise Turned("callee_not_allowed")
        about = About(new_id(), "sip", number or config.trunk.number, to, outbound=True)
        self.dialler(to, about, self.policy(about), session)
        return about.id

    def close(self, call: PhoneCall, reason: str) -> None:
        """Its line is gone, ``reason`` is why. Once."""
        self._calls.pop(call.about.id, None)
        call.close(reason)

    def refused(self, about: About, code: str) -> None:
        """For the log and the metrics."""
        log.info("%s: a call to %.40r is refused: %s", about.carrier, about.number, code)
        self._service.metrics.refused(code)

    # --- what applications do ------------------------------------------------

    def find(self, id_: str) -> PhoneCall:
        """Raises Denied (404; 409 while it rings)."""
        if id_ in self._ringing:
            raise Denied(409, "call_not_answered", "this call still rings: accept or reject it first")
        if id_ not in self._calls:
            raise Denied(404, "call_not_found", "there is no such call: it has ended, or never was")
        return self._calls[id_]

    def rings(self, id_: str) -> bool:
        """Whether an application has still to decide about it."""
        return id_ in self._ringing

    def accept(self, id_: str, session: Mapping[str, Any]) -> None:
        """Raises Denied, ClientError for a session that can't be."""
        ringing = self._rings(id_)
        self._service.settings(session)
        ringing.verdict.set_result(session)

    def reject(self, id_: str, status: int) -> None:
        """Raises Denied."""
        self._rings(id_).verdict.set_exception(Turned("rejected", status))

    def _rings(self, id_: str) -> Ringing:
        ringing = self._ringing.get(id_)
        if ringing is None or ringing.verdict.done():
            self.find(id_)
            raise Denied(409, "call_answered", "this call was decided about already")
        return ringing
