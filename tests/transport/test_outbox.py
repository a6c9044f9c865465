from __future__ import annotations

from realtime.events import Hangup
from transport.outbox import Outbox


async def drained(box: Outbox) -> list[str]:
    box.close(Hangup(1000, "done"))
    messages = []
    while (message := await box.next()) is not None:
        messages.append(message)
    return messages


async def test_order_is_kept_and_the_end_comes_last() -> None:
    box = Outbox()
    for number in range(5):
        box.push(str(number), audio=bool(number % 2))
    assert await drained(box) == ["0", "1", "2", "3", "4"]
    box.push("too late")
    assert await box.next() is None


async def test_a_cut_takes_the_audio_alone() -> None:
    box = Outbox(limit_bytes=10)
    box.push("text")
    box.push("audio", audio=True)
    box.cut()
    box.push("more")  # there is room again
    assert await drained(box) == ["text", "more"]


async def test_too_much_waiting_closes_with_1008_and_throws_it_away() -> None:
    box = Outbox(limit_bytes=10)
    box.push("12345")
    box.push("678901")
    assert box.closed.is_set()
    assert await box.next() is None
    assert box.closing is not None
    assert box.closing.code == 1008
    box.close(Hangup(1000, "later"))
    assert box.closing.code == 1008


async def test_what_was_taken_makes_room() -> None:
    box = Outbox(limit_bytes=10)
    for _ in range(100):
        box.push("1234567890")
        assert await box.next() == "1234567890"
    assert box.closing is None
