"""End-of-turn models from ONNX files: what is taken, what is refused, and what a session makes of it."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from transformers import WhisperFeatureExtractor

from realtime.endings_onnx import SoundEndings, log_mel
from realtime.session_config import SessionConfig
from tests.realtime.script import Script
from tests.realtime.small_engine import SmallEngine

SMART_TURN = ("input_features", [1, 80, 800])
SEMANTIC = {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}


def model(path: Path, name: str, shape: list[int | str], scale: float = 1.0, kind: int = TensorProto.FLOAT) -> Path:
    """The mean of its input times ``scale``, through a sigmoid."""
    shapes = helper.make_tensor_value_info(name, kind, shape), helper.make_tensor_value_info("chance", kind, [1, 1])
    nodes = [
        helper.make_node("Flatten", [name], ["flat"], axis=1),
        helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["mean", "scale"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], ["chance"]),
    ]
    values = [helper.make_tensor("scale", kind, [], [scale])]
    graph = helper.make_graph(nodes, "turn", [shapes[0]], [shapes[1]], values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def tone(seconds: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    random = np.random.default_rng(1)
    n = int(seconds * 16_000)
    return (0.2 * np.sin(np.arange(n) * 0.05) + 0.01 * random.normal(size=n)).astype(np.float32)


@pytest.mark.parametrize("shape", [SMART_TURN, ("input_values", [1, 128_000]), ("sound", ["batch", "samples"])])
def test_both_kinds_of_model_are_served(tmp_path: Path, shape: tuple[str, list[int | str]]) -> None:
    judge = SoundEndings(model(tmp_path / "turn.onnx", *shape))
    for seconds in (0.01, 1.0, 9.3):
        done = judge(tone(seconds))
        assert done is not None
        assert 0 <= done <= 1


def test_the_features_are_whispers() -> None:
    pcm = tone(8.0)
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=8)
    theirs = extractor(pcm, sampling_rate=16_000, do_normalize=True, return_tensors="np").input_features[0]
    ours = log_mel((pcm - pcm.mean()) / np.sqrt(pcm.var() + 1e-7), 80)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_bytes(b"not a model"), "no ONNX model"),
        (lambda path: model(path, "picture", [1, 3, 8, 8]), "one float tensor"),
        (lambda path: model(path, "mel", ["batch", "bins", "frames"]), "one float tensor"),
        (lambda path: model(path, "ids", [1, 16], kind=TensorProto.DOUBLE), "one float tensor"),
    ],
)
def test_what_is_no_such_model_is_told(tmp_path: Path, make: Callable[[Path], object], says: str) -> None:
    make(tmp_path / "it.onnx")
    with pytest.raises(ValueError, match=says):
        SoundEndings(tmp_path / "it.onnx")


def test_without_onnxruntime_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match="pip install onnxruntime"):
        SoundEndings(tmp_path / "it.onnx")


def wait_ms(judge: Callable[[Any], float | None] | None) -> float:
    config = SessionConfig(end_of_turn=None, sound_of_end=judge)
    script = Script(SmallEngine(), config, **SEMANTIC)
    script.say(1.0)
    script.wait(6)
    script.finish()
    return 1000 * script.at("input_audio_buffer.speech_stopped") - 1000


def test_who_sounds_done_is_answered_sooner() -> None:
    heard: list[int] = []

    def done(pcm: np.ndarray[Any, Any]) -> float:
        heard.append(len(pcm))
        return 0.95

    assert wait_ms(done) < wait_ms(lambda _: None) == wait_ms(None) < wait_ms(lambda _: 0.05)
    assert len(heard) == 1
    assert heard[0] == pytest.approx(16_000 * 1.3, abs=4000)  # the whole turn, with what was before its first sound
