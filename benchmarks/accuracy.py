"""The demo's answers over the telephone and over WebRTC, by loss and jitter: held-out questions, asked in real time.

    python -m benchmarks.accuracy [--quick] [--json FILE] [--asked N]

Each question is a call of its own, four at once. What the far end recorded is heard by pocketsphinx under the desk's
grammar; an answer is right when every slot of the right reply is heard in it, in order. Telephone: SIP, mu-law; packets
are lost both ways, and ours come late by as much as the jitter. WebRTC: aiortc's packets to us are lost.

phone_right@loss_L_jitter_J, rtc_right@loss_L     share of right answers; L in %, J in ms
rtc_said_right@loss_L                              the same by what the server says it said
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortp.packet import RtpPacket

from benchmarks.calls_callers import CHUNK, RATE_HZ, Microphone, offered
from benchmarks.phone import Served
from benchmarks.phone_callers import PACKET_S, SILENCE, SipCaller
from benchmarks.report import report
from models.base import Pcm
from models.demo.recipe.evaluate import Examiner, is_right
from models.demo.recipe.grammar import Turn, spoken_words
from models.demo.recipe.listen import Ear, domain_grammar
from realtime.pcm import PCMU, decode, encode, resample, to_float, to_int16
from tests.transport.bad_network import Network, impair

EAR_HZ = 16_000
AT_ONCE = 4
TALK_S = 11.0
"""From the beginning of the question: the longest, and the longest answer."""
LINES = (Network(0.0), Network(0.01), Network(0.03), Network(0.05), Network(0.0, 0.04), Network(0.05, 0.04))
RTC_LINES = (Network(0.0), Network(0.05))


@dataclass
class Answer:
    """What became of a question."""

    heard: Pcm
    """float32 at ``EAR_HZ``, as the far end has it."""
    said: str = ""


class Asker(SipCaller):
    """A telephone on a bad line that records."""

    def __init__(self, port: int, clip: list[bytes], network: Network, seed: int) -> None:
        super().__init__(port, clip)
        self._network, self._rng = network, random.Random(seed)
        self._got: list[tuple[int, bytes]] = []

    async def talk(self, talk_s: float) -> None:
        say, start_s = [SILENCE] * 25 + self._clip, self._loop.time()
        for number in range(round(talk_s / PACKET_S)):
            self.speak(number, say[number] if number < len(say) else SILENCE)
            await asyncio.sleep(max(0.0, start_s + (number + 1) * PACKET_S - self._loop.time()))

    def speak(self, number: int, frame: bytes) -> None:
        if self._rng.random() < self._network.loss:
            return
        self._loop.call_later(self._rng.uniform(0, self._network.jitter_s), super().speak, number, frame)

    def arrived(self, packet: RtpPacket) -> None:
        if packet.payload_type == 0 and self._rng.random() >= self._network.loss:
            self._got.append((packet.timestamp, packet.payload))

    def recording(self) -> Pcm:
        """What came, where it belongs; what was lost is silent."""
        first = min((at for at, _ in self._got), default=0)
        out = np.zeros(8000 * 60, np.float32)
        for at, payload in self._got:
            pcm = decode(payload, PCMU)[: max(0, len(out) - (at - first))]
            out[at - first : at - first + len(pcm)] = pcm
        return resample(np.trim_zeros(out), 8000, EAR_HZ)


class Said(MediaStreamTrack):
    """A question at ``RATE_HZ`` for aiortc, then silence."""

    kind = "audio"

    def __init__(self, pcm: Pcm) -> None:
        super().__init__()
        self._pcm, self._at = to_int16(pcm), 0
        self._inner = Microphone(self)  # type: ignore[arg-type]  # paces; asks us for 20 ms at a time

    def next(self, _: float) -> np.ndarray:
        """int16 [CHUNK]."""
        piece = self._pcm[self._at : self._at + CHUNK]
        self._at += CHUNK
        return np.pad(piece, (0, CHUNK - len(piece)))

    async def recv(self) -> Any:
        return await self._inner.recv()


async def over_phone(served: Served, question: Pcm, network: Network, seed: int) -> Answer:
    data = encode(resample(question, EAR_HZ, 8000), PCMU)
    frames = [data[at : at + 160].ljust(160, b"\xff") for at in range(0, len(data), 160)]
    asker = Asker(served.sip, frames, network, seed)
    await asker.call(TALK_S)
    return Answer(asker.recording())


async def over_rtc(served: Served, question: Pcm, network: Network, seed: int) -> Answer:
    peer = RTCPeerConnection(RTCConfiguration([]))
    peer.addTrack(Said(resample(question, EAR_HZ, RATE_HZ)))
    answer, pieces = Answer(np.zeros(0, np.float32)), list[np.ndarray]()

    def note(text: str) -> None:
        event = json.loads(text)
        if event["type"] == "response.output_audio_transcript.done":
            answer.said = event["transcript"]

    async def listen(track: MediaStreamTrack) -> None:
        while True:
            try:
                frame: Any = await track.recv()
            except MediaStreamError:
                return
            pieces.append(frame.to_ndarray()[0, :: len(frame.layout.channels)])

    listening: list[asyncio.Task[None]] = []
    peer.on("track", lambda track: listening.append(asyncio.create_task(listen(track))))
    peer.createDataChannel("oai-events").on("message", note)
    try:
        await peer.setLocalDescription(await peer.createOffer())
        sdp = await offered(f"http://127.0.0.1:{served.http}", peer.localDescription.sdp)
        await peer.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        while peer.connectionState != "connected":
            await asyncio.sleep(0.02)
        impair(peer, network, seed)
        await asyncio.sleep(TALK_S)
    finally:
        await peer.close()
        await asyncio.gather(*listening, return_exceptions=True)
    whole = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    answer.heard = resample(to_float(whole), 48_000, EAR_HZ)
    return answer


def right(turn: Turn, heard: Sequence[str]) -> bool:
    """Every slot (without any: the reply) is heard, in order."""
    words, at = " ".join(heard), 0
    for slot in turn.slots or (turn.reply,):
        wanted = " ".join(spoken_words(slot))
        at = words.find(wanted, at)
        if at < 0:
            return False
        at += len(wanted)
    return True


async def ask(served: Served, way: Any, cases: list[tuple[Turn, Pcm]], network: Network) -> dict[str, float]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(n: int) -> Answer:
        async with gate:
            return await way(served, cases[n][1], network, n)  # type: ignore[no-any-return]

    answers = await asyncio.gather(*(one(n) for n in range(len(cases))))
    ear = Ear(domain_grammar())
    turns = [turn for turn, _ in cases]
    found = {"right": np.mean([right(turn, ear.hear(a.heard)) for turn, a in zip(turns, answers, strict=True)])}
    if any(answer.said for answer in answers):
        found["said_right"] = np.mean([is_right(turn, a.said) for turn, a in zip(turns, answers, strict=True)])
    return {name: float(value) for name, value in found.items()}


async def run(asked: int) -> dict[str, float]:
    examiner = Examiner(size=1.0)
    turns = examiner.rng.sample(examiner.turns(), asked)
    cases = [(turn, examiner.speech(turn.said)) for turn in turns]
    figures: dict[str, float] = {"asked": float(asked)}
    with tempfile.TemporaryDirectory() as folder:
        served = Served("demo", Path(folder))
        try:
            for kind, way, lines in (("phone", over_phone, LINES), ("rtc", over_rtc, RTC_LINES)):
                for network in lines:
                    name = f"loss_{network.loss * 100:.0f}_jitter_{network.jitter_s * 1000:.0f}"
                    found = await ask(served, way, cases, network)
                    figures |= {f"{kind}_{what}@{name}": value for what, value in found.items()}
        finally:
            served.stop()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--asked", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    asked = options.asked or (4 if options.quick else 24)
    report("accuracy (demo)", asyncio.run(run(asked)), options.json)


if __name__ == "__main__":
    main()
