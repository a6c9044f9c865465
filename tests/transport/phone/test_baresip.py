"""A real telephone calls, and is called: what each side hears, keys, hold, interruption, transfer, hanging up."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.realtime.doubles import SPEC, toy_model
from tests.transport.live import LiveServer
from tests.transport.phone.baresip import RATES_HZ, Baresip, microphone
from tests.transport.phone.calling import (
    HZ,
    Watcher,
    address,
    at_8k,
    call_id,
    call_out,
    calls,
    eventually,
    leg,
    nothing_is_left,
    phone_config,
    posted,
    share_heard,
    silence,
    two_telephones,
)
from transport.phone.policy import Policy

pytestmark = pytest.mark.phone

FORBIDDEN, UNGREETED = "403", "200"
FIRST_WORDS = "The call has just begun. Greet the caller with exactly these words: Hello."
"""Of the toy's tones, many lie above what a telephone carries; few of those that it makes of this do."""
ENOUGH = 0.6
"""Of what was said must be in the other side's recording. On a machine that keeps up all of it is; a busy one makes
baresip drop half. Another clip's pieces are found never, another tone's sometimes."""
WORDY = "Go on and on, please, about all the trains that leave today."


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def server(recordings: Path) -> Iterator[LiveServer]:
    policy = Policy(instructions=WORDY, greeting="Hello.", recordings=str(recordings), announcement="")
    numbers = {FORBIDDEN: Policy(callers=("nobody",)), UNGREETED: replace(policy, greeting="")}
    with LiveServer(toy_model, phone=phone_config(policy, numbers=numbers)) as live:
        yield live


def sides(recordings: Path, id_: str) -> tuple[np.ndarray, np.ndarray]:
    """What the server recorded of a call: the caller and us, at 8 kHz."""
    with wave.open(str(recordings / f"{id_}.wav"), "rb") as file:
        assert (file.getnchannels(), file.getframerate()) == (2, SPEC.input_rate_hz)
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    caller, ours = (at_8k(both[:, side].copy(), SPEC.input_rate_hz) for side in (0, 1))
    return caller, ours


@pytest.mark.parametrize(("codec", "transport"), [*((codec, "") for codec in RATES_HZ), ("PCMU/8000/1", "tcp")])
async def test_each_side_hears_the_other(
    server: LiveServer, recordings: Path, said: np.ndarray, tmp_path: Path, codec: str, transport: str
) -> None:
    channels = 2 if codec.startswith("opus") else 1
    source = microphone(tmp_path / "say.wav", [silence(1.5), said, silence(30)], RATES_HZ[codec], channels)
    async with Baresip.start(tmp_path / "phone", source, codec) as phone:
        await phone.dial(address(server, UNGREETED, transport))
        id_ = await call_id(server)
        async with Watcher.of(server, id_) as watcher:
            await watcher.send("response.create", response={"instructions": f"{WORDY}\n\n{FIRST_WORDS}"})
            await watcher.until("input_audio_buffer.committed")
            await watcher.until("output_audio_buffer.stopped")
        await asyncio.sleep(1.0)
        await phone.command("hangup")
        await nothing_is_left(server)
        rate_hz, heard = phone.heard()
    caller, ours = sides(recordings, id_)
    assert np.abs(ours).max() > 1000, "we said something"
    assert share_heard(caller, said) >= ENOUGH
    assert share_heard(at_8k(heard, rate_hz), ours, 0.02) >= ENOUGH, "they heard what we recorded of ourselves"
    events = (recordings / f"{id_}.jsonl").read_text()
    assert "response.done" in events


