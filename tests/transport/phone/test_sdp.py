from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport.phone import sdes, sdp
from transport.rtp_receiver import Payloads

LOCAL = sdp.Local("192.0.2.1", 10_000, 42)
OFFER = """v=0
o=alice 1 1 IN IP4 198.51.100.7
s=-
c=IN IP4 198.51.100.7
t=0 0
m=audio 4000 RTP/AVP 9 0 8 13 101
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=sendrecv
m=video 4002 RTP/AVP 99
a=rtpmap:99 H264/90000
"""


def test_an_offer_is_read() -> None:
    remote = sdp.read(OFFER)
    assert (remote.host, remote.port, remote.held) == ("198.51.100.7", 4000, False)
    kind, payloads = remote.settled()
    assert (kind.name, payloads) == ("G722", Payloads(9, 101, 13))


def test_our_answer_says_what_was_settled_and_refuses_video() -> None:
    answer = sdp.answer(sdp.read(OFFER), LOCAL)
    assert "m=audio 10000 RTP/AVP 9 13 101\r\n" in answer
    assert "m=video 0 RTP/AVP 99\r\n" in answer
    assert "c=IN IP4 192.0.2.1\r\n" in answer
    back = sdp.read(answer)
    assert back.settled() == sdp.read(OFFER).settled()


@pytest.mark.parametrize(
    ("theirs", "ours", "held"),
    [("sendrecv", "sendrecv", False), ("sendonly", "recvonly", True), ("inactive", "inactive", True),
     ("recvonly", "sendonly", False)],
)  # fmt: skip
def test_hold_is_answered_in_kind(theirs: str, ours: str, held: bool) -> None:
    remote = sdp.read(OFFER.replace("a=sendrecv", f"a={theirs}"))
    assert remote.held == held
    assert f"a={ours}\r\n" in sdp.answer(remote, LOCAL)


def test_encrypted_sound_is_answered_with_a_key_of_ours_under_their_number() -> None:
    theirs = sdes.Crypto(3, sdes.OFFERED, bytes(30))
    offer = OFFER.replace("RTP/AVP 9", "RTP/SAVP 9").replace("a=sendrecv", f"a=sendrecv\r\n{theirs.line}")
    remote = sdp.read(offer)
    assert (remote.profile, remote.crypto) == ("RTP/SAVP", (theirs,))
    keys = sdes.agreed(None, remote.crypto, answer=False)
    assert keys is not None
    back = sdp.read(sdp.answer(remote, replace(LOCAL, crypto=keys.ours)))
    assert (back.profile, back.crypto) == ("RTP/SAVP", (keys.ours,))


def test_we_offer_a_key_where_the_sound_must_be_encrypted() -> None:
    crypto = sdes.Crypto.new()
    offered = sdp.read(sdp.offer(replace(LOCAL, crypto=crypto)))
    assert (offered.profile, offered.crypto) == ("RTP/SAVP", (crypto,))


def test_the_old_way_to_hold() -> None:
    assert sdp.read(OFFER.replace("c=IN IP4 198.51.100.7", "c=IN IP4 0.0.0.0")).held


def test_dynamic_payload_types_are_theirs() -> None:
    offer = OFFER.replace("RTP/AVP 9 0 8 13 101", "RTP/AVP 107 96").replace(
        "a=rtpmap:9 G722/8000", "a=rtpmap:107 opus/48000/2\na=rtpmap:96 telephone-event/48000"
    )
    kind, payloads = sdp.read(offer).settled()
    assert (kind.name, payloads) == ("opus", Payloads(107, 96, None))
    answer = sdp.answer(sdp.read(offer), LOCAL)
    assert "a=rtpmap:107 opus/48000/2\r\n" in answer
    assert "a=rtpmap:96 telephone-event/48000\r\n" in answer


def test_what_we_offer_we_could_answer() -> None:
    for held in (False, True):
        remote = sdp.read(sdp.offer(LOCAL, held=held))
        assert [kind.name for kind, _ in remote.codecs] == ["opus", "G722", "PCMU", "PCMA"]
        assert remote.held == held


@pytest.mark.parametrize(
    "offer",
    [
        OFFER.replace("m=audio 4000", "m=audio 0"),
        OFFER.replace("m=audio 4000 RTP/AVP", "m=audio 4000 RTP/SAVP"),
        OFFER.replace("RTP/AVP 9 0 8 13 101", "RTP/AVP 18").replace("G722/8000", "G729/8000"),
        "v=0\ns=-\nc=IN IP4 1.2.3.4\nt=0 0\n",
    ],
)
def test_what_can_be_read_and_has_nothing_for_us(offer: str) -> None:
    with pytest.raises(sdp.NotAcceptable):
        sdp.read(offer)


@pytest.mark.parametrize(
    "offer",
    ["", "hello", OFFER.replace("c=IN IP4 198.51.100.7\n", ""), OFFER.replace("198.51.100.7", "evil.example"),
     OFFER.replace("m=audio 4000", "m=audio 99999"), OFFER.replace("m=audio 4000", "m=audio x"), "v=0" * 20_000],
)  # fmt: skip
def test_what_can_not_be_read(offer: str) -> None:
    with pytest.raises(sdp.BadSdp):
        sdp.read(offer)


@given(st.text(max_size=300), st.integers(0, len(OFFER)))
def test_nothing_else_comes_out_of_any_text(text: str, at: int) -> None:
    for offer in (text, "v=0\n" + text, OFFER[:at] + text + OFFER[at:], OFFER[:at]):
        try:
            remote = sdp.read(offer)
        except (sdp.BadSdp, sdp.NotAcceptable):
            continue
        assert sdp.answer(remote, LOCAL).startswith("v=0")
