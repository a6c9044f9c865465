from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from realtime.host_process import EngineProcess
from realtime.pcm import PCM16, encode
from realtime.schedule import EngineConfig
from tests.realtime.doubles import load_toy, toy_model
from tests.transport.live import PATIENCE_S, LiveServer, RawClient
from transport.auth import Gate
from transport.call import read_question
from transport.inbox import MAX_MESSAGE_BYTES
from transport.outbox import MAX_OUTGOING_BYTES
from transport.websocket import MAX_FRAME_BYTES

KEY = {"Authorization": "Bearer sk-test"}


async def speak(client: RawClient, path: Path) -> None:
    pcm = np.concatenate([read_question(path).pcm, np.zeros(PCM16.rate_hz, np.float32)])
    await client.send("input_audio_buffer.append", audio=base64.b64encode(encode(pcm, PCM16)).decode())


async def refusal(
    server: LiveServer, name: str = "127.0.0.1", path: str = "/v1/realtime", **options: Any
) -> tuple[int, str]:
    """HTTP status and error code of a handshake that must fail, of a client that knows the server as ``name``."""
    url = f"ws://{name}:{server.port}{path}"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, host="127.0.0.1", port=server.port, proxy=None, open_timeout=PATIENCE_S, **options):
            pass
    response = refused.value.response
    return response.status_code, json.loads(response.body or b"{}")["error"]["code"]


# --- bad input ------------------------------------------------


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ({"type": "no.such.event"}, "unknown_event", "type"),
        ({"type": ["a", "list"]}, "invalid_value", "type"),
        ({"type": "input_audio_buffer.append", "audio": "****"}, "invalid_audio", "audio"),
        ({"type": "input_audio_buffer.append", "audio": base64.b64encode(b"abc").decode()}, "invalid_audio", "audio"),
        ({"type": "input_audio_buffer.append"}, "invalid_value", "audio"),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty", None),
        ({"type": "input_image_buffer.append", "image": "aGVsbG8="}, "invalid_image", "image"),
        ({"type": "session.update", "session": {"tools": 7}}, "invalid_value", "session.tools"),
        ({"type": "conversation.item.delete", "item_id": "nobody"}, "item_delete_invalid_item_id", "item_id"),
        ({"type": "response.cancel"}, "response_cancel_not_active", None),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_said_and_nothing_else_happens(
    server: LiveServer, message: dict[str, Any], code: str, param: str | None
) -> None:
    async with RawClient.connect(server) as client:
        await client.send(message.pop("type"), event_id="mine", **message)
        error = (await client.until("error"))["error"]
        assert (error["code"], error["param"], error["event_id"]) == (code, param, "mine")
        assert error["type"] == "invalid_request_error"
        assert error["message"]
        assert (await client.ask("Still there?"))["response"]["status"] == "completed"


async def test_binary_frames_are_an_error_event(server: LiveServer) -> None:
    async with RawClient.connect(server) as client:
        await client.socket.send(b"\x00\x01")
        assert "JSON" in (await client.until("error"))["error"]["message"]
        assert (await client.ask("Still there?"))["response"]["status"] == "completed"


async def test_a_ping_is_answered(server: LiveServer) -> None:
    async with RawClient.connect(server) as client:
        await client.send("parley.ping")
        assert set(await client.until("parley.pong", "error")) == {"type", "event_id"}


async def test_a_message_that_is_too_large(server: LiveServer) -> None:
    async with RawClient.connect(server) as client:
        await client.send("input_audio_buffer.append", audio="A" * MAX_MESSAGE_BYTES)
        assert "too long" in (await client.until("error"))["error"]["message"]
        assert (await client.ask("Still there?"))["response"]["status"] == "completed"
        with suppress(ConnectionClosed):  # it may be closed before all of it was sent
            await client.send("input_audio_buffer.append", audio="A" * MAX_FRAME_BYTES)
        assert (await client.closed())[0] == 1009


# --- what goes well ------------------------------------------------


