"""Somebody calls us, in virtual time: what they hear while it rings, and under which address they reach us."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.transport.phone.calling import SIP, phone_config
from tests.transport.phone.sip_wire import OFFER, Wire, sip
from tests.transport.phone.test_sip_call import leg, run
from transport.phone import calls, sdp
from transport.phone.call import About
from transport.phone.policy import Policy
from transport.phone.rtp_sender import RtpSender
from transport.phone.sip_message import sdp_of

ASKED = Policy(webhook="https://app.example.com/calls")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[About]:
    """What an application was told of; it takes its time."""
    abouts: list[About] = []

    async def post(_url: str, _secret: str, about: About) -> None:
        abouts.append(about)

    monkeypatch.setattr(calls, "post", post)
    return abouts


@pytest.mark.parametrize(("early", "status"), [(False, 180), (True, 183)])
def test_what_they_hear_while_an_application_decides(told: list[About], early: bool, status: int) -> None:
    async def main(wire: Wire) -> None:
        heard: list[Any] = []
        wire.say(sip("INVITE", "c"))
        ringing = await wire.until(status)
        assert (sdp_of(ringing) is not None) == early
        call = leg(wire)
        if early:
            sender: RtpSender = call.speaker._sender
            sound = sender.sound

            def noted(pcm: Any, rate_hz: int) -> None:
                heard.append(pcm)
                sound(pcm, rate_hz)

            sender.sound = noted  # type: ignore[method-assign]
        await asyncio.sleep(1.0)
        assert bool(heard) == early, "music, or their own ringing"
        assert wire.rig.service.sessions == 0, "no session yet"
        wire.rig.calls.accept(told[0].id, {})
        answer = await wire.until(200)
        count = len(heard)
        tag = answer.to_addr.tag or ""  # type: ignore[union-attr]
        if early:
            assert tag == ringing.to_addr.tag, "one dialog"  # type: ignore[union-attr]
            first, then = (sdp.read(sdp_of(each) or "") for each in (ringing, answer))
            assert replace(first) == then
            assert np.abs(np.concatenate(heard)).max() > 0.05
        wire.say(sip("ACK", "c", to=tag, branch="a", body=""))
        await asyncio.sleep(0.5)
        assert len(heard) == count, "the music is over"
        wire.say(sip("BYE", "c", 2, tag))

    run(main, phone_config(replace(ASKED, early_media=early)))


def test_behind_nat_we_say_the_address_that_others_see() -> None:
    async def main(wire: Wire) -> None:
        wire.say(sip("INVITE", "c"))
        answer = await wire.until(200)
        assert "203.0.113.5" in (answer.headers.get_first("contact") or "")
        ours = sdp.read(sdp_of(answer) or "")
        assert ours.host == "203.0.113.5"
        first, last = SIP.rtp_ports
        assert first <= ours.port <= last
        tag = answer.to_addr.tag or ""  # type: ignore[union-attr]
        wire.say(sip("ACK", "c", to=tag, branch="a", body=""))
        wire.endpoint.calls._calls[leg(wire).about.id].hang_up()
        (bye,) = wire.asked("BYE")
        assert bye.via[0].host == "203.0.113.5"
        wire.reply(bye)

    run(main, phone_config(sip=replace(SIP, public_address="203.0.113.5")))


def test_who_gives_up_while_it_rings_leaves_nothing(told: list[About]) -> None:
    async def main(wire: Wire) -> None:
        wire.say(sip("INVITE", "c"))
        await wire.until(180)
        wire.say(sip("CANCEL", "c", branch="c1", body=""))
        assert wire.statuses("CANCEL") == [200]
        answer = await wire.until(487)
        wire.say(sip("ACK", "c", to=answer.to_addr.tag or "", branch="c1", body=""))  # type: ignore[union-attr]
        await asyncio.sleep(0.1)
        assert not wire.rig.calls.rings(told[0].id)

    run(main, phone_config(ASKED))


def test_two_ways_lead_to_us_and_it_rings_once(told: list[About]) -> None:
    async def main(wire: Wire) -> None:
        wire.say(sip("INVITE", "c", body=OFFER))
        wire.say(sip("INVITE", "c", body=OFFER, branch="another"))
        assert wire.statuses() == [100, 482]
        await wire.until(180)
        wire.rig.calls.reject(told[0].id, 603)
        await wire.until(603)

    run(main, phone_config(ASKED))
