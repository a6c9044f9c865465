"""What clients say: all of the API, every dialect, and one clear error for whatever is wrong."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.base import Spec
from realtime.errors import ClientError, InvalidAudio, InvalidField, InvalidImage, UnknownEvent
from realtime.pcm import PCM16, PCMU, AudioFormat
from realtime.protocol import Dialect, Settings, load, parse, response_settings, samples_of, session_object, updated
from realtime.protocol_messages import (
    AppendAudio,
    AppendImage,
    CancelResponse,
    ClearAudio,
    ClearOutput,
    ClientMessage,
    CommitAudio,
    CreateItem,
    CreateResponse,
    DeleteItem,
    ReportPlayed,
    RetrieveItem,
    SessionUpdate,
    TruncateItem,
)
from realtime.protocol_parse import MAX_APPEND_BYTES
from tests.realtime.wire import GA

CLIENTS = sorted((Path(__file__).parent.parent / "data" / "wire" / "clients").glob("*.json"))
START = Settings.for_model(Spec("tiny", 16000, 24000, 1920, 4, ("ethan",), 4096), "tiny")
USER = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}


def refused(event: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        parse(event if isinstance(event, str | bytes) else json.dumps(event))
    return caught.value


@pytest.mark.parametrize("path", CLIENTS, ids=lambda path: path.stem)
def test_what_stock_clients_send_on_connecting_is_no_error(path: Path) -> None:
    current = START
    for event in json.loads(path.read_text()):
        match parse(json.dumps(event)):
            case SessionUpdate() as update:
                assert update.event_id == event.get("event_id")
                current = updated(current, update)
            case CreateResponse() as create:
                response_settings(current, create)
    assert session_object(current, "sess_1")["audio"]["output"]["voice"] == "ethan"
    assert (current.dialect is Dialect.BETA) == (path.stem in ("beta", "qwen_omni_realtime"))


def test_every_client_event_of_the_api() -> None:
    events: list[tuple[dict[str, Any], ClientMessage]] = [
        ({"type": "input_audio_buffer.append", "audio": "AAE="}, AppendAudio(b"\0\1", "e")),
        ({"type": "input_audio_buffer.commit"}, CommitAudio("e")),
        ({"type": "input_audio_buffer.clear"}, ClearAudio("e")),
        ({"type": "output_audio_buffer.clear"}, ClearOutput("e")),
        ({"type": "input_image_buffer.append", "image": "AAE="}, AppendImage(b"\0\1", "e")),
        ({"type": "conversation.item.create", "item": USER, "previous_item_id": "a"}, CreateItem(USER, "a", "e")),
        ({"type": "conversation.item.retrieve", "item_id": "a"}, RetrieveItem("a", "e")),
        ({"type": "conversation.item.delete", "item_id": "a"}, DeleteItem("a", "e")),
        (
            {"type": "conversation.item.truncate", "item_id": "a", "content_index": 0, "audio_end_ms": 7},
            TruncateItem("a", 0, 7, "e"),
        ),
        ({"type": "response.create"}, CreateResponse({}, {}, event_id="e")),
        ({"type": "response.create", "response": None}, CreateResponse({}, {}, event_id="e")),
        ({"type": "response.cancel"}, CancelResponse(None, "e")),
        ({"type": "response.cancel", "response_id": "r"}, CancelResponse("r", "e")),
        ({"type": "parley.playback", "item_id": "a", "played_ms": 20.5}, ReportPlayed("a", 20.5, None, "e")),
        ({"type": "parley.playback", "item_id": "a", "samples": 480}, ReportPlayed("a", None, 480, "e")),
        (
            {"type": "session.update", "session": {"type": "realtime", "instructions": "x"}},
            SessionUpdate({"type": "realtime", "instructions": "x"}, {}, False, "e"),
        ),
    ]
    for event, message in events:
        assert parse(json.dumps({**event, "event_id": "e"})) == message


def test_words_to_be_said_as_they_are() -> None:
    create = parse(json.dumps({"type": "response.create", "response": {"parley_say": " Good day. "}}))
    assert isinstance(create, CreateResponse)
    assert (create.words, create.response) == ("Good day.", {})


@pytest.mark.parametrize("words", ["", "  ", 7, ["Good day."], "a" * 4097])
def test_words_that_can_not_be_said(words: object) -> None:
    with pytest.raises(InvalidField) as caught:
        parse(json.dumps({"type": "response.create", "response": {"parley_say": words}}))
    assert caught.value.param == "response.parley_say"


def test_out_of_band_responses() -> None:
    said = {
        "conversation": "none",
        "metadata": {"topic": "t"},
        "input": [{"type": "item_reference", "id": "a"}, USER],
        "instructions": "x",
    }
    create = parse(json.dumps({"type": "response.create", "response": said}))
    assert isinstance(create, CreateResponse)
    assert not create.in_conversation
    assert create.metadata == {"topic": "t"}
    assert create.input == ({"type": "item_reference", "id": "a"}, USER)
    assert create.response == {"instructions": "x"}


def vad(**fields: Any) -> dict[str, Any]:
    return {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": fields}}}}


def item(**fields: Any) -> dict[str, Any]:
    return {"type": "conversation.item.create", "item": fields}


VAD = "session.audio.input.turn_detection"


@pytest.mark.parametrize(
    ("event", "kind", "param"),
    [
        ("nonsense", InvalidField, None),
        (b"\xff\xfe", InvalidField, None),
        ("[1]", InvalidField, None),
        ("null", InvalidField, None),
        ('{"a": NaN}', InvalidField, None),
        ('{"a": 1e999}', InvalidField, None),
        ('{"a": "\\ud800"}', InvalidField, None),
        ('{"a": ' + "9" * 5000 + "}", InvalidField, None),
        ('{"a": ' + "9" * 4000 + "}", InvalidField, None),
        ('{"a": -1e300}', InvalidField, None),
        ("[" * 100_000, InvalidField, None),
        ('{"a": ' + "[" * 65 + "]" * 65 + "}", InvalidField, None),
        ({}, InvalidField, "type"),
        ({"type": 5}, InvalidField, "type"),
        ({"type": "response.creat"}, UnknownEvent, "type"),
        ({"type": "response.create", "event_id": 5}, InvalidField, "event_id"),
        ({"type": "session.update"}, InvalidField, "session"),
        ({"type": "session.update", "session": []}, InvalidField, "session"),
        ({"type": "session.update", "session": {"type": "transcription"}}, InvalidField, "session.type"),
        ({"type": "session.update", "session": {"type": "realtime", "audio": 5}}, InvalidField, "session.audio"),
        (vad(type="server_vad", threshold="loud"), InvalidField, f"{VAD}.threshold"),
        (vad(type="semantic_vad", eagerness="very"), InvalidField, f"{VAD}.eagerness"),
        (vad(type="no_vad"), InvalidField, f"{VAD}.type"),
        (vad(threshold=0.5), InvalidField, f"{VAD}.type"),
        (
            {"type": "session.update", "session": {"turn_detection": {"threshold": "loud"}}},
            InvalidField,
            "session.turn_detection.threshold",
        ),
        (
            {"type": "session.update", "session": {"input_audio_format": "mp3"}},
            InvalidField,
            "session.input_audio_format",
        ),
        (
            {"type": "session.update", "session": {"tools": [{"type": "function", "name": 5}]}},
            InvalidField,
            "session.tools[0].name",
        ),
        ({"type": "input_audio_buffer.append"}, InvalidField, "audio"),
        ({"type": "input_audio_buffer.append", "audio": 5}, InvalidField, "audio"),
        ({"type": "input_audio_buffer.append", "audio": "AAA"}, InvalidAudio, "audio"),
        ({"type": "input_audio_buffer.append", "audio": "AA A="}, InvalidAudio, "audio"),
        ({"type": "input_audio_buffer.append", "audio": "\u00e4AAA"}, InvalidAudio, "audio"),
        ({"type": "input_image_buffer.append", "image": "?"}, InvalidImage, "image"),
        (item(), InvalidField, "item.type"),
        (item(type="mcp_call"), InvalidField, "item.type"),
        (item(type="message", role="robot", content=[]), InvalidField, "item.role"),
        (item(type="message", role="user"), InvalidField, "item.content"),
        (item(type="message", role="user", content=[{"type": "output_text"}]), InvalidField, "item.content[0].type"),
        (item(type="message", role="user", content=[5]), InvalidField, "item.content[0]"),
        (item(type="function_call_output", output="x"), InvalidField, "item.call_id"),
        ({**item(**USER), "previous_item_id": 5}, InvalidField, "previous_item_id"),
        ({"type": "conversation.item.delete"}, InvalidField, "item_id"),
        ({"type": "conversation.item.truncate", "item_id": "a", "content_index": 0}, InvalidField, "audio_end_ms"),
        (
            {"type": "conversation.item.truncate", "item_id": "a", "content_index": -1, "audio_end_ms": 5},
            InvalidField,
            "content_index",
        ),
        (
            {"type": "conversation.item.truncate", "item_id": "a", "content_index": 0, "audio_end_ms": -5},
            InvalidField,
            "audio_end_ms",
        ),
        ({"type": "response.create", "response": 5}, InvalidField, "response"),
        ({"type": "response.create", "response": {"input": {}}}, InvalidField, "response.input"),
        ({"type": "response.create", "response": {"input": [5]}}, InvalidField, "response.input[0]"),
        (
            {"type": "response.create", "response": {"input": [{"type": "item_reference"}]}},
            InvalidField,
            "response.input[0].id",
        ),
        ({"type": "response.create", "response": {"modalities": ["smell"]}}, InvalidField, "response.modalities[0]"),
        ({"type": "parley.playback", "item_id": "a"}, InvalidField, "played_ms"),
        ({"type": "parley.playback", "item_id": "a", "samples": -1}, InvalidField, "samples"),
        ({"type": "parley.playback", "item_id": "a", "samples": 10**12}, InvalidField, "samples"),
        ({"type": "parley.playback", "item_id": "a", "played_ms": True}, InvalidField, "played_ms"),
    ],
)
def test_what_is_wrong_is_one_error_that_names_the_field(
    event: Any, kind: type[ClientError], param: str | None
) -> None:
    error = refused(event)
    assert type(error) is kind
    assert error.param == param
    assert len(error.message) < 500
    if param and "." in param:
        assert param in error.message


def test_an_error_carries_the_clients_event_id() -> None:
    assert refused({"type": "nonsense", "event_id": "mine"}).event_id == "mine"
    message = parse(json.dumps({**vad(type="server_vad", threshold=7), "event_id": "mine"}))
    assert isinstance(message, SessionUpdate)
    with pytest.raises(InvalidField) as caught:
        updated(START, message)
    assert (caught.value.event_id, caught.value.param) == ("mine", f"{VAD}.threshold")


def test_a_later_error_too_is_in_the_clients_own_words() -> None:
    beta = parse(json.dumps({"type": "session.update", "session": {"turn_detection": {"threshold": 7}}}))
    assert isinstance(beta, SessionUpdate)
    with pytest.raises(InvalidField) as caught:
        updated(START, beta)
    assert caught.value.param == "session.turn_detection.threshold"
    assert "audio.input" not in caught.value.message


def test_too_much_audio_in_one_event() -> None:
    most = base64.b64encode(bytes(MAX_APPEND_BYTES)).decode()
    assert parse({"type": "input_audio_buffer.append", "audio": most}).event_id is None
    assert "smaller" in refused({"type": "input_audio_buffer.append", "audio": most + "AAAA"}).message


def test_half_a_sample() -> None:
    odd = AppendAudio(b"\0\1\2", "mine")
    with pytest.raises(InvalidAudio) as caught:
        samples_of(odd, PCM16)
    assert (caught.value.param, caught.value.event_id) == ("audio", "mine")
    assert len(samples_of(odd, PCMU)) == 3


def test_the_qwen_dialect_speaks_16_khz() -> None:
    for formats in ({"input_audio_format": "pcm"}, {"input_audio_format": "pcm16", "output_audio_format": "pcm24"}):
        message = parse(json.dumps({"type": "session.update", "session": formats}))
        assert isinstance(message, SessionUpdate)
        heard = updated(START, message)
        assert heard.input_format == AudioFormat("audio/pcm", 16000)
        assert heard.output_format == PCM16


# --- fuzz ------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
TREES = st.recursive(SCALARS, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=8), t, max_size=3))
TYPES = [
    "session.update",
    "input_audio_buffer.append",
    "input_image_buffer.append",
    "conversation.item.create",
    "conversation.item.retrieve",
    "conversation.item.truncate",
    "response.create",
    "response.cancel",
    "parley.playback",
]
EXAMPLES = [event for path in CLIENTS for event in json.loads(path.read_text())] + [
    item(**USER),
    item(type="function_call", name="f", arguments="{}"),
    {"type": "response.create", "response": {"input": [USER], "tools": [{"type": "function", "name": "f"}]}},
]


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A right event in which some values, anywhere, were replaced or removed."""
    event = json.loads(json.dumps(draw(st.sampled_from(EXAMPLES))))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = event
        while True:
            steps = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not steps:
                break
            step = draw(st.sampled_from(steps))
            if isinstance(place[step], dict | list) and draw(st.booleans()):
                place = place[step]
                continue
            if draw(st.booleans()):
                place[step] = draw(TREES)
            else:
                del place[step]
            break
    return event


