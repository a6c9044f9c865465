"""Samples and bytes: laws of G.711 and of the resampler, against the standard library and against sines."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime import pcm
from realtime.errors import InvalidAudio

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    audioop = pytest.importorskip("audioop", reason="left the standard library in 3.13")

EVERY_SAMPLE = np.arange(-32768, 32768).astype(np.int16)
EVERY_CODE = bytes(range(256))


@pytest.mark.parametrize(("fmt", "law"), [(pcm.PCMU, "ulaw"), (pcm.PCMA, "alaw")])
def test_g711_is_the_standard_librarys(fmt: pcm.AudioFormat, law: str) -> None:
    assert pcm.encode(EVERY_SAMPLE, fmt) == getattr(audioop, f"lin2{law}")(EVERY_SAMPLE.tobytes(), 2)
    decoded = np.frombuffer(getattr(audioop, f"{law}2lin")(EVERY_CODE, 2), np.int16)
    assert np.array_equal(pcm.decode(EVERY_CODE, fmt), pcm.to_float(decoded))


def test_pcm16_is_exact_both_ways() -> None:
    data = EVERY_SAMPLE.astype("<i2").tobytes()
    assert pcm.encode(pcm.decode(data, pcm.PCM16), pcm.PCM16) == data
    assert np.array_equal(pcm.to_int16(pcm.to_float(EVERY_SAMPLE)), EVERY_SAMPLE)


def test_too_loud_is_clipped_not_wrapped() -> None:
    assert pcm.to_int16(np.array([2.0, -2.0], np.float32)).tolist() == [32767, -32768]


@given(st.binary(max_size=64))
def test_an_odd_byte_count_is_refused(data: bytes) -> None:
    if len(data) % 2:
        with pytest.raises(InvalidAudio, match="odd"):
            pcm.decode(data, pcm.PCM16)
    else:
        assert len(pcm.decode(data, pcm.PCM16)) == len(data) // 2


RATES = st.sampled_from([8000, 16000, 24000, 48000])


@settings(max_examples=30)
@given(RATES, RATES, st.floats(100, 3000))
def test_a_sine_stays_itself_at_another_rate(from_hz: int, to_hz: int, tone_hz: float) -> None:
    clip = np.sin(2 * np.pi * tone_hz * np.arange(from_hz // 4) / from_hz).astype(np.float32)
    out = pcm.resample(clip, from_hz, to_hz)
    assert len(out) == to_hz // 4
    expected = np.sin(2 * np.pi * tone_hz * np.arange(len(out)) / to_hz)
    inner = slice(to_hz // 50, -to_hz // 50)  # away from the ends, where the filter looks at nothing
    assert np.abs(out - expected)[inner].max() < 1e-3


def test_what_the_lower_rate_cannot_carry_is_gone() -> None:
    tone = np.sin(2 * np.pi * 10_000 * np.arange(24_000) / 24_000).astype(np.float32)
    assert np.abs(pcm.resample(tone, 24_000, 16_000))[400:-400].max() < 1e-3


@given(st.integers(0, 400), RATES, RATES)
def test_any_length_is_taken(n: int, from_hz: int, to_hz: int) -> None:
    out = pcm.resample(np.ones(n, np.float32), from_hz, to_hz)
    assert len(out) == -(-n * to_hz // from_hz)
    assert out.dtype == np.float32
