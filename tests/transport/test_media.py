from __future__ import annotations

from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.base import Pcm
from realtime.events import Pcm16
from realtime.pcm import PCM16, PCMA, PCMU, AudioFormat, decode, encode, to_int16
from transport.media import Inbound, Outbound, Resampler

EVERY_SAMPLE = np.arange(-32768, 32768).astype(np.int16)
EVERY_CODE = bytes(range(256))
RATES = [8000, 16000, 22050, 24000, 44100, 48000]


def ffmpeg_decode(codec: str, payload: bytes) -> Pcm16:
    decoder = av.CodecContext.create(codec, "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate, decoder.layout = 8000, "mono"  # type: ignore[assignment]
    frames = [*decoder.decode(av.Packet(payload)), *decoder.decode(None)]
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])


def ffmpeg_encode(codec: str, pcm: Pcm16) -> bytes:
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = 8000, "mono", "s16"  # type: ignore[assignment]
    frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate = 8000
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


@pytest.mark.parametrize(("codec", "wire"), [("pcm_mulaw", PCMU), ("pcm_alaw", PCMA)])
def test_the_wires_g711_agrees_with_ffmpeg(codec: str, wire: AudioFormat) -> None:
    np.testing.assert_array_equal(to_int16(decode(EVERY_CODE, wire)), ffmpeg_decode(codec, EVERY_CODE))
    wide = EVERY_SAMPLE.astype(np.float64)
    ours = np.std(to_int16(decode(encode(EVERY_SAMPLE, wire), wire)) - wide)
    theirs = np.std(to_int16(decode(ffmpeg_encode(codec, EVERY_SAMPLE), wire)) - wide)
    assert ours < 1.01 * theirs  # not code for code: on a segment's edge ffmpeg takes the nearer level, ITU truncates


def cut(pcm: Pcm, places: list[int]) -> list[Pcm]:
    edges = [0, *sorted(place % (len(pcm) + 1) for place in places), len(pcm)]
    return [pcm[a:b] for a, b in pairwise(edges)]


@settings(max_examples=60, deadline=None)
@given(
    source=st.sampled_from(RATES),
    target=st.sampled_from(RATES),
    n=st.integers(0, 30000),
    places=st.lists(st.integers(0, 30000), max_size=40),
    seed=st.integers(0, 99),
)
def test_chunking_does_not_matter(source: int, target: int, n: int, places: list[int], seed: int) -> None:
    pcm = np.random.default_rng(seed).uniform(-1, 1, n).astype(np.float32)
    whole = Resampler(source, target)
    at_once = np.concatenate([whole.push(pcm), whole.flush()])
    pieces, out, pushed = Resampler(source, target), [np.zeros(0, np.float32)], 0
    for piece in cut(pcm, places):
        out.append(pieces.push(piece))
        pushed += len(piece)
        held_s = pushed / source - sum(map(len, out)) / target
        assert held_s <= pieces.delay_s + 1 / target, "more is held back than stated"
    out.append(pieces.flush())
    np.testing.assert_array_equal(np.concatenate(out), at_once)
    assert len(at_once) == -(-n * target // source)


@pytest.mark.parametrize("source", RATES)
@pytest.mark.parametrize("target", [8000, 16000, 24000])
def test_a_tone_keeps_its_shape_and_place(source: int, target: int) -> None:
    tone = lambda rate: (0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype(np.float32)  # noqa: E731
    resampler = Resampler(source, target)
    heard = np.concatenate([resampler.push(tone(source)), resampler.flush()])
    inside = slice(target // 50, target - target // 50)  # away from the ends, where the filter meets silence
    np.testing.assert_allclose(heard[inside], tone(target)[inside], atol=2e-3)


def test_a_tone_above_the_new_band_is_gone() -> None:
    tone = np.sin(2 * np.pi * 7000 * np.arange(24000) / 24000).astype(np.float32)
    assert np.abs(Resampler(24000, 8000).push(tone)[200:]).max() < 1e-3


def test_a_flushed_resampler_begins_anew() -> None:
    pcm = np.random.default_rng(1).uniform(-1, 1, 5000).astype(np.float32)
    resampler = Resampler(24000, 16000)
    first = np.concatenate([resampler.push(pcm), resampler.flush()])
    second = np.concatenate([resampler.push(pcm), resampler.flush()])
    np.testing.assert_array_equal(first, second)
    assert not len(resampler.flush())


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000])
def test_inbound_is_one_continuous_stream(rate_hz: int) -> None:
    pcm = np.random.default_rng(2).uniform(-0.3, 0.3, 9600).astype(np.float32)
    one, many = Inbound(16000), Inbound(16000)
    at_once = np.concatenate([one.push(pcm, rate_hz), one.flush()])
    step = rate_hz // 50
    parts = [many.push(pcm[i : i + step], rate_hz) for i in range(0, len(pcm), step)]
    np.testing.assert_array_equal(np.concatenate([*parts, many.flush()]), at_once)
    assert len(at_once) == 9600 * 16000 // rate_hz


def test_a_change_of_the_input_format_loses_nothing() -> None:
    inbound, second = Inbound(16000), np.zeros(24000, np.float32)
    got = len(inbound.push(second, 24000)) + len(inbound.push(second[:8000], 8000)) + len(inbound.flush())
    assert got == 32000


def test_cleared_audio_is_not_heard_later() -> None:
    inbound = Inbound(16000)
    inbound.push(np.full(2400, 0.5, np.float32), 24000)
    inbound.reset()
    assert not np.concatenate([inbound.push(np.zeros(2400, np.float32), 24000), inbound.flush()]).any()


@pytest.mark.parametrize("wire", [PCM16, PCMU, PCMA])
def test_outbound_says_an_item_whole(wire: AudioFormat) -> None:
    pcm = np.random.default_rng(4).integers(-9000, 9000, 24000).astype(np.int16)
    outbound = Outbound(24000)
    payload = b"".join(outbound.encode(pcm[i : i + 1920], wire) for i in range(0, 24000, 1920)) + outbound.flush()
    assert len(payload) == wire.rate_hz * wire.bytes_per_sample
    if wire == PCM16:
        np.testing.assert_array_equal(to_int16(decode(payload, PCM16)), pcm)


def test_a_cut_item_leaves_nothing_for_the_next() -> None:
    silence, loud = np.zeros(2400, np.int16), np.full(2400, 9000, np.int16)
    outbound = Outbound(24000)
    outbound.encode(loud, PCMU)
    outbound.reset()
    heard = decode(outbound.encode(silence, PCMU) + outbound.flush(), PCMU)
    assert not heard.any()
