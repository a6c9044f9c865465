from __future__ import annotations

from aiosipua.message import SipRequest, SipResponse

from transport.phone.sip_message import Message, Peer, parse, respond
from transport.phone.sip_transactions import LIFE_S, T1_S, T2_S, Transactions

UDP, TCP = Peer("udp", "192.0.2.9", 5060), Peer("tcp", "192.0.2.9", 5060)


def request(method: str = "INVITE", branch: str = "z9hG4bKa", seq: int = 1, to_tag: str = "") -> SipRequest:
    text = (
        f"{method} sip:100@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch={branch}\r\n"
        f"From: <sip:a@192.0.2.9>;tag=theirs\r\nTo: <sip:100@192.0.2.1>{to_tag and ';tag=' + to_tag}\r\n"
        f"Call-ID: c1\r\nCSeq: {seq} {method}\r\nContact: <sip:a@192.0.2.9>\r\n\r\n"
    )
    message = parse(text.encode())
    assert isinstance(message, SipRequest)
    return message


class Bench:
    """Transactions with a wire that only remembers."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, Message]] = []
        self.now = 0.0
        self.transactions = Transactions(lambda message, _: self.sent.append((self.now, message)))

    def until(self, now: float) -> None:
        """Time passes."""
        while (at_s := self.transactions.deadline) is not None and at_s <= now:
            self.now = at_s
            self.transactions.wake(at_s)
        self.now = now

    def receive(self, message: Message, peer: Peer = UDP) -> SipRequest | None:
        return self.transactions.received(message, peer, self.now)

    def times(self) -> list[float]:
        return [at_s for at_s, _ in self.sent]


# --- theirs ---


def test_a_request_comes_once_and_its_answer_as_often_as_it_is_asked_for() -> None:
    bench, invite = Bench(), request()
    assert bench.receive(invite) is invite
    assert bench.receive(request()) is None
    assert not bench.sent, "nothing was answered yet"
    bench.transactions.answer(invite, respond(invite, 180, "ours"), bench.now)
    assert bench.receive(request()) is None
    assert [message.status_code for _, message in bench.sent if isinstance(message, SipResponse)] == [180, 180]


def test_an_error_is_said_again_until_it_is_acknowledged() -> None:
    bench, invite = Bench(), request()
    bench.receive(invite)
    bench.transactions.answer(invite, respond(invite, 486, "ours"), 0.0)
    bench.until(4.0)
    assert bench.times() == [0.0, T1_S, 3 * T1_S, 7 * T1_S]
    assert bench.receive(request("ACK", to_tag="ours")) is None, "the ACK of an error is nobody else's business"
    bench.until(100.0)
    assert len(bench.sent) == 4
    assert not len(bench.transactions)


def test_a_200_is_said_again_until_its_ack_comes_which_is_the_call_s() -> None:
    bench, invite = Bench(), request()
    bench.receive(invite)
    missed: list[float] = []
    bench.transactions.answer(invite, respond(invite, 200, "ours"), 0.0, lambda: missed.append(bench.now))
    bench.until(1.0)
    ack = request("ACK", branch="z9hG4bKother", to_tag="ours")
    assert bench.receive(ack) is ack
    bench.until(100.0)
    assert bench.times() == [0.0, T1_S]
    assert not missed
    assert not len(bench.transactions)


def test_a_200_that_is_never_acknowledged_is_noticed() -> None:
    for peer in (UDP, TCP):
        bench, invite = Bench(), request()
        bench.receive(invite, peer)
        missed: list[float] = []
        bench.transactions.answer(invite, respond(invite, 200, "ours"), 0.0, lambda m=missed, b=bench: m.append(b.now))
        bench.until(100.0)
        assert missed == [LIFE_S]
        assert max(b - a for a, b in zip(bench.times(), bench.times()[1:], strict=False)) <= T2_S
        assert not len(bench.transactions)


def test_a_cancel_finds_what_it_is_about() -> None:
    bench, invite = Bench(), request()
    bench.receive(invite)
    cancel = request("CANCEL")
    assert bench.receive(cancel) is cancel
    assert bench.transactions.invite_of(cancel) == (invite, None)
    answer = respond(invite, 200, "ours")
    bench.transactions.answer(invite, answer, 0.0)
    assert bench.transactions.invite_of(cancel) == (invite, answer)
    assert bench.transactions.invite_of(request("CANCEL", branch="z9hG4bKnone")) is None


def test_an_answered_bye_is_remembered_over_udp_and_then_forgotten() -> None:
    bench, bye = Bench(), request("BYE", seq=2, to_tag="ours")
    bench.receive(bye)
    bench.transactions.answer(bye, respond(bye, 200, "ours"), 0.0)
    bench.until(10.0)
    assert bench.receive(request("BYE", seq=2, to_tag="ours")) is None
    assert len(bench.sent) == 2
    bench.until(100.0)
    assert not len(bench.transactions)


# --- ours ---


def asked(bench: Bench, method: str, peer: Peer = UDP) -> tuple[SipRequest, list[SipResponse | None]]:
    heard: list[SipResponse | None] = []
    ours = request(method)
    bench.transactions.start(ours, peer, bench.now, heard.append)
    return ours, heard


def test_a_request_is_sent_again_until_it_is_given_up() -> None:
    bench = Bench()
    _, heard = asked(bench, "BYE")
    bench.until(100.0)
    assert bench.times()[:5] == [0.0, T1_S, 3 * T1_S, 7 * T1_S, 15 * T1_S]
    assert max(b - a for a, b in zip(bench.times(), bench.times()[1:], strict=False)) <= T2_S
    assert heard == [None]
    assert not len(bench.transactions)


def test_where_there_is_no_connection_nobody_is_waited_for() -> None:
    bench = Bench()
    heard: dict[str, list[SipResponse | None]] = {"nothing": [], "ringing": [], "elsewhere": []}
    for name, peer in (("nothing", TCP), ("ringing", TCP), ("elsewhere", UDP)):
        bench.transactions.start(request(branch=f"z9hG4bK{name}"), peer, 0.0, heard[name].append)
    bench.receive(respond(request(branch="z9hG4bKringing"), 180))
    bench.transactions.lost(TCP)
    assert heard["nothing"] == [None]
    assert [answer is None for answer in heard["ringing"]] == [False], "they may call back"
    assert heard["elsewhere"] == []


def test_over_tcp_nothing_is_said_twice() -> None:
    bench = Bench()
    _, heard = asked(bench, "INVITE", TCP)
    bench.until(100.0)
    assert len(bench.sent) == 1
    assert heard == [None]


def test_a_provisional_answer_stops_an_invite_s_repetition() -> None:
    bench = Bench()
    invite, heard = asked(bench, "INVITE")
    bench.receive(respond(invite, 180, "theirs"))
    bench.until(50.0)
    assert len(bench.sent) == 1
    bench.receive(respond(invite, 200, "theirs"))
    bench.receive(respond(invite, 200, "theirs"))
    assert [answer.status_code for answer in heard if answer] == [180, 200, 200], "each 200 wants its ACK"


def test_an_error_is_acknowledged_as_often_as_it_comes_and_told_once() -> None:
    bench = Bench()
    invite, heard = asked(bench, "INVITE")
    for _ in range(3):
        bench.receive(respond(invite, 486, "theirs"))
    acks = [message for _, message in bench.sent if isinstance(message, SipRequest) and message.method == "ACK"]
    assert len(acks) == 3
    assert acks[0].via[0].branch == invite.via[0].branch
    assert acks[0].to_addr is not None
    assert acks[0].to_addr.tag == "theirs"
    assert [answer.status_code for answer in heard if answer] == [486]
    bench.until(100.0)
    assert not len(bench.transactions)


def test_an_answer_to_nothing_is_nothing() -> None:
    bench = Bench()
    bench.receive(respond(request("BYE"), 200, "x"))
    assert not bench.sent
