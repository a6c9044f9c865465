"""``parley_client`` against a real server of the toy model."""

from __future__ import annotations

import ast
import asyncio
import base64
import re
import sys
import tomllib
import wave
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_client import RATE_HZ, Files, Headset, ParleyError, Player, Tool, connect
from parley_client.sound import read_wav

from tests.clients.toy import alike, inquisitive, long_winded, replies_kept, toy
from tests.transport.live import PATIENCE_S, LiveServer
from transport.auth import Gate

PACKAGE = Path(__file__).parent.parent.parent / "clients" / "python"


# --- the player, alone ------------------------------------------------


@given(
    pieces=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5000))),
    pulls=st.lists(st.integers(1, 4000), min_size=1),
)
def test_what_is_pushed_is_pulled_once_in_order_and_reported(pieces: list[tuple[str, int]], pulls: list[int]) -> None:
    player, rng = Player(), np.random.default_rng(0)
    pushed = b""
    for item, samples in pieces:
        pcm = rng.integers(1, 1000, samples, np.int16).tobytes()
        pushed += pcm
        player.push(item, pcm)
    pulled = [player.pull(samples) for samples in pulls]
    assert [len(piece) for piece in pulled] == [2 * samples for samples in pulls]
    out = b"".join(pulled)
    assert out == (pushed + bytes(len(out)))[: len(out)]
    assert player.waiting == (len(pushed) > len(out))
    reports = player.reports()
    assert player.reports() == []
    for item in "ab":  # of runs of one item: never less, and at the end all of it
        told = [ms for name, ms in reports if name == item]
        assert all(ms > 0 for ms in told)
    if not player.waiting and pushed:
        last = [samples for _, samples in pieces if samples][-1:]
        assert reports[-1][1] >= last[0] * 1000 / RATE_HZ - 1e-6


def test_a_pause_loses_nothing_and_a_flush_everything() -> None:
    player = Player()
    player.push("a", b"\x01\x00" * 10)
    player.pause(True)
    assert player.pull(5) == bytes(10)
    player.pause(False)
    assert player.pull(5) == b"\x01\x00" * 5
    player.flush()
    assert player.pull(5) == bytes(10)
    assert player.reports() == [("a", 5 * 1000 / RATE_HZ)]


# --- a conversation ------------------------------------------------


