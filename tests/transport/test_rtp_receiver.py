from __future__ import annotations

import numpy as np
import pytest
from aiortp.packet import RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from realtime.pcm import PCMU, decode, encode
from transport.rtp_codecs import KINDS, OPUS, CodecKind
from transport.rtp_receiver import DIGITS, IDLE_S, NEW_STREAM, REORDER_PACKETS, Payloads, RtpReceiver

ULAW = next(kind for kind in KINDS if kind.name == "PCMU")
PAYLOADS = Payloads(0, 101, 13)
COUNT = 40


def speech(count: int = COUNT, seed: int = 0) -> list[bytes]:
    pcm = np.random.default_rng(seed).normal(0, 0.1, (count, 160)).astype(np.float32)
    return [encode(frame, PCMU) for frame in pcm]


def packet(n: int, payload: bytes, kind: int = 0, start: int = 0, ts: int | None = None) -> RtpPacket:
    timestamp = (start * 160 + n * 160 if ts is None else ts) & 0xFFFFFFFF
    return RtpPacket(kind, 0, (start + n) & 0xFFFF, timestamp, 7, payload)


def received(packets: list[RtpPacket]) -> np.ndarray:
    receiver = RtpReceiver(ULAW, PAYLOADS)
    return np.concatenate([receiver.push(each, 0.02 * n).pcm for n, each in enumerate(packets)])


