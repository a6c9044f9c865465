from __future__ import annotations

from aiosipua.message import SipRequest, SipResponse

from tests.transport.phone.test_sip_message import INVITE
from transport.phone.sip_dialog import Dialog, Here
from transport.phone.sip_message import Peer, parse, respond

PEER, HERE = Peer("udp", "203.0.113.1", 6000), Here("192.0.2.1", 5060, "udp")


def invite(extra: bytes = b"") -> SipRequest:
    message = parse(INVITE.replace(b"Content-Length: 0\r\n", extra + b"Content-Length: 0\r\n"))
    assert isinstance(message, SipRequest)
    return message


def test_our_requests_in_a_call_of_theirs() -> None:
    dialog = Dialog.of_invite(invite(b"Record-Route: <sip:p1;lr>\r\nRecord-Route: <sip:p2;lr>\r\n"), PEER, HERE)
    bye = dialog.request("BYE")
    assert bye.uri == "sip:a@10.0.0.7"
    assert bye.headers.get("route") == ["<sip:p1;lr>", "<sip:p2;lr>"]
    assert bye.headers.get_first("to") == '"A" <sip:+49170@10.0.0.7>;tag=t1'
    assert bye.headers.get_first("from") == f"<sip:+4930123@192.0.2.1>;tag={dialog.local_tag}"
    assert [dialog.request("INFO").cseq.seq, dialog.request("INFO").cseq.seq] == [2, 3]  # type: ignore[union-attr]


def test_their_requests_in_it() -> None:
    dialog = Dialog.of_invite(invite(), PEER, HERE)
    bye = parse(
        INVITE.replace(b"INVITE", b"BYE")
        .replace(b"CSeq: 7", b"CSeq: 8")
        .replace(b"To: <sip:+4930123@192.0.2.1>", f"To: <sip:+4930123@192.0.2.1>;tag={dialog.local_tag}".encode())
    )
    assert isinstance(bye, SipRequest)
    assert dialog.matches(bye)
    assert dialog.in_order(bye)
    assert not dialog.in_order(bye), "a number counts once"
    assert not dialog.matches(invite())


def test_a_call_of_ours_goes_where_their_answer_says() -> None:
    dialog = Dialog.calling("sip:bob@203.0.113.1", "sip:us@192.0.2.1", "c9", PEER, HERE)
    ours = dialog.request("INVITE")
    assert ours.headers.get_first("to") == "<sip:bob@203.0.113.1>"
    answer = respond(ours, 200, "bobs")
    assert isinstance(answer, SipResponse)
    answer.headers.append("Contact", "<sip:bob@10.9.9.9:7000>")
    for route in ("<sip:near;lr>", "<sip:far;lr>"):
        answer.headers.append("Record-Route", route)
    dialog.answered(answer)
    ack = dialog.request("ACK", 1)
    assert (ack.uri, ack.headers.get("route")) == ("sip:bob@10.9.9.9:7000", ["<sip:far;lr>", "<sip:near;lr>"])
    assert ack.headers.get_first("to") == "<sip:bob@203.0.113.1>;tag=bobs"
    assert ack.headers.get_first("cseq") == "1 ACK"


def test_a_strict_router_is_asked_as_it_wants_it() -> None:
    dialog = Dialog.of_invite(invite(b"Record-Route: <sip:old.example>\r\n"), PEER, HERE)
    bye = dialog.request("BYE")
    assert bye.uri == "sip:old.example"
    assert bye.headers.get("route") == ["<sip:a@10.0.0.7>"]


def test_how_we_are_reached() -> None:
    assert Here("2001:db8::1", 5060, "tcp").contact == "<sip:parley@[2001:db8::1]:5060;transport=tcp>"
    assert HERE.via.startswith("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK")
