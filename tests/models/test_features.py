"""Streamed features are the whole clip's, however it is cut, and going back leaves no trace."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor

from models.base import Pcm
from models.features import RANGE, Clip, LogMel, clamped_apart, normalise
from models.mel import mel_filters

MEL = LogMel(128)
REFERENCE = WhisperFeatureExtractor(feature_size=128)


def speechlike(samples: int, seed: int) -> Pcm:
    """Noise whose loudness wanders over five orders of magnitude, with exact silence in between."""
    random = np.random.default_rng(seed)
    loudness = 10.0 ** np.repeat(random.uniform(-5, 0, samples // 800 + 1), 800)[:samples]
    loudness[np.repeat(random.random(samples // 800 + 1) < 0.2, 800)[:samples]] = 0
    return (random.standard_normal(samples) * loudness).clip(-1, 1).astype(np.float32)


def reference(pcm: Pcm) -> torch.Tensor:
    found = REFERENCE(pcm, sampling_rate=16_000, padding=True, truncation=False, return_attention_mask=True)
    return torch.from_numpy(found["input_features"][0][:, : found["attention_mask"][0].sum()])


def stream(clip: Clip, raw: list[torch.Tensor], pcm: Pcm, cuts: list[int], final: bool) -> Clip:
    edges = [0, *sorted(cut % (len(pcm) + 1) for cut in cuts), len(pcm)]
    for i, (begin, end) in enumerate(itertools.pairwise(edges)):
        clip, new = MEL.advance(clip.push(pcm[begin:end], final=final and i == len(edges) - 2))
        raw.append(new)
    return clip


@given(
    samples=st.one_of(st.integers(201, 2000), st.integers(2000, 40_000)),
    cuts=st.lists(st.integers(0, 40_000), max_size=12),
    seed=st.integers(0, 5),
)
@settings(max_examples=40, deadline=None)
def test_any_chunking_equals_the_whole(samples: int, cuts: list[int], seed: int) -> None:
    pcm = speechlike(samples, seed)
    raw: list[torch.Tensor] = []
    clip = stream(Clip(), raw, pcm, cuts, final=True)
    wanted = reference(pcm)
    assert clip.frames == MEL.ready(clip) == wanted.shape[1]
    torch.testing.assert_close(normalise(torch.cat(raw, 1), clip.maximum), wanted, atol=2e-5, rtol=0)


@given(st.integers(0, 5), st.integers(0, 8000), st.integers(0, 8000), st.lists(st.integers(0, 9000), max_size=4))
@settings(max_examples=20, deadline=None)
def test_going_back_leaves_no_trace(seed: int, before: int, aside: int, cuts: list[int]) -> None:
    first, second, other = speechlike(before, seed), speechlike(8000, seed + 1), speechlike(aside, seed + 2)
    raw: list[torch.Tensor] = []
    mark = stream(Clip(), raw, first, cuts, final=False)
    stream(mark, [], other, cuts, final=True)
    again, never = list(raw), list(raw)
    back = stream(mark, again, second, cuts, final=True)
    raw = []
    straight = stream(stream(Clip(), raw, first, cuts, final=False), never, second, cuts, final=True)
    assert (back.frames, back.maximum) == (straight.frames, straight.maximum)
    assert torch.equal(torch.cat(again, 1), torch.cat(never, 1))


@given(st.integers(0, 20), st.integers(0, 20_000))
@settings(max_examples=20, deadline=None)
def test_the_clamp_says_what_it_changes(seed: int, cut: int) -> None:
    pcm = speechlike(20_000, seed)
    early, raw = MEL.advance(Clip().push(pcm[:cut]))
    late, _ = MEL.advance(early.push(pcm[cut:], final=True))
    for frame in raw.T[::7]:
        changed = not torch.equal(normalise(frame, early.maximum), normalise(frame, late.maximum))
        assert changed == clamped_apart(float(frame.min()), early.maximum, late.maximum)


def test_a_prefix_holds_its_last_frame_back() -> None:
    pcm = speechlike(16_000, 1)
    clip, raw = MEL.advance(Clip().push(pcm[:8000]))
    whole = LogMel(128).advance(Clip().push(pcm, final=True))[1]
    assert clip.frames == 49
    torch.testing.assert_close(raw, whole[:, :49], atol=1e-5, rtol=0)


def test_silence_is_the_floor() -> None:
    clip, raw = MEL.advance(Clip().push(np.zeros(1600, np.float32), final=True))
    assert clip.maximum == raw.min() == -10.0
    assert normalise(raw, clip.maximum).max() == pytest.approx((-10 + 4) / 4)
    assert RANGE == 8.0


def test_filters_are_whispers() -> None:
    np.testing.assert_allclose(mel_filters(128, 400, 16_000), REFERENCE.mel_filters.T, atol=1e-9)
