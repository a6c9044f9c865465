"""We call a real telephone that a machine answers: its greeting, its tone, and what we leave on its tape."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.realtime.doubles import toy_model
from tests.transport.live import LiveServer, espeak, read_wav
from tests.transport.phone.baresip import Baresip, microphone
from tests.transport.phone.calling import HZ, Watcher, at_8k, call_out, nothing_is_left, phone_config, silence
from transport.phone.policy import Policy

pytestmark = pytest.mark.phone

GREETING = "You have reached the office of Miller and sons. We can't take your call now. Please leave a message."
TONE_S = 0.4


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    policy = Policy(greeting="Hello.", answering_machine="leave_message", message="Your table is ready.")
    with LiveServer(toy_model, phone=phone_config(policy)) as live:
        yield live


def tone() -> np.ndarray:
    return np.asarray(9000 * np.sin(2 * np.pi * 1000 * np.arange(round(TONE_S * HZ)) / HZ), np.int16)


async def test_a_machine_gets_the_message_after_its_tone(server: LiveServer, tmp_path: Path) -> None:
    rate_hz, pcm = read_wav(espeak(tmp_path / "greeting.wav", GREETING))
    greeting = at_8k(pcm, rate_hz)
    before = [silence(0.5), greeting, silence(0.5), tone()]
    source = microphone(tmp_path / "say.wav", [*before, silence(60)], HZ)
    tone_ends = sum(len(part) for part in before)
    async with Baresip.start(tmp_path / "phone", source, params=";answermode=auto") as phone:
        id_ = await call_out(server, f"sip:alice@127.0.0.1:{phone.port}")
        async with Watcher.of(server, id_) as watcher:
            assert (await watcher.until("parley.call.answered"))["by"] == "machine"
            await watcher.until("output_audio_buffer.started")
            await phone.until("CALL_CLOSED")
        await nothing_is_left(server)
        _, heard = phone.heard()
    loud = np.flatnonzero(np.abs(heard.astype(int)) > 500)
    assert len(loud), "something is on the tape"
    # Its recording runs from its answer on, as its microphone does, to within its buffers.
    assert loud[0] > tone_ends - 0.3 * HZ, "nobody spoke into the greeting"
