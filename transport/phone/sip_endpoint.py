"""Our SIP endpoint: one port and one for TLS, all calls. What comes is given to its transaction, then to its call, or
begins one.

bytes -> parse -> Transactions -> a call's dialog
                               -> INVITE: a password or a trusted network -> SipInbound
                               -> OPTIONS; all else is refused with the code that says why
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from aiosipua.auth import SipDigestAuth
from aiosipua.headers import Address, parse_address
from aiosipua.message import SipRequest, SipResponse

from realtime.events import Hangup
from transport.phone.call import About
from transport.phone.calls import PhoneCalls, Turned, new_id
from transport.phone.config import PhoneConfig, SipConfig
from transport.phone.rtp_port import PortPool
from transport.phone.sip_auth import Guard
from transport.phone.sip_call import SipCall
from transport.phone.sip_dialog import Dialog, Here
from transport.phone.sip_inbound import RETRY_AFTER_S, SipInbound
from transport.phone.sip_message import (
    ALLOW,
    METHODS,
    Malformed,
    Message,
    Peer,
    from_tag,
    parse,
    respond,
    stamp,
    to_tag,
    user,
)
from transport.phone.sip_outbound import SipOutbound, Unreachable, resolve
from transport.phone.sip_registration import Registration
from transport.phone.sip_socket import SipSockets
from transport.phone.sip_transactions import Transactions
from transport.service import GOING_AWAY, Service

log = logging.getLogger(__name__)

OURS = "parley"  # the user of our Contact
SUPPORTED = {"timer"}


class SipEndpoint:
    """Made once, started by ``app``; all on its loop."""

    def __init__(self, service: Service, calls: PhoneCalls, config: PhoneConfig, sip: SipConfig) -> None:
        self.calls = calls
        self.config = config
        self.ports = PortPool(*sip.rtp_ports)
        self.bind_host = sip.host
        self.port = sip.port
        self.tls_port: int | None = None
        self._service = service
        self._sip = sip
        self._guard = Guard(sip.users)
        self._sockets = SipSockets(self._arrived, self._lost, sip.tls_ca)
        self._transactions = Transactions(self._send)
        self._timer: asyncio.TimerHandle | None = None
        self._calls: dict[tuple[str, str], SipCall] = {}  # (Call-ID, our tag)
        self._ringing: dict[tuple[str, str], SipInbound] = {}  # (Call-ID, their tag)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._releasing: set[asyncio.Task[Any]] = set()
        self.registration: Registration | None = None

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def source_hz(self) -> int:
        """Of the model's speech."""
        return self._service.spec.output_rate_hz

    # --- life ------------------------------------------------

    async def start(self) -> None:
        """Raises OSError when the port is taken."""
        self._loop = asyncio.get_running_loop()
        sip = self._sip
        self.port = await self._sockets.start(sip.host, sip.port)
        log.info("SIP on %s:%d, udp and tcp", sip.host, self.port)
        if sip.tls_cert:
            self.tls_port = await self._sockets.start_tls(sip.host, sip.tls_port, sip.tls_cert, sip.tls_key)
            log.info("SIP on %s:%d, tls", sip.host, self.tls_port)
        if self.config.trunk.register:
            self.registration = Registration(self.config.trunk, self._final, self._dialog_to, self._sockets.ping)
            self._spawn(self.registration.run(), self._tasks)

    async def stop(self) -> None:
        """Hangs up, leaves the trunk, closes all."""
        if self.registration is not None:
            await self.registration.leave()
        for call in [*self._calls.values()]:
            call.hang_up(Hangup(GOING_AWAY, "server_draining"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._releasing, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        await self._sockets.stop()

    def _spawn(self, coroutine: Coroutine[Any, Any, None], among: set[asyncio.Task[Any]]) -> None:
        task = self._loop.create_task(coroutine)
        among.add(task)
        task.add_done_callback(among.discard)

    # --- messages ------------------------------------------------

    def _send(self, message: Message, peer: Peer) -> None:
        self._sockets.send(bytes(message), peer)

    def _arrived(self, data: bytes, peer: Peer) -> None:
        """Whatever is in it, nobody else's call notices."""
        try:
            self._message(parse(data), peer)
        except Malformed as error:
            log.warning("SIP: a malformed message from %s:%d: %s", peer.host, peer.port, error)
            if error.request is not None:
                self._send(respond(error.request, 400), peer)
        except Exception:
            log.exception("SIP: a message from %s:%d could not be handled", peer.host, peer.port)
        self._arm()

    def _lost(self, peer: Peer) -> None:
        self._transactions.lost(peer)
        if self.registration is not None:
            self.registration.lost(peer)

    def _message(self, message: Message, peer: Peer) -> None:
        now = self._loop.time()
        if isinstance(message, SipRequest):
            stamp(message, peer)
        request = self._transactions.received(message, peer, now)
        if request is None:
            return
        try:
            self._request(request, peer)
        except Exception:
            self.answer(request, respond(request, 500))
            raise

    def _request(self, request: SipRequest, peer: Peer) -> None:
        if request.method == "CANCEL":
            self._cancelled(request)
        elif tag := to_tag(request):
            self._in_dialog(request, tag)
        elif request.method == "INVITE":
            self._invited(request, peer)
        elif request.method == "OPTIONS":
            alive = self._service.state == "alive"
            self.answer(request, respond(request, 200 if alive else 503, headers=_CAPABLE))
        elif request.method != "ACK":
            status = 481 if request.method in METHODS else 405
            self.answer(request, respond(request, status, headers={"Allow": ALLOW}))

    def _in_dialog(self, request: SipRequest, tag: str) -> None:
        call = self._calls.get((request.call_id or "", tag))
        known = call is not None and call.dialog.matches(request)
        if request.method == "ACK":
            if call is not None and known:
                call.acknowledged(request)
        elif call is None or not known:
            self.answer(request, respond(request, 481))
        else:
            call.request(request)

    def _cancelled(self, cancel: SipRequest) -> None:
        """Where it is too late for it, it is answered so all the same, and changes nothing (RFC 3261 section 9.2)."""
        found = self._transactions.invite_of(cancel)
        if found is None:
            self.answer(cancel, respond(cancel, 481))
            return
        call, (_, answered) = self._ringing.get((cancel.call_id or "", from_tag(cancel))), found
        tag = call.dialog.local_tag if call is not None else to_tag(answered) if answered is not None else ""
        self.answer(cancel, respond(cancel, 200, tag))
        if call is not None:
            call.cancelled()

    def _arm(self) -> None:
        """The timer follows the transactions."""
        deadline = self._transactions.deadline
        if self._timer is not None:
            if self._timer.when() == deadline and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._wake) if deadline is not None else None

    def _wake(self) -> None:
        self._timer = None
        self._transactions.wake(self._loop.time())
        self._arm()

    # --- somebody calls ------------------------------------------------

    def _invited(self, invite: SipRequest, peer: Peer) -> None:
        required = {option.strip().lower() for option in invite.headers.get("require")}
        if missing := required - SUPPORTED:
            self.answer(invite, respond(invite, 420, headers={"Unsupported": ", ".join(sorted(missing))}))
            return
        if not self._admitted(invite, peer):
            return
        key = (invite.call_id or "", from_tag(invite))
        if key in self._ringing:  # the same call by another way (RFC 3261 section 8.2.2.2)
            self.answer(invite, respond(invite, 482))
            return
        number = user(_request_address(invite))
        if number == OURS or (number == self.config.trunk.user and number):
            number = user(invite.to_addr)
        headers = {name: invite.headers.get_first(name) or "" for name in ("From", "To", "Call-ID")}
        about = About(new_id(), "sip", number, user(invite.from_addr), headers=headers)
        dialog = Dialog.of_invite(invite, peer, self._here(peer))
        self.answer(invite, respond(invite, 100))
        call = SipInbound(self, about, dialog, invite)
        self._calls[dialog.call_id, dialog.local_tag] = call
        self._ringing[key] = call
        call.begin()

    def _admitted(self, invite: SipRequest, peer: Peer) -> bool:
        """Whether they may call us; if not, they were told."""
        trunk = self.registration is not None and self.registration.came_over(peer)
        if trunk or self._sip.trusts(peer.host) or self._guard.admits(invite, time.time()):
            return True
        tried = bool(invite.headers.get_first("authorization"))
        if not self._sip.users or (tried and self._guard.fresh(invite, time.time())):
            log.warning("SIP: a call from %s is refused: not allowed", peer.host)
            self._service.metrics.refused("not_allowed")
            self.answer(invite, respond(invite, 403))
            return False
        challenge = self._guard.challenge(time.time(), stale=tried)
        self.answer(invite, respond(invite, 401, headers={"WWW-Authenticate": challenge}))
        return False

    def _here(self, peer: Peer) -> Here:
        port = self.port
        if peer.transport == "tls":  # who does not listen for it is reached on the connection that there is
            port = self.tls_port or self._sockets.local_port(peer) or port
        return Here(self._sip.public_address or _local_address(self._sip.host, peer), port, peer.transport)

    # --- we call ------------------------------------------------

    def dial(self, to: str, about: About, policy: Any, session: Mapping[str, Any]) -> None:
        """``to`` is a number or a ``sip:`` address. The call's session is open when this returns. Raises Turned."""
        trunk = self.config.trunk
        if not to.startswith("sip:") and not trunk.host:
            raise Turned("no_trunk")
        target = to if to.startswith("sip:") else f"sip:{to}@{trunk.host}"
        # The dialog's peer and our own address follow once the name is resolved.
        dialog = Dialog.calling(target, "", secrets.token_hex(16), Peer("udp", "", 0), Here("", 0, "udp"))
        auth = SipDigestAuth(trunk.user, trunk.password) if trunk.user and trunk.password else None
        call = SipOutbound(self, about, dialog, auth)
        call.attach(self.calls.open(about, policy, session, call))
        self._calls[dialog.call_id, dialog.local_tag] = call
        self._spawn(self._dialled(call, target), self._tasks)

    async def _dialled(self, call: SipOutbound, target: str) -> None:
        trunk = self.config.trunk
        try:
            found = await self._dialog_to(target, f"sip:{trunk.number or trunk.user or OURS}@{trunk.host or 'parley'}")
        except Unreachable as error:
            log.warning("call %s: %s", call.about.id, error)
            call.failed("unreachable")
            return
        call.dialog.peer, call.dialog.here, call.dialog.local = found.peer, found.here, found.local
        if not trunk.host:
            call.dialog.local = f"<sip:{OURS}@{found.here.host}>"
        call.begin()

    async def _dialog_to(self, target: str, caller: str) -> Dialog:
        """Raises Unreachable."""
        peer = await resolve(target, self.config.trunk.transport)
        if not await self._sockets.connect(peer):
            raise Unreachable(f"no connection to {peer.host}:{peer.port} by {peer.transport}")
        return Dialog.calling(target, caller, secrets.token_hex(16), peer, self._here(peer))

    # --- what calls need ------------------------------------------------

    def answer(self, request: SipRequest, response: SipResponse, no_ack: Callable[[], None] | None = None) -> None:
        self._transactions.answer(request, response, self._loop.time(), no_ack)
        if request.method == "INVITE" and response.status_code >= 200 and not to_tag(request):
            self._ringing.pop((request.call_id or "", from_tag(request)), None)
        self._arm()

    def ask(self, request: SipRequest, peer: Peer, heard: Callable[[SipResponse | None], None]) -> None:
        self._transactions.start(request, peer, self._loop.time(), heard)
        self._arm()

    def say(self, request: SipRequest, peer: Peer) -> None:
        """An ACK: it has no answer."""
        self._send(request, peer)

    def over(self, call: SipCall) -> None:
        """It releases what it holds; nothing is for it any more."""
        self._calls.pop((call.dialog.call_id, call.dialog.local_tag), None)
        self._spawn(call.released(), self._releasing)

    async def _final(self, request: SipRequest, peer: Peer) -> SipResponse | None:
        """The final answer to a request of ours; None: there was none."""
        done: asyncio.Future[SipResponse | None] = self._loop.create_future()

        def heard(answer: SipResponse | None) -> None:
            if (answer is None or answer.status_code >= 200) and not done.done():
                done.set_result(answer)

        self.ask(request, peer, heard)
        return await done


_CAPABLE = {"Allow": ALLOW, "Accept": "application/sdp", "Supported": "timer", "Retry-After": str(RETRY_AFTER_S)}


def _request_address(invite: SipRequest) -> Address:
    return parse_address(f"<{invite.uri}>")


async def started(service: Service, calls: PhoneCalls) -> SipEndpoint | None:
    """The endpoint that the configuration wants, listening; None: it wants none. Raises OSError."""
    config = service.config.phone
    if config.sip is None:
        return None
    endpoint = SipEndpoint(service, calls, config, config.sip)
    try:
        await endpoint.start()
    except OSError as error:
        raise OSError(f"SIP can't listen on {config.sip.host}:{config.sip.port}: {error.strerror or error}") from None
    calls.dialler = endpoint.dial
    return endpoint


def _local_address(host: str, peer: Peer) -> str:
    """Ours, as the peer sees it where there is no NAT: that of the interface that leads there."""
    if not ipaddress.ip_address(host).is_unspecified:
        return host
    family = socket.AF_INET6 if ":" in peer.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((peer.host, peer.port or 5060))  # sends nothing
        except OSError:
            return host
        address: str = probe.getsockname()[0]
    return address
