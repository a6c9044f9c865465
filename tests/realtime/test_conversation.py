"""The conversation and the engine's context: edited in any way, executing the plans gives what is rendered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from models.base import Audio, Begin, End, Frame, Instructions, Segment, Spec, Text
from models.base import FunctionCall as Called
from realtime.conversation import Conversation, Entry, Plan, plan
from realtime.errors import ClientError, DuplicateItem, InvalidField, NotFound
from realtime.items import InputText, Item, OutputAudio, OutputText
from realtime.protocol import Ids, ResponseWriter, Settings

RATE_HZ = 1000
NOTHING = Instructions("")
SETTINGS = Settings.for_model(Spec("tiny", RATE_HZ, 24000, 1920, 4, ("ethan",), 4096), "tiny")


def comparable(segment: Segment) -> Any:
    match segment:
        case Audio(pcm, final):
            return ("audio", pcm.tobytes(), final)
        case Frame(pixels, t_s):
            return ("frame", pixels.tobytes(), t_s)
    return segment


def content(segments: tuple[Segment, ...]) -> list[Any]:
    return [comparable(segment) for segment in segments]


class Context:
    """The engine's context, as simple as can be: entries, and places after them that have names."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    @property
    def keys(self) -> list[str]:
        return [entry.key for entry in self.entries]

    def follow(self, plan: Plan) -> None:
        if plan.rewind_to is not None:
            length = self.keys.index(plan.rewind_to) + 1 if plan.rewind_to else 0
            del self.entries[length:]
        self.entries.extend(plan.extend)


