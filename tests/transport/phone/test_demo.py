"""The demo by telephone: baresip calls, asks in its town's own words, and its recording holds the right answer.

An independent recognizer hears that recording."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models.base import LoadOptions
from models.demo.recipe import domain
from models.demo.recipe.flite import speak
from models.demo.recipe.grammar import spoken_words
from models.demo.recipe.listen import Ear, domain_grammar
from realtime.host_process import EngineProcess
from realtime.pcm import resample, to_float, to_int16
from tests.transport.live import LiveServer
from tests.transport.phone.baresip import Baresip, microphone
from tests.transport.phone.calling import HZ, Watcher, address, call_id, nothing_is_left, phone_config
from transport.checkpoints import load_named

pytestmark = [
    pytest.mark.phone,
    pytest.mark.slow,
]

TOWNS = domain.TOWNS[:3]


def load() -> object:
    return load_named("demo", LoadOptions("cpu", "float32", 3, 0, "exact", 0))


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(host=EngineProcess(load), phone=phone_config()) as live:  # type: ignore[arg-type]
        yield live


def utterances(pcm: np.ndarray, rate_hz: int, pause_s: float = 1.5) -> list[np.ndarray]:
    """float32 [n] -> the stretches between pauses: the ear's grammar knows one reply at a time."""
    loud = np.flatnonzero(np.abs(pcm) > 0.02)
    if not len(loud):
        return []
    cuts = np.flatnonzero(np.diff(loud) > pause_s * rate_hz)
    begins, ends = [loud[0], *loud[cuts + 1]], [*loud[cuts], loud[-1]]
    return [pcm[begin : end + 1] for begin, end in zip(begins, ends, strict=True)]


async def test_the_right_answer_is_heard_over_the_telephone(server: LiveServer, tmp_path: Path) -> None:
    pause = np.zeros(12 * HZ, np.int16)
    asked = [
        to_int16(resample(speak(f"When is the next train to {town.name}", "rms").pcm, 16_000, HZ)) for town in TOWNS
    ]
    source = microphone(tmp_path / "ask.wav", [pause[:HZ], *(part for clip in asked for part in (clip, pause))], HZ)
    async with Baresip.start(tmp_path / "phone", source) as phone:
        await phone.dial(address(server))
        async with Watcher.of(server, await call_id(server)) as watcher:
            await watcher.until("output_audio_buffer.stopped", len(TOWNS))
            await asyncio.sleep(1.0)
            await phone.command("hangup")
        await nothing_is_left(server)
        rate_hz, pcm = phone.heard()
    ear = Ear(domain_grammar())
    heard = [ear.hear(resample(one, rate_hz, 16_000)) for one in utterances(to_float(pcm), rate_hz)]
    words = " ".join(word for one in heard for word in one)
    right = [" ".join(spoken_words(town.next_train)) in words for town in TOWNS]
    assert sum(right) >= 2, f"heard: {words}"
