"""Two thousand malformed messages on a live session, which then still answers."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.transport.live import LiveServer, RawClient

MESSAGES, BATCH = 2000, 100

ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
VALID: list[dict[str, Any]] = [
    {"type": "session.update", "session": {"type": "realtime", "instructions": "x"}},
    {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": None}}}},
    {"type": "session.update", "session": {"modalities": ["text"], "input_audio_format": "pcm16"}},
    {"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(960)).decode()},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "input_image_buffer.append", "image": base64.b64encode(b"\xff\xd8\xff\xe0 no picture").decode()},
    {"type": "conversation.item.create", "item": ITEM},
    {"type": "conversation.item.truncate", "item_id": "item_1", "content_index": 0, "audio_end_ms": 5},
    {"type": "conversation.item.retrieve", "item_id": "item_1"},
    {"type": "conversation.item.delete", "item_id": "item_1"},
    {"type": "parley.playback", "item_id": "item_1", "played_ms": 100},
    {"type": "response.create", "response": {"max_output_tokens": 3, "output_modalities": ["text"]}},
    {"type": "response.cancel"},
]
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\ud800")
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def paths(value: Any) -> list[tuple[Any, ...]]:
    """Every place inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(), *((key, *rest) for key, each in inside for rest in paths(each))]


@dataclass(frozen=True)
class Message:
    """``hopeless``: no reading of it is a valid event."""

    content: str | bytes
    hopeless: bool

    def __repr__(self) -> str:
        return f"Message({self.content[:300]!r}, {self.hopeless})"


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A valid event with one thing in it replaced, removed or doubled."""
    event = json.loads(json.dumps(draw(st.sampled_from(VALID))))
    path = draw(st.sampled_from(paths(event)[1:]))
    place = event
    for step in path[:-1]:
        place = place[step]
    match draw(st.sampled_from(["replace", "replace", "remove", "rename"])):
        case "replace":
            place[path[-1]] = draw(values)
        case "remove":
            del place[path[-1]]
        case "rename" if isinstance(place, dict):
            place[draw(st.text(max_size=12))] = place.pop(path[-1])
    return json.dumps(event)


broken = st.one_of(
    st.sampled_from(["[", '{"a":']).map(lambda opening: opening * 50_000),
    st.text(max_size=60).filter(lambda text: not text.strip().startswith("{")),
    st.binary(max_size=60),
    st.sampled_from(['{"type": 1e999}', "NaN", "{", "[]", "null", '"x"', "9" * 5000]),
    st.sampled_from(VALID).map(lambda event: json.dumps(event)[:-1]),
    values.map(lambda value: json.dumps(["not an object", value])),
)


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")  # the server's threads use random
def test_a_session_survives_two_thousand_malformed_messages(server: LiveServer) -> None:
    with asyncio.Runner() as runner:
        connecting = RawClient.connect(server)
        client = runner.run(connecting.__aenter__())
        sent = 0

        async def bombard(messages: list[Message]) -> None:
            nonlocal sent
            for message in messages:
                await client.socket.send(message.content)
            sent += len(messages)
            marker = f"marker {sent}"
            await client.send("no.such.event", event_id=marker)
            errors = 0
            while (event := await client.next()).get("error", {}).get("event_id") != marker:
                errors += event["type"] == "error"
            assert errors >= sum(message.hopeless for message in messages)

        @settings(
            max_examples=MESSAGES // BATCH,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(
            st.lists(
                mutated().map(lambda text: Message(text, False)) | broken.map(lambda content: Message(content, True)),
                min_size=BATCH,
                max_size=BATCH,
            )
        )
        def attack(messages: list[Message]) -> None:
            runner.run(bombard(messages))

        async def still_answers() -> None:
            await client.send("response.cancel")
            await client.send("session.update", session={"type": "realtime", "output_modalities": ["text"]})
            await client.until("session.updated")
            content = [{"type": "input_text", "text": "Are you there?"}]
            await client.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
            await client.send("response.create", event_id="last")
            while (event := await client.next())["type"] != "response.done" or event["response"][
                "status"
            ] != "completed":
                if (event.get("error") or {}).get("event_id") == "last":  # one was still running: now there is none
                    await client.until("response.done")
                    await client.send("response.create", event_id="last")

        attack()
        assert sent >= MESSAGES
        runner.run(still_answers())
        runner.run(connecting.__aexit__(None, None, None))
