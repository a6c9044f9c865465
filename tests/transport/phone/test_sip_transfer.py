"""What we do to a call in the middle of it, in virtual time: an attended transfer, holding the line."""

from __future__ import annotations

import asyncio
from urllib.parse import unquote

import pytest
from aiosipua.message import SipRequest

from tests.transport.phone.sip_wire import OFFER, Wire, sip
from tests.transport.phone.test_sip_call import leg, phone_call, run
from transport.phone.call import PhoneCall
from transport.phone.rtp_stream import GONE_S
from transport.phone.sip_message import respond, sdp_of, with_body
from transport.phone.tools import Unable


def calls(wire: Wire) -> dict[str, PhoneCall]:
    """By Call-ID."""
    return {call._leg.dialog.call_id: call for call in wire.rig.calls._calls.values()}  # type: ignore[attr-defined]


def agree(wire: Wire, invite: SipRequest, direction: str, tag: str) -> None:
    """Their 200 to our INVITE in the dialog."""
    answer = respond(invite, 200, tag)
    with_body(answer, OFFER.replace("a=sendrecv", f"a={direction}"))
    wire.say(bytes(answer))


@pytest.mark.parametrize(("status", "worked"), [(200, True), (486, False)])
def test_they_are_sent_on_to_whom_we_talked_to_before(status: int, worked: bool) -> None:
    async def main(wire: Wire) -> None:
        tags = {name: await wire.call(name) for name in ("caller", "colleague")}
        caller, colleague = (calls(wire)[name] for name in ("caller", "colleague"))
        joining = asyncio.create_task(caller.join(colleague))
        await asyncio.sleep(0.1)
        (refer,) = wire.asked("REFER")
        assert refer.call_id == "caller"
        uri, _, replaces = (refer.headers.get_first("refer-to") or "").strip("<>").partition("?Replaces=")
        assert uri == "sip:a@127.0.0.1:5999", "where the colleague is"
        # As the colleague's telephone sees that call: "to" is its own tag, "from" is ours.
        assert unquote(replaces) == f"colleague;to-tag=tcolleague;from-tag={tags['colleague']}"
        assert not set(";=@") & set(replaces)
        wire.reply(refer, 202)
        told = f"SIP/2.0 {status} X"
        wire.say(sip("NOTIFY", "caller", 2, tags["caller"], body=told, extra="Event: refer\r\n"))
        if worked:
            await joining
            assert {bye.call_id for bye in wire.asked("BYE")} == {"caller", "colleague"}
            for bye in wire.asked("BYE"):
                wire.reply(bye)
            return
        with pytest.raises(Unable, match=str(status)):
            await joining
        assert len(wire.endpoint) == 2, "both calls go on"
        for name, tag in tags.items():
            wire.say(sip("BYE", name, 3, tag))

    run(main)


def test_nobody_is_joined_with_a_call_that_is_over_or_with_itself() -> None:
    async def main(wire: Wire) -> None:
        tags = {name: await wire.call(name) for name in ("caller", "colleague")}
        caller, colleague = (calls(wire)[name] for name in ("caller", "colleague"))
        with pytest.raises(Unable):
            await caller.join(caller)
        wire.say(sip("BYE", "colleague", 2, tags["colleague"]))
        with pytest.raises(Unable):
            await caller.join(colleague)
        assert not wire.asked("REFER")
        wire.say(sip("BYE", "caller", 2, tags["caller"]))

    run(main)


def test_we_hold_the_line_and_take_it_up_again() -> None:
    async def main(wire: Wire) -> None:
        tag = await wire.call("c")
        call = phone_call(wire)
        call.hold(True)
        (hold,) = wire.asked("INVITE")
        assert "a=sendonly\r\n" in (sdp_of(hold) or "")
        agree(wire, hold, "recvonly", "tc")
        assert leg(wire).speaker.deaf
        assert not leg(wire).speaker.muted, "they hear our music"
        await asyncio.sleep(2 * GONE_S)
        assert len(wire.endpoint) == 1, "whom we told to be silent is not taken for gone"
        wire.say(sip("INVITE", "c", 2, tag))  # theirs meanwhile is answered as one that is held
        assert "a=sendonly\r\n" in (sdp_of(wire.messages()[-1]) or "")
        wire.say(sip("ACK", "c", 2, tag, branch="a2", body=""))
        call.hold(False)
        back = wire.asked("INVITE")[-1]
        assert "a=sendrecv\r\n" in (sdp_of(back) or "")
        agree(wire, back, "sendrecv", "tc")
        assert not leg(wire).speaker.deaf
        wire.say(sip("BYE", "c", 3, tag))

    run(main)


def test_a_hold_that_was_taken_back_before_it_was_answered() -> None:
    async def main(wire: Wire) -> None:
        tag = await wire.call("c")
        call = phone_call(wire)
        call.hold(True)
        call.hold(False)
        (first,) = wire.asked("INVITE")
        agree(wire, first, "recvonly", "tc")
        await asyncio.sleep(0.1)
        last = wire.asked("INVITE")[-1]
        assert "a=sendrecv\r\n" in (sdp_of(last) or "")
        agree(wire, last, "sendrecv", "tc")
        assert not leg(wire).speaker.deaf
        wire.say(sip("BYE", "c", 2, tag))

    run(main)


def test_when_both_change_the_call_at_once_ours_goes_again() -> None:
    async def main(wire: Wire) -> None:
        tag = await wire.call("c")
        phone_call(wire).hold(True)
        (first,) = wire.asked("INVITE")
        wire.reply(first, 491)
        await asyncio.sleep(5.0)
        again = [each for each in wire.asked("INVITE") if each.cseq != first.cseq]
        assert "a=sendonly\r\n" in (sdp_of(again[0]) or "")
        agree(wire, again[-1], "recvonly", "tc")
        assert leg(wire).speaker.deaf
        wire.say(sip("BYE", "c", 2, tag))

    run(main)
