"""One response on the wire: whatever is said in it, its events are the API's and stand in the API's order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.base import Instructions, Spec
from realtime import pcm
from realtime import protocol_events as say
from realtime.conversation import Conversation
from realtime.errors import EngineFailed
from realtime.events import Play, Timing, Usage
from realtime.items import item_to_wire
from realtime.protocol import Dialect, Ids, ResponseWriter, Settings, session_object, spell
from tests.realtime.wire import check, check_beta

GOLDEN = Path(__file__).parent.parent / "data" / "wire"
SPOKEN = Settings.for_model(Spec("tiny", 16000, 24000, 1920, 4, ("ethan",), 4096), "tiny")
WRITTEN = Settings.for_model(Spec("tiny", 16000, 24000, 1920, 4, (), 4096), "tiny")
Events = list[dict[str, Any]]

ENDS = st.sampled_from(
    [
        ("completed", None, None),
        ("cancelled", "turn_detected", None),
        ("cancelled", "client_cancelled", None),
        ("incomplete", "max_output_tokens", None),
        ("failed", None, EngineFailed("a step failed")),
    ]
)
STEPS = st.lists(st.text(max_size=6) | st.just(("f", '{"a": 1}')) | st.none(), max_size=6)


def written(writer: ResponseWriter, steps: list[Any], end: tuple[Any, ...], heard: str | None = None) -> Events:
    events = writer.start()
    for step in steps:
        if step is None:
            events += writer.open_message()
        elif isinstance(step, tuple):
            events += writer.call(*step)
        else:
            events += writer.write(step)
    return events + writer.finish(end[0], end[1], Usage(1, 2, 3, 4, 5, 6), end[2], heard=heard, audio_ms=800)


@given(STEPS, ENDS, st.booleans(), st.none() | st.text(max_size=4), st.booleans())
def test_order(steps: list[Any], end: tuple[Any, ...], spoken: bool, heard: str | None, in_band: bool) -> None:
    conversation = Conversation(16000) if in_band else None
    writer = ResponseWriter(Ids("x"), SPOKEN if spoken else WRITTEN, conversation)
    events = written(writer, steps, end, heard)
    ids = Ids("x")
    for event in events:
        check(ids.stamp(event))
    kinds = [event["type"] for event in events]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.done"
    assert {kinds.count("response.created"), kinds.count("response.done")} == {1}
    made = events[-1]["response"]["output"]
    added = [event for event in events if event["type"] == "response.output_item.added"]
    assert [event["output_index"] for event in added] == list(range(len(made)))
    for index, item in enumerate(made):
        check_item(item, [e for e in events if e.get("output_index") == index], in_band and events, heard)
    assert {event.get("response_id", writer.response_id) for event in events} == {writer.response_id}
    assert events[-1]["response"]["status"] == end[0]
    usage = events[-1]["response"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (6, 11, 17)
    if conversation is not None:
        assert [item_to_wire(item) for item in conversation.items] == made


def check_item(item: dict[str, Any], own: Events, conversation: Events | bool, heard: str | None) -> None:
    """The events of one output item: added, content in the right brackets, done; nothing else."""
    kinds = [event["type"].removeprefix("response.") for event in own]
    assert own[0]["item"]["status"] == "in_progress"
    assert own[-1]["item"] == item
    assert {event.get("item_id", item["id"]) for event in own} == {item["id"]}
    if item["type"] == "function_call":
        assert kinds == [
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
        ]
        assert own[1]["delta"] == own[2]["arguments"] == item["arguments"]
    else:
        spoken = item["content"][0]["type"] == "output_audio"
        delta = "output_audio_transcript" if spoken else "output_text"
        closing = ["output_audio.done"] * spoken + [f"{delta}.done", "content_part.done", "output_item.done"]
        assert kinds[:2] == ["output_item.added", "content_part.added"]
        assert kinds[-len(closing) :] == closing
        assert set(kinds[2 : -len(closing)]) <= {f"{delta}.delta"}
        text = "".join(event["delta"] for event in own if event["type"].endswith(".delta"))
        said = item["content"][0]["transcript" if spoken else "text"]
        assert said == (text if heard is None else heard)
    if conversation:
        assert isinstance(conversation, list)
        kinds_of_item = [e["type"] for e in conversation if e.get("item", {}).get("id") == item["id"]]
        assert kinds_of_item == [
            "response.output_item.added",
            "conversation.item.added",
            "conversation.item.done",
            "response.output_item.done",
        ]


@given(STEPS, ENDS)
def test_beta_clients_get_beta_events(steps: list[Any], end: tuple[Any, ...]) -> None:
    ids = Ids("x")
    events = written(ResponseWriter(ids, SPOKEN, Conversation(16000)), steps, end)
    for event in events:
        for old in spell(ids.stamp(event), Dialect.BETA):
            check_beta(old)
            assert "output_" not in old["type"].replace("output_item", "")
            assert old["type"] != "conversation.item.added"


def test_the_conversation_holds_the_reply_when_it_is_over_and_not_before() -> None:
    conversation = Conversation(16000)
    writer = ResponseWriter(Ids("x"), SPOKEN, conversation)
    nothing = Instructions("")
    writer.start()
    writer.write("Hello")
    writer.call("f", "{}")
    assert conversation.render(nothing) == []
    writer.finish("cancelled", "turn_detected", heard="Hel", audio_ms=300)
    (entry,) = conversation.render(nothing)
    assert entry.key == writer.response_id
    assert len(conversation.items) == 2


def test_wrong_use_is_our_own_bug() -> None:
    writer = ResponseWriter(Ids("x"), SPOKEN, None)
    with pytest.raises(ValueError, match="new"):
        writer.write("too early")
    writer.start()
    for wrong in [("completed", "turn_detected"), ("cancelled", None), ("failed", None), ("over", None)]:
        with pytest.raises(ValueError, match="end of a response"):
            writer.finish(*wrong)
    writer.finish("completed")
    assert writer.done
    with pytest.raises(ValueError, match="done"):
        writer.write("x")
    with pytest.raises(ValueError, match="done"):
        writer.call("f", "{}")
    with pytest.raises(ValueError, match="done"):
        writer.finish("completed")


# --- golden files ------------------------------------------------


def spoken_turn(cut: bool) -> Events:
    """A session's first turn as the server tells it over a WebSocket."""
    ids, conversation = Ids("0"), Conversation(16000)
    events = [say.session_created(session_object(SPOKEN, "sess_0"))]
    user = ids.item()
    events += [say.speech_started(user, 480), say.speech_stopped(user, 2300)]
    previous = conversation.add_user_audio(user, np.zeros(29_120, np.int16))
    shown = item_to_wire(conversation.get(user))
    events += [say.audio_committed(user, previous), say.item_added(shown, previous), say.item_done(shown, previous)]
    writer = ResponseWriter(ids, SPOKEN, conversation)
    events += writer.start() + writer.write("It is") + writer.write(" noon.")
    item_id = writer.item_id or ""
    for start in (0, 4):
        play = Play(
            writer.response_id, item_id, start, np.arange(start, start + 4, dtype=np.int16), writer.output_index
        )
        events.append(say.audio_delta(play, pcm.encode(play.pcm, SPOKEN.output_format)))
    usage = Usage(input_text=12, input_audio=24, cached=30, output_text=3, output_audio=9)
    if cut:
        events.append(say.speech_started(ids.item(), 3100))
        events += writer.finish("cancelled", "turn_detected", usage, heard="It is", audio_ms=410)
        return [ids.stamp(event) for event in events]
    events += [say.transcription_delta(user, "What time is it?")]
    events += [say.transcription_completed(user, "What time is it?", 1.82)]
    events += writer.call("set_alarm", '{"at": "12:05"}')
    events += writer.finish("completed", None, usage, audio_ms=720)
    events.append(say.latency(writer.response_id, Timing(3, 0.031, 0.12, 0.16), e2e_ms=171.04))
    return [ids.stamp(event) for event in events]


@pytest.mark.parametrize(("name", "cut"), [("turn", False), ("cut", True)])
def test_a_whole_turn_is_the_golden_one(name: str, cut: bool) -> None:
    events = spoken_turn(cut)
    for event in events:
        check(event)
    lines = (GOLDEN / f"{name}.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == events


if __name__ == "__main__":
    for file, interrupted in (("turn", False), ("cut", True)):
        text = "".join(json.dumps(event) + "\n" for event in spoken_turn(interrupted))
        (GOLDEN / f"{file}.jsonl").write_text(text)
