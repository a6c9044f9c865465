"""A SIP endpoint in virtual time, and a caller that says exactly what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiosipua.message import SipRequest, SipResponse

from tests.transport.phone.rig import Rig
from transport.phone import sdp
from transport.phone.sip_endpoint import SipEndpoint
from transport.phone.sip_message import Message, Peer, parse, respond

PEER = Peer("udp", "127.0.0.1", 5999)
OFFER = sdp.offer(sdp.Local("127.0.0.1", 5998, 1))
HEAD = (
    "Via: SIP/2.0/UDP 127.0.0.1:5999;branch=z9hG4bK{branch};rport\r\nFrom: <sip:a@127.0.0.1>;tag=t{call}\r\n"
    "To: <sip:100@127.0.0.1>{to}\r\nCall-ID: {call}\r\nCSeq: {seq} {method}\r\nContact: <sip:a@127.0.0.1:5999>\r\n"
    "Max-Forwards: 70\r\n"
)
BODIES = {"INVITE": OFFER, "INFO": "Signal=5\r\nDuration=100\r\n"}
KINDS = {"INFO": "application/dtmf-relay", "NOTIFY": "message/sipfrag"}


def sip(
    method: str, call: str, seq: int = 1, to: str = "", branch: str = "", body: str | None = None, extra: str = ""
) -> bytes:
    """A request of the caller's; ``to``: our tag; ``extra``: header lines."""
    head = HEAD.format(method=method, call=call, seq=seq, to=to and f";tag={to}", branch=branch or f"{call}{seq}")
    body = BODIES.get(method, "") if body is None else body
    kind = f"Content-Type: {KINDS.get(method, 'application/sdp')}\r\n" if body else ""
    text = f"{method} sip:100@127.0.0.1 SIP/2.0\r\n{head}{extra}{kind}Content-Length: {len(body)}\r\n\r\n{body}"
    return text.encode()


class Wire:
    """``sent``: the endpoint's datagrams."""

    def __init__(self, rig: Rig) -> None:
        assert rig.service.config.phone.sip is not None
        self.rig = rig
        self.endpoint = SipEndpoint(rig.service, rig.calls, rig.service.config.phone, rig.service.config.phone.sip)
        self.endpoint._loop = asyncio.get_running_loop()
        self.sent: list[bytes] = []
        self.endpoint._sockets.send = lambda data, peer: self.sent.append(data)  # type: ignore[method-assign]

    def say(self, data: bytes, peer: Peer = PEER) -> None:
        self.endpoint._arrived(data, peer)

    def messages(self) -> list[Message]:
        return [parse(data) for data in self.sent]

    def statuses(self, method: str = "INVITE") -> list[int]:
        """Of the answers to the caller's requests."""
        answers = [each for each in self.messages() if isinstance(each, SipResponse)]
        return [each.status_code for each in answers if each.cseq is not None and each.cseq.method == method]

    def asked(self, method: str) -> list[SipRequest]:
        """The endpoint's own requests."""
        return [each for each in self.messages() if isinstance(each, SipRequest) and each.method == method]

    def reply(self, request: SipRequest, status: int = 200) -> None:
        self.say(bytes(respond(request, status)))

    async def eventually(self, holds: Callable[[], bool], within_s: float = 30.0) -> None:
        """Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not holds():
                await asyncio.sleep(0.01)

    async def until(self, status: int, method: str = "INVITE") -> SipResponse:
        """Waits for the first such answer."""
        await self.eventually(lambda: status in self.statuses(method))
        answers = [each for each in self.messages() if isinstance(each, SipResponse) and each.status_code == status]
        return next(each for each in answers if each.cseq is not None and each.cseq.method == method)

    async def call(self, name: str, extra: str = "") -> str:
        """A call that goes on; our tag."""
        self.say(sip("INVITE", name, extra=extra))

        def answers() -> list[bytes]:
            return [data for data in self.sent if data.startswith(b"SIP/2.0 200") and name.encode() in data]

        await self.eventually(lambda: bool(answers()))
        answer = answers()[0]
        tag = answer.decode().partition("To: ")[2].partition(";tag=")[2].partition("\r\n")[0]
        self.say(sip("ACK", name, to=tag, branch=f"ack{name}", body=""))
        return tag

    async def gone(self) -> None:
        """Nothing is left: calls, ports, sessions, slots."""
        await asyncio.sleep(1.0)
        assert not len(self.endpoint)
        assert self.endpoint.ports.in_use == 0
        assert self.rig.service.sessions == 0
        assert self.rig.host.slots_in_use == 0
