from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from aiortp.packet import RtpPacket

from realtime.events import Pcm16
from transport.phone.rtp_sender import NOISE_PACKETS, RtpSender
from transport.rtp_codecs import KINDS, OPUS, CodecKind
from transport.rtp_receiver import Payloads, RtpReceiver

ULAW = next(kind for kind in KINDS if kind.name == "PCMU")
MODEL_HZ = 24_000


def reply(seconds: float = 1.0) -> Pcm16:
    t = np.arange(int(seconds * MODEL_HZ)) / MODEL_HZ
    return np.rint(8000 * np.sin(2 * np.pi * 330 * t)).astype(np.int16)


def packets(sender: RtpSender, count: int) -> list[RtpPacket]:
    return [RtpPacket.parse(data) for _ in range(count) for data in sender.next()]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_played_arrives_and_the_clock_never_stops(kind: CodecKind) -> None:
    payloads = Payloads(kind.payload_type)
    sender, receiver = RtpSender(kind, Payloads(kind.payload_type, noise=None), MODEL_HZ), RtpReceiver(kind, payloads)
    packets(sender, 5)
    sender.play(reply())
    sender.finish()
    sent = packets(sender, 60)
    steps = {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in pairwise(sent)}
    assert steps == {kind.packet_ticks}
    assert {(b.sequence_number - a.sequence_number) & 0xFFFF for a, b in pairwise(sent)} == {1}
    pcm = np.concatenate([receiver.push(each, 0.02 * n).pcm for n, each in enumerate(sent)])
    loud = np.flatnonzero(np.abs(pcm) > 0.05)
    assert (loud[-1] - loud[0]) / kind.rate_hz == pytest.approx(1.0, abs=0.03)


def test_what_was_cut_is_never_sent() -> None:
    sender = RtpSender(ULAW, Payloads(0, noise=None), MODEL_HZ)
    sender.play(reply())
    packets(sender, 3)
    sender.clear()
    assert {each.payload for each in packets(sender, 10)} == {b"\xff" * 160}


def test_silence_is_comfort_noise_where_they_take_it() -> None:
    sender = RtpSender(ULAW, Payloads(0, noise=13), MODEL_HZ)
    sender.play(reply(0.1))
    sender.finish()
    sent = packets(sender, 105)
    kinds = [each.payload_type for each in sent]
    assert kinds[:5] == [0] * 5
    assert kinds.count(13) == pytest.approx(98 / NOISE_PACKETS, abs=1)
    assert kinds.count(0) <= 9
    sender.play(reply(0.1))
    after = packets(sender, 1)[0]
    assert (after.payload_type, after.marker) == (0, 1)
    assert (after.timestamp - sent[0].timestamp) & 0xFFFFFFFF == 105 * 160


@pytest.mark.parametrize("kind", [ULAW, OPUS], ids=lambda kind: kind.name)
def test_keys_arrive_as_keys_and_speech_waits(kind: CodecKind) -> None:
    sender = RtpSender(kind, Payloads(kind.payload_type, 101, None), MODEL_HZ)
    receiver = RtpReceiver(kind, Payloads(kind.payload_type, 101, None))
    sender.play(reply(0.2))
    assert sender.press("12#")
    digits, heard = "", 0
    for n in range(80):
        for data in sender.next():
            given = receiver.push(RtpPacket.parse(data), 0.02 * n)
            digits += given.digits
            heard += int(np.sum(np.abs(given.pcm) > 0.02))
    assert digits == "12#"
    assert heard > 0.1 * kind.rate_hz


def test_a_key_s_end_is_told_three_times_and_its_length_grows() -> None:
    sender = RtpSender(ULAW, Payloads(0, 101, None), MODEL_HZ)
    sender.press("7")
    told = [each for each in packets(sender, 20) if each.payload_type == 101]
    assert len({each.timestamp for each in told}) == 1
    lengths = [int.from_bytes(each.payload[2:], "big") for each in told]
    assert lengths == sorted(lengths)
    assert [each.payload[1] >> 7 for each in told] == [0] * 7 + [1] * 3
    assert [each.marker for each in told] == [1] + [0] * 9


def test_without_events_there_are_none() -> None:
    assert not RtpSender(ULAW, Payloads(0, None, None), MODEL_HZ).press("1")


def test_held_it_sends_nothing_and_time_goes_on() -> None:
    sender = RtpSender(ULAW, Payloads(0, noise=None), MODEL_HZ)
    first = RtpPacket.parse(sender.next()[0])
    assert [sender.next(muted=True) for _ in range(10)] == [[]] * 10
    after = RtpPacket.parse(sender.next()[0])
    assert (after.timestamp - first.timestamp) & 0xFFFFFFFF == 11 * 160
    assert after.marker
