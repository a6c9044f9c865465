from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport.phone import sdes
from transport.phone.sdes import Cipher, Crypto, Keys

KEY = base64.b64encode(bytes(range(30))).decode()
SHORT = "AES_CM_128_HMAC_SHA1_32"


def packet(number: int, payload: bytes = b"sound") -> bytes:
    return struct.pack("!BBHII", 0x80, 0, number, number * 160, 42) + payload


def report() -> bytes:
    return struct.pack("!BBHI", 0x80, 201, 1, 42)


def pair(suite: str = sdes.OFFERED) -> tuple[Cipher, Cipher]:
    one, other = Crypto.new(suite), Crypto.new(suite)
    return Cipher(Keys(one, other)), Cipher(Keys(other, one))


def test_what_we_write_is_what_we_read() -> None:
    crypto = Crypto.new()
    assert sdes.read([crypto.line.removeprefix("a=crypto:")]) == (crypto,)
    assert crypto.line.split("inline:")[1] not in repr(crypto), "no log has the key"


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        (f"1 {sdes.OFFERED} inline:{KEY}", True),
        (f"7 {SHORT} inline:{KEY}|2^20", True),
        (f"1 {sdes.OFFERED} inline:{KEY} -EXTENSION", True),
        (f"1 {sdes.OFFERED} inline:{KEY}|2^20|1:4", False),
        (f"1 {sdes.OFFERED} inline:{KEY} UNENCRYPTED_SRTP", False),
        (f"1 F8_128_HMAC_SHA1_80 inline:{KEY}", False),
        (f"1 {sdes.OFFERED} uri:{KEY}", False),
        (f"1 {sdes.OFFERED} inline:{KEY[:20]}", False),
        (f"1 {sdes.OFFERED} inline:~~~~", False),
        (f"one {sdes.OFFERED} inline:{KEY}", False),
        ("", False),
    ],
)
def test_which_attributes_can_be_taken(text: str, taken: bool) -> None:
    assert bool(sdes.read([text])) == taken


@given(st.text())
def test_whatever_is_in_an_attribute_nothing_breaks(text: str) -> None:
    assert sdes.read([text]) == ()


def test_an_offer_of_theirs_gets_a_key_of_ours_under_their_number() -> None:
    theirs = (Crypto(7, SHORT, bytes(30)), Crypto(8, sdes.OFFERED, bytes(30)))
    first = sdes.agreed(None, theirs, answer=False)
    assert first is not None
    assert (first.ours.tag, first.ours.suite, first.theirs) == (7, SHORT, theirs[0])
    again = sdes.agreed(first.ours, theirs, answer=False)
    assert again == first, "the call goes on with the key it has"
    assert sdes.agreed(None, (), answer=False) is None


def test_an_answer_must_take_what_we_offered() -> None:
    ours = Crypto.new()
    fitting = Crypto(1, sdes.OFFERED, bytes(30))
    assert sdes.agreed(ours, (fitting,), answer=True) == Keys(ours, fitting)
    assert sdes.agreed(ours, (Crypto(1, SHORT, bytes(30)),), answer=True) is None
    assert sdes.agreed(None, (fitting,), answer=True) is None


@pytest.mark.parametrize("suite", sdes.SUITES)
def test_the_other_side_reads_what_was_sealed(suite: str) -> None:
    here, there = pair(suite)
    sealed = here.seal(packet(1))
    assert b"sound" not in sealed
    assert there.open(sealed) == packet(1)
    assert there.open(here.seal(report(), rtcp=True), rtcp=True) == report()


def test_what_is_not_sealed_so_is_not_heard() -> None:
    here, there = pair()
    stranger, _ = pair()
    sealed = here.seal(packet(1))
    for wrong in (packet(1), stranger.seal(packet(1)), sealed[:-1] + bytes([sealed[-1] ^ 1]), b"", b"x" * 3000):
        assert there.open(wrong) is None
    assert there.open(sealed) == packet(1)
    assert there.open(sealed) is None, "played back by somebody"
