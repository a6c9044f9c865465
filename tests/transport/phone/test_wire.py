"""Carriers' messages as their documentation has them (tests/data/wire/phone), and ours to them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import virtual_time
from tests.transport.phone.rig import Link, Rig
from transport.phone.asterisk import Channel, Event
from transport.phone.call import About
from transport.phone.calls import new_id
from transport.phone.config import PhoneConfig
from transport.phone.line import START_S, Carrier, Line
from transport.phone.media_stream import TELNYX, TWILIO, MediaStream
from transport.phone.policy import Policy

WIRE = Path(__file__).parents[2] / "data" / "wire" / "phone"
OURS = [json.loads(line) for line in (WIRE / "ours.jsonl").read_text().splitlines()]
MAKERS: dict[str, Callable[[Line], Carrier]] = {
    "twilio": lambda line: MediaStream(line, TWILIO),
    "telnyx": lambda line: MediaStream(line, TELNYX),
    "asterisk": lambda line: Channel(line, About(new_id(), "asterisk", "+15550100200", "+15550100300")),
    "asterisk words": lambda line: Channel(line, About(new_id(), "asterisk", "+15550100200", "+15550100300")),
}


def lines(carrier: str) -> list[str]:
    name = "asterisk.txt" if carrier == "asterisk words" else f"{carrier}.jsonl"
    return (WIRE / name).read_text().splitlines()


class Connected:
    """A carrier's connection, said to message by message."""

    def __init__(self, carrier: str, rig: Rig) -> None:
        self.rig = rig
        self.link = Link(0.0)
        self.said: list[str | bytes] = []
        self.link.take = self.said.append
        self.line = rig.dial(MAKERS[carrier], self.link, carrier)

    async def say(self, *messages: str | bytes) -> None:
        for message in messages:
            self.link.say(message)
            await asyncio.sleep(0.01)

    async def end(self) -> None:
        self.link.leave()
        await self.line


def run(carrier: str, main: Callable[[Connected], Any], config: PhoneConfig | None = None) -> None:
    async def whole() -> None:
        await main(Connected(carrier, Rig(config=config)))

    virtual_time.run(whole())