async def test_files_in_files_out(
    server: LiveServer, question: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = tmp_path / "answer.wav"
    with replies_kept(monkeypatch) as made:
        async with asyncio.timeout(PATIENCE_S), connect(server.url) as call, Files(call, question, answer) as files:
            kinds = []
            async for event in call:
                kinds.append(event["type"])
                if event["type"] == "parley.latency":
                    break
            assert files.asked.is_set()
            while call.player.waiting:
                await asyncio.sleep(0.02)
        reply = next(iter(made.values()))
    assert "conversation.item.input_audio_transcription.completed" in kinds
    with wave.open(str(answer)) as file:
        heard = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert alike(heard, RATE_HZ, reply, 24000) > 0.8


async def test_what_was_played_is_what_is_remembered(question: Path) -> None:
    """Interrupted by the program after half a second of sound: the reply is cut there."""
    left = RATE_HZ // 2
    with LiveServer(toy(long_winded)) as server:
        async with asyncio.timeout(PATIENCE_S), connect(server.url) as call:
            await call.send_text("Tell me a long story.")
            async for event in call:
                if event["type"] == "response.output_audio.delta":
                    came = min(left, len(base64.b64decode(event["delta"])) // 2)
                    call.player.pull(came)  # a loudspeaker that plays at once what comes
                    left -= came
                if not left:
                    break
            await call.interrupt()
            async for event in call:
                if event["type"] == "response.done":
                    break
    response = event["response"]
    assert response["status"] == "cancelled"
    said = response["output"][0]["content"][0]["transcript"].split()
    assert 1 <= len(said) <= 4, "160 ms a word, of half a second"


async def test_tools_run_and_the_model_goes_on() -> None:
    asked: list[Any] = []

    async def look_up(word: list[int]) -> dict[str, str]:
        asked.append(word)
        return {"meaning": "none"}

    tools = {"look_up": Tool("Looks up.", {"type": "object", "properties": {"word": {"type": "array"}}}, look_up)}
    with LiveServer(toy(inquisitive)) as server:
        async with asyncio.timeout(PATIENCE_S), connect(server.url, instructions="Hm.", tools=tools) as call:
            await call.send_text("What does it mean?")
            done = 0
            outputs = []
            async for event in call:
                call.player.pull(4800)
                if event["type"] == "conversation.item.added" and event["item"]["type"] == "function_call_output":
                    outputs.append(event["item"]["output"])
                done += event["type"] == "response.done"
                if done == 2:
                    break
    assert asked == [[42]]
    assert outputs == ['{"meaning": "none"}']
    assert event["response"]["output"][0]["type"] == "message"


async def test_a_tool_that_fails_is_told_to_the_model() -> None:
    tools = {"look_up": Tool("Looks up.", {"type": "object"}, lambda **_: 1 / 0)}
    with LiveServer(toy(inquisitive)) as server:
        async with asyncio.timeout(PATIENCE_S), connect(server.url, tools=tools) as call:
            await call.send_text("What does it mean?")
            async for event in call:
                if event["type"] == "conversation.item.added" and event["item"]["type"] == "function_call_output":
                    break
    assert "ZeroDivisionError" in event["item"]["output"]


async def test_errors_say_what_to_do(question: Path, tmp_path: Path) -> None:
    with LiveServer(gate=Gate(("key",))) as server:
        with pytest.raises(ParleyError, match="no API key"):
            async with connect(server.url):
                pass
        async with asyncio.timeout(PATIENCE_S), connect(server.url, api_key="key") as call:
            server.server.should_exit = True
            with pytest.raises(ParleyError, match=r"the server ended the call|connection to the server broke"):
                async for _ in call:
                    pass
            with pytest.raises(ParleyError):
                await call.send_text("Anybody there?")
            with pytest.raises(ParleyError, match="WAV"):
                Files(call, tmp_path / "nothing.wav")
    with pytest.raises(ParleyError, match="parley serve"):
        async with connect(server.url):
            pass
    with pytest.raises(ParleyError, match="looks like"):
        async with connect("ftp://x"):
            pass


class RecordingSounddevice(SimpleNamespace):
    """PortAudio with a device, where there is none."""

    class PortAudioError(Exception):
        pass


async def test_a_connection_that_breaks_is_replaced(server: LiveServer) -> None:
    seen: list[dict[str, Any]] = []
    async with connect(server.url) as call:
        await call.send_text("Remember me.")
        broken = call._socket

        async def go_on() -> None:
            while call._socket is broken:
                await call.hear(bytes(960))  # a microphone does not notice
                await asyncio.sleep(0.02)
            await call.send_text("And again.")

        async with asyncio.timeout(PATIENCE_S):
            async for event in call:
                seen.append(event)
                done = [each for each in seen if each["type"] == "response.done"]
                if event["type"] == "response.done" and len(done) == 1:
                    broken.transport.abort()
                    going_on = asyncio.create_task(go_on())
                if len(done) == 2:
                    break
        await going_on
    said = [event["item"] for event in seen if event["type"] == "conversation.item.added"]
    assert [item["content"][0]["text"] for item in said if item["role"] == "user"] == ["Remember me.", "And again."]
    assert [event["type"] for event in seen].count("session.created") == 1


async def test_a_session_that_is_gone_is_not_waited_for() -> None:
    with LiveServer() as server:
        returns = server.server.config.app.state.returns  # type: ignore[union-attr]

        async def lose_it() -> None:
            async with connect(server.url) as call:
                async for event in call:
                    if event["type"] == "parley.session.resumable":
                        returns.forget(event["token"])
                        call._socket.transport.abort()

        with pytest.raises(ParleyError, match="call again"):
            await asyncio.wait_for(lose_it(), PATIENCE_S)


async def test_a_headset(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: dict[str, Any] = {}

    class RawStream:
        def __init__(self, rate_hz: int, size: int, **options: Any) -> None:
            opened.update(rate_hz=rate_hz, size=size, **options)

        def start(self) -> None: ...

        def close(self) -> None:
            opened["closed"] = True

    monkeypatch.setitem(sys.modules, "sounddevice", RecordingSounddevice(RawStream=RawStream))
    manual = {"audio": {"input": {"turn_detection": None}}}
    async with asyncio.timeout(PATIENCE_S), connect(server.url, session=manual) as call, Headset(call):
        call.player.push("x", b"\x07\x00" * 480)
        out = bytearray(960)
        for _ in range(50):
            await asyncio.to_thread(opened["callback"], np.zeros(480, np.int16).data.cast("B"), out, 480, None, None)
            if len(set(out)) > 1:
                assert out == b"\x07\x00" * 480
                out = bytearray(960)
        await call.send({"type": "input_audio_buffer.commit"})
        async for event in call:
            if event["type"] == "error":  # not all that was recorded is there yet
                assert event["error"]["code"] == "input_audio_buffer_commit_empty"
                await call.send({"type": "input_audio_buffer.commit"})
            if event["type"] == "input_audio_buffer.committed":
                break
    assert (opened["rate_hz"], opened["channels"], opened["dtype"]) == (24000, 1, "int16")
    assert opened["closed"]


async def test_without_portaudio_the_headset_says_so(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    async with connect(server.url) as call:
        with pytest.raises(ParleyError, match="or use Files"):
            async with Headset(call):
                pass


@pytest.mark.parametrize("rate_hz", [8000, 16000, 22050, 24000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_of_any_rate(tmp_path: Path, rate_hz: int, channels: int) -> None:
    tone = np.sin(np.arange(rate_hz) * 2 * np.pi * 440 / rate_hz) * 10_000
    with wave.open(str(tmp_path / "tone.wav"), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes(np.repeat(tone.astype("<i2"), channels).tobytes())
    pcm = np.frombuffer(read_wav(tmp_path / "tone.wav"), "<i2")
    assert abs(len(pcm) - RATE_HZ) <= 6
    spectrum = np.abs(np.fft.rfft(pcm[:RATE_HZ], RATE_HZ))
    assert abs(int(spectrum.argmax()) - 440) <= 1
    assert np.abs(pcm).max() > 8000


async def test_the_readmes_example_runs(server: LiveServer, question: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (PACKAGE / "README.md").read_text(), re.DOTALL)
    assert len(example.splitlines()) < 30, "it fits on a screen"
    example = example.replace("http://127.0.0.1:8000", server.url).replace(
        "Headset(call)", f"Files(call, {str(question)!r})"
    )
    names: dict[str, Any] = {"Files": Files}
    exec(example.replace("asyncio.run(main())", ""), names)
    talking = asyncio.create_task(names["main"]())
    printed = ""
    async with asyncio.timeout(PATIENCE_S):
        while "  it:" not in printed:
            assert not talking.done(), talking.result()
            await asyncio.sleep(0.05)
            printed += capsys.readouterr().out
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)
    assert "you:" in printed


def test_it_needs_websockets_and_nothing_else() -> None:
    allowed = {*sys.stdlib_module_names, "parley_client", "websockets", "sounddevice"}
    for path in (PACKAGE / "parley_client").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert {name.split(".")[0] for name in names} <= allowed, path
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    assert [re.split(r"\W", need)[0] for need in project["dependencies"]] == ["websockets"]
