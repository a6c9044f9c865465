"""The demo's answers over the telephone and over WebRTC, by loss and jitter: held-out questions, asked in real time.

    python -m benchmarks.accuracy [--quick] [--json FILE] [--asked N]

Each question is a call of its own, four at once. What the far end recorded is heard by pocketsphinx under the desk's
grammar; an answer is right when every slot of the right reply is heard in it, in order. Telephone: SIP, mu-law; packets
are lost both ways, and ours come late by as much as the jitter. WebRTC: aiortc's packets to us are lost.

phone_right@loss_L_jitter_J, rtc_right@loss_L_...            share of right answers; L in %, J in ms
phone_said_right@..., rtc_said_right@...                     the same by what the server says it said
rtc_narrow_right@...                                         of what WebRTC brought, put through mu-law at 8 kHz at the
                                                             ear: what the telephone's band costs, without its line
ear_right, ear_phone_right                                   the ear's own: right replies by the voice that taught the
                                                             model, as they are and in mu-law at 8 kHz, heard rightly
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
from models.demo.recipe.flite import speak
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

    def note(self, event: dict[str, Any]) -> None:
        """An event of the session."""
        if event["type"] == "response.output_audio_transcript.done":
            self.said = event["transcript"]


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


def numbers(folder: Path, asked: int) -> str:
    """A telephone number for each question, TOML: its server writes down what is said there, and says nothing of it."""
    return "".join(
        f"[numbers.{number(n)}]\nrecordings = {json.dumps(str(folder / number(n)))}\nannouncement = ''\n"
        for n in range(asked)
    )


def number(n: int) -> str:
    """What is dialled for question n."""
    return str(1000 + n)


async def over_phone(served: Served, folder: Path, question: Pcm, network: Network, n: int) -> Answer:
    data = encode(resample(question, EAR_HZ, 8000), PCMU)
    frames = [data[at : at + 160].ljust(160, b"\xff") for at in range(0, len(data), 160)]
    asker = Asker(served.sip, frames, network, seed=n)
    await asker.call(TALK_S, number(n))
    return Answer(asker.recording(), await written(folder / number(n)))


async def written(folder: Path) -> str:
    """What the one recording there says that we said; "" if it says nothing five seconds after the call."""
    found = Answer(np.zeros(0, np.float32))
    for _ in range(50):
        for path in folder.glob("*.jsonl"):
            whole, _, _ = path.read_text().rpartition("\n")
            for line in whole.splitlines():
                found.note(json.loads(line))
            if found.said:
                path.unlink()
                return found.said
        await asyncio.sleep(0.1)
    return ""


async def over_rtc(served: Served, _: Path, question: Pcm, network: Network, n: int) -> Answer:
    peer = RTCPeerConnection(RTCConfiguration([]))
    peer.addTrack(Said(resample(question, EAR_HZ, RATE_HZ)))
    answer, pieces = Answer(np.zeros(0, np.float32)), list[np.ndarray]()

    async def listen(track: MediaStreamTrack) -> None:
        while True:
            try:
                frame: Any = await track.recv()
            except MediaStreamError:
                return
            pieces.append(frame.to_ndarray()[0, :: len(frame.layout.channels)])

    listening: list[asyncio.Task[None]] = []
    peer.on("track", lambda track: listening.append(asyncio.create_task(listen(track))))
    peer.createDataChannel("oai-events").on("message", lambda text: answer.note(json.loads(text)))
    try:
        await peer.setLocalDescription(await peer.createOffer())
        sdp = await offered(f"http://127.0.0.1:{served.http}", peer.localDescription.sdp)
        await peer.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        while peer.connectionState != "connected":
            await asyncio.sleep(0.02)
        impair(peer, network, seed=n)
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


def narrowed(pcm: Pcm) -> Pcm:
    """float32 at ``EAR_HZ`` through mu-law at 8 kHz and back."""
    return resample(decode(encode(resample(pcm, EAR_HZ, 8000), PCMU), PCMU), 8000, EAR_HZ)


def ear_alone(turns: Sequence[Turn], ear: Ear) -> dict[str, float]:
    """How often the ear hears right replies rightly, said by the voice that taught the model."""
    spoken = [np.array(speak(turn.reply).pcm) for turn in turns]
    narrow = [narrowed(pcm) for pcm in spoken]
    return {
        name: float(np.mean([right(turn, ear.hear(pcm)) for turn, pcm in zip(turns, sounds, strict=True)]))
        for name, sounds in (("ear_right", spoken), ("ear_phone_right", narrow))
    }


async def ask(
    served: Served, folder: Path, way: Any, cases: list[tuple[Turn, Pcm]], network: Network
) -> dict[str, float]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(n: int) -> Answer:
        async with gate:
            return await way(served, folder, cases[n][1], network, n)  # type: ignore[no-any-return]

    answers = await asyncio.gather(*(one(n) for n in range(len(cases))))
    ear = Ear(domain_grammar())
    turns = [turn for turn, _ in cases]
    answered = list(zip(turns, answers, strict=True))
    found = {
        "right": [right(turn, ear.hear(answer.heard)) for turn, answer in answered],
        "said_right": [is_right(turn, answer.said) for turn, answer in answered],
    }
    if way is over_rtc:
        found["narrow_right"] = [right(turn, ear.hear(narrowed(answer.heard))) for turn, answer in answered]
    return {name: float(np.mean(each)) for name, each in found.items()}


async def run(asked: int) -> dict[str, float]:
    examiner = Examiner(size=1.0)
    turns = examiner.rng.sample(examiner.turns(), asked)
    cases = [(turn, examiner.speech(turn.said)) for turn in turns]
    figures = {"asked": float(asked)} | ear_alone(turns, Ear(domain_grammar()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        served = Served("demo", folder, numbers(folder, asked))
        try:
            for kind, way, lines in (("phone", over_phone, LINES), ("rtc", over_rtc, RTC_LINES)):
                for network in lines:
                    line = f"loss_{network.loss * 100:.0f}_jitter_{network.jitter_s * 1000:.0f}"
                    found = await ask(served, folder, way, cases, network)
                    figures |= {f"{kind}_{what}@{line}": value for what, value in found.items()}
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