@pytest.mark.parametrize("carrier", MAKERS)
def test_what_is_documented_is_understood(carrier: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main(connected: Connected) -> None:
        await connected.say(*lines(carrier))
        if carrier.startswith("asterisk"):
            await connected.end()
        await connected.line
        assert connected.link.closed is None or connected.link.closed[0] == 1000
        pressed = connected.rig.of("conversation.item.added")
        assert not pressed or "pressed 1" in str(pressed)
        assert connected.rig.of("session.created")
        assert len(connected.rig.calls) == 0

    run(carrier, main)
    assert not [record for record in caplog.records if "unknown kind" in record.message]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("carrier", MAKERS)
def test_a_key_becomes_a_message(carrier: str) -> None:
    async def main(connected: Connected) -> None:
        dtmf = next(line for line in lines(carrier) if "dtmf" in line.lower())
        await connected.say(*lines(carrier)[: 2 if "asterisk" not in carrier else 1], dtmf)
        await connected.rig.until("response.created")
        added = connected.rig.of("conversation.item.added")[0]
        assert added["item"]["content"][0]["text"] == "[The caller pressed 1 on the telephone's keypad.]"
        await connected.end()

    run(carrier, main)


@pytest.mark.parametrize("expected", OURS, ids=lambda each: f"{each['to']} {each['what']}")
def test_what_we_say_is_what_is_documented(expected: dict[str, str]) -> None:
    async def main(connected: Connected) -> None:
        start = next(line for line in lines(expected["to"]) if "start" in line.lower())
        await connected.say(start.replace("MZXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX", "MZ1"))
        carrier = connected.line.get_coro().cr_frame.f_locals["carrier"]  # type: ignore[union-attr]
        said = {
            "media": lambda: next(iter(carrier.media(b"\x7f\xff", ""))),
            "mark": lambda: list(carrier.media(b"\x7f\xff", "p1"))[1],
            "clear": lambda: next(iter(carrier.clear())),
            "pause": lambda: next(iter(carrier.pause())),
            "resume": lambda: next(iter(carrier.resume())),
            "answer": lambda: next(iter(carrier.accepted())),
            "hang up": lambda: next(iter(carrier.hang_up())),
        }[expected["what"]]()
        assert said == expected["text"]
        await connected.end()

    run(expected["to"], main)


def test_telnyx_chunks_are_put_in_order() -> None:
    async def main(connected: Connected) -> None:
        start, media = lines("telnyx")[1:3]
        heard: list[int] = []
        line = connected.line.get_coro().cr_frame.f_locals["self"]  # type: ignore[union-attr]
        line.hear = lambda data: heard.append(data[0])
        await connected.say(start)
        for chunk in (5, 6, 8, 7, 9, 9, 3, 11, 12, 13, 14, 15, 16):
            event = json.loads(media)
            event["media"] |= {"chunk": str(chunk), "payload": base64.b64encode(bytes([chunk])).decode()}
            await connected.say(json.dumps(event))
        assert heard == [5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16]
        await connected.end()

    run("telnyx", main)


START = {carrier: next(line for line in lines(carrier) if "start" in line.lower()) for carrier in MAKERS}


@pytest.mark.parametrize(
    ("carrier", "messages", "why"),
    [
        ("twilio", ["{"], "not JSON"),
        ("twilio", ["[]"], "no object"),
        ("twilio", [b"\x00"], "binary"),
        ("twilio", ['{"event": "media", "media": {"payload": "AA=="}}'], "must come first"),
        ("twilio", ['{"event": "media", "media": 7}'], "media must be an object"),
        ("twilio", [START["twilio"], START["twilio"]], "twice"),
        ("twilio", [START["twilio"].replace("audio/x-mulaw", "audio/opus")], "audio/x-mulaw at 8000 Hz"),
        ("twilio", [START["twilio"], '{"event": "media", "media": {"payload": "***"}}'], "not base64"),
        ("twilio", [START["twilio"], '{"event": "dtmf", "dtmf": {"digit": "x"}}'], "no key"),
        ("twilio", [START["twilio"], '{"event": "mark", "mark": {}}'], "name must be a string"),
        ("telnyx", [START["telnyx"].replace("PCMU", "AMR-WB")], "PCMU at 8000 Hz"),
        ("asterisk", [b"\x00" * 160], "must come first"),
        ("asterisk", [START["asterisk"].replace("ulaw", "opus")], "dial with c(ulaw)"),
        ("asterisk", [START["asterisk"], START["asterisk"]], "twice"),
        ("asterisk", ["{broken"], "neither JSON nor words"),
        ("asterisk words", [START["asterisk words"].replace("ulaw", "slin"), b"\x00"], "odd"),
        ("asterisk", ["x" * 2_000_000], "too long"),
    ],
)
def test_what_no_carrier_may_say_ends_its_call_with_a_reason(
    carrier: str, messages: list[str | bytes], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(connected: Connected) -> None:
        await connected.say(*messages)
        await connected.line
        assert connected.link.closed is not None
        assert connected.link.closed[0] == 1002
        assert why in connected.link.closed[1]
        assert len(connected.rig.calls) == 0

    run(carrier, main)
    assert why in caplog.text


def test_who_never_says_which_call_it_is_is_let_go() -> None:
    async def main(connected: Connected) -> None:
        started = asyncio.get_running_loop().time()
        await connected.line
        assert connected.link.closed is not None
        assert connected.link.closed[0] == 1008
        assert START_S <= asyncio.get_running_loop().time() - started < START_S + 10

    run("twilio", main)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (PhoneConfig(default=None), "number_not_served"),
        (PhoneConfig(default=Policy(callers=("+49*",))), "caller_not_allowed"),
        (PhoneConfig(default=Policy(voice="nobody's", tools=())), ""),
    ],
)
@pytest.mark.parametrize("carrier", MAKERS)
def test_a_call_that_is_not_taken_is_hung_up_with_the_reason(carrier: str, config: PhoneConfig, code: str) -> None:
    async def main(connected: Connected) -> None:
        await connected.say(START[carrier])
        if not code:
            assert len(connected.rig.calls) == 1
            await connected.end()
            return
        await connected.line
        assert connected.link.closed == (1008, code)
        if carrier.startswith("asterisk"):
            assert "HANGUP" in str(connected.said[-1])
            assert not [message for message in connected.said if "ANSWER" in str(message)]

    run(carrier, main, config)


def test_its_time_is_over() -> None:
    async def main(connected: Connected) -> None:
        started = asyncio.get_running_loop().time()
        await connected.say(START["twilio"])
        await connected.line
        assert connected.link.closed == (1000, "the call's time is over")
        assert 59 < asyncio.get_running_loop().time() - started < 61

    run("twilio", main, PhoneConfig(default=Policy(max_minutes=1)))


def test_a_full_engine_is_said_so() -> None:
    async def whole() -> None:
        connected = Connected("twilio", Rig(refuse=True))
        await connected.say(START["twilio"])
        await connected.line
        assert connected.link.closed is not None
        assert connected.link.closed[1] == "server_full"

    virtual_time.run(whole())


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("digit:5 channel_id:1", {"digit": "5", "channel_id": "1"}),
        ("error_text:no such mark at all channel:2", {"error_text": "no such mark at all", "channel": "2"}),
        ("error_text:at 10:15 it failed", {"error_text": "at", "10": "15 it failed"}),  # words can't be told from names
        ("p1", {"correlation_id": "p1"}),
        ("", {"correlation_id": ""}),
        ("a:", {"a": ""}),
    ],
)
def test_words_of_asterisk_have_names(text: str, fields: dict[str, str]) -> None:
    assert Event.read(f"KIND {text}") == Event("KIND", fields)


@pytest.mark.parametrize("unit", ["y", "y ", "y:", ":", " "])
def test_a_megabyte_of_words_is_read_in_one_pass(unit: str) -> None:
    """What looked for names from every letter on took hours for this."""
    assert Event.read("KIND " + unit * (1_000_000 // len(unit))).kind == "KIND"
