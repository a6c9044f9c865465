"""Our place at a trunk: REGISTER, with its password, again before it expires (RFC 3261 section 10).

The trunk's calls come back by the way that the REGISTER went, where a NAT is between, and over TCP and TLS always: the
way is kept open, and when a connection is lost all the same, we register over another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiosipua.auth import SipDigestAuth, answer_challenge
from aiosipua.message import SipRequest, SipResponse

from transport.phone.config import TrunkConfig
from transport.phone.sip_dialog import Dialog
from transport.phone.sip_message import Peer
from transport.phone.sip_outbound import Unreachable

log = logging.getLogger(__name__)

EARLY = 0.8
"""Of what was granted: then it is asked for again."""
RETRY_S = (5.0, 300.0)
"""After a failure; doubles with each."""
PING_S = 25.0
"""NATs forget a UDP binding after 30 s, the impatient among them."""


class Refused(Exception):
    """The trunk does not want us. The text says why."""


class Registration:
    """One trunk's. ``ask`` sends a request and gives its final answer, None for none; ``dial(target, caller)`` makes a
    dialog to it, or raises Unreachable; ``ping`` keeps the way back open."""

    def __init__(
        self,
        trunk: TrunkConfig,
        ask: Callable[[SipRequest, Peer], Awaitable[SipResponse | None]],
        dial: Callable[[str, str], Awaitable[Dialog]],
        ping: Callable[[Peer], None],
    ) -> None:
        self._trunk = trunk
        self._ask = ask
        self._dial = dial
        self._ping = ping
        self._expires_s = trunk.expires_s
        self._dialog: Dialog | None = None
        self._cut = asyncio.Event()
        self.registered = False
        self.count = 0
        """Of registrations that worked."""

    async def run(self) -> None:
        """For ever."""
        wait_s = RETRY_S[0]
        while True:
            try:
                granted_s = await self._register(self._expires_s)
                self.registered, self.count = True, self.count + 1
                log.info("registered at %s for %d s", self._trunk.host, granted_s)
                await self._keep(max(1.0, EARLY * granted_s))
                wait_s = RETRY_S[0]
            except (Refused, Unreachable) as error:
                self.registered, self._dialog = False, None
                log.error("not registered at %s: %s; again in %.0f s", self._trunk.host, error, wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_S[1])

    def came_over(self, peer: Peer) -> bool:
        """Whether it is the trunk: it speaks on the connection that we made to it."""
        return peer.reliable and self._dialog is not None and peer == self._dialog.peer

    def lost(self, peer: Peer) -> None:
        """That connection is over."""
        if self.came_over(peer):
            self._cut.set()

    async def leave(self) -> None:
        """We are not to be called here any more."""
        if self.registered:
            with suppress(Refused, Unreachable, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._register(0)
            self.registered = False

    async def _keep(self, seconds: float) -> None:
        """For so long they can reach us. Raises Refused when they can't any more."""
        assert self._dialog is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._cut.is_set():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(PING_S):
                            await self._cut.wait()
                    self._ping(self._dialog.peer)
                raise Refused("the connection was lost")

    async def _register(self, expires_s: int) -> int:
        """What was granted, seconds. Raises Refused, Unreachable."""
        self._cut.clear()
        if self._dialog is None:
            self._dialog = await self._dial(f"sip:{self._trunk.host}", f"sip:{self._trunk.user}@{self._trunk.host}")
        answer = await self._try(expires_s, None)
        if answer is not None and answer.status_code == 423:
            self._expires_s = expires_s = _seconds(answer.headers.get_first("min-expires"), expires_s)
            answer = await self._try(expires_s, None)
        if answer is not None and answer.status_code in (401, 407):
            answer = await self._try(expires_s, answer)
        if answer is None:
            raise Refused("no answer")
        if answer.status_code >= 300:
            raise Refused(f"{answer.status_code} {answer.reason_phrase}")
        for contact in answer.contact:
            if (told := contact.params.get("expires")) is not None:
                return _seconds(told, expires_s)
        return _seconds(answer.headers.get_first("expires"), expires_s)

    async def _try(self, expires_s: int, challenge: SipResponse | None) -> SipResponse | None:
        assert self._dialog is not None
        request: SipRequest = self._dialog.request("REGISTER")
        request.headers.set_single("To", self._dialog.local)
        request.headers.set_single("Contact", self._dialog.here.contact)
        request.headers.set_single("Expires", str(expires_s))
        if challenge is not None:
            auth = SipDigestAuth(self._trunk.user, self._trunk.password)
            credentials = answer_challenge(auth, challenge, challenge.status_code, "REGISTER", request.uri)
            if credentials is None:
                raise Refused("its challenge is none that can be answered")
            request.headers.set_single(*credentials)
        answer: SipResponse | None = await self._ask(request, self._dialog.peer)
        return answer


def _seconds(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.strip().isdigit() else default
