"""The shell round a session: order, timers, reentry, and what happens when a session breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from models.base import Sampling
from realtime.engine import Engine
from realtime.events import (
    AudioOut,
    ClientEvent,
    Close,
    Command,
    Effect,
    EngineCommand,
    Extend,
    Finished,
    Flush,
    Gone,
    Hangup,
    Input,
    Open,
    Opened,
    Play,
    Reply,
    Send,
    TextOut,
    Wake,
)
from realtime.pump import Pump, Pumps
from tests.realtime.doubles import toy_model
from tests.realtime.rig import alone, said, turn
from tests.virtual_time import run


class RecordingSession:
    """Answers each event with what ``answer`` says; asks to be woken at ``deadline``."""

    def __init__(self, answer: Callable[[Input], list[Command]] | None = None) -> None:
        self.fed: list[tuple[Input, float]] = []
        self.deadline: float | None = None
        self.answer = answer or (lambda event: [])

    def feed(self, event: Input, now: float) -> list[Command]:
        self.fed.append((event, now))
        return self.answer(event)

    @property
    def events(self) -> list[Input]:
        return [event for event, _ in self.fed]


class Desk:
    """Pumps whose engine is a list."""

    def __init__(self) -> None:
        self.submitted: list[EngineCommand] = []
        self.effects: list[Effect] = []
        self.pumps = Pumps(self.submitted.append)

    def open(self, session: RecordingSession) -> Pump:
        return self.pumps.open(lambda number: session, self.effects.append)


def test_commands_and_effects_leave_in_order_to_their_side() -> None:
    async def main() -> None:
        desk = Desk()
        order: list[object] = []
        session = RecordingSession(lambda event: [Send({"type": "a"}), Open(1), Flush(), Open(2)])
        pumps = Pumps(order.append)
        pumps.open(lambda number: session, order.append).feed(ClientEvent({}))
        assert order == [Send({"type": "a"}), Open(1), Flush(), Open(2)]
        assert not desk.effects

    run(main())


def test_numbers_are_never_given_out_twice() -> None:
    async def main() -> None:
        desk = Desk()
        numbers = []
        for _ in range(5):
            pump = desk.open(RecordingSession())
            numbers.append(pump.number)
            pump.close()
        assert len(set(numbers)) == 5
        assert len(desk.pumps) == 0

    run(main())


def test_a_session_is_woken_when_it_asked_to_be() -> None:
    async def main() -> None:
        desk = Desk()
        session = RecordingSession()
        pump = desk.open(session)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        session.deadline = began_s + 5
        pump.feed(ClientEvent({}))
        session.deadline = began_s + 3  # earlier: the timer moves
        pump.feed(ClientEvent({}))

        def once(event: Input) -> list[Command]:
            if isinstance(event, Wake):
                session.deadline = None
            return []

        session.answer = once
        await asyncio.sleep(10)
        wakes = [now - began_s for event, now in session.fed if isinstance(event, Wake)]
        assert wakes == [pytest.approx(3.0)]

    run(main())


def test_no_timer_outlives_its_session() -> None:
    async def main() -> None:
        session = RecordingSession()
        pump = Desk().open(session)
        session.deadline = asyncio.get_running_loop().time() + 1
        pump.feed(ClientEvent({}))
        pump.close()
        await asyncio.sleep(10)
        assert not any(isinstance(event, Wake) for event in session.events)

    run(main())


def test_what_a_transport_feeds_while_it_is_told_something_waits_its_turn() -> None:
    async def main() -> None:
        pumps = Pumps(lambda command: None)
        got: list[object] = []
        session = RecordingSession(
            lambda event: [Send({"n": 1}), Send({"n": 2})] if isinstance(event, ClientEvent) else []
        )

        def emit(effect: Effect) -> None:
            got.append(effect)
            if effect == Send({"n": 1}):
                pump.feed(Gone())

        pump = pumps.open(lambda number: session, emit)
        pump.feed(ClientEvent({}))
        assert got == [Send({"n": 1}), Send({"n": 2})]
        assert session.events == [ClientEvent({}), Gone()]
        assert pump.closed

    run(main())


def test_a_transport_that_goes_away_closes_its_session_once() -> None:
    async def main() -> None:
        desk = Desk()
        polite = RecordingSession(lambda event: [Close(1)] if isinstance(event, Gone) else [])
        silent = RecordingSession()
        for session in (polite, silent):
            pump = desk.open(session)
            pump.close()
            pump.close()
            pump.feed(ClientEvent({}))
        assert desk.submitted == [Close(1), Close(2)]
        assert polite.events == silent.events == [Gone()]

    run(main())


def test_a_session_that_breaks_ends_alone_and_says_so() -> None:
    def breaks(event: Input) -> list[Command]:
        raise RuntimeError("our own bug")

    async def main() -> None:
        desk = Desk()
        broken, other = RecordingSession(breaks), RecordingSession()
        pump = desk.open(broken)
        desk.open(other)
        pump.feed(ClientEvent({}))
        error, hangup = desk.effects
        assert isinstance(error, Send)
        assert error.event["error"]["code"] == "engine_failed"
        assert "our own bug" not in error.event["error"]["message"]
        assert hangup == Hangup(1011, "internal error")
        assert desk.submitted == [Close(1)]
        assert len(desk.pumps) == 1
        desk.pumps.deliver(Opened(2))
        desk.pumps.deliver(Opened(1))
        await asyncio.sleep(0)
        assert other.events == [Opened(2)]

    run(main())


def test_a_transport_that_breaks_ends_its_session_alone() -> None:
    async def main() -> None:
        desk = Desk()

        def breaks(effect: Effect) -> None:
            raise OSError("the socket is gone")

        pump = desk.pumps.open(lambda number: RecordingSession(), breaks)
        pump.start([Send({"type": "hello"})])
        assert pump.closed
        assert desk.submitted == [Close(1)]

    run(main())


def test_hanging_up_on_all() -> None:
    async def main() -> None:
        desk = Desk()
        for _ in range(3):
            desk.open(RecordingSession())
        desk.pumps.hangup_all(1001, "the server stops")
        assert desk.effects == [Hangup(1001, "the server stops")] * 3
        assert desk.submitted == [Close(1), Close(2), Close(3)]
        assert len(desk.pumps) == 0

    run(main())


def test_a_turn_through_pump_and_engine() -> None:
    """The two hops: commands in, outputs back on the loop."""

    async def main() -> None:
        engine = Engine(toy_model(), deliver=lambda output: pumps.deliver(output))
        pumps = Pumps(engine.submit)
        played: list[Effect] = []

        def answer(event: Input) -> list[Command]:
            if isinstance(event, ClientEvent):
                reply = Reply(1, 0, "r", 0.0, sampling=Sampling(seed=3))
                return [Open(1), Extend(1, 0, turn(3), "u"), reply]
            return [Play("r", "i", 0, event.pcm)] if isinstance(event, AudioOut) else []

        session = RecordingSession(answer)
        pumps.open(lambda number: session, played.append).feed(ClientEvent({}))
        loop = asyncio.get_running_loop()
        while (at_s := engine.step(loop.time())) is not None:
            await asyncio.sleep(max(0.0, at_s - loop.time()))
        await asyncio.sleep(0)
        want = alone(said(turn(3)), Sampling(seed=3))
        assert "".join(event.text for event in session.events if isinstance(event, TextOut)) == want.text
        assert sum(len(effect.pcm) for effect in played if isinstance(effect, Play)) == len(want.pcm)
        assert isinstance(session.events[-1], Finished)

    run(main())
