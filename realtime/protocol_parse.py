"""What clients say: one event of the wire -> one frozen dataclass, or one ClientError that names the field.

Names and fields are the API's, validated by its own pydantic types. Older spellings are respelled first
(``protocol_beta``); an error still names the field as the client spelled it. Fields that nobody knows are let through
and ignored, as newer clients send them. Nothing but ClientError is ever raised for what a client sent.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from openai.types.realtime import (
    ConversationItemCreateEvent,
    ConversationItemDeleteEvent,
    ConversationItemRetrieveEvent,
    ConversationItemTruncateEvent,
    RealtimeConversationItemAssistantMessage,
    RealtimeConversationItemFunctionCall,
    RealtimeConversationItemFunctionCallOutput,
    RealtimeConversationItemSystemMessage,
    RealtimeConversationItemUserMessage,
    RealtimeResponseCreateParams,
    RealtimeSessionCreateRequest,
    ResponseCancelEvent,
    ResponseItemReference,
)
from pydantic import BaseModel

from realtime.errors import ClientError, InvalidAudio, InvalidField, InvalidImage, UnknownEvent
from realtime.protocol_beta import is_beta, item_to_ga, session_to_ga
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
from realtime.protocol_validate import load, mapping, named, validated

Json = Mapping[str, Any]

MAX_PLAYED = 10**9  # milliseconds or samples of one item: half a day at 24 kHz
MAX_SAID = 4096  # characters to be said word for word: some five minutes
MAX_APPEND_BYTES = 15 * 2**20  # of decoded audio in one event, as in the API


def parse(message: str | bytes | Json) -> ClientMessage:
    """One client event; a mapping must come from ``load``. Raises ClientError with ``param`` and ``event_id``."""
    event = load(message) if isinstance(message, str | bytes) else message
    event_id = event.get("event_id")
    try:
        if not isinstance(event_id, str | None):
            raise InvalidField(f"event_id must be a string, not {named(event_id)}", param="event_id")
        kind = event.get("type")
        if not isinstance(kind, str):
            raise InvalidField("an event needs a type, for example 'session.update'", param="type")
        if kind not in _PARSERS:
            close = get_close_matches(kind[:100], _PARSERS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UnknownEvent(f"there is no client event {kind[:100]!r}{hint}", param="type")
        return _PARSERS[kind](event, event_id)
    except ClientError as error:
        error.event_id = event_id if isinstance(event_id, str) else None
        raise


def _session_update(event: Json, event_id: str | None) -> SessionUpdate:
    session = mapping(event, "session")
    ga, renamed = session_to_ga(session)
    spelled = {f"session.{path}": f"session.{name}" for path, name in renamed.items()}
    kind = ga.setdefault("type", "realtime")
    if kind != "realtime":
        raise InvalidField(f"session.type must be 'realtime', not {kind!r:.100}", param="session.type")
    with_null = _as_null(ga)
    return SessionUpdate(
        validated(RealtimeSessionCreateRequest, with_null, "session", spelled), spelled, is_beta(session), event_id
    )


def _as_null(session: dict[str, Any]) -> dict[str, Any]:
    """Turn detection of type ``none`` is an old way to say null."""
    audio = session.get("audio")
    side = audio.get("input") if isinstance(audio, dict) else None
    turn = side.get("turn_detection") if isinstance(side, dict) else None
    if isinstance(side, dict) and isinstance(turn, Mapping) and turn.get("type") == "none":
        side["turn_detection"] = None
    return session


def _append_audio(event: Json, event_id: str | None) -> AppendAudio:
    """Checked by hand: it comes fifty times a second."""
    audio = _base64(event, "audio", InvalidAudio)
    if len(audio) > MAX_APPEND_BYTES:
        raise InvalidAudio(
            f"{len(audio)} bytes of audio in one event; at most {MAX_APPEND_BYTES} are taken: send smaller pieces",
            param="audio",
        )
    return AppendAudio(audio, event_id)


def _append_image(event: Json, event_id: str | None) -> AppendImage:
    return AppendImage(_base64(event, "image", InvalidImage), event_id)


def _base64(event: Json, name: str, error: type[ClientError]) -> bytes:
    text = event.get(name)
    if not isinstance(text, str):
        raise InvalidField(f"{name} must be a string of base64, not {named(text)}", param=name)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as cause:
        raise error(f"{name} is not base64: {cause}", param=name) from None


_ITEMS: dict[tuple[str, str], type[BaseModel]] = {
    ("message", "user"): RealtimeConversationItemUserMessage,
    ("message", "assistant"): RealtimeConversationItemAssistantMessage,
    ("message", "system"): RealtimeConversationItemSystemMessage,
    ("function_call", ""): RealtimeConversationItemFunctionCall,
    ("function_call_output", ""): RealtimeConversationItemFunctionCallOutput,
}


def _item(item: Json, where: str) -> dict[str, Any]:
    kind, role = item.get("type"), item.get("role")
    if kind not in ("message", "function_call", "function_call_output"):
        known = "message, function_call or function_call_output"
        raise InvalidField(f"{where}.type must be {known}, not {kind!r:.100}", param=f"{where}.type")
    if kind == "message" and role not in ("user", "assistant", "system"):
        raise InvalidField(f"{where}.role must be user, assistant or system, not {role!r:.100}", param=f"{where}.role")
    return validated(_ITEMS[kind, str(role) if kind == "message" else ""], item_to_ga(item), where)


def _create_item(event: Json, event_id: str | None) -> CreateItem:
    item = _item(mapping(event, "item"), "item")
    # The rest of the event, seen with an item that is known to be right.
    placed = {"type": "function_call", "name": "", "arguments": ""}
    rest = validated(ConversationItemCreateEvent, {**event, "item": placed})
    return CreateItem(item, rest.get("previous_item_id"), event_id)


def _create_response(event: Json, event_id: str | None) -> CreateResponse:
    given = mapping(event, "response") if event.get("response") is not None else {}
    ga, renamed = session_to_ga(given)
    spelled = {f"response.{path}": f"response.{name}" for path, name in renamed.items()}
    sent = ga.pop("input", None)
    if not isinstance(sent, list | None):
        raise InvalidField(f"response.input must be an array, not {named(sent)}", param="response.input")
    response = validated(RealtimeResponseCreateParams, ga, "response", spelled)
    conversation = response.pop("conversation", None) or "auto"
    items = None if sent is None else tuple(_input(each, f"response.input[{n}]") for n, each in enumerate(sent))
    words, metadata = _words(response.pop("parley_say", None)), response.pop("metadata", None)
    return CreateResponse(response, spelled, conversation != "none", items, metadata, words, event_id)


def _words(said: Any) -> str:
    """``parley_say``; "" where it was not sent."""
    if said is None:
        return ""
    if not isinstance(said, str) or not said.strip() or len(said) > MAX_SAID:
        raise InvalidField(f"parley_say must be a string of 1 to {MAX_SAID} characters", param="response.parley_say")
    return said.strip()


def _input(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise InvalidField(f"{where} must be an item, not {named(item)}", param=where)
    if item.get("type") == "item_reference":
        return validated(ResponseItemReference, item, where)
    return _item(item, where)


def _played(event: Json, event_id: str | None) -> ReportPlayed:
    item_id, played_ms, samples = event.get("item_id"), event.get("played_ms"), event.get("samples")
    if not isinstance(item_id, str):
        raise InvalidField(f"item_id must be a string, not {named(item_id)}", param="item_id")
    if (played_ms is None) == (samples is None):
        raise InvalidField("say played_ms or samples, one of them", param="played_ms")
    if played_ms is not None and (type(played_ms) not in (int, float) or not 0 <= played_ms < MAX_PLAYED):
        raise InvalidField(f"played_ms must be a number from 0 to {MAX_PLAYED}", param="played_ms")
    if samples is not None and (type(samples) is not int or not 0 <= samples < MAX_PLAYED):
        raise InvalidField(f"samples must be a whole number from 0 to {MAX_PLAYED}", param="samples")
    return ReportPlayed(item_id, played_ms, samples, event_id)


def _retrieve(event: Json, event_id: str | None) -> RetrieveItem:
    return RetrieveItem(validated(ConversationItemRetrieveEvent, event)["item_id"], event_id)


def _delete(event: Json, event_id: str | None) -> DeleteItem:
    return DeleteItem(validated(ConversationItemDeleteEvent, event)["item_id"], event_id)


def _truncate(event: Json, event_id: str | None) -> TruncateItem:
    valid = validated(ConversationItemTruncateEvent, event)
    for name in ("content_index", "audio_end_ms"):
        if valid[name] < 0:
            raise InvalidField(f"{name} must be at least 0, not {valid[name]}", param=name)
    return TruncateItem(valid["item_id"], valid["content_index"], valid["audio_end_ms"], event_id)


def _cancel(event: Json, event_id: str | None) -> CancelResponse:
    return CancelResponse(validated(ResponseCancelEvent, event).get("response_id"), event_id)


_PARSERS: dict[str, Callable[[Json, str | None], ClientMessage]] = {
    "session.update": _session_update,
    "input_audio_buffer.append": _append_audio,
    "input_audio_buffer.commit": lambda _, event_id: CommitAudio(event_id),
    "input_audio_buffer.clear": lambda _, event_id: ClearAudio(event_id),
    "output_audio_buffer.clear": lambda _, event_id: ClearOutput(event_id),
    "input_image_buffer.append": _append_image,
    "conversation.item.create": _create_item,
    "conversation.item.retrieve": _retrieve,
    "conversation.item.delete": _delete,
    "conversation.item.truncate": _truncate,
    "response.create": _create_response,
    "response.cancel": _cancel,
    "parley.playback": _played,
}
