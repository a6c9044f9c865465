"""A spoken interruption, measured where it counts: from the first sample of their voice in the browser to the last
sample of the reply that the browser played."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.clients.browser import visit
from tests.clients.toy import LONG, long_winded, toy
from tests.transport.live import LiveServer, espeak

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(toy(long_winded)) as live:
        yield live


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
def test_who_interrupts_is_listened_to(
    server: LiveServer, chromium: Browser, transport: str, question: Path, record_property: pytest.RecordProperty
) -> None:
    protest = espeak(question.with_name("protest.wav"), "No, please stop now, I meant another train, the one to Leeds.")
    with visit(chromium, f"{server.url}/?transport={transport}", voice=True) as person:
        person.follow()
        person.start()
        person.say(question)
        person.until(lambda: person.of("response.output_audio_transcript.delta"))
        person.until(person.loud)
        began = person.say(protest)
        person.until(lambda: person.of("response.done"))
        first = person.of("response.done")[0]["response"]
        person.until(lambda: len(person.of("response.created")) > 1 and person.of("parley.latency"))
        second = person.of("response.created")[1]["at"]
        ours = [at for at in person.loud() if at < second]
        person.page.get_by_role("button", name="Hang up").click()
        cut, spoken = person.page.locator(".log li.assistant s").first.inner_text(), person.lines("assistant")[0]
    assert first["status"] == "cancelled"
    stop_ms = (max(ours) - began) * 1000
    record_property("interrupt_stop_ms", round(stop_ms))
    print(f"\ninterrupt_stop over {transport}: {stop_ms:.0f} ms, measured in the browser")
    words = spoken.split()
    assert 0 < len(words) < LONG, "it was stopped long before its end"
    assert cut.strip(), "what was not heard is struck through"
    assert spoken.endswith(cut.strip())