async def test_keys_both_ways(server: LiveServer, tmp_path: Path) -> None:
    source = microphone(tmp_path / "say.wav", [silence(60)], HZ)
    async with Baresip.start(tmp_path / "phone", source) as phone:
        await phone.dial(address(server))
        id_ = await call_id(server)
        async with Watcher.of(server, id_) as watcher:
            for digit in "5#":
                await phone.command("sndcode", digit)
                await asyncio.sleep(0.5)
                await phone.command("sndcode", " ")
            await watcher.until("parley.call.dtmf", 2)
            assert [event["digit"] for event in watcher.of_kind("parley.call.dtmf")] == ["5", "#"]
            added = await watcher.until("conversation.item.added")
            await eventually(lambda: "pressed 5#" in str(watcher.events), "the keys are a message")
            assert added
        assert (await posted(server, f"/v1/realtime/calls/{id_}/dtmf", {"digits": "42*"})).status_code == 200
        await phone.until("CALL_DTMF_START", 3)
        assert [event["param"] for event in phone.told("CALL_DTMF_START")] == ["4", "2", "*"]
        await phone.command("hangup")
    await nothing_is_left(server)


async def test_hold_and_resume(server: LiveServer, said: np.ndarray, tmp_path: Path) -> None:
    source = microphone(tmp_path / "say.wav", [silence(0.5), said, silence(2.0)] * 12, HZ)
    async with Baresip.start(tmp_path / "phone", source) as phone:
        await phone.dial(address(server))
        id_ = await call_id(server)
        line = leg(server)
        async with Watcher.of(server, id_) as watcher:
            await watcher.until("output_audio_buffer.started")
            await phone.command("hold")
            await eventually(lambda: line.speaker.muted, "they hold the line")
            await phone.command("resume")
            await eventually(lambda: not line.speaker.muted, "they are back")
            turns = len(watcher.of_kind("input_audio_buffer.committed"))
            await watcher.until("input_audio_buffer.committed", turns + 1)
            started = len(watcher.of_kind("output_audio_buffer.started"))
            await watcher.until("output_audio_buffer.started", started)
        await phone.command("hangup")
    await nothing_is_left(server)


async def test_they_interrupt(server: LiveServer, said: np.ndarray, tmp_path: Path) -> None:
    source = microphone(tmp_path / "say.wav", [said, silence(0.9)] * 20, HZ)
    async with Baresip.start(tmp_path / "phone", source) as phone:
        await phone.dial(address(server))
        async with Watcher.of(server, await call_id(server)) as watcher:
            cut = await watcher.until("conversation.item.truncated")
            assert cut["audio_end_ms"] >= 0
        await phone.command("hangup")
    await nothing_is_left(server)


async def test_a_transfer_to_a_second_telephone(server: LiveServer, tmp_path: Path) -> None:
    async with two_telephones(tmp_path) as (first, second):
        await first.dial(address(server))
        id_ = await call_id(server)
        target = {"target_uri": f"sip:bob@127.0.0.1:{second.port}"}
        assert (await posted(server, f"/v1/realtime/calls/{id_}/refer", target)).status_code == 200
        await second.until("CALL_ESTABLISHED")
        await first.until("CALL_ESTABLISHED", 2)
        await nothing_is_left(server)
        gone = await posted(server, f"/v1/realtime/calls/{id_}/refer", target)
        assert gone.status_code == 404


async def test_an_attended_transfer(server: LiveServer, tmp_path: Path) -> None:
    """This baresip knows no Replaces (RFC 3891; ``test_replaces`` has a telephone that does): it calls the second anew,
    and we leave both calls."""
    async with two_telephones(tmp_path) as (first, second):
        await first.dial(address(server))
        id_ = await call_id(server)
        other = await call_out(server, f"sip:bob@127.0.0.1:{second.port}")
        await second.until("CALL_ESTABLISHED")
        joined = await posted(server, f"/v1/realtime/calls/{id_}/refer", {"call_id": other})
        assert joined.status_code == 200, joined.text
        await first.until("CALL_ESTABLISHED", 2)
        await second.until("CALL_ESTABLISHED", 2)
        await second.until("CALL_CLOSED")
        await nothing_is_left(server)


