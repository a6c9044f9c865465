from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from models.base import CheckpointError, Codec
from models.demo.codec import PREFIX, Decoder, FrameIstftCodec, FrameIstftConfig, load

CONFIG = FrameIstftConfig(
    hop=32, hops=3, n_fft=96, bands=12, groups=3, codebook_size=16, code_dim=8, hidden_size=16, fine_size=12
)


def decoder(seed: int = 0) -> Decoder:
    torch.manual_seed(seed)
    made = Decoder(CONFIG)
    torch.nn.init.normal_(made.codebooks)
    with torch.no_grad():
        made.head.bias[1:] -= 2.0
    return made.eval()


def codes(rows: int, frames: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(CONFIG.codebook_size, (rows, frames, CONFIG.groups), generator=generator)


def codec(*slots: int) -> Codec:
    made = FrameIstftCodec(decoder())
    for slot in slots:
        made.open(slot)
    return made


def whole(given_codes: torch.Tensor) -> torch.Tensor:
    return torch.cat([*codec(0).render([0], given_codes[None])])


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_streamed_in_any_chunks_is_the_whole(chunks: list[int]) -> None:
    given_codes = codes(1, sum(chunks))[0]
    streaming = codec(0)
    pieces = [streaming.render([0], piece[None])[0] for piece in given_codes.split(chunks)]
    made = torch.cat([*pieces, streaming.flush(0)])
    true = whole(given_codes)
    assert made.shape == true.shape == (sum(chunks) * CONFIG.frame_samples,)
    assert true.abs().max() > 1e-3
    torch.testing.assert_close(made, true, atol=1e-5, rtol=1e-4)


def test_rows_out_of_step_do_not_hear_each_other() -> None:
    first, second = codes(2, 6)
    both = codec(3, 8)
    pieces = {3: [*both.render([3], first[None, :2])], 8: []}
    for frame in range(4):
        a, b = both.render([3, 8], torch.stack([first[frame + 2], second[frame]])[:, None])
        pieces[3].append(a)
        pieces[8].append(b)
    pieces[8] += both.render([8], second[None, 4:])
    torch.testing.assert_close(torch.cat(pieces[3]), whole(first), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.cat(pieces[8]), whole(second), atol=1e-5, rtol=1e-4)


def test_reset_forgets_and_growth_does_not() -> None:
    first, second = codes(2, 4)
    made = codec(0)
    begun = made.render([0], first[None, :2])
    for slot in range(1, 12):
        made.open(slot)
    torch.testing.assert_close(
        torch.cat([*begun, *made.render([0], first[None, 2:])]), whole(first), atol=1e-5, rtol=1e-4
    )
    made.reset(0)
    torch.testing.assert_close(made.render([0], second[None])[0], whole(second), atol=1e-5, rtol=1e-4)


def test_a_closed_slot_is_gone_and_its_memory_too() -> None:
    made = codec(0, 1)
    held = made.memory_bytes()
    made.close(1)
    assert made.memory_bytes() == held // 2
    with pytest.raises(KeyError):
        made.render([1], codes(1, 1))
    with pytest.raises(ValueError, match="open already"):
        made.open(0)


@pytest.mark.parametrize("wrong", [-1, CONFIG.codebook_size])
def test_special_ids_are_refused(wrong: int) -> None:
    bad = codes(1, 2)
    bad[0, 1, 1] = wrong
    with pytest.raises(ValueError, match="special ids"):
        codec(0).render([0], bad)


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="codes must be"):
        codec(0).render([0], codes(1, 2)[:, :, :2])


def save(folder: Path, config: dict[str, object], weights: Decoder) -> None:
    (folder / "config.json").write_text(json.dumps({"code2wav_config": config}))
    named = {PREFIX + name: value.clone() for name, value in weights.state_dict().items()}
    save_file({"talker.other": torch.zeros(1), **named}, folder / "model.safetensors")


def test_a_saved_decoder_speaks_as_before(tmp_path: Path) -> None:
    save(tmp_path, CONFIG.to_dict(), decoder())
    loaded = load(tmp_path)
    loaded.open(0)
    assert loaded.config == CONFIG
    torch.testing.assert_close(loaded.render([0], codes(1, 5))[0], whole(codes(1, 5)[0]))


@pytest.mark.parametrize(
    ("change", "said"), [({"surprise": 1}, "surprise"), ({"groups": 0}, "groups"), ({"hidden_size": 24}, "don't fit")]
)
def test_a_bad_checkpoint_says_what_is_wrong(tmp_path: Path, change: dict[str, object], said: str) -> None:
    save(tmp_path, CONFIG.to_dict() | change, decoder())
    with pytest.raises(CheckpointError, match=said):
        load(tmp_path)


def test_a_missing_checkpoint_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(tmp_path)