@settings(max_examples=400, deadline=None)
@given(
    damaged()
    | TREES
    | st.builds(
        lambda t, rest: {**rest, "type": t},
        st.sampled_from(TYPES),
        st.dictionaries(
            st.sampled_from(["session", "item", "response", "item_id", "audio", "image", "event_id", "played_ms"]),
            TREES,
        ),
    )
)
@example({"type": "session.update", "session": {"audio": {"input": []}, "turn_detection": {}}})
@example({"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": []}}}})
@example({"type": ["session.update"]})
def test_nothing_but_client_errors_ever_comes_of_it(event: Any) -> None:
    problem = None
    try:
        message = parse(json.dumps(event))
        if isinstance(message, SessionUpdate):
            session_object(updated(START, message), "sess_1")
        elif isinstance(message, CreateResponse):
            response_settings(START, message)
    except ClientError as error:
        problem = error
    assert problem is None or (json.dumps(problem.as_error()).encode() and len(problem.message) < 2000)


@settings(max_examples=200)
@given(st.binary(max_size=60) | st.text(max_size=60))
def test_bytes_that_are_no_event(data: bytes | str) -> None:
    with pytest.raises(ClientError):
        parse(data)


def test_the_names_of_the_api_are_all_known() -> None:
    from openai.types.realtime import RealtimeClientEvent

    from tests.realtime.wire import by_type

    for kind in by_type(RealtimeClientEvent):
        try:
            parse({"type": kind})
        except UnknownEvent:
            pytest.fail(f"{kind} is not known")
        except ClientError:
            pass
    assert len(GA) >= 46


@given(st.dictionaries(st.text(max_size=5), TREES, max_size=4))
def test_load_is_json_and_no_more(tree: dict[str, Any]) -> None:
    try:
        text = json.dumps(tree, allow_nan=False)
    except ValueError:  # not a number
        return
    try:
        assert load(text) == tree
    except InvalidField as error:
        message = error.message
    else:
        return
    assert "too large" in message
