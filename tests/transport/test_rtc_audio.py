from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.virtual_time import run
from transport.rtc_audio import OPUS_HZ, Microphone, ReplyTrack
from transport.rtp_codecs import PACKET_S, SILENT_OPUS
from transport.rtp_pace import STALL_S

RATE = 16000
PACKET = OPUS_HZ // 50


@dataclass
class Rtp:
    sequence_number: int
    timestamp: int
    _data: bytes


def packets(count: int, first: int = 0, timestamp: int = 0) -> list[Rtp]:
    """A tone of 200 Hz, as a browser sends it."""
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.format, encoder.layout, encoder.sample_rate = "s16", "mono", OPUS_HZ
    encoder.time_base = Fraction(1, OPUS_HZ)
    made = []
    for n in range(count):
        tone = 8000 * np.sin(2 * np.pi * 200 * (n * PACKET + np.arange(PACKET)) / OPUS_HZ)
        frame = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = OPUS_HZ
        data = bytes(encoder.encode(frame)[0])
        made.append(Rtp((first + n) & 0xFFFF, (timestamp + n * PACKET) & 0xFFFFFFFF, data))
    return made


TONE = packets(60)


def heard(sent: list[Rtp]) -> tuple[np.ndarray, Microphone]:
    pieces: list[np.ndarray] = []
    microphone = Microphone(RATE, pieces.append)
    for packet in sent:
        assert microphone.add(packet) == (False, None)
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32), microphone


