"""A SIP call from INVITE to BYE, in virtual time: offers late and early, hold, timers, transfer, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
import pytest

from tests import virtual_time
from tests.transport.phone.calling import SIP, phone_config
from tests.transport.phone.rig import Rig, ToyHost
from tests.transport.phone.sip_wire import OFFER, PEER, Wire, sip
from transport.phone import sdes, sdp
from transport.phone.call import PhoneCall
from transport.phone.config import PhoneConfig
from transport.phone.policy import Policy
from transport.phone.sip_call import SipCall
from transport.phone.sip_message import Peer, sdp_of
from transport.phone.tools import Unable


def run(main: Callable[[Wire], Awaitable[None]], config: PhoneConfig | None = None) -> None:
    async def whole() -> None:
        wire = Wire(Rig(config=config or phone_config(), host=ToyHost()))
        await main(wire)
        await wire.gone()

    virtual_time.run(whole())


def leg(wire: Wire) -> SipCall:
    (found,) = wire.endpoint._calls.values()
    return found


def phone_call(wire: Wire) -> PhoneCall:
    (found,) = wire.rig.calls._calls.values()
    return found


def test_a_call_and_its_end() -> None:
    async def main(wire: Wire) -> None:
        tag = await wire.call("c")
        assert wire.statuses()[0] == 100
        assert wire.endpoint.ports.in_use == 1
        wire.say(sip("BYE", "c", 2, tag))
        assert wire.statuses("BYE") == [200]

    run(main)


def test_the_session_learns_how_far_away_they_are() -> None:
    async def main(wire: Wire) -> None:
        tag = await wire.call("c")
        replies = phone_call(wire)._call.session._replies
        assert replies._pacing.way_ms == 10
        leg(wire).speaker.round_trip_s = 0.3  # RTCP
        leg(wire)._hear(np.zeros(1600, np.float32), 16_000)
        assert replies._pacing.way_ms == 150
        wire.say(sip("BYE", "c", 2, tag))

    run(main)


def test_without_an_offer_ours_is_in_the_answer_and_theirs_in_the_ack() -> None:
    async def main(wire: Wire) -> None:
        wire.say(sip("INVITE", "c", body=""))
        answer = await wire.until(200)
        offered = sdp.read(sdp_of(answer) or "")
        assert next(kind.name for kind, _ in offered.codecs) == "opus"
        tag = answer.to_addr.tag  # type: ignore[union-attr]
        theirs = sdp.offer(sdp.Local("127.0.0.1", 5998, 1)).replace("RTP/AVP 96 9 0 8", "RTP/AVP 0")
        wire.say(sip("ACK", "c", to=tag, branch="a", body=theirs))
        assert leg(wire).speaker.kind.name == "PCMU"
        wire.say(sip("BYE", "c", 2, tag))

    run(main)


def test_a_call_that_is_encrypted_stays_so() -> None:
    async def main(wire: Wire) -> None:
        wire.say(sip("INVITE", "c", body=sdp.offer(sdp.Local("127.0.0.1", 5998, 1, crypto=sdes.Crypto.new()))))
        answer = await wire.until(200)
        assert "RTP/SAVP" in (sdp_of(answer) or "")
        tag = answer.to_addr.tag  # type: ignore[union-attr]
        wire.say(sip("ACK", "c", to=tag, branch="a", body=""))
        cipher = leg(wire).speaker._cipher
        wire.say(sip("INVITE", "c", 2, tag, body=OFFER, branch="b"))
        assert wire.statuses()[-1] == 488
        assert leg(wire).speaker._cipher is cipher
        wire.say(sip("BYE", "c", 3, tag))

    run(main)


def test_an_ack_that_owes_us_an_answer_ends_the_call() -> None:
    async def main(wire: Wire) -> None:
        wire.say(sip("INVITE", "c", body=""))
        answer = await wire.until(200)
        wire.say(sip("ACK", "c", to=answer.to_addr.tag, branch="a", body=""))  # type: ignore[union-attr, arg-type]
        (bye,) = wire.asked("BYE")
        wire.reply(bye)

    run(main)


def test_hold_and_resume_by_another_invite() -> None:
    async def main(wire: Wire) -> None:
        tag = await wire.call("c")
        for seq, direction, ours in (
            (2, "sendonly", "recvonly"),
            (3, "inactive", "inactive"),
            (4, "sendrecv", "sendrecv"),
        ):
            wire.say(sip("INVITE", "c", seq, tag, body=OFFER.replace("a=sendrecv", f"a={direction}")))
            answer = wire.messages()[-1]
            assert f"a={ours}\r\n" in (sdp_of(answer) or "")
            assert leg(wire).speaker.muted == (direction != "sendrecv")
            wire.say(sip("ACK", "c", seq, tag, branch=f"a{seq}", body=""))
        wire.say(sip("INVITE", "c", 5, tag, body=OFFER.replace("RTP/AVP 96 9 0 8 13", "RTP/AVP 18")))
        assert wire.statuses()[-1] == 488
        wire.say(sip("BYE", "c", 6, tag))

    run(main)


def test_what_is_out_of_order_or_of_no_dialog_is_refused() -> None:
    async def main(wire: Wire) -> None:
        tag = await wire.call("c")
        wire.say(sip("INFO", "c", 1, tag, branch="old"))
        assert wire.statuses("INFO") == [500]
        wire.say(sip("BYE", "c", 9, "nobody"))
        assert wire.statuses("BYE") == [481]
        wire.say(sip("REFER", "c", 10, tag))
        assert wire.statuses("REFER") == [603]
        wire.say(sip("INFO", "c", 11, tag))
        assert wire.statuses("INFO") == [500, 200]
        await asyncio.sleep(3.0)
        assert "pressed 5" in str(wire.rig.of("conversation.item.added"))
        wire.say(sip("BYE", "c", 12, tag))

    run(main)


def test_we_refresh_the_session_when_that_is_ours() -> None:
    async def main(wire: Wire) -> None:
        tag = await wire.call("c", "Supported: timer\r\nSession-Expires: 100;refresher=uas\r\n")
        assert (await wire.until(200)).headers.get_first("session-expires") == "100;refresher=uas"
        await asyncio.sleep(51.0)
        (invite, *_) = wire.asked("INVITE")
        answer = sip("INVITE", "x")  # only its body is wanted
        response = bytes(_answer(invite, answer))
        wire.say(response)
        assert wire.asked("ACK")
        wire.say(sip("BYE", "c", 2, tag))

    def _answer(invite: object, _: bytes) -> object:
        from transport.phone.sip_message import respond, with_body

        made = respond(invite, 200)  # type: ignore[arg-type]
        with_body(made, OFFER)
        return made

    run(main)


def test_who_should_refresh_and_does_not_is_hung_up_on() -> None:
    async def main(wire: Wire) -> None:
        await wire.call("c", "Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n")
        keep = asyncio.create_task(packets(wire))
        await asyncio.sleep(61.0)
        keep.cancel()
        (bye, *_) = wire.asked("BYE")
        wire.reply(bye)

    async def packets(wire: Wire) -> None:
        while True:
            leg(wire).speaker._heard_s = asyncio.get_running_loop().time()
            await asyncio.sleep(1.0)

    run(main)


def test_nobody_is_there() -> None:
    async def main(wire: Wire) -> None:
        await wire.call("c")
        await asyncio.sleep(61.0)
        (bye, *_) = wire.asked("BYE")
        wire.reply(bye)

    run(main)


@pytest.mark.parametrize(("status", "worked"), [(200, True), (486, False)])
def test_a_transfer_is_over_when_they_say_so(status: int, worked: bool) -> None:
    async def main(wire: Wire) -> None:
        tag = await wire.call("c")
        sending = asyncio.create_task(phone_call(wire).transfer("sip:bob@127.0.0.1"))
        await asyncio.sleep(0.1)
        (refer,) = wire.asked("REFER")
        assert refer.headers.get_first("refer-to") == "<sip:bob@127.0.0.1>"
        wire.reply(refer, 202)
        for seq, told in ((2, 100), (3, status)):
            wire.say(sip("NOTIFY", "c", seq, tag, body=f"SIP/2.0 {told} X", extra="Event: refer\r\n"))
        assert wire.statuses("NOTIFY") == [200, 200]
        if worked:
            await sending
            (bye, *_) = wire.asked("BYE")
            wire.reply(bye)
            return
        with pytest.raises(Unable, match=str(status)):
            await sending
        wire.say(sip("BYE", "c", 4, tag))

    run(main)


def test_a_stranger_is_asked_for_a_password_or_turned_away() -> None:
    stranger = Peer("udp", "198.51.100.9", 5060)

    async def challenged(wire: Wire) -> None:
        wire.say(sip("INVITE", "c"), stranger)
        assert wire.statuses() == [401]
        assert "nonce" in (wire.messages()[0].headers.get_first("www-authenticate") or "")

    async def refused(wire: Wire) -> None:
        wire.say(sip("INVITE", "c"), stranger)
        assert wire.statuses() == [403]

    run(challenged, phone_config(sip=replace(SIP, users={"a": "b"})))
    run(refused)


@pytest.mark.parametrize(
    ("config", "status"),
    [
        (phone_config(Policy(callers=("x",))), 403),
        (replace(phone_config(), default=None), 404),
        (phone_config(Policy(hours=())), 200),
    ],
)
def test_codes_that_mean_what_they_say(config: PhoneConfig, status: int) -> None:
    async def main(wire: Wire) -> None:
        wire.say(sip("INVITE", "c"))
        answer = await wire.until(status)
        if status == 200:
            tag = answer.to_addr.tag or ""  # type: ignore[union-attr]
            wire.say(sip("ACK", "c", to=tag, branch="a", body=""))
            wire.say(sip("BYE", "c", 2, tag))

    run(main, config)


def test_every_port_is_taken() -> None:
    async def main(wire: Wire) -> None:
        tag = await wire.call("a")
        wire.say(sip("INVITE", "b"))
        await wire.until(486)
        wire.say(sip("BYE", "a", 2, tag))

    run(main, phone_config(sip=replace(SIP, rtp_ports=(21000, 21001))))


def test_a_mistake_of_ours_is_500_and_no_other_call_s(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(wire: Wire) -> None:
        tag = await wire.call("a")

        def broken(*_: object) -> None:
            raise RuntimeError("a mistake")

        monkeypatch.setattr(wire.rig.calls, "open", broken)
        wire.say(sip("INVITE", "b"))
        await wire.until(500)
        assert len(wire.endpoint) == 1
        wire.say(sip("BYE", "a", 2, tag))

    run(main)


def test_somebody_else_s_message_is_not_ours() -> None:
    async def main(wire: Wire) -> None:
        wire.say(sip("BYE", "x", 1, "y"), PEER)
        wire.say(sip("CANCEL", "x"))
        wire.say(sip("PUBLISH", "x"))
        wire.say(sip("OPTIONS", "x"))
        wire.say(sip("ACK", "x"))
        assert [wire.statuses(method) for method in ("BYE", "CANCEL", "PUBLISH", "OPTIONS", "ACK")] == [
            [481], [481], [405], [200], [],
        ]  # fmt: skip

    run(main)