async def test_a_transfer_that_fails_leaves_the_call(server: LiveServer, tmp_path: Path) -> None:
    source = microphone(tmp_path / "say.wav", [silence(60)], HZ)
    async with Baresip.start(tmp_path / "first", source) as first:
        await first.dial(address(server))
        id_ = await call_id(server)
        forbidden = {"target_uri": address(server, FORBIDDEN)}
        refused = await posted(server, f"/v1/realtime/calls/{id_}/refer", forbidden)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_possible")
        assert "403" in refused.json()["error"]["message"]
        assert id_ in calls(server), "the call goes on"
        await posted(server, f"/v1/realtime/calls/{id_}/hangup")
        await first.until("CALL_CLOSED")
    await nothing_is_left(server)


async def test_they_hang_up_in_the_middle_of_a_reply(server: LiveServer, tmp_path: Path) -> None:
    source = microphone(tmp_path / "say.wav", [silence(60)], HZ)
    async with Baresip.start(tmp_path / "phone", source) as phone:
        await phone.dial(address(server))
        id_ = await call_id(server)
        call = calls(server)[id_]
        await eventually(lambda: call._speaking, "we speak")
        async with Watcher.of(server, id_) as watcher:
            await phone.command("hangup")
            await watcher.until("parley.call.ended")
    await nothing_is_left(server)


async def test_we_hang_up(server: LiveServer, tmp_path: Path) -> None:
    source = microphone(tmp_path / "say.wav", [silence(60)], HZ)
    async with Baresip.start(tmp_path / "phone", source) as phone:
        await phone.dial(address(server))
        id_ = await call_id(server)
        assert (await posted(server, f"/v1/realtime/calls/{id_}/hangup")).status_code == 200
        await phone.until("CALL_CLOSED")
    await nothing_is_left(server)


async def test_we_call(server: LiveServer, recordings: Path, said: np.ndarray, tmp_path: Path) -> None:
    source = microphone(tmp_path / "say.wav", [silence(1.0), said, silence(30)], HZ)
    async with Baresip.start(tmp_path / "phone", source, params=";answermode=auto") as phone:
        made = await posted(server, "/v1/phone/calls", {"to": f"sip:alice@127.0.0.1:{phone.port}"})
        assert made.status_code == 201
        assert made.json()["status"] == "ringing"
        await phone.until("CALL_ESTABLISHED")
        id_ = made.json()["id"]
        async with Watcher.of(server, id_) as watcher:
            await watcher.until("input_audio_buffer.committed")
            await watcher.until("output_audio_buffer.stopped")
        await posted(server, f"/v1/realtime/calls/{id_}/hangup")
        await phone.until("CALL_CLOSED")
        await nothing_is_left(server)
    caller, _ = sides(recordings, id_)
    assert share_heard(caller, said) >= ENOUGH


async def test_nobody_is_at_home(server: LiveServer, tmp_path: Path) -> None:
    source = microphone(tmp_path / "say.wav", [silence(60)], HZ)
    async with Baresip.start(tmp_path / "phone", source) as phone:  # it rings and nobody answers
        made = await posted(server, "/v1/phone/calls", {"to": f"sip:alice@127.0.0.1:{phone.port}"})
        await phone.until("CALL_INCOMING")
        await posted(server, f"/v1/realtime/calls/{made.json()['id']}/hangup")
        await phone.until("CALL_CLOSED")
    await nothing_is_left(server)


async def test_music_on_hold(server: LiveServer, tmp_path: Path) -> None:
    source = microphone(tmp_path / "say.wav", [silence(60)], HZ)
    async with Baresip.start(tmp_path / "phone", source) as phone:
        await phone.dial(address(server))
        id_ = await call_id(server)
        async with Watcher.of(server, id_) as watcher:
            await watcher.until("output_audio_buffer.stopped")
            await posted(server, f"/v1/realtime/calls/{id_}/hold", {"hold": True})
            await watcher.until("parley.call.held")
            await asyncio.sleep(2.0)
            await posted(server, f"/v1/realtime/calls/{id_}/hold", {"hold": False})
            await watcher.until("parley.call.resumed")
        await phone.command("hangup")
        await nothing_is_left(server)
        _, heard = phone.heard()
    assert np.abs(heard[-2 * HZ :]).max() > 500
