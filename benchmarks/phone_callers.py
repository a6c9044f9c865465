"""Callers for the telephone benchmark: each says a clip, says it again over the answer, and notes what comes and when.

Run as ``python -m benchmarks.phone_callers KIND PORT CLIP COUNT TALK_S``: pickled measurements on stdout.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from aiortp.packet import RtpPacket
from aiosipua.message import SipRequest, SipResponse
from websockets.asyncio.client import connect

from realtime.pcm import PCMU, decode, encode, resample, to_int16
from transport.call import read_question
from transport.phone import sdp
from transport.phone.sip_dialog import Dialog, Here
from transport.phone.sip_message import Peer, parse, respond, sdp_of, to_tag, with_body
from transport.phone.sip_transactions import Transactions

PACKET_S = 0.02
LOUD = 300
SILENCE = encode(np.zeros(160, np.int16), PCMU)


@dataclass
class Heard:
    """What one caller measured."""

    arrivals: list[tuple[float, int, bool]] = field(default_factory=list)
    """(when, RTP timestamp, loud) of each packet."""
    spoke_s: float = 0.0
    """When the last loud packet of the clip was sent."""
    interrupted_s: float = 0.0

    def jitter_ms(self) -> float:
        jitter, before = 0.0, None
        for at_s, timestamp, _ in self.arrivals:
            transit = at_s - timestamp / 8000
            if before is not None:
                jitter += (abs(transit - before) - jitter) / 16
            before = transit
        return 1000 * jitter

    def gap_ms(self) -> float:
        times = [at_s for at_s, _, _ in self.arrivals]
        return 1000 * max((b - a - PACKET_S for a, b in pairwise(times)), default=0.0)

    def e2e_ms(self) -> float | None:
        first = next((at_s for at_s, _, loud in self.arrivals if loud and at_s > self.spoke_s), None)
        return None if first is None else 1000 * (first - self.spoke_s)

    def interrupt_stop_ms(self) -> float | None:
        if not self.interrupted_s:
            return None
        loud = [at_s for at_s, _, loud in self.arrivals if loud and at_s >= self.interrupted_s]
        stopped = self.interrupted_s
        for at_s in loud:
            if at_s - stopped > 0.3:
                break
            stopped = at_s
        return 1000 * (stopped - self.interrupted_s)

    def note(self, at_s: float, timestamp: int, payload: bytes) -> None:
        """A packet of G.711 came."""
        pcm = to_int16(decode(payload, PCMU))
        self.arrivals.append((at_s, timestamp, bool(len(pcm)) and int(np.abs(pcm).max()) > LOUD))


async def talk(heard: Heard, clip: list[bytes], talk_s: float, send: Callable[[int, bytes], None]) -> None:
    """Silence; the clip; silence until we were spoken to for half a second; the clip again; silence."""
    now = asyncio.get_running_loop().time
    start_s, again, number = now(), False, 0
    say = [SILENCE] * 25 + clip
    while now() - start_s < talk_s:
        frame = say.pop(0) if say else SILENCE
        if frame is not SILENCE and not again:
            heard.spoke_s = now()
        first_ms = None if again or say else heard.e2e_ms()
        if first_ms is not None and now() > heard.spoke_s + first_ms / 1000 + 0.5:
            say, again, heard.interrupted_s = list(clip), True, now() + PACKET_S
        send(number, frame)
        number += 1
        await asyncio.sleep(max(0.0, start_s + number * PACKET_S - now()))


class SipCaller(asyncio.DatagramProtocol):
    """A telephone in a few lines: G.711, no keys, no hold."""

    def __init__(self, port: int, clip: list[bytes]) -> None:
        self.heard = Heard()
        self._server = Peer("udp", "127.0.0.1", port)
        self._clip = clip
        self._loop = asyncio.get_running_loop()
        self._answered: asyncio.Future[SipResponse] = self._loop.create_future()
        self._transactions = Transactions(lambda message, _: self._send(bytes(message)))
        self._socket: asyncio.DatagramTransport
        self._remote: tuple[str, int] = ("", 0)

    def _send(self, data: bytes) -> None:
        self._socket.sendto(data, (self._server.host, self._server.port))

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if addr[1] == self._server.port:
            message = parse(data)
            if isinstance(message, SipRequest):
                self._send(bytes(respond(message, 200)))
            self._transactions.received(message, self._server, self._loop.time())
            return
        if 192 <= data[1] <= 223:  # RTCP
            return
        self.arrived(RtpPacket.parse(data))

    def arrived(self, packet: RtpPacket) -> None:
        """One packet of their speech."""
        self.heard.note(self._loop.time(), packet.timestamp, packet.payload)

    async def call(self, talk_s: float, number: str = "100") -> Heard:
        """Raises TimeoutError, ConnectionError."""
        self._socket, _ = await self._loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        port = self._socket.get_extra_info("sockname")[1]
        here = Here("127.0.0.1", port, "udp")
        called, calling = f"sip:{number}@127.0.0.1", "sip:bench@127.0.0.1"
        dialog = Dialog.calling(called, calling, os.urandom(8).hex(), self._server, here)
        invite = dialog.request("INVITE")
        offer = sdp.offer(sdp.Local("127.0.0.1", port, 1)).replace("RTP/AVP 96 9 0 8 13 101", "RTP/AVP 0")
        with_body(invite, offer)
        self._transactions.start(invite, self._server, self._loop.time(), self._hear)
        async with asyncio.timeout(30):
            answer = await self._answered
        if answer.status_code != 200:
            raise ConnectionError(f"{answer.status_code} {answer.reason_phrase}")
        dialog.remote_tag = to_tag(answer)
        self._send(bytes(dialog.request("ACK", 1)))
        remote = sdp.read(sdp_of(answer) or "")
        self._remote = (remote.host, remote.port)
        await self.talk(talk_s)
        self._transactions.start(dialog.request("BYE"), self._server, self._loop.time(), lambda _: None)
        await asyncio.sleep(0.5)
        self._socket.close()
        return self.heard

    async def talk(self, talk_s: float) -> None:
        """For so long, once the call is answered."""
        await talk(self.heard, self._clip, talk_s, self.speak)

    def _hear(self, answer: SipResponse | None) -> None:
        if not self._answered.done() and answer is not None and answer.status_code >= 200:
            self._answered.set_result(answer)

    def speak(self, number: int, frame: bytes) -> None:
        """One packet of G.711."""
        packet = RtpPacket(0, 0, number & 0xFFFF, 160 * number, 77, frame)
        self._socket.sendto(packet.serialize(), self._remote)


class WebSocketCaller:
    """The same over the Realtime API, in the same G.711."""

    def __init__(self, port: int, clip: list[bytes]) -> None:
        self.heard = Heard()
        self._port = port
        self._clip = clip
        self._samples = 0

    async def call(self, talk_s: float) -> Heard:
        """Raises OSError."""
        fmt = {"format": {"type": "audio/pcmu"}}
        session = {"type": "realtime", "audio": {"input": fmt, "output": fmt}}
        async with connect(f"ws://127.0.0.1:{self._port}/v1/realtime", proxy=None, open_timeout=30) as socket:
            await socket.send(json.dumps({"type": "session.update", "session": session}))
            reading = asyncio.create_task(self._read(socket))
            outgoing: asyncio.Queue[str] = asyncio.Queue()

            def send(_: int, frame: bytes) -> None:
                audio = base64.b64encode(frame).decode()
                outgoing.put_nowait(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))

            async def write() -> None:
                while True:
                    await socket.send(await outgoing.get())

            writing = asyncio.create_task(write())
            await talk(self.heard, self._clip, talk_s, send)
            reading.cancel()
            writing.cancel()
        return self.heard

    async def _read(self, socket: Any) -> None:
        now = asyncio.get_running_loop().time
        async for text in socket:
            event = json.loads(text)
            if event["type"] == "response.output_audio.delta":
                payload = base64.b64decode(event["delta"])
                self.heard.note(now(), self._samples, payload)
                self._samples += len(payload)


async def callers(kind: str, port: int, clip: Path, count: int, talk_s: float) -> list[Heard]:
    """So many at once, begun over two seconds; those that failed are missing."""
    question = read_question(clip)
    pcm = resample(question.pcm, 24_000, 8000)
    pcm = np.trim_zeros(np.where(np.abs(pcm) < 0.01, 0, pcm)).astype(np.float32)
    data = encode(pcm[: len(pcm) // 160 * 160], PCMU)
    frames = [data[at : at + 160] for at in range(0, len(data), 160)]

    async def one(n: int) -> Heard:
        await asyncio.sleep(2.0 * n / count)
        return await KINDS[kind](port, frames).call(talk_s)

    done = await asyncio.gather(*(one(n) for n in range(count)), return_exceptions=True)
    for failure in done:
        if isinstance(failure, BaseException):
            print(f"a call failed: {failure!r}", file=sys.stderr)
    return [each for each in done if isinstance(each, Heard)]


KINDS: dict[str, type[SipCaller] | type[WebSocketCaller]] = {"sip": SipCaller, "ws": WebSocketCaller}

if __name__ == "__main__":
    kind, port, clip, count, talk_s = sys.argv[1:]
    measured = asyncio.run(callers(kind, int(port), Path(clip), int(count), float(talk_s)))
    sys.stdout.buffer.write(pickle.dumps([vars(each) for each in measured]))
