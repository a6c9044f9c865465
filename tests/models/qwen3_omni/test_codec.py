"""Code2wav streamed == decoded whole by transformers, in any cutting, at any mixture of places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import Qwen3OmniMoeConfig
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeCode2Wav

from models.base import CheckpointError, SlotsExhausted
from models.qwen3_omni.codec import Code2Wav, Code2WavConfig
from models.qwen3_omni.config import Fields
from models.qwen3_omni.tiny import tiny
from models.qwen3_omni.tiny_config import Shape
from models.qwen3_omni.wave import Code2WavCodec

Decoders = tuple[Any, Code2Wav]
"""transformers' and ours."""

FRAMES = 90  # past the window of 72


def both(folder: Path, dtype: torch.dtype) -> Decoders:
    config = json.loads((folder / "config.json").read_text())["code2wav_config"]
    weights = {
        name.removeprefix("code2wav."): value
        for name, value in load_file(folder / "model.safetensors").items()
        if name.startswith("code2wav.")
    }
    reference = Qwen3OmniMoeCode2Wav._from_config(Qwen3OmniMoeConfig.from_pretrained(folder).code2wav_config)
    reference.load_state_dict(weights)
    ours = Code2Wav(Code2WavConfig.of(Fields("config.json", config)))
    ours.load_state_dict(weights)
    return reference.to(dtype).eval(), ours.to(dtype)


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> Decoders:
    return both(tiny(tmp_path_factory.mktemp("tiny")), torch.float32)


@pytest.fixture(scope="module")
def codes() -> torch.Tensor:
    return torch.randint(0, 256, (3, FRAMES, 4), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def whole(decoders: Decoders, codes: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = decoders[0](codes.transpose(1, 2))[:, 0]
    return found


def test_frame_by_frame_is_the_whole_decode(decoders: Decoders, codes: torch.Tensor, whole: torch.Tensor) -> None:
    codec = Code2WavCodec(decoders[1], 1)
    codec.open(5)
    pieces = [codec.render([5], codes[:1, [i]])[0] for i in range(FRAMES)]
    assert [len(piece) for piece in pieces] == [1365] + [1920] * (FRAMES - 1)
    streamed = torch.cat([*pieces, codec.flush(5)])
    assert streamed.shape == whole[0].shape
    torch.testing.assert_close(streamed, whole[0], rtol=0, atol=1e-5)


@given(data=st.data())
@settings(deadline=None, max_examples=8)
def test_rows_at_different_places_share_a_batch(
    decoders: Decoders, codes: torch.Tensor, whole: torch.Tensor, data: st.DataObject
) -> None:
    codec = Code2WavCodec(decoders[1], 3)
    done = {7: 0, 8: 0, 9: 0}
    heard: dict[int, list[torch.Tensor]] = {7: [], 8: [], 9: []}
    for slot in done:
        codec.open(slot)
    while left := [slot for slot, n in done.items() if n < FRAMES]:
        slots = data.draw(st.permutations(left))[: data.draw(st.integers(1, len(left)))]
        frames = min(data.draw(st.integers(1, 30)), *(FRAMES - done[slot] for slot in slots))
        batch = torch.stack([codes[slot - 7, done[slot] : done[slot] + frames] for slot in slots])
        for slot, pcm in zip(slots, codec.render(slots, batch), strict=True):
            heard[slot].append(pcm)
            done[slot] += frames
    for slot, pieces in heard.items():
        torch.testing.assert_close(torch.cat(pieces), whole[slot - 7], rtol=0, atol=1e-5)


def test_in_double_precision_cutting_makes_no_difference(tmp_path: Path, codes: torch.Tensor) -> None:
    _, model = both(tiny(tmp_path), torch.float64)
    state = Code2WavCodec(model, 2)._state
    pieces = [model(codes[:1, [i]], state, [0], [i]) for i in range(20)]
    at_once = [model(part, state, [1], [7 * n]) for n, part in enumerate(torch.split(codes[:1, :20], 7, 1))]
    torch.testing.assert_close(torch.cat(pieces, 1), torch.cat(at_once, 1), rtol=0, atol=1e-12)


def test_a_reset_row_is_a_new_row(decoders: Decoders, codes: torch.Tensor, whole: torch.Tensor) -> None:
    codec = Code2WavCodec(decoders[1], 2)
    codec.open(0)
    codec.open(1)
    codec.render([0, 1], codes[:2, :40])
    codec.reset(0)
    torch.testing.assert_close(codec.render([0], codes[2:, :])[0], whole[2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("ratios", [(1,), (2, 2)])
@pytest.mark.parametrize("rates", [(3, 2), (8, 5, 4, 3)])
def test_other_rates_withhold_what_the_reference_withholds(
    tmp_path: Path, ratios: tuple[int, ...], rates: tuple[int, ...]
) -> None:
    shape = Shape(ratios=ratios, rates=rates)
    reference, model = both(tiny(tmp_path, shape=shape), torch.float32)
    codec = Code2WavCodec(model, 1)
    codec.open(0)
    codes = torch.randint(0, 256, (1, 12, 4), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = reference(codes.transpose(1, 2))[0, 0]
    streamed = torch.cat([codec.render([0], codes[:, [i]])[0] for i in range(12)])
    torch.testing.assert_close(streamed, whole, rtol=0, atol=1e-5)


def test_what_it_refuses(decoders: Decoders, codes: torch.Tensor) -> None:
    codec = Code2WavCodec(decoders[1], 1)
    codec.open(0)
    with pytest.raises(SlotsExhausted):
        codec.open(1)
    with pytest.raises(ValueError, match="open already"):
        codec.open(0)
    with pytest.raises(ValueError, match="must be"):
        codec.render([0], codes[:1, :, :3])
    with pytest.raises(ValueError, match=r"0\.\.255"):
        codec.render([0], codes[:1, :2] + 256)
    codec.close(0)
    with pytest.raises(KeyError):
        codec.close(0)
    codec.open(1)
    assert codec.memory_bytes() > 0


def test_a_config_without_a_field_names_it(tmp_path: Path) -> None:
    whole = json.loads((tiny(tmp_path) / "config.json").read_text())
    without = {name: value for name, value in whole["code2wav_config"].items() if name != "decoder_dim"}
    with pytest.raises(CheckpointError, match="decoder_dim"):
        Code2WavConfig.of(Fields("config.json", without))