@pytest.mark.parametrize("start", [0, 65530, (1 << 32) // 160 - 7])
def test_in_order_it_is_what_was_sent_also_where_the_numbers_wrap(start: int) -> None:
    frames = speech()
    assert np.array_equal(
        received([packet(n, frame, start=start) for n, frame in enumerate(frames)]), decode(b"".join(frames), PCMU)
    )


@given(st.permutations(range(REORDER_PACKETS)), st.booleans())
def test_a_little_disorder_and_doubles_change_nothing(order: list[int], doubled: bool) -> None:
    frames = speech(3 + REORDER_PACKETS + 6)
    numbers = [0, 1, 2, *(3 + n for n in order), *range(3 + REORDER_PACKETS, len(frames))]
    packets = [packet(n, frames[n]) for n in numbers for _ in range(1 + doubled)]
    if order[0] != 0 and order[-1] == 0 and REORDER_PACKETS > 2:
        return  # the first was given up when the last of the others came
    assert np.array_equal(received(packets), decode(b"".join(frames), PCMU))


@given(st.sets(st.integers(5, COUNT - 6), max_size=12))
def test_what_is_lost_is_concealed_and_time_stays_time(lost: set[int]) -> None:
    frames = speech()
    receiver = RtpReceiver(ULAW, PAYLOADS)
    pcm = np.concatenate([receiver.push(packet(n, f), n * 0.02).pcm for n, f in enumerate(frames) if n not in lost])
    whole = decode(b"".join(frames), PCMU)
    assert len(pcm) == len(whole)
    assert receiver.lost_packets == len(lost)
    assert receiver.concealed_s == pytest.approx(0.02 * len(lost))
    for n in set(range(COUNT)) - lost:
        assert np.array_equal(pcm[160 * n : 160 * n + 160], whole[160 * n : 160 * n + 160])


def test_concealment_goes_on_softer_and_softer() -> None:
    t = np.arange(160 * 10) / 8000
    tone = (0.3 * np.sin(2 * np.pi * 200 * t)).astype(np.float32)
    frames = [encode(tone[at : at + 160], PCMU) for at in range(0, len(tone), 160)]
    receiver = RtpReceiver(ULAW, PAYLOADS)
    for n in range(5):
        receiver.push(packet(n, frames[n]), 0.0)
    for n in (8, 9, 9):
        out = receiver.push(packet(n, frames[n]), 0.0).pcm
        if len(out):
            break
    out = np.concatenate([out, receiver.push(packet(10, frames[0]), 0.0).pcm])
    level = [float(np.abs(out[at : at + 160]).max()) for at in (0, 160, 320)]
    assert level[0] > level[1] > level[2]
    assert level[0] > 0.15


def test_a_key_counts_once_however_often_it_is_told() -> None:
    receiver = RtpReceiver(ULAW, PAYLOADS)
    digits, number = "", 0
    frame = speech(1)[0]
    for digit in "1*#D":
        for _ in range(4):
            digits += receiver.push(packet(number, frame), 0.02 * number).digits
            number += 1
        ts = number * 160
        for n in range(10):
            end = 0x80 if n >= 7 else 0
            payload = bytes([DIGITS.index(digit), end | 10]) + (160 * min(n + 1, 8)).to_bytes(2, "big")
            digits += receiver.push(packet(number, payload, 101, ts=ts), 0.02 * number).digits
            number += 1
    assert digits == "1*#D"


def test_an_announced_silence_goes_on_while_nothing_comes() -> None:
    receiver = RtpReceiver(ULAW, PAYLOADS)
    frames = speech(6)
    receiver.push(packet(0, frames[0]), 0.0)
    receiver.push(packet(1, bytes([60]), 13), 0.02)
    silence = np.concatenate([receiver.idle(0.02 * n) for n in range(2, 60)])
    assert abs(len(silence) / 8000 - (59 * 0.02 - 0.02 - IDLE_S)) <= 0.04
    assert 0 < np.abs(silence).max() < 0.01
    assert len(receiver.push(packet(2, frames[2], ts=60 * 160), 1.2).pcm) >= 160
    assert not len(receiver.idle(5.0)), "speech that stops is no announced silence"


def test_another_stream_begins_anew() -> None:
    receiver = RtpReceiver(ULAW, PAYLOADS)
    frames = speech(4)
    receiver.push(packet(0, frames[0]), 0.0)
    far = packet(NEW_STREAM + 5, frames[1], ts=999_999)
    assert len(receiver.push(far, 0.02).pcm) == 160
    other = packet(3, frames[2])
    other.ssrc = 8
    assert len(receiver.push(other, 0.04).pcm) == 160
    assert receiver.ssrc == 8


@given(
    st.lists(
        st.tuples(st.integers(0, 127), st.integers(0, 65535), st.integers(0, 2**32 - 1), st.binary(max_size=40)),
        max_size=40,
    )
)
def test_no_packet_breaks_it(packets: list[tuple[int, int, int, bytes]]) -> None:
    for kind in (ULAW, OPUS, KINDS[1]):
        receiver = RtpReceiver(kind, Payloads(0, 101, 13))
        for n, (payload_type, number, timestamp, payload) in enumerate(packets):
            given_ = receiver.push(RtpPacket(payload_type, 0, number, timestamp, 1, payload), 0.02 * n)
            assert np.isfinite(given_.pcm).all()
            assert len(given_.pcm) <= 1.5 * kind.rate_hz * (REORDER_PACKETS + 1)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_codec_brings_speech_over(kind: CodecKind) -> None:
    encoder, receiver = kind.make(), RtpReceiver(kind, Payloads(kind.payload_type))
    t = np.arange(50 * kind.packet_samples) / kind.rate_hz
    tone = (0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    out = []
    for n in range(50):
        payload = encoder.encode(tone[n * kind.packet_samples : (n + 1) * kind.packet_samples])
        each = RtpPacket(kind.payload_type, 0, n, n * kind.packet_ticks, 1, payload)
        out.append(receiver.push(each, 0.02 * n).pcm)
    pcm = np.concatenate(out)
    assert abs(len(pcm) - len(tone)) <= kind.packet_samples
    spectrum = np.abs(np.fft.rfft(pcm[len(pcm) // 2 :]))
    peak_hz = np.argmax(spectrum) * kind.rate_hz / (len(pcm) - len(pcm) // 2)
    assert abs(peak_hz - 440) < 5
    assert receiver.concealed_s == 0
