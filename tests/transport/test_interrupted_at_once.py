"""Everybody cuts in at the same moment: real sockets, one server, as many callers as it takes and no more."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realtime.pcm import PCM16, encode
from realtime.schedule import EngineConfig
from tests.clients.toy import long_winded
from tests.realtime.doubles import toy_model
from tests.transport.live import LiveServer, RawClient
from transport.call import read_question
from transport.cli import transcript_slots

CALLERS = 8
CHUNK = PCM16.rate_hz // 50


@pytest.fixture(scope="module")
def full_server() -> Iterator[LiveServer]:
    """Replies of half a minute, and room for these callers as ``parley serve --slots`` makes it."""
    load = partial(toy_model, CALLERS + transcript_slots(CALLERS), law=long_winded)
    with LiveServer(load, engine=EngineConfig(max_sessions=CALLERS)) as live:
        yield live


class Microphone:
    """Sends what its caller says as a microphone does, and silence else, until it is closed."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self._waiting: list[np.ndarray] = []
        self._task = asyncio.create_task(self._run())

    def say(self, pcm: np.ndarray) -> None:
        self._waiting += [pcm[at : at + CHUNK] for at in range(0, len(pcm), CHUNK)]

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            pcm = self._waiting.pop(0) if self._waiting else np.zeros(CHUNK, np.float32)
            audio = base64.b64encode(encode(pcm, PCM16)).decode()
            await self._client.send("input_audio_buffer.append", audio=audio)
            due += CHUNK / PCM16.rate_hz
            await asyncio.sleep(due - loop.time())


async def cut_in(server: LiveServer, pcm: np.ndarray, speaking: asyncio.Barrier) -> list[dict[str, Any]]:
    """Asks; once everybody is being answered, asks again over the answer. Its events, to the next answer's sound."""
    async with RawClient.connect(server) as client:
        microphone = Microphone(client)
        microphone.say(pcm)
        await client.until("response.output_audio.delta")
        await speaking.wait()
        microphone.say(pcm)
        await client.until("conversation.item.truncated")
        await client.until("response.output_audio.delta")
        await microphone.close()
        return client.seen


async def test_all_who_cut_in_at_once_are_heard_out_and_answered(full_server: LiveServer, question: Path) -> None:
    pcm, speaking = read_question(question).pcm, asyncio.Barrier(CALLERS)
    calls = await asyncio.gather(*(cut_in(full_server, pcm, speaking) for _ in range(CALLERS)))
    items = set()
    for seen in calls:
        types = [event["type"] for event in seen]
        assert "error" not in types
        done = [event["response"] for event in seen if event["type"] == "response.done"]
        assert [each["status"] for each in done] == ["cancelled"]
        assert done[0]["status_details"]["reason"] == "turn_detected"
        assert types.count("input_audio_buffer.committed") == 2
        (cut,) = (event for event in seen if event["type"] == "conversation.item.truncated")
        assert cut["item_id"] == done[0]["output"][0]["id"]
        sent = sum(
            len(base64.b64decode(event["delta"])) / 2 / PCM16.rate_hz * 1000
            for event in seen
            if event["type"] == "response.output_audio.delta" and event["item_id"] == cut["item_id"]
        )
        assert 0 < cut["audio_end_ms"] <= sent + 1  # whole milliseconds
        items.add(cut["item_id"])
    assert len(items) == CALLERS
    async with RawClient.connect(full_server) as client:  # and every place is free again
        assert (await client.ask("Still there?"))["type"] == "response.done"
