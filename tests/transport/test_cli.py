from __future__ import annotations

import json
import math
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from PIL import Image
from typer.testing import CliRunner

from realtime.schedule import EngineConfig
from tests.realtime.doubles import toy_model
from tests.transport.live import PATIENCE_S, LiveServer, espeak, read_wav
from transport import cli
from transport.auth import Gate
from transport.call_report import MEANINGS
from transport.caller import RATE_HZ
from transport.cli import app

PATIENT = ["--patience", str(PATIENCE_S)]


def parley(*arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_a_call_with_two_questions(server: LiveServer, question: Path, tmp_path: Path) -> None:
    second, out = espeak(tmp_path / "second.wav", "And the one after that?"), tmp_path / "answer.wav"
    status, said, errors = parley("call", question, second, "--url", server.url, "--out", out, *PATIENT)
    assert status == 0, errors
    for word in ("1. question.wav", "2. second.wav", "mouth_to_ear", "ttfa", "e2e", "underrun", str(out)):
        assert word in said, said
    rate_hz, pcm = read_wav(out)
    assert rate_hz == RATE_HZ
    assert np.abs(pcm).max() > 1000
    assert len(pcm) > RATE_HZ // 2  # two answers and the gap


def test_a_call_for_machines(server: LiveServer, question: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (32, 32), "blue").save(picture)
    status, said, errors = parley(
        "call", question, "--url", server.ws_url, "--json", "--image", picture, "--push-to-talk", "--speed", 4, *PATIENT
    )
    assert status == 0, errors
    call = json.loads(said)
    (turn,) = call["turns"]
    assert turn["status"] == "completed"
    assert turn["heard"]
    assert turn["said"]
    assert turn["errors"] == []
    assert turn["audio_s"] > 0.1
    assert turn["latency"]["mouth_to_ear_ms"] > 0
    assert {name.removesuffix("_ms") for name in turn["latency"]} <= set(MEANINGS)


@pytest.mark.parametrize(("rate_hz", "channels"), [(8000, 1), (44100, 2), (48000, 1)])
def test_any_rate_mono_or_stereo(
    server: LiveServer, question: Path, tmp_path: Path, rate_hz: int, channels: int
) -> None:
    from_hz, pcm = read_wav(question)
    changed = tmp_path / "changed.wav"
    resampled = soxr.resample(pcm.astype(np.float32) / 32768, from_hz, rate_hz)
    write(changed, np.stack([resampled] * channels, axis=1), rate_hz)
    status, said, errors = parley("call", changed, "--url", server.url, "--json", *PATIENT)
    assert status == 0, errors
    assert json.loads(said)["turns"][0]["status"] == "completed"


def write(path: Path, pcm: np.ndarray, rate_hz: int) -> None:
    import wave

    with wave.open(str(path), "wb") as out:
        out.setnchannels(pcm.shape[1])
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes((pcm * 32767).astype("<i2").tobytes())


def test_nobody_there(question: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    status, _, errors = parley("call", question, "--url", f"ws://127.0.0.1:{port}")
    assert status == 1
    assert "parley serve" in errors


def test_what_is_no_question_is_told_before_anybody_is_called(tmp_path: Path) -> None:
    text, silence = tmp_path / "text.wav", tmp_path / "silence.wav"
    text.write_text("this is no audio")
    write(silence, np.zeros((8000, 1)), 8000)
    for path, words in ((text, "not audio"), (silence, "silence"), (tmp_path / "none.wav", "no such file")):
        status, _, errors = parley("call", path)
        assert status == 1
        assert words in errors, errors


@pytest.mark.parametrize(
    ("more", "words"),
    [(["--url", "gopher://x"], "ws://"), (["--speed", "0"], "--speed"), (["--image", "question.txt"], ".jpg")],
)
def test_a_call_that_makes_no_sense(server: LiveServer, question: Path, more: list[str], words: str) -> None:
    status, _, errors = parley("call", question, "--url", server.url, *more)
    assert status == 1
    assert words in errors, errors


def test_a_call_that_is_refused(question: Path) -> None:
    with LiveServer(gate=Gate(("sk-test",))) as server:
        status, _, errors = parley("call", question, "--url", server.url)
        assert status == 1
        assert "Authorization: Bearer" in errors
        assert "401" in errors
        status, _, errors = parley(
            "call", question, "--url", server.url, "--api-key", "sk-test", "--speed", 4, *PATIENT
        )
        assert status == 0, errors


def test_a_server_that_is_full_says_so(question: Path) -> None:
    with LiveServer(lambda: toy_model(slots=0)) as server:
        status, _, errors = parley("call", question, "--url", server.url, *PATIENT)
        assert status == 1
        assert "slots are taken" in errors
        assert "1013" in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0", "--model", "tiny"], "--api-key"),
        (["--model", "/no/such/folder"], "no such folder"),
        (["--model", "tiny", "--audio-mode", "loud"], "audio_mode"),
        (["--model", "tiny", "--tls-cert", "cert.pem"], "go together"),
        (["--model", "tiny", "--tls-cert", "/no/cert.pem", "--tls-key", "/no/key.pem"], "PEM"),
        (["--model", "tiny", "--host", "192.0.2.1", "--api-key", "key"], "an address of this machine"),
        (["--model", "tiny", "--end-of-turn", "silence", "--typical", "said.txt"], "leave --typical out"),
        (["--model", "tiny", "--typical", "/no/said.txt"], "No such file"),
        (["--model", "tiny", "--end-of-turn", "/no/ear.onnx"], "/no/ear.onnx"),
    ],
)
def test_a_server_that_can_not_be_started_says_why(arguments: list[str], words: str) -> None:
    status, _, errors = parley("serve", *arguments)
    assert status == 1
    assert words in errors, errors


def test_what_the_engine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[EngineConfig] = []

    def engine(*given: Any) -> None:
        told.append(given[-1])
        raise SystemExit

    monkeypatch.setattr(cli, "_engine", engine)
    parley("serve", "--model", "tiny", "--port", 0)
    parley("serve", "--model", "tiny", "--port", 0, "--slots", 3, "--lead-ms", 1000)
    parley("serve", "--model", "tiny", "--port", 0, "--lead-ms", "inf")
    assert told[:2] == [EngineConfig(max_sessions=8), EngineConfig(max_sessions=3, lead_ms=1000)]
    assert told[2:] == [EngineConfig(max_sessions=8, lead_ms=math.inf)]
    for lead in (20, "nan"):
        assert "80" in parley("serve", "--model", "tiny", "--lead-ms", lead)[2], "a frame at least"
    assert len(told) == 3


def test_a_port_that_is_taken_is_told_before_a_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        status, _, errors = parley("serve", "--model", "tiny", "--port", other.getsockname()[1])
    assert status == 1
    assert "choose another port" in errors


def test_models_are_listed() -> None:
    status, said, _ = parley("models")
    assert status == 0
    for word in ("qwen3_omni_moe", "--model demo", "--model tiny"):
        assert word in said


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    status, _, errors = parley("models", tmp_path)
    assert status == 1
    assert "config.json" in errors


def test_a_checkpoint_without_its_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_omni_moe"}')
    status, said, errors = parley("models", tmp_path)
    assert status == 1
    assert "models.qwen3_omni" in said
    assert "every .safetensors file is missing" in errors
