"""What a caller can send that is poison, to a server whose engine is a process: one clear error, /healthz says the
truth throughout, who talks beside hears what they always hear, and everybody may still come in afterwards."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from realtime.host_process import EngineProcess
from realtime.schedule import EngineConfig
from tests.realtime.doubles import load_toy
from tests.transport.live import PATIENCE_S, LiveServer, RawClient
from tests.transport.test_engine_death import Watch


def jpeg_of_100_megapixels() -> str:
    buffer = io.BytesIO()
    Image.new("L", (10_000, 10_000)).save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


def noise_in_8_bits() -> str:
    noise = np.random.default_rng(0).integers(0, 256, 16_001, dtype=np.uint8)  # an odd number: no samples of 16 bits
    return base64.b64encode(noise.tobytes()).decode()


def not_numbers() -> str:
    return base64.b64encode(np.full(4001, np.nan, np.float32).tobytes()[:-1]).decode()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[LiveServer, EngineProcess]]:
    host = EngineProcess(load_toy, EngineConfig(speaking_share=0.01))
    with LiveServer(host=host) as server:
        yield server, host


async def answers(client: RawClient) -> list[str]:
    done = [await client.ask(f"Question {number}") for number in range(6)]
    return [json.dumps([item["content"] for item in each["response"]["output"] if "content" in item]) for each in done]


@pytest.mark.parametrize(
    ("kind", "field", "made", "code", "why"),
    [
        ("input_image_buffer", "image", jpeg_of_100_megapixels, "invalid_image", "megapixels"),
        ("input_audio_buffer", "audio", noise_in_8_bits, "invalid_audio", "16"),
        ("input_audio_buffer", "audio", not_numbers, "invalid_audio", "16"),
    ],
)
async def test_poison_is_refused_and_nobody_else_notices(
    served: tuple[LiveServer, EngineProcess], kind: str, field: str, made: object, code: str, why: str
) -> None:
    server, host = served
    assert callable(made)
    poison = made()
    async with asyncio.timeout(PATIENCE_S), RawClient.connect(server) as calm:
        alone = await answers(calm)
    watch = Watch(server, host)
    watching = asyncio.create_task(watch.run())
    async with asyncio.timeout(PATIENCE_S):
        async with RawClient.connect(server) as calm, RawClient.connect(server) as mean:
            beside = asyncio.create_task(answers(calm))
            for _ in range(5):
                await mean.send(f"{kind}.append", **{field: poison})
                error = (await mean.until("error"))["error"]
                assert (error["code"], error["type"]) == (code, "invalid_request_error")
                assert why in error["message"]
            assert await beside == alone
            assert (await mean.ask("Still there?"))["response"]["status"] == "completed"
        while (await asyncio.to_thread(server.get, "/healthz")).json()["sessions"]:
            await asyncio.sleep(0.01)
    watching.cancel()
    assert watch.said
    assert not watch.lies()
    assert {status for _, _, status, _ in watch.said} == {"alive"}
    assert host.stats()["slots"] == 0