def test_a_stream_comes_through_at_the_models_rate() -> None:
    pcm, microphone = heard(TONE)
    assert abs(len(pcm) - 60 * RATE // 50) < RATE * 0.005
    spectrum = np.abs(np.fft.rfft(pcm[RATE // 2 :]))
    assert abs(spectrum.argmax() * RATE / len(pcm[RATE // 2 :]) - 200) < 3
    assert not microphone.concealed_samples


@settings(max_examples=30, deadline=None)
@given(lost=st.sets(st.integers(1, 55), max_size=12), seed=st.integers(0, 1000))
def test_time_is_kept_whatever_is_lost_or_swapped(lost: set[int], seed: int) -> None:
    """As long as a later packet arrives, the stream is as long as what was said."""
    rng = random.Random(seed)
    sent = [packet for n, packet in enumerate(TONE) if n not in lost]
    for n in range(1, len(sent) - 5, 2):  # pairs: swapped again and again, one packet would come too late to count
        if rng.random() < 0.2:
            sent[n], sent[n + 1] = sent[n + 1], sent[n]
    pcm, microphone = heard(sent)
    assert abs(len(pcm) - 60 * RATE // 50) < RATE * 0.005
    assert microphone.concealed_samples == len(lost) * PACKET


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05, 0.1])
@pytest.mark.parametrize("jitter_ms", [0, 20, 50])
def test_only_what_was_lost_is_concealed(loss: float, jitter_ms: int) -> None:
    """Packets each 20 ms, each as much as ``jitter_ms`` late, so that they overtake each other."""
    rng = random.Random(f"{loss} {jitter_ms}")
    sent = packets(500)
    arriving = [
        (20 * n + rng.uniform(0, jitter_ms), n) for n in range(500) if n == 0 or n > 495 or rng.random() >= loss
    ]
    pcm, microphone = heard([sent[n] for _, n in sorted(arriving)])
    assert microphone.concealed_samples == (500 - len(arriving)) * PACKET
    assert abs(len(pcm) - 500 * RATE // 50) < RATE * 0.07  # the last few may still wait for one before them


def test_order_is_restored() -> None:
    swapped = [*TONE[:10], TONE[11], TONE[10], *TONE[12:]]
    np.testing.assert_array_equal(heard(swapped)[0], heard(TONE)[0])


def test_a_packet_that_comes_twice_counts_once() -> None:
    np.testing.assert_array_equal(heard([packet for each in TONE for packet in (each, each)])[0], heard(TONE)[0])


def test_numbers_wrap_around() -> None:
    pcm, microphone = heard(packets(20, first=65530, timestamp=(1 << 32) - 5 * PACKET))
    assert abs(len(pcm) - 20 * RATE // 50) < RATE * 0.005
    assert not microphone.concealed_samples


def test_a_loss_is_concealed_with_what_was_said_and_then_fades() -> None:
    pcm, _ = heard([packet for n, packet in enumerate(TONE) if not 20 <= n < 30])
    start = 20 * RATE // 50
    assert np.abs(pcm[start : start + RATE // 100]).max() > 0.1, "no hole"
    assert np.abs(pcm[start + RATE // 10 : start + RATE // 8]).max() < 0.01, "and no drone"


def test_another_stream_begins_anew() -> None:
    pcm, microphone = heard([*TONE[:20], *packets(20, first=30000, timestamp=1 << 30)])
    assert abs(len(pcm) - 40 * RATE // 50) < RATE * 0.01
    assert not microphone.concealed_samples


@given(data=st.lists(st.binary(max_size=40), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_garbage_breaks_nothing(data: list[bytes]) -> None:
    garbage = [Rtp(n, n * PACKET, each) for n, each in enumerate(data)]
    later = packets(10, first=len(data), timestamp=len(data) * PACKET)
    pcm, _ = heard([*garbage, *later])
    assert np.isfinite(pcm).all()
    assert len(pcm) >= 9 * RATE // 50


# --- out ------------------------------------------------


def tone(seconds: float, rate: int = 24000) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * rate)) / rate)).astype(np.int16)


def levels(sent: list[bytes]) -> list[int]:
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.format, decoder.layout, decoder.sample_rate = "s16", "mono", OPUS_HZ
    frames = [frame for data in sent for frame in decoder.decode(av.Packet(data))]
    return [int(np.abs(frame.to_ndarray().astype(np.int32)).max()) for frame in frames]


async def receive(track: ReplyTrack, count: int) -> list[av.Packet]:
    return [await track.recv() for _ in range(count)]


def test_packets_come_on_an_absolute_schedule() -> None:
    async def listen() -> None:
        track, loop = ReplyTrack(24000), asyncio.get_running_loop()
        begun, times = loop.time(), []
        for n in range(500):
            packet = await track.recv()
            times.append(loop.time() - begun)
            assert packet.pts == n * PACKET
            await asyncio.sleep(0.007 if n % 3 else 0.019)  # a slow reader delays nothing that comes after
        assert times == pytest.approx([n * PACKET_S for n in range(500)], abs=1e-6)

    run(listen())


def test_a_stall_is_skipped_and_not_replayed() -> None:
    async def listen() -> None:
        track, loop = ReplyTrack(24000), asyncio.get_running_loop()
        await receive(track, 10)
        await asyncio.sleep(4 * STALL_S)
        after = await receive(track, 3)
        assert after[0].pts is not None
        assert after[0].pts >= (10 * PACKET_S + 4 * STALL_S - 2 * PACKET_S) * OPUS_HZ
        last = loop.time()
        await track.recv()
        assert loop.time() - last <= PACKET_S

    run(listen())


def test_all_that_is_played_is_sent_and_silence_around_it() -> None:
    async def listen() -> list[bytes]:
        track = ReplyTrack(24000)
        sent = await receive(track, 5)
        for piece in np.split(tone(0.2), 10):
            track.play(piece)
        return [bytes(packet) for packet in [*sent, *await receive(track, 20)]]

    sent = run(listen())
    assert sent[-1] == SILENT_OPUS
    loud = [level > 3000 for level in levels(sent)]
    assert loud[5:16].count(True) >= 9
    assert not any(loud[:5])
    assert not any(loud[17:])


@pytest.mark.parametrize("rate", [24000, 44100, 22050])
def test_a_cut_is_heard_within_a_packet(rate: int) -> None:
    async def listen() -> list[bytes]:
        track = ReplyTrack(rate)
        track.play(tone(1.0, rate))
        sent = await receive(track, 10)
        track.clear()
        return [bytes(packet) for packet in [*sent, *await receive(track, 10)]]

    loud = [level > 1500 for level in levels(run(listen()))]
    assert loud[2:10] == [True] * 8
    assert not any(loud[11:])


def test_a_track_that_ended_gives_nothing() -> None:
    async def listen() -> None:
        track = ReplyTrack(24000)
        track.stop()
        with pytest.raises(MediaStreamError):
            await track.recv()

    run(listen())