def shorten(text: str, heard_ms: int, total_ms: int) -> str:
    return text[: len(text) * heard_ms // total_ms if total_ms else 0]


def message(item_id: str, role: str, text: str) -> Item:
    kind = OutputText if role == "assistant" else InputText
    return Item(item_id, "message", role, (kind(text),))


class Edited(RuleBasedStateMachine):
    """A client that edits, a user who speaks, a model that answers: in any order."""

    kept_audio_s = 600.0

    def __init__(self) -> None:
        super().__init__()
        self.ids = Ids("x")
        self.prompt = NOTHING
        self.conversation = Conversation(RATE_HZ, self.kept_audio_s)
        self.engine = Context()

    def sync(self) -> list[Entry]:
        want = self.conversation.render(self.prompt)
        self.engine.follow(plan(self.engine.keys, want))
        return want

    def some_id(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from([item.id for item in self.conversation.items] or ["nobody"]))

    @rule(text=st.sampled_from(["", "a", "b"]), tools=st.sampled_from([(), ("{}",)]))
    def instruct(self, text: str, tools: tuple[str, ...]) -> None:
        self.prompt = Instructions(text, tools)

    @rule(
        data=st.data(),
        name=st.sampled_from("abc"),
        role=st.sampled_from(["user", "assistant", "system"]),
        text=st.text(max_size=3),
    )
    def insert(self, data: st.DataObject, name: str, role: str, text: str) -> None:
        place = data.draw(st.sampled_from([None, "root", *(item.id for item in self.conversation.items)]))
        if name in self.conversation:
            with pytest.raises(DuplicateItem):
                self.conversation.add(message(name, role, text), place)
            return
        before = self.conversation.add(message(name, role, text), place)
        assert before == (self.conversation.items[-2].id if len(self.conversation.items) > 1 else None) or place

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = self.some_id(data)
        if name in self.conversation:
            self.conversation.delete(name)
        with pytest.raises(NotFound):
            self.conversation.get(name)

    @rule(n=st.integers(1, 400), seen=st.booleans(), said=st.none() | st.text(max_size=3))
    def speak(self, n: int, seen: bool, said: str | None) -> None:
        """A user's turn goes into the engine while it is spoken, and into the conversation when it is over."""
        self.sync()
        name = self.ids.item()
        samples = (np.arange(n) % 100 / 128).astype(np.float32)
        frames = (Frame(np.full((1, 1, 3), n % 256, np.uint8), 0.1),) if seen else ()
        self.conversation.add_user_audio(name, samples, frames)
        if said is not None:
            self.conversation.set_transcript(name, said)
        entry = self.conversation.render(self.prompt)[-1]
        assert entry.key == name
        assert np.array_equal(np.concatenate([s.pcm for s in entry.segments if isinstance(s, Audio)]), samples)
        self.engine.entries.append(entry)

    @rule(steps=st.lists(st.sampled_from(["Hel", "lo ", "", "call"]), max_size=4), heard=st.none() | st.integers(0, 4))
    def answer(self, steps: list[str], heard: int | None) -> None:
        """The engine keeps what it generated, or the part that was heard, under the response's id."""
        self.sync()
        writer = ResponseWriter(self.ids, SETTINGS, self.conversation)
        writer.start()
        made: list[Segment] = []
        for step in steps:
            if step == "call":
                writer.call("f", "{}")
            else:
                writer.write(step)
            assert self.sync() is not None  # a reply in progress is the engine's business
        text = writer.text if heard is None else writer.text[:heard]
        for item in writer.items:  # in the order in which they were begun
            if item.kind == "function_call":
                made.append(Called("f", "{}"))
            elif text:
                made += [Begin("assistant"), Text(text), End()]
        if heard is None:
            writer.finish("completed", audio_ms=100 * len(text))
        else:
            writer.finish("cancelled", "turn_detected", heard=text, audio_ms=100 * len(text))
        self.engine.entries.append(Entry(writer.response_id, tuple(made)))

    @rule(data=st.data(), audio_end_ms=st.integers(-1, 700))
    def truncate(self, data: st.DataObject, audio_end_ms: int) -> None:
        name = self.some_id(data)
        before = list(self.conversation.items)
        try:
            item = self.conversation.truncate(name, 0, audio_end_ms, shorten)
        except ClientError:
            assert list(self.conversation.items) == before
            return
        (part,) = item.content
        assert isinstance(part, OutputAudio)
        assert part.audio_ms == audio_end_ms

    @precondition(lambda self: self.engine.entries)
    @rule(data=st.data())
    def truncate_both(self, data: st.DataObject) -> None:
        """The engine cuts its last reply at the same word: no rewind is needed."""
        last = self.engine.entries[-1]
        spoken = [item for item in self.conversation.items if item.response_id == last.key]
        if len(spoken) != 1 or spoken[0].kind != "message" or not spoken[0].content or not last.segments:
            return
        (part,) = spoken[0].content
        assert isinstance(part, OutputAudio)
        if self.engine.keys != [entry.key for entry in self.conversation.render(self.prompt)]:
            return
        item = self.conversation.truncate(spoken[0].id, 0, part.audio_ms // 2, shorten, in_engine=True)
        (part,) = item.content
        assert isinstance(part, OutputAudio)
        if not part.transcript:
            self.engine.entries.pop()
            return
        self.engine.entries[-1] = Entry(last.key, (Begin("assistant"), Text(part.transcript), End()))
        assert plan(self.engine.keys, self.conversation.render(self.prompt)) == Plan(None, ())

    def same(self, have: Entry, want: Entry) -> bool:
        return content(have.segments) == content(want.segments)

    @invariant()
    def the_plan_gives_what_is_rendered(self) -> None:
        context = Context()
        context.entries = list(self.engine.entries)
        want = self.conversation.render(self.prompt)
        context.follow(plan(context.keys, want))
        assert context.keys == [entry.key for entry in want]
        assert len(set(context.keys)) == len(context.keys)
        for have, wanted in zip(context.entries, want, strict=True):
            assert self.same(have, wanted), (have, wanted)
        assert plan(context.keys, want) == Plan(None, ())


class Forgetful(Edited):
    """The same with room for half a second of audio: what was let go is in the engine, or its transcript is."""

    kept_audio_s = 0.5

    def same(self, have: Entry, want: Entry) -> bool:
        heard = any(isinstance(segment, Audio) for segment in have.segments)
        reads = not any(isinstance(segment, Audio) for segment in want.segments)
        return (heard and reads) or super().same(have, want)

    @invariant()
    def no_more_is_kept_than_there_is_room_for(self) -> None:
        kept = [item.samples for item in self.conversation.items]
        assert sum(kept[:-1]) <= self.kept_audio_s * RATE_HZ


TestEdited = Edited.TestCase
TestEdited.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
TestForgetful = Forgetful.TestCase
TestForgetful.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


# --- one thing at a time ------------------------------------------------


def test_an_open_user_turn_is_rewound_away() -> None:
    want = [Entry("a", ()), Entry("b", ())]
    assert plan(["a"], want, open_tail=True) == Plan("a", (want[1],))
    assert plan([], want, open_tail=True) == Plan("", tuple(want))
    assert plan(["a"], want) == Plan(None, (want[1],))
    assert plan(["a", "c"], want) == Plan("a", (want[1],))
    assert plan(["c"], want) == Plan("", tuple(want))


@given(st.lists(st.sampled_from("abcd"), unique=True), st.lists(st.sampled_from("abcd"), unique=True), st.booleans())
def test_a_plan_rewinds_no_further_than_it_must(have: list[str], want: list[str], open_tail: bool) -> None:
    entries = [Entry(key, ()) for key in want]
    made = plan(have, entries, open_tail)
    kept = have if made.rewind_to is None else have[: have.index(made.rewind_to) + 1 if made.rewind_to else 0]
    assert kept + [entry.key for entry in made.extend] == want
    if len(kept) < min(len(have), len(want)):
        assert have[len(kept)] != want[len(kept)]
    if made.rewind_to is None:
        assert not open_tail


def conversed() -> Conversation:
    conversation = Conversation(RATE_HZ)
    for name in "abc":
        conversation.add(message(name, "user", name))
    return conversation


def test_insertion() -> None:
    conversation = conversed()
    assert conversation.add(message("first", "user", "x"), "root") is None
    assert conversation.add(message("middle", "user", "x"), "a") == "a"
    assert conversation.add(message("last", "user", "x")) == "c"
    assert [item.id for item in conversation.items] == ["first", "a", "middle", "b", "c", "last"]
    assert conversation.last_id == "last"
    for wrong, kind in [("nobody", NotFound)]:
        with pytest.raises(kind) as caught:
            conversation.add(message("new", "user", "x"), wrong)
        assert caught.value.param == "previous_item_id"
    with pytest.raises(DuplicateItem):
        conversation.add(message("a", "user", "x"))
    for taken in ("root", "resp_1", "a~1", "prompt-1"):
        with pytest.raises(InvalidField):
            conversation.add(message(taken, "user", "x"))
    assert len(conversation.items) == 6


def test_what_cannot_be_truncated() -> None:
    conversation = conversed()
    conversation.add(Item("said", "message", "assistant", (OutputAudio("Hello", 500),), response_id="resp_1"))
    for args, param in [
        (("nobody", 0, 0), "item_id"),
        (("said", 1, 0), "content_index"),
        (("said", -1, 0), "content_index"),
        (("a", 0, 0), "item_id"),
        (("said", 0, 501), "audio_end_ms"),
        (("said", 0, -1), "audio_end_ms"),
    ]:
        with pytest.raises(ClientError) as caught:
            conversation.truncate(*args, shorten)
        assert caught.value.param == param
    item = conversation.truncate("said", 0, 200, shorten)
    assert item.content == (OutputAudio("He", 200),)
    assert conversation.render(NOTHING)[-1].key == "said~1"


def test_what_is_not_found_has_the_apis_code() -> None:
    conversation = conversed()
    uses: list[tuple[Callable[[str], Item], str]] = [
        (conversation.get, "item_not_found"),
        (lambda name: conversation.get(name, "retrieve"), "item_retrieve_invalid_item_id"),
        (conversation.delete, "item_delete_invalid_item_id"),
        (lambda name: conversation.truncate(name, 0, 0, shorten), "item_truncate_invalid_item_id"),
    ]
    for use, code in uses:
        with pytest.raises(NotFound) as caught:
            use("nobody")
        assert caught.value.as_error()["code"] == code


def test_an_item_under_an_old_id_is_another_item() -> None:
    conversation = conversed()
    before = [entry.key for entry in conversation.render(NOTHING)]
    conversation.delete("c")
    conversation.add(message("c", "user", "something else"))
    assert plan(before, conversation.render(NOTHING)).rewind_to == "b"


def test_a_reply_is_one_entry_until_a_part_of_it_is_edited() -> None:
    conversation = Conversation(RATE_HZ)
    writer = ResponseWriter(Ids("x"), SETTINGS, conversation)
    writer.start()
    writer.write("One moment.")
    writer.call("f", "{}")
    writer.finish("completed", audio_ms=900)
    (whole,) = conversation.render(NOTHING)
    assert whole.key == writer.response_id
    spoken, called = conversation.items
    conversation.delete(called.id)
    (left,) = conversation.render(NOTHING)
    assert left.key == spoken.id


def test_pictures_have_a_bound_too() -> None:
    conversation = Conversation(RATE_HZ, kept_picture_bytes=3 * 300)
    frame = Frame(np.zeros((10, 10, 3), np.uint8), 0.0)
    for name in "abcdef":
        conversation.add_user_audio(name, np.zeros(10, np.int16), [frame])
    assert [item.picture_bytes for item in conversation.items] == [0, 0, 0, 300, 300, 300]
    assert all(item.samples == 10 for item in conversation.items)
