"""We call somebody, in virtual time: early media, a password, who does not answer, who answers too late."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiosipua.message import SipRequest

from tests.transport.phone.calling import phone_config
from tests.transport.phone.sip_wire import OFFER, PEER, Wire
from tests.transport.phone.test_sip_call import leg, phone_call
from tests.transport.phone.test_sip_call import run as run_wire
from transport.phone import sip_endpoint
from transport.phone.config import PhoneConfig, TrunkConfig
from transport.phone.policy import Policy
from transport.phone.sip_call import State
from transport.phone.sip_message import Peer, respond, with_body
from transport.phone.sip_outbound import NO_ANSWER_S
from transport.phone.sip_transactions import LIFE_S

ULAW = OFFER.replace("RTP/AVP 96 9 0 8", "RTP/AVP 0")
CHALLENGE = {"WWW-Authenticate": 'Digest realm="there", nonce="n1", qop="auth", algorithm=MD5'}


class Called:
    """A call of ours, and what its application is told."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.told: list[dict[str, Any]] = []
        wire.rig.calls.dialler = wire.endpoint.dial

    async def dial(self) -> SipRequest:
        """Our first INVITE."""
        self.wire.rig.calls.dial("sip:bob@127.0.0.1:5999", "", {})
        phone_call(self.wire).watch(self.told.append)
        return await self.invited()

    async def invited(self, count: int = 1) -> SipRequest:
        """Our INVITE number ``count``."""
        await self.wire.eventually(lambda: len(self.wire.asked("INVITE")) >= count)
        return self.wire.asked("INVITE")[count - 1]

    def reply(self, invite: SipRequest, status: int, body: str = "", **headers: str) -> None:
        answer = respond(invite, status, "bob", {"Contact": "<sip:bob@127.0.0.1:5999>"} | headers)
        if body:
            with_body(answer, body)
        self.wire.say(bytes(answer))

    @property
    def ended(self) -> str:
        """Why, as the application was told."""
        (event,) = [event for event in self.told if event["type"] == "parley.call.ended"]
        return str(event["reason"])


def run(
    monkeypatch: pytest.MonkeyPatch, main: Callable[[Called], Awaitable[None]], config: PhoneConfig | None = None
) -> None:
    async def there(*_: str) -> Peer:
        return PEER

    async def whole(wire: Wire) -> None:
        await main(Called(wire))

    monkeypatch.setattr(sip_endpoint, "resolve", there)
    run_wire(whole, config)


def test_early_media_opens_the_way_and_is_nobody_s_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(called: Called) -> None:
        invite = await called.dial()
        called.reply(invite, 183, ULAW)
        call = leg(called.wire)
        assert call.speaker.kind.name == "PCMU"
        assert call.speaker._timer is not None, "our packets open the way for theirs"
        assert call.state is State.RINGING
        assert not called.wire.rig.of("response.created"), "nobody is greeted"
        called.reply(invite, 200)  # as agreed
        assert call.state.name == "UP"
        await called.wire.eventually(lambda: bool(called.wire.rig.of("response.created")))
        phone_call(called.wire).hang_up("enough")
        called.wire.reply(called.wire.asked("BYE")[0])
        assert called.ended == "enough"

    run(monkeypatch, main, phone_config(Policy(greeting="Hello.")))


@pytest.mark.parametrize("status", [486, 404, 603])
def test_an_application_is_told_why_nobody_answers(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    async def main(called: Called) -> None:
        called.reply(await called.dial(), status)
        assert called.ended == f"sip_{status}"

    run(monkeypatch, main)


def test_who_is_not_there_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(called: Called) -> None:
        await called.dial()
        await called.wire.eventually(lambda: not len(called.wire.endpoint), 2 * LIFE_S)
        assert called.ended == "request_timeout"
        assert not called.wire.asked("CANCEL"), "nothing is cancelled that was never heard of"

    run(monkeypatch, main)


def test_it_does_not_ring_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(called: Called) -> None:
        invite = await called.dial()
        called.reply(invite, 180)
        await called.wire.eventually(lambda: bool(called.wire.asked("CANCEL")), 2 * NO_ANSWER_S)
        cancel = called.wire.asked("CANCEL")[0]
        assert cancel.via[0].branch == invite.via[0].branch
        called.wire.reply(cancel)
        called.reply(invite, 487)
        assert called.wire.asked("ACK")[-1].headers.get_first("cseq") == "1 ACK"
        assert called.ended == "no_answer"

    run(monkeypatch, main)


def test_who_answers_when_we_have_given_up_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(called: Called) -> None:
        invite = await called.dial()
        phone_call(called.wire).hang_up()  # before any answer: there is nothing to cancel yet
        assert not called.wire.asked("CANCEL")
        called.reply(invite, 200, ULAW)
        assert called.wire.asked("ACK")
        called.wire.reply(called.wire.asked("BYE")[0])

    run(monkeypatch, main)


def test_a_password_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(called: Called) -> None:
        called.reply(await called.dial(), 401, **CHALLENGE)
        again = await called.invited(2)
        assert 'username="4930"' in (again.headers.get_first("authorization") or "")
        called.reply(again, 401, **CHALLENGE)
        assert called.ended == "sip_401"
        assert len(called.wire.asked("INVITE")) == 2

    run(monkeypatch, main, phone_config(trunk=TrunkConfig("127.0.0.1:5999", "4930", "secret")))


def test_a_session_timer_as_long_as_they_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(called: Called) -> None:
        first = await called.dial()
        assert first.headers.get_first("session-expires") == "1800"
        called.reply(first, 422, **{"Min-SE": "3600"})
        again = await called.invited(2)
        assert again.headers.get_first("session-expires") == "3600"
        called.reply(again, 422, **{"Min-SE": "3600"})
        assert called.ended == "sip_422", "who wants the same again gets nothing more"

    run(monkeypatch, main)


def test_an_answer_without_a_codec_of_ours_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(called: Called) -> None:
        called.reply(await called.dial(), 200, OFFER.replace("RTP/AVP 96 9 0 8 13", "RTP/AVP 18"))
        called.wire.reply(called.wire.asked("BYE")[0])
        assert called.ended == "no common codec"

    run(monkeypatch, main)
