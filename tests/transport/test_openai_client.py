"""An unmodified ``openai`` client against the real app."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

from models.base import LoadOptions
from realtime.host_process import EngineProcess
from realtime.pcm import PCM16, PCMA, PCMU, AudioFormat, decode, encode
from tests.transport.live import PATIENCE_S, LiveServer
from transport.call import read_question
from transport.checkpoints import load_named
from transport.media import Resampler


def client(server: LiveServer) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="anything", base_url=f"{server.url}/v1", websocket_base_url=f"ws{server.url[4:]}/v1")


async def until(connection: AsyncRealtimeConnection, kind: str) -> list[Any]:
    """All events up to the first of this type, which is the last."""
    events: list[Any] = []
    async with asyncio.timeout(PATIENCE_S):
        async for event in connection:
            assert event.type != "error", event
            events.append(event)
            if event.type == kind:
                break
    return events


def of(events: list[Any], kind: str) -> list[Any]:
    return [event for event in events if event.type == kind]


async def speak(connection: AsyncRealtimeConnection, path: Path, wire: AudioFormat = PCM16) -> None:
    """The clip and a second of silence, in 20 ms pieces, faster than anybody speaks."""
    resampler = Resampler(PCM16.rate_hz, wire.rate_hz)
    pcm = np.concatenate([read_question(path).pcm, np.zeros(PCM16.rate_hz, np.float32)])
    for start in range(0, len(pcm), 480):
        data = encode(resampler.push(pcm[start : start + 480]), wire)
        await connection.input_audio_buffer.append(audio=base64.b64encode(data).decode())


def audio_of(events: list[Any], wire: AudioFormat = PCM16) -> np.ndarray:
    deltas = of(events, "response.output_audio.delta")
    return decode(b"".join(base64.b64decode(event.delta) for event in deltas), wire)


@pytest.fixture(scope="module", params=["toy in a thread", "tiny in a process"])
def any_server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    tiny = partial(load_named, "tiny", LoadOptions(slots=3))
    with LiveServer(host=EngineProcess(tiny) if request.param.startswith("tiny") else None) as live:
        yield live


async def test_three_turns(any_server: LiveServer, question: Path) -> None:
    async with client(any_server).realtime.connect(model="toy") as connection:
        await until(connection, "session.created")
        session: Any = {
            "type": "realtime",
            "instructions": "Be brief.",
            "audio": {"input": {"turn_detection": {"type": "server_vad"}, "transcription": {"model": "any"}}},
        }
        await connection.session.update(session=session)
        updated = (await until(connection, "session.updated"))[-1]
        assert updated.session.instructions == "Be brief."

        # 1: speech in, speech out
        await speak(connection, question)
        events = await until(connection, "response.done")
        order = [event.type for event in events]
        for before, after in (
            ("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"),
            ("input_audio_buffer.speech_stopped", "input_audio_buffer.committed"),
            ("input_audio_buffer.committed", "response.created"),
            ("response.created", "response.output_audio.delta"),
            ("response.output_audio.delta", "response.output_audio.done"),
            ("response.output_audio.done", "response.done"),
        ):
            assert order.index(before) < order.index(after), order
        assert np.abs(audio_of(events)).max() > 0.01
        said = of(events, "response.output_audio_transcript.done")[0].transcript
        assert said.strip()
        assert "".join(e.delta for e in of(events, "response.output_audio_transcript.delta")) == said
        assert events[-1].response.status == "completed"

        # 2: text in, text out
        await connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "And then?"}]}
        )
        await connection.response.create(response={"output_modalities": ["text"]})
        events = await until(connection, "response.done")
        assert "".join(e.delta for e in of(events, "response.output_text.delta")).strip()
        assert not of(events, "response.output_audio.delta")

        # 3: speech again, in the same conversation
        await speak(connection, question)
        events = await until(connection, "response.done")
        assert len(audio_of(events)) > 1000
        heard = events[-1].response
        assert heard.status == "completed"
        assert heard.usage.input_tokens > 0


@pytest.mark.parametrize(("name", "wire"), [("audio/pcmu", PCMU), ("audio/pcma", PCMA)])
async def test_telephone_formats(server: LiveServer, question: Path, name: str, wire: AudioFormat) -> None:
    async with client(server).realtime.connect(model="toy") as connection:
        both: Any = {"format": {"type": name}}
        await connection.session.update(session={"type": "realtime", "audio": {"input": both, "output": both}})
        await until(connection, "session.updated")
        await speak(connection, question, wire)
        events = await until(connection, "response.done")
        pcm = audio_of(events, wire)
        assert len(pcm) > 400
        assert np.abs(pcm).max() > 0.01


async def test_a_function_call_goes_there_and_back(server: LiveServer) -> None:
    tool: Any = {"type": "function", "name": "look_up", "parameters": {"type": "object", "properties": {}}}
    async with client(server).realtime.connect(model="toy") as connection:
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"], "tools": [tool]})
        await until(connection, "session.updated")
        for number in range(60):  # the toy calls a function in one reply of five
            await connection.conversation.item.create(
                item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": f"{number}?"}]}
            )
            await connection.response.create()
            events = await until(connection, "response.done")
            if made := of(events, "response.function_call_arguments.done"):
                break
        assert made[0].name == "look_up"
        call = next(item for item in events[-1].response.output if item.type == "function_call")
        assert call.arguments == made[0].arguments
        await connection.conversation.item.create(
            item={"type": "function_call_output", "call_id": call.call_id, "output": '{"found": true}'}
        )
        await connection.response.create()
        assert (await until(connection, "response.done"))[-1].response.status == "completed"


async def test_push_to_talk(server: LiveServer, question: Path) -> None:
    async with client(server).realtime.connect(model="toy") as connection:
        manual: Any = {"input": {"turn_detection": None}}
        await connection.session.update(session={"type": "realtime", "audio": manual})
        await until(connection, "session.updated")
        await speak(connection, question)
        await connection.input_audio_buffer.commit()
        committed = (await until(connection, "input_audio_buffer.committed"))[-1]
        await connection.response.create()
        assert (await until(connection, "response.done"))[-1].response.status == "completed"
        await connection.conversation.item.retrieve(item_id=committed.item_id)
        item: Any = (await until(connection, "conversation.item.retrieved"))[-1].item
        seconds = len(base64.b64decode(item.content[0].audio)) / 2 / PCM16.rate_hz
        assert seconds == pytest.approx(read_question(question).seconds + 1.0, abs=0.01)
