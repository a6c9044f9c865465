"""A call over SIP: its dialog, its sound and its session, from the first INVITE to the BYE. Either side may have begun.

    RINGING --200--> ANSWERED --ACK--> UP --BYE--> OVER        they call us (``SipInbound`` rings)
    RINGING ------200, our ACK-------> UP                      we call them (``SipOutbound`` does)

What comes in a dialog is answered here at once; what takes time (an application that decides, a transfer) is a task of
the call's, ended with it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import replace
from enum import Enum, auto
from typing import Any, Protocol

from aiosipua.message import SipRequest, SipResponse

from models.base import Pcm
from realtime.events import Hangup
from transport.phone import sdes, sdp, sip_timer
from transport.phone.call import HUNG_UP, About, Leg, PhoneCall
from transport.phone.calls import PhoneCalls
from transport.phone.config import PhoneConfig
from transport.phone.rtp_port import PortPool, RtpPort
from transport.phone.rtp_stream import RtpStream
from transport.phone.sip_dialog import Dialog
from transport.phone.sip_message import Peer, respond, sdp_of, with_body
from transport.phone.sip_transfer import Transfer, address, in_place_of
from transport.phone.tools import Unable

log = logging.getLogger(__name__)

GLARE_S = (2.1, 4.0)
"""Both ends sent an INVITE at once: ours goes again after a time of this range (RFC 3261 section 14.1)."""
_SIGNAL = re.compile(r"^\s*Signal\s*=\s*([0-9A-D*#])", re.IGNORECASE | re.MULTILINE)


class State(Enum):
    """How far a call is."""

    RINGING = auto()
    ANSWERED = auto()
    UP = auto()
    OVER = auto()


class Endpoint(Protocol):
    """What a call needs of its endpoint."""

    calls: PhoneCalls
    config: PhoneConfig
    ports: PortPool
    bind_host: str

    @property
    def source_hz(self) -> int: ...
    def answer(self, request: SipRequest, response: SipResponse, no_ack: Callable[[], None] | None = None) -> None: ...
    def ask(self, request: SipRequest, peer: Peer, heard: Callable[[SipResponse | None], None]) -> None: ...
    def say(self, request: SipRequest, peer: Peer) -> None: ...
    def over(self, call: SipCall) -> None: ...


class SipCall:
    """What both directions have in common. It is its PhoneCall's leg."""

    def __init__(self, endpoint: Endpoint, about: About, dialog: Dialog) -> None:
        self.about = about
        self.dialog = dialog
        self.state = State.RINGING
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._call: PhoneCall | None = None
        self._local: sdp.Local | None = None
        self._remote: sdp.Remote | None = None
        self._port: RtpPort | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._session_timer: sip_timer.SessionTimer | None = None
        self._asking = False  # an INVITE of ours, in the dialog, is not answered yet
        self._offered = False  # we offered in an answer: theirs comes in the ACK
        self._transfer: Transfer | None = None
        self._holding = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._why = HUNG_UP  # it ended
        self.speaker = RtpStream(lambda: endpoint.source_hz, self._hear, self._press, self._lost)

    # --- sound ------------------------------------------------

    async def _open_port(self) -> None:
        """Raises NoPort."""
        speaker = self.speaker
        endpoint = self._endpoint
        self._port = await RtpPort.open(endpoint.ports, endpoint.bind_host, speaker.arrived, speaker.reported)
        speaker.bound(self._port)
        crypto = sdes.Crypto.new() if self._wants_srtp else None
        self._local = sdp.Local(self.dialog.here.host, self._port.port, secrets.randbits(31), crypto=crypto)

    @property
    def _wants_srtp(self) -> bool:
        """Whether the sound must be encrypted; else they decide."""
        sip = self._endpoint.config.sip
        return sip is not None and sip.srtp_required

    def _settle(self, remote: sdp.Remote, *, answer: bool = False) -> None:
        """``answer``: to our offer. Raises NotAcceptable: once it is encrypted, a call stays so."""
        assert self._local is not None
        keys = sdes.agreed(self._local.crypto, remote.crypto, answer=answer)
        if keys is None and (self._local.crypto is not None or remote.crypto):
            raise sdp.NotAcceptable("the sound of this call must be encrypted: RTP/SAVP with a=crypto")
        kind, payloads = remote.settled()
        before, self._remote = self._remote, remote
        if keys is not None:
            self._local = replace(self._local, crypto=keys.ours)
        self.speaker.settle((remote.host, remote.port), kind, payloads, mux=remote.mux, keys=keys)
        self.speaker.muted, self.speaker.deaf = remote.held, remote.silent
        if before is not None and remote.held and not before.held and self._call is not None:
            log.info("session %d: they hold the line", self._call.number)
            self._call.silence()  # nobody hears the rest

    def _described(self) -> str:
        """Our side, as an answer to what they offered last."""
        assert self._local is not None
        assert self._remote is not None
        description = sdp.answer(self._remote, self._local, held=self._holding)
        self._local = self._local.next()
        return description

    def _hear(self, pcm: Pcm, rate_hz: int) -> None:
        if self._call is not None and self.state in (State.ANSWERED, State.UP):
            self._call.hear(pcm, rate_hz)

    def _press(self, digit: str) -> None:
        if self._call is not None and self.state is State.UP:
            self._call.press(digit)

    def _lost(self) -> None:
        log.warning("call %s: no packet came for a minute: it is ended", self.about.id)
        self.hang_up(Hangup(1000, "nobody is there"))

    # --- what the dialog brings ------------------------------------------------

    def request(self, request: SipRequest) -> None:
        """One in the dialog, other than ACK and CANCEL. It is answered."""
        if not self.dialog.in_order(request):
            self._answer(request, 500)
            return
        match request.method:
            case "BYE":
                self._answer(request, 200)
                self._bye()
            case "INVITE" | "UPDATE":
                self._reinvited(request)
            case "INFO":
                self._answer(request, 200)
                if (signal := _SIGNAL.search(request.text)) is not None:
                    self._press(signal[1].upper())
            case "NOTIFY":
                self._answer(request, 200)
                if self._transfer is not None:
                    self._transfer.notified(request.text)
            case "OPTIONS":
                self._answer(request, 200)
            case _:  # REFER too: whose calls we send on is our own affair
                self._answer(request, 603 if request.method == "REFER" else 405)

    def acknowledged(self, ack: SipRequest) -> None:
        """The ACK of a 200 of ours."""
        if self._offered:
            try:
                self._settle(sdp.read(sdp_of(ack) or ""), answer=True)
            except (sdp.BadSdp, sdp.NotAcceptable) as error:
                log.warning("call %s: an answer can't be used: %s", self.about.id, error)
                self.hang_up(Hangup(1002, "no common codec"))
                return
        self._offered = False
        if self.state is State.ANSWERED:
            self._up()

    def _up(self) -> None:
        self.state = State.UP
        self.speaker.start()
        if self._call is not None:
            self._call.answered()

    def _bye(self) -> None:
        self.end()

    def _reinvited(self, request: SipRequest) -> None:
        if self.state is State.OVER:
            self._answer(request, 481)
        elif self._asking or self.state is State.RINGING:
            self._answer(request, 491)
        else:
            try:
                timer = sip_timer.agreed(request, self._timer_s)
                headers = self._timer_headers(timer)
                body = self._renegotiated(request)
            except sip_timer.TooShort:
                self._answer(request, 422, {"Min-SE": str(sip_timer.MIN_S)})
                return
            except sdp.NotAcceptable as error:
                self._answer(request, 488, {"Warning": f'304 parley "{error}"'})
                return
            except sdp.BadSdp:
                self._answer(request, 400)
                return
            self.dialog.refreshed(request)
            self._arm(timer)
            self._answer(request, 200, headers, body)

    def _renegotiated(self, request: SipRequest) -> str:
        """The body of our answer to another INVITE, or to an UPDATE. Raises BadSdp, NotAcceptable."""
        text = sdp_of(request)
        if text is not None:
            self._settle(sdp.read(text))
            return self._described()
        if request.method == "UPDATE" or self._local is None:
            return ""
        self._offered = True
        self._local = self._local.next()
        return sdp.offer(self._local)

    def _answer(self, request: SipRequest, status: int, headers: dict[str, str] | None = None, body: str = "") -> None:
        response = respond(request, status, self.dialog.local_tag, headers)
        if request.method in ("INVITE", "UPDATE") and status < 300:
            response.headers.set_single("Contact", self.dialog.here.contact)
        if body:
            with_body(response, body)
        no_ack = self._no_ack if request.method == "INVITE" and status == 200 else None
        self._endpoint.answer(request, response, no_ack)

    def _no_ack(self) -> None:
        if self.state is not State.OVER:
            log.warning("call %s: they never acknowledged our answer", self.about.id)
            self.hang_up(Hangup(1002, "no ACK"))

    # --- the session timer ------------------------------------------------

    @property
    def _timer_s(self) -> int:
        sip = self._endpoint.config.sip
        return sip.session_expires_s if sip is not None else 0

    def _timer_headers(self, timer: sip_timer.SessionTimer | None) -> dict[str, str]:
        if timer is None:
            return {}
        return {"Session-Expires": timer.header} | ({"Require": "timer"} if timer.told else {})

    def _arm(self, timer: sip_timer.SessionTimer | None) -> None:
        self._session_timer = timer
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(timer.next_s, self._timed) if timer is not None else None

    def _timed(self) -> None:
        timer = self._session_timer
        if timer is None or self.state is not State.UP:
            return
        if timer.we_refresh:
            self.reinvite()
        else:
            log.warning("call %s: they did not refresh it: it is ended", self.about.id)
            self.hang_up(Hangup(1000, "the session expired"))

    def reinvite(self) -> None:
        """Our INVITE in the dialog, with what is agreed already."""
        if self._asking or self._local is None or self._remote is None or self.state is not State.UP:
            return
        invite = self.dialog.request("INVITE")
        invite.headers.set_single("Supported", "timer")
        if self._session_timer is not None:
            invite.headers.set_single("Session-Expires", f"{self._session_timer.interval_s};refresher=uac")
        held = self._holding
        with_body(invite, sdp.offer(self._local, held=held))
        self._local, self._asking = self._local.next(), True
        self._endpoint.ask(invite, self.dialog.peer, lambda answer: self._refreshed(invite, held, answer))

    def _refreshed(self, invite: SipRequest, held: bool, answer: SipResponse | None) -> None:
        if answer is not None and answer.status_code < 200:
            return
        self._asking = False
        if self.state is not State.UP:
            return
        if answer is None or answer.status_code in (408, 481):
            self.end()
            return
        if answer.status_code == 491:
            self._loop.call_later(random.uniform(*GLARE_S), self.reinvite)
        elif held != self._holding:
            self._loop.call_soon(self.reinvite)  # it was changed meanwhile
        if answer.status_code < 300:
            self._acknowledge(invite)
            if (text := sdp_of(answer)) is not None:
                try:
                    self._settle(sdp.read(text), answer=True)
                except (sdp.BadSdp, sdp.NotAcceptable) as error:
                    log.warning("call %s: an answer can't be used: %s", self.about.id, error)
        self._arm(self._session_timer)

    def _acknowledge(self, invite: SipRequest) -> None:
        seq = invite.cseq.seq if invite.cseq is not None else 1
        self._endpoint.say(self.dialog.request("ACK", seq), self.dialog.peer)

    # --- what its PhoneCall wants ------------------------------------------------

    def hang_up(self, hangup: Hangup) -> None:
        """A BYE, where the dialog stands; ``end`` follows."""
        if self.state in (State.ANSWERED, State.UP):
            self._endpoint.ask(self.dialog.request("BYE"), self.dialog.peer, lambda _: None)
        self._why = hangup.reason
        self.end()

    def send_digits(self, digits: str) -> None:
        if self.state is not State.UP:
            raise Unable("the call is not answered yet")
        self.speaker.press(digits)

    async def refer(self, target: str) -> None:
        """A blind transfer: they call ``target`` and tell us how that goes."""
        host = self._endpoint.config.trunk.host or self.dialog.peer.host
        await self._send_on(address(target, host))

    async def join(self, other: Leg) -> None:
        """An attended transfer: they call whom we talk to in ``other``, in its place."""
        if not isinstance(other, SipCall) or other is self or State.UP is not other.state:
            raise Unable("the other call is no SIP call that goes on")
        await self._send_on(in_place_of(other.dialog))
        other.hang_up(Hangup(1000, "sent on"))

    async def _send_on(self, uri: str) -> None:
        if self.state is not State.UP:
            raise Unable("the call is not answered yet")
        if self._transfer is not None:
            raise Unable("it is being sent on already")
        transfer = self._transfer = Transfer()
        try:
            refer = self.dialog.request("REFER")
            refer.headers.set_single("Refer-To", f"<{uri}>")
            refer.headers.set_single("Referred-By", self.dialog.local)
            self._endpoint.ask(refer, self.dialog.peer, transfer.answered)
            await transfer.finished()
        except ValueError as error:
            raise Unable(str(error)) from None
        finally:
            self._transfer = None
        log.info("call %s: sent on", self.about.id)
        self.hang_up(Hangup(1000, "sent on"))

    def hold(self, held: bool) -> None:
        """Tells them that we hold the line (RFC 3264 section 8.4): they send nothing meanwhile."""
        self._holding = held
        if self.state is State.UP:
            self.reinvite()

    # --- the end ------------------------------------------------

    def run(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that is ended with the call."""
        task = self._loop.create_task(self._guarded(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """A mistake of ours ends this call, and no other."""
        try:
            await coroutine
        except Exception:
            log.exception("call %s failed", self.about.id)
            self.hang_up(Hangup(1011, "internal_error"))

    def end(self) -> None:
        """It is over: everything is released. Twice is once."""
        if self.state is State.OVER:
            return
        self.state = State.OVER
        if self._timer is not None:
            self._timer.cancel()
        if self._transfer is not None:
            self._transfer.gone()
        if self._call is not None:
            self._endpoint.calls.close(self._call, self._why)
        self._endpoint.over(self)

    async def released(self) -> None:
        """Ends its tasks and gives its ports back."""
        current = asyncio.current_task()
        for task in [*self._tasks]:
            if task is not current:
                task.cancel()
        await asyncio.gather(*(task for task in self._tasks if task is not current), return_exceptions=True)
        if self._port is not None:
            self.speaker.close()
