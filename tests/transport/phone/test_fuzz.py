"""Ten thousand mutated messages (two thousand, unless soaked): SIP, RTP, Twilio's, Telnyx's, Asterisk's. Each gets an
answer or a log line, nothing breaks, nobody else's call notices, nothing is left when all have gone. In virtual time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from realtime.events import Hangup
from tests import soak, virtual_time
from tests.transport.phone.calling import SIP, phone_config
from tests.transport.phone.rig import Rig, ToyHost
from tests.transport.phone.sip_wire import Wire, sip
from tests.transport.phone.test_wire import MAKERS, START, Connected, lines
from transport.phone.policy import Policy
from transport.phone.sip_endpoint import SipEndpoint
from transport.phone.sip_message import Malformed, parse

pytestmark = pytest.mark.slow

EACH, BATCH = soak.times(2500, 500), 50
QUICK = settings(
    max_examples=EACH // BATCH, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
seeds = st.integers(0, 2**32)
VALUES = [
    b"",
    b" ",
    b"0",
    b"-1",
    b"99999999999999999999",
    b"<sip:>",
    b"\xff\xfe",
    b"a" * 300,
    b"sip:x@y;tag=",
    b'"',
    b"1 2 3",
]


def mutated(rng: Random, message: bytes) -> bytes:
    """One thing in it replaced, cut, doubled or swapped, by bytes or by lines. (Hypothesis draws the generator's seed:
    drawing each mutation itself takes ten times as long as what is tried.)"""
    lines_ = message.split(b"\r\n")
    match rng.choice(["bytes", "bytes", "cut", "line", "drop", "double", "swap", "huge"]):
        case "bytes":
            at = rng.randint(0, len(message))
            return message[:at] + rng.randbytes(rng.randint(0, 12)) + message[at + rng.randint(0, 12) :]
        case "cut":
            return message[: rng.randint(0, len(message))]
        case "line":
            at = rng.randrange(len(lines_))
            name = lines_[at].partition(b":")[0]
            lines_[at] = name + b": " + rng.choice(VALUES)
        case "drop":
            del lines_[rng.randrange(len(lines_))]
        case "double":
            lines_.insert(rng.randrange(len(lines_)), rng.choice(lines_))
        case "swap":
            a, b = rng.randrange(len(lines_)), rng.randrange(len(lines_))
            lines_[a], lines_[b] = lines_[b], lines_[a]
        case "huge":
            lines_.insert(1, b"X-Big: " + b"y" * rng.choice([100, 5000, 70_000]))
    return b"\r\n".join(lines_)


def answerable(data: bytes) -> bool:
    """Whether something must come back."""
    try:
        message = parse(data)
    except Malformed as error:
        return error.request is not None
    return not hasattr(message, "status_code") and message.method != "ACK"  # type: ignore[union-attr]


def test_sip(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    total = unanswered = 0

    @QUICK
    @given(seeds)
    def attack(seed: int) -> None:
        async def main() -> None:
            nonlocal total, unanswered
            rig = Rig(config=phone_config(Policy(), sip=SIP), host=ToyHost())
            wire = Wire(rig)
            rng = Random(seed)
            tag = await wire.call("steady")
            victim = await wire.call("victim")
            methods = ["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "REFER", "NOTIFY", "UPDATE", "INFO", "PRACK", "X"]
            for n in range(BATCH):
                method, inside = rng.choice(methods), rng.random() < 0.5
                plain = sip(method, "victim" if inside else f"new{n}", n + 2, victim if inside else "")
                message = mutated(rng, plain)
                if b"steady" in message or tag.encode() in message:
                    continue
                before = len(wire.sent)
                wire.say(message)
                await asyncio.sleep(0.02)
                total += 1
                unanswered += answerable(message) and len(wire.sent) == before
            assert any(call.dialog.call_id == "steady" for call in wire.endpoint._calls.values()), "untouched"
            wire.say(sip("BYE", "steady", 2, tag))
            assert wire.sent[-1].startswith(b"SIP/2.0 200")
            for call in [*wire.endpoint._calls.values()]:
                call.hang_up(Hangup(1000, "enough"))
            assert not len(wire.endpoint), "every call has ended"
            await asyncio.sleep(200.0)
            assert not len(wire.endpoint._transactions)
            assert wire.endpoint.ports.in_use == 0
            assert rig.service.sessions == 0
            assert rig.host.slots_in_use == 0

        virtual_time.run(main())

    attack()
    assert total >= 0.95 * EACH
    assert unanswered <= 0.01 * total, "what can be answered is (a request told twice has its answer already)"
    assert not caplog.records, caplog.text


def test_rtp(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)

    @QUICK
    @given(seeds)
    def attack(seed: int) -> None:
        async def main() -> None:
            rng = Random(seed)
            rig = Rig(config=phone_config(Policy(), sip=SIP), host=ToyHost())
            wire = Wire(rig)
            await wire.call("rtp")
            (call,) = wire.endpoint._calls.values()
            rtp = bytes([0x80, 96]) + bytes(10) + bytes(160)
            rtcp = bytes([0x80, 200, 0, 6]) + bytes(24)
            event = bytes([0x80, 101]) + bytes(10) + bytes([5, 10, 0, 160])
            for _ in range(BATCH):
                packet = mutated(rng, rng.choice([rtp, rtcp, event])) or b"\x80"
                packet = packet[:2] + rng.randbytes(10) + packet[12:]
                into = rng.choice([call.speaker.arrived, call.speaker.reported])
                into(packet, ("127.0.0.1", 5998))
                await asyncio.sleep(0.001)
            for n in range(50):  # a clean stream is heard again
                call.speaker.arrived(
                    bytes([0x80, 96])
                    + (40_000 + n).to_bytes(2, "big")
                    + (160 * n).to_bytes(4, "big")
                    + b"good"
                    + bytes(160),
                    ("127.0.0.1", 5998),
                )
            assert call.speaker._receiver.ssrc == int.from_bytes(b"good", "big")
            wire.say(sip("BYE", "rtp", 2, call.dialog.local_tag))
            await asyncio.sleep(100.0)
            assert wire.endpoint.ports.in_use == 0
            assert rig.service.sessions == 0

        virtual_time.run(main())

    attack()
    assert not caplog.records, caplog.text


@st.composite
def mutated_event(draw: st.DrawFn, event: dict[str, Any]) -> str:
    """A JSON event with one value in it replaced, removed or renamed."""
    places: list[tuple[dict[str, Any], str]] = []

    def walk(table: dict[str, Any]) -> None:
        for key, value in table.items():
            places.append((table, key))
            if isinstance(value, dict):
                walk(value)

    event = json.loads(json.dumps(event))
    walk(event)
    table, key = draw(st.sampled_from(places))
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\ud800")
    match draw(st.sampled_from(["replace", "remove", "rename"])):
        case "replace":
            table[key] = draw(scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=5), scalars))
        case "remove":
            del table[key]
        case "rename":
            table[draw(st.text(max_size=10))] = table.pop(key)
    return json.dumps(event)


def mutants(carrier: str) -> st.SearchStrategy[str | bytes]:
    texts = [line for line in lines(carrier) if "stop" not in line]
    broken = (
        st.text(max_size=60) | st.binary(max_size=400) | st.sampled_from(["[" * 10_000, "{" * 10_000, "null", "1e999"])
    )
    if carrier == "asterisk words":
        changed = st.tuples(seeds, st.sampled_from(texts)).map(
            lambda drawn: mutated(Random(drawn[0]), drawn[1].encode()).decode("utf-8", "replace")
        )
        return changed | broken
    return st.sampled_from(texts).flatmap(lambda text: mutated_event(json.loads(text))) | broken


@pytest.mark.parametrize("carrier", MAKERS)
def test_carriers(carrier: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)

    @settings(QUICK, max_examples=EACH // 2 // 10)
    @given(st.lists(mutants(carrier), min_size=10, max_size=10))
    def attack(messages: list[str | bytes]) -> None:
        async def main() -> None:
            rig = Rig(config=phone_config(Policy(), sip=None), host=ToyHost())
            steady = Connected(carrier, rig)
            await steady.say(START[carrier])
            for message in messages:
                connected = Connected(carrier, rig)
                await connected.say(START[carrier], message)
                if connected.link.closed is None:
                    await connected.end()
                await connected.line
                assert connected.link.closed is None or (
                    connected.link.closed[0] in (1000, 1002) and connected.link.closed[1]
                )
            assert steady.link.closed is None
            assert len(rig.calls) == 1
            await steady.end()
            await asyncio.sleep(20.0)
            assert rig.service.sessions == 0
            assert rig.host.slots_in_use == 0

        virtual_time.run(main())

    attack()
    assert not caplog.records, caplog.text


def test_tcp_framing() -> None:
    """Junk on a connection closes that connection; the endpoint goes on."""

    async def main() -> None:
        rig = Rig(config=phone_config(Policy()), host=ToyHost())
        assert rig.service.config.phone.sip is not None
        endpoint = SipEndpoint(rig.service, rig.calls, rig.service.config.phone, rig.service.config.phone.sip)
        await endpoint.start()
        for junk in (
            b"\r\n" * 20_000,
            b"X" * 200_000,
            b"A: b\r\nContent-Length: 99999\r\n\r\n",
            b"\r\n\r\n\xff\xfe\r\n\r\n",
            b"",
        ):
            with socket.create_connection(("127.0.0.1", endpoint.port)) as peer:
                with suppress(OSError):
                    peer.sendall(junk)
                await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        writer.write(sip("OPTIONS", "tcp"))
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"SIP/2.0 200")
        writer.close()
        await endpoint.stop()

    asyncio.run(main())