async def test_every_session_event_has_its_own_number(server: LiveServer, question: Path) -> None:
    async with RawClient.connect(server) as client:
        await speak(client, question)
        await client.until("response.done")
    ids = [event["event_id"] for event in client.seen]
    assert len(set(ids)) == len(ids)


async def test_a_beta_client_hears_beta(server: LiveServer, question: Path) -> None:
    async with RawClient.connect(server, additional_headers={"OpenAI-Beta": "realtime=v1"}) as client:
        assert "modalities" in client.seen[0]["session"]
        await speak(client, question)
        await client.until("response.done")
    kinds = {event["type"] for event in client.seen}
    assert "response.audio.delta" in kinds
    assert not {kind for kind in kinds if kind.startswith(("response.output_audio", "response.output_text"))}


async def test_a_camera_frame_is_seen(server: LiveServer, question: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(picture, "JPEG")
    async with RawClient.connect(server) as client:
        await client.send("input_image_buffer.append", image=base64.b64encode(picture.getvalue()).decode())
        await speak(client, question)
        done = await client.until("response.done")
    assert done["response"]["status"] == "completed"
    assert not [event for event in client.seen if event["type"] == "error"]


async def test_a_browser_s_subprotocols(server: LiveServer) -> None:
    offered = [Subprotocol("realtime"), Subprotocol("openai-insecure-api-key.sk-test")]
    async with RawClient.connect(server, subprotocols=offered) as client:
        assert client.socket.subprotocol == "realtime"
        assert (await client.ask("Hello?"))["response"]["status"] == "completed"


# --- who may come in ------------------------------------------------


async def test_a_server_with_a_key_wants_it() -> None:
    with LiveServer(gate=Gate(("sk-test",), ("https://app.example",))) as server:
        assert await refusal(server) == (401, "missing_api_key")
        assert await refusal(server, additional_headers={"Authorization": "Bearer sk-no"}) == (401, "invalid_api_key")
        assert await refusal(server, additional_headers=KEY, origin="https://evil.example") == (
            403,
            "origin_not_allowed",
        )
        for path in ("/metrics", "/v1/models"):
            assert server.get(path).status_code == 401
            assert server.get(path, **KEY).status_code == 200
        assert server.get("/healthz").status_code == 200
        async with RawClient.connect(server, additional_headers=KEY, origin="https://app.example") as client:
            assert (await client.ask("Hello?"))["response"]["status"] == "completed"
        async with RawClient.connect(server, additional_headers=KEY, origin=server.url) as client:
            assert (await client.ask("Hello?"))["response"]["status"] == "completed"
        refused = server.get("/metrics", **KEY).text
        assert 'parley_refused_total{reason="missing_api_key"} 1.0' in refused


async def test_without_a_key_a_page_of_another_site_stays_out(server: LiveServer) -> None:
    assert await refusal(server, origin="https://evil.example") == (403, "origin_not_allowed")
    rebound = await refusal(server, "evil.example", origin=f"http://evil.example:{server.port}")
    assert rebound == (403, "host_not_allowed")


async def test_there_is_no_call_to_watch(server: LiveServer) -> None:
    assert await refusal(server, path="/v1/realtime?call_id=rtc_1") == (404, "call_not_found")


# --- neighbours ------------------------------------------------


async def test_one_that_misbehaves_does_not_disturb_the_other(server: LiveServer, question: Path) -> None:
    """The same questions get the same answers, whether or not somebody rages beside."""

    async def answers(client: RawClient) -> list[str]:
        done = [await client.ask(f"Question {number}") for number in range(3)]
        return [
            json.dumps([item["content"] for item in each["response"]["output"] if "content" in item]) for each in done
        ]

    async def rage(stop: asyncio.Event) -> int:
        raged = 0
        while not stop.is_set():
            # Closed where the server is full: whoever vanished before is not gone yet.
            with suppress(ConnectionClosed):
                async with RawClient.connect(server) as client:
                    for message in (b"\xff", "{", "[" * 20_000, '{"type":[]}', '{"type":"response.create"}'):
                        await client.socket.send(message)
                    await speak(client, question)
                    await client.send("response.create", response={"output_modalities": ["text"]})
                    await client.until("error")
                    client.socket.transport.abort()  # no goodbye
                    raged += 1
        return raged

    async with RawClient.connect(server) as calm:
        alone = await answers(calm)
    stop = asyncio.Event()
    raging = [asyncio.create_task(rage(stop)) for _ in range(2)]
    async with RawClient.connect(server) as calm:
        assert await answers(calm) == alone
    stop.set()
    assert all(await asyncio.gather(*raging))


async def test_who_leaves_frees_the_place_at_once() -> None:
    with LiveServer(lambda: toy_model(slots=1), engine=EngineConfig(max_sessions=1)) as server:
        for _ in range(5):
            async with RawClient.connect(server) as client:
                assert (await client.ask("Hello?"))["response"]["status"] == "completed"
                async with RawClient.connect(server) as second:
                    assert (await second.until("error"))["error"]["code"] == "server_full"
                    assert (await second.closed())[0] == 1013
                client.socket.transport.abort()
            await gone(server)


async def gone(server: LiveServer) -> None:
    """Waits until the server has noticed that everybody left."""
    async with asyncio.timeout(PATIENCE_S):
        while (await asyncio.to_thread(server.get, "/healthz")).json()["sessions"]:
            await asyncio.sleep(0.01)


async def test_an_engine_that_dies_is_told_and_replaced() -> None:
    host = EngineProcess(load_toy)
    with LiveServer(host=host) as server:
        async with RawClient.connect(server) as client:
            assert (await client.ask("Hello?"))["response"]["status"] == "completed"
            assert host.pid is not None
            os.kill(host.pid, signal.SIGKILL)
            assert (await client.until("error"))["error"]["code"] == "engine_failed"
            assert (await client.closed())[0] == 1011
        async with asyncio.timeout(PATIENCE_S):
            while (await asyncio.to_thread(server.get, "/healthz")).status_code != 200:
                await asyncio.sleep(0.05)
        async with RawClient.connect(server) as client:
            assert (await client.ask("Hello again?"))["response"]["status"] == "completed"


async def test_a_reader_that_does_not_read_is_closed_and_nobody_waits(server: LiveServer) -> None:
    """It asks for more and more, and never reads a byte of what it gets."""
    raw = socket.create_connection(("127.0.0.1", server.port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.sendall(
        b"GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    mask = b"\x00\x00\x00\x00"
    body = json.dumps({"type": "x" * 60, "event_id": "y" * 4000}).encode()  # each is answered with an error event
    frame = b"\x81\xfe" + len(body).to_bytes(2, "big") + mask + body

    def flood() -> None:
        raw.settimeout(PATIENCE_S)
        for _ in range(4 * MAX_OUTGOING_BYTES // len(body)):
            try:
                raw.sendall(frame)
            except OSError:  # the server has closed
                return

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        async with RawClient.connect(server) as client:
            assert (await client.ask("Are you free?"))["response"]["status"] == "completed"
        await gone(server)
    finally:
        raw.close()
        thread.join(PATIENCE_S)


# --- going ------------------------------------------------


async def test_sigterm_lets_a_call_finish_and_takes_no_new_one() -> None:
    with LiveServer(drain_s=PATIENCE_S) as server:
        async with RawClient.connect(server) as client:
            server.terminate()
            while (await asyncio.to_thread(server.get, "/healthz")).json()["status"] != "draining":
                pass
            assert await refusal(server) == (503, "server_draining")
            assert (await client.ask("One more thing?"))["response"]["status"] == "completed"
        server.join()


async def test_a_call_that_does_not_finish_is_ended() -> None:
    with LiveServer(drain_s=0.0) as server:
        async with RawClient.connect(server) as client:
            server.terminate()
            code, reason = await client.closed()
            assert (code, reason) == (1001, "the server is going away")
        server.join()
