from __future__ import annotations

import pytest
from aiosipua.message import SipRequest
from hypothesis import given
from hypothesis import strategies as st

from transport.phone.sip_message import Malformed, Peer, address, parse, respond, stamp, user, with_body

INVITE = (
    b"INVITE sip:+4930123@192.0.2.1 SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 10.0.0.7:5060;branch=z9hG4bK1;rport\r\n"
    b"Via: SIP/2.0/UDP 10.0.0.8;branch=z9hG4bK0\r\n"
    b'From: "A" <sip:+49170@10.0.0.7>;tag=t1\r\nTo: <sip:+4930123@192.0.2.1>\r\n'
    b"Call-ID: c1@10.0.0.7\r\nCSeq: 7 INVITE\r\nContact: <sip:a@10.0.0.7>\r\nContent-Length: 0\r\n\r\n"
)
VIAS = b"Via: SIP/2.0/UDP 10.0.0.7:5060;branch=z9hG4bK1;rport\r\nVia: SIP/2.0/UDP 10.0.0.8;branch=z9hG4bK0\r\n"


def test_a_request_and_our_answer() -> None:
    invite = parse(INVITE)
    assert isinstance(invite, SipRequest)
    stamp(invite, Peer("udp", "203.0.113.1", 6000))
    answer = respond(invite, 180, "ours")
    text = bytes(answer).decode()
    assert text.startswith("SIP/2.0 180 Ringing\r\n")
    assert "received=203.0.113.1" in text
    assert "rport=6000" in text
    assert text.count("Via:") == 2
    assert "To: <sip:+4930123@192.0.2.1>;tag=ours" in text
    with_body(answer, "v=0\r\n")
    assert bytes(answer).endswith(b"Content-Length: 5\r\n\r\nv=0\r\n") or b"Content-Length: 5" in bytes(answer)


def test_numbers_in_addresses() -> None:
    for text, number in [("<sip:+4930@h>", "+4930"), ("<sip:+4930;npdi@h>", "+4930"), ("<sip:h.example>", "h.example")]:
        assert user(address(text)) == number
    with pytest.raises(ValueError, match="not an address"):
        address("<http://x>")


@pytest.mark.parametrize(
    ("before", "after", "answerable"),
    [
        (b"CSeq: 7 INVITE", b"CSeq: 7 BYE", True),
        (b"CSeq: 7 INVITE", b"CSeq: x INVITE", False),
        (b"CSeq: 7 INVITE", b"CSeq: 99999999999 INVITE", True),
        (b"Call-ID: c1@10.0.0.7\r\n", b"", True),
        (b";tag=t1", b"", True),
        (b"branch=z9hG4bK1;", b"", True),
        (b"sip:+4930123@192.0.2.1 SIP/2.0", b"http://x SIP/2.0", True),
        (b"Content-Length: 0", b"Content-Length: 50", True),
        (b"INVITE sip", b"IN VITE sip", True),
        (VIAS, b"", False),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused(before: bytes, after: bytes, answerable: bool) -> None:
    assert before in INVITE
    with pytest.raises(Malformed) as refused:
        parse(INVITE.replace(before, after, 1))
    assert (refused.value.request is not None) == answerable
    if refused.value.request is not None:
        assert bytes(respond(refused.value.request, 400)).startswith(b"SIP/2.0 400 Bad Request\r\n")


@given(st.integers(0, len(INVITE)), st.binary(max_size=30), st.integers(0, 30))
def test_nothing_but_malformed_comes_out_of_any_bytes(at: int, junk: bytes, cut: int) -> None:
    for data in (junk, INVITE[:at], INVITE[:at] + junk + INVITE[at + cut :]):
        try:
            message = parse(data)
        except Malformed as error:
            if error.request is not None:
                bytes(respond(error.request, 400))
            continue
        if isinstance(message, SipRequest):
            stamp(message, Peer("udp", "192.0.2.3", 5060))
            bytes(respond(message, 200, "x"))
