"""We call somebody: INVITE, with the trunk's password where it asks, early media, and what became of it."""

from __future__ import annotations

import asyncio
import logging
import socket

from aiosipua.auth import SipDigestAuth, answer_challenge
from aiosipua.headers import parse_uri
from aiosipua.message import SipRequest, SipResponse

from realtime.events import Hangup
from transport.phone import sdp, sip_timer
from transport.phone.call import About, PhoneCall
from transport.phone.rtp_port import NoPort
from transport.phone.sip_call import Endpoint, SipCall, State
from transport.phone.sip_dialog import Dialog
from transport.phone.sip_message import TRANSPORTS, Peer, sdp_of, with_body

log = logging.getLogger(__name__)

SIP_PORT, TLS_PORT = 5060, 5061
NO_ANSWER_S = 120.0
"""So long it rings there; sooner than the transaction gives up (RINGING_S), which could not be cancelled any more."""


class Unreachable(Exception):
    """The address can't be called. The text says why."""


async def resolve(target: str, transport: str) -> Peer:
    """Where requests for a ``sip:`` address go. Its host is an address or a name with one: no SRV, no NAPTR.

    Raises Unreachable."""
    uri = parse_uri(target)
    transport = (uri.params.get("transport") or transport).lower()
    host, port = uri.host.strip("[]"), uri.port or (TLS_PORT if transport == "tls" else SIP_PORT)
    if transport not in TRANSPORTS or uri.scheme != "sip" or not 0 < port < 65536:
        raise Unreachable(f"{target[:100]!r} can't be called: only sip: over {', '.join(TRANSPORTS)}")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"{host[:100]!r} is not found: {error}") from None
    return Peer(transport, str(found[0][4][0]), port, host)


class SipOutbound(SipCall):
    """A call that goes out. ``call`` is its session, open already: nobody is called who could not be talked to."""

    def __init__(self, endpoint: Endpoint, about: About, dialog: Dialog, auth: SipDigestAuth | None) -> None:
        super().__init__(endpoint, about, dialog)
        self._auth = auth
        self._authenticated = False
        self._least_s = 0  # of a session timer that they take
        self._invite: SipRequest
        self._provisional = False
        self._gave_up = False
        self._answered = False

    @property
    def _wants_srtp(self) -> bool:
        return super()._wants_srtp or self._endpoint.config.trunk.srtp

    def attach(self, call: PhoneCall) -> None:
        """Its session, open."""
        self._call = call

    def begin(self) -> None:
        """Whom we call is found. The session may still be refused; then nobody is called."""
        if self.state is State.RINGING and self._call is not None:
            self.run(self._dial(self._call))

    async def _dial(self, call: PhoneCall) -> None:
        call.start()
        if reason := await call.refused():
            self.failed(reason)
            return
        try:
            await self._open_port()
        except NoPort:
            self.failed("no_port")
            return
        self._ask()

    def _ask(self, credentials: tuple[str, str] | None = None) -> None:
        assert self._local is not None
        self._invite = self.dialog.request("INVITE")
        self._invite.headers.set_single("Supported", "timer")
        if self._timer_s:
            self._invite.headers.set_single("Session-Expires", str(max(self._timer_s, self._least_s)))
        if credentials is not None:
            self._invite.headers.set_single(*credentials)
        with_body(self._invite, sdp.offer(self._local))
        self._provisional = False
        invite = self._invite
        self._endpoint.ask(invite, self.dialog.peer, lambda answer: self._heard(invite, answer))

    def _heard(self, invite: SipRequest, answer: SipResponse | None) -> None:
        if answer is None:
            self.failed("request_timeout")
        elif answer.status_code < 200:
            self._rings(answer)
        elif answer.status_code < 300:
            self._taken(invite, answer)
        elif answer.status_code in (401, 407) and self._auth is not None and not self._authenticated:
            self._authenticate(answer)
        elif answer.status_code == 422 and (least_s := sip_timer.least(answer)) > self._least_s:
            self._least_s = least_s
            self._ask()
        else:
            self.failed(f"sip_{answer.status_code}")

    def _rings(self, answer: SipResponse) -> None:
        first, self._provisional = not self._provisional, True
        if self._gave_up:
            if first:
                self._cancel()
            return
        if first and self._timer is None:
            self._timer = self._loop.call_later(NO_ANSWER_S, lambda: self.hang_up(Hangup(1000, "no_answer")))
        if self.state is State.RINGING and (text := sdp_of(answer)) is not None:
            self._early(text)

    def _early(self, text: str) -> None:
        """Early media: their sound is nobody's yet, our packets open the way for it."""
        try:
            self._settle(sdp.read(text), answer=True)
        except (sdp.BadSdp, sdp.NotAcceptable) as error:
            log.info("call %s: early media can't be used: %s", self.about.id, error)
            return
        self.speaker.start()

    def _taken(self, invite: SipRequest, answer: SipResponse) -> None:
        again, self._answered = self._answered, True
        if not again:
            self.dialog.answered(answer)
        self._acknowledge(invite)
        if again:
            return
        if self.state is State.OVER:  # given up, and too late for a CANCEL
            self._endpoint.ask(self.dialog.request("BYE"), self.dialog.peer, lambda _: None)
            return
        text = sdp_of(answer)
        try:
            if text is not None or self._remote is None:
                self._settle(sdp.read(text or ""), answer=True)
        except (sdp.BadSdp, sdp.NotAcceptable) as error:
            log.warning("call %s: their answer can't be used: %s", self.about.id, error)
            self.state = State.UP
            self.hang_up(Hangup(1002, "no common codec"))
            return
        self._arm(sip_timer.answered(answer, self._timer_s))
        self._up()

    def _authenticate(self, answer: SipResponse) -> None:
        assert self._auth is not None
        self._authenticated = True
        credentials = answer_challenge(self._auth, answer, answer.status_code, "INVITE", self._invite.uri)
        if credentials is None:
            self.failed(f"sip_{answer.status_code}")
        else:
            self._ask(credentials)

    def failed(self, code: str) -> None:
        """Nobody answers; ``code`` says why: ``sip_486``, ``request_timeout``, ``server_full``..."""
        if self.state is State.RINGING:
            log.info("call %s: not answered: %s", self.about.id, code)
            self._why = code
            self.end()

    def hang_up(self, hangup: Hangup) -> None:
        if self.state is not State.RINGING:
            super().hang_up(hangup)
        else:
            self._gave_up, self._why = True, hangup.reason
            if self._provisional:
                self._cancel()
            self.end()

    def _cancel(self) -> None:
        """RFC 3261 section 9.1: once they have answered anything."""
        seq = self._invite.cseq.seq if self._invite.cseq is not None else 1
        cancel = self.dialog.request("CANCEL", seq)
        cancel.uri = self._invite.uri
        cancel.headers.remove("Via")
        cancel.headers.append("Via", self._invite.headers.get("via")[0])
        self._endpoint.ask(cancel, self.dialog.peer, lambda _: None)
