"""What they heard, over each carrier, with the network's delay: right to 20 ms, against what was truly played."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from realtime.pcm import PCMU, encode, resample
from tests import virtual_time
from tests.realtime.small_engine import FRAME, FRAMES_PER_WORD, RATE
from tests.transport.phone.carriers import FRAME as WIRE_FRAME
from tests.transport.phone.carriers import RATE_HZ, SILENCE, Asterisk, Carrier, MediaStreams
from tests.transport.phone.rig import Link, Rig
from transport.call import read_question
from transport.phone.asterisk import Channel
from transport.phone.call import About
from transport.phone.config import PhoneConfig
from transport.phone.media_stream import TELNYX, TWILIO, MediaStream
from transport.phone.policy import Policy

GREETING = " ".join(f"word{n}" for n in range(20))  # 6.4 s
GREETED = PhoneConfig(default=Policy(greeting=GREETING))
NEAR_MS = 20.0
DELAYS_S = (0.0, 0.025, 0.1)
WIRES = ("twilio", "telnyx", "asterisk", "asterisk words")


async def call(rig: Rig, wire: str, delay_s: float) -> tuple[Carrier, Link, asyncio.Task[None]]:
    link = Link(delay_s)
    if wire.startswith("asterisk"):
        asterisk = Asterisk(link.say, words=wire.endswith("words"))
        link.take = asterisk.take
        about = About("c1", "asterisk", "+1", "+2")
        line = rig.dial(lambda line: Channel(line, about), link)
        asterisk.start()
        return asterisk, link, line
    streams = MediaStreams(link.say, telnyx=wire == "telnyx")
    link.take = streams.take
    line = rig.dial(lambda line: MediaStream(line, TELNYX if wire == "telnyx" else TWILIO), link)
    streams.start()
    return streams, link, line


async def hang_up(carrier: Carrier, link: Link, line: asyncio.Task[None]) -> None:
    if isinstance(carrier, Asterisk):
        carrier.end()
    link.leave()
    await line


def truth_ms(carrier: Carrier) -> float:
    """What was played when the first clear came."""
    return 1000 * carrier.cleared[0][1] / RATE_HZ


@pytest.mark.parametrize("delay_s", DELAYS_S)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("after_s", [0.13, 0.31, 0.777, 1.0, 2.345, 4.1, 5.99])
def test_a_key_cuts_and_what_was_heard_is_right(wire: str, delay_s: float, after_s: float) -> None:
    async def main() -> None:
        rig = Rig([], GREETED)
        carrier, link, line = await call(rig, wire, delay_s)
        await rig.until("output_audio_buffer.started")
        await asyncio.sleep(after_s)
        carrier.press("5")  # type: ignore[attr-defined]
        truncated = await rig.until("conversation.item.truncated")
        await asyncio.sleep(2 * delay_s + 0.05)
        assert abs(truncated["audio_end_ms"] - truth_ms(carrier)) <= NEAR_MS
        await hang_up(carrier, link, line)

    virtual_time.run(main())


def spoken(path: Path) -> list[bytes]:
    """A clip as mu-law frames."""
    clip = read_question(path)
    data = encode(resample(clip.pcm, 24_000, RATE_HZ), PCMU)
    return [data[at : at + WIRE_FRAME].ljust(WIRE_FRAME, b"\xff") for at in range(0, len(data), WIRE_FRAME)]


@pytest.mark.parametrize("delay_s", DELAYS_S)
@pytest.mark.parametrize("wire", WIRES)
def test_speech_interrupts_and_what_was_heard_is_right(wire: str, delay_s: float, question: Path) -> None:
    async def main() -> None:
        rig = Rig([], GREETED)
        carrier, link, line = await call(rig, wire, delay_s)
        await rig.until("output_audio_buffer.started")
        talking = asyncio.create_task(carrier.talk([SILENCE] * 60 + spoken(question)))
        truncated = await rig.until("conversation.item.truncated")
        await asyncio.sleep(2 * delay_s + 0.05)
        assert abs(truncated["audio_end_ms"] - truth_ms(carrier)) <= NEAR_MS
        talking.cancel()
        await hang_up(carrier, link, line)

    virtual_time.run(main())


def cough() -> list[bytes]:
    """A quarter of a second of noise that the detector takes for a voice, then silence."""
    t = np.arange(RATE_HZ // 4) / RATE_HZ
    buzz = sum(np.sin(2 * np.pi * 140 * n * t) / n for n in range(1, 12))
    data = encode((0.15 * buzz).astype(np.float32), PCMU)
    return [data[at : at + WIRE_FRAME].ljust(WIRE_FRAME, b"\xff") for at in range(0, len(data), WIRE_FRAME)]


@pytest.mark.parametrize("delay_s", DELAYS_S)
@pytest.mark.parametrize("wire", WIRES)
def test_after_a_cough_nothing_is_missing_and_a_cut_is_still_right(wire: str, delay_s: float) -> None:
    async def main() -> None:
        rig = Rig([], GREETED)
        carrier, link, line = await call(rig, wire, delay_s)
        await rig.until("output_audio_buffer.started")
        talking = asyncio.create_task(carrier.talk([SILENCE] * 40 + cough() + [SILENCE] * 300))
        await asyncio.sleep(4.0)
        assert not carrier.cleared, "a cough cuts nothing"
        carrier.press("5")  # type: ignore[attr-defined]
        truncated = await rig.until("conversation.item.truncated")
        await asyncio.sleep(2 * delay_s + 0.05)
        assert abs(truncated["audio_end_ms"] - truth_ms(carrier)) <= NEAR_MS
        talking.cancel()
        await hang_up(carrier, link, line)

    virtual_time.run(main())


@pytest.mark.parametrize("wire", WIRES)
def test_a_whole_reply_is_played_to_the_last_sample(wire: str) -> None:
    async def main() -> None:
        rig = Rig([], GREETED)
        carrier, link, line = await call(rig, wire, 0.025)
        await rig.until("output_audio_buffer.stopped")
        await asyncio.sleep(0.3)
        made = len(GREETING.split()) * FRAMES_PER_WORD * FRAME * RATE_HZ // RATE
        assert made <= len(carrier.played) <= made + WIRE_FRAME
        assert not rig.of("conversation.item.truncated")
        await hang_up(carrier, link, line)

    virtual_time.run(main())
