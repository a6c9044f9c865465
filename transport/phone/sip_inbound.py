"""Somebody calls us: what the number's policy and its application say, then 200, or a code that means what it says."""

from __future__ import annotations

import logging

from aiosipua.message import SipRequest

from realtime.events import Hangup
from transport.phone import sdp, sip_timer
from transport.phone.call import About
from transport.phone.calls import Turned
from transport.phone.hold import HoldMusic
from transport.phone.policy import Policy
from transport.phone.rtp_port import NoPort
from transport.phone.sip_call import Endpoint, SipCall, State
from transport.phone.sip_dialog import Dialog
from transport.phone.sip_message import sdp_of

log = logging.getLogger(__name__)

STATUS = {
    "number_not_served": 404,
    "caller_not_allowed": 403,
    "closed": 480,
    "server_full": 486,
    "too_many_calls": 486,
    "no_port": 486,
    "model_loading": 503,
    "server_draining": 503,
    "engine_failed": 503,
    "policy_invalid": 500,
    "internal_error": 500,
    "webhook_failed": 480,
    "no_answer": 480,
    "not_acceptable": 488,
    "bad_request": 400,
}
"""Why a call is not taken -> SIP status (RFC 3261 section 21)."""
RETRY_AFTER_S = 5


class SipInbound(SipCall):
    """A call that came in."""

    def __init__(self, endpoint: Endpoint, about: About, dialog: Dialog, invite: SipRequest) -> None:
        super().__init__(endpoint, about, dialog)
        self._invite = invite
        self._music = HoldMusic(self.speaker.sound, "")

    def begin(self) -> None:
        """It rings; all else follows."""
        self.run(self._ring())

    async def _ring(self) -> None:
        calls, invite = self._endpoint.calls, self._invite
        try:
            policy = calls.policy(self.about)
            timer = sip_timer.agreed(invite, self._timer_s)
            remote = sdp.read(text) if (text := sdp_of(invite)) is not None else None
            await self._open_port()
            if remote is not None:
                self._settle(remote)
            if policy.webhook:
                self._let_ring(policy)
            session = await calls.decide(self.about, policy)
            self._music.stop()
            self.speaker.cut()
            self._call = calls.open(self.about, policy, session, self)
            self._call.start()
            if reason := await self._call.refused():
                raise Turned(reason)
            self._accept(timer)
        except Turned as turned:
            self._refuse(turned.code, turned.status)
        except NoPort:
            self._refuse("no_port")
        except sdp.NotAcceptable as error:
            log.info("call %s: %s", self.about.id, error)
            self._refuse("not_acceptable")
        except sdp.BadSdp as error:
            log.warning("call %s: %s", self.about.id, error)
            self._refuse("bad_request")
        except sip_timer.TooShort:
            self._refuse("session_interval_too_small", 422)

    def _let_ring(self, policy: Policy) -> None:
        """They hear it ring, or, as early media, our music."""
        if self._remote is None or not policy.early_media:
            self._answer(self._invite, 180)
            return
        self._answer(self._invite, 183, body=self._described())
        self._music = HoldMusic(self.speaker.sound, policy.hold_music)
        self._music.start()
        self.speaker.start()

    def _accept(self, timer: sip_timer.SessionTimer | None) -> None:
        assert self._local is not None
        self.state = State.ANSWERED
        self._offered = self._remote is None
        body = sdp.offer(self._local) if self._offered else self._described()
        if not self._offered:
            self.speaker.start()
        self._arm(timer)
        self._answer(self._invite, 200, self._timer_headers(timer), body)

    def _refuse(self, code: str, status: int | None = None) -> None:
        if self.state is not State.RINGING:
            return
        status = status or STATUS.get(code, 480)
        self._endpoint.calls.refused(self.about, code)
        headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
        headers |= {"Min-SE": str(sip_timer.MIN_S)} if status == 422 else {}
        self._answer(self._invite, status, headers)
        self.end()

    def cancelled(self) -> None:
        """They gave up before we answered."""
        if self.state is State.RINGING:
            self._answer(self._invite, 487)
            self.end()

    def end(self) -> None:
        self._music.stop()
        super().end()

    def hang_up(self, hangup: Hangup) -> None:
        if self.state is State.RINGING:
            self._refuse(hangup.reason)
        super().hang_up(hangup)

    def _bye(self) -> None:
        if self.state is State.RINGING:  # an early dialog may be ended so (RFC 3261 section 15)
            self._answer(self._invite, 487)
        super()._bye()
