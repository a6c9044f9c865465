"""What a client can say, as frozen dataclasses: the API's eleven client events, and two of our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True)
class SessionUpdate:
    """``session.update``. ``session`` is partial, in GA's shape; ``spelled``: GA path -> the client's own name for it.

    ``beta``: it was spelled as in beta, so the client wants beta events."""

    session: Json
    spelled: Mapping[str, str]
    beta: bool
    event_id: str | None = None


@dataclass(frozen=True)
class AppendAudio:
    """``input_audio_buffer.append``: bytes in the session's input format."""

    audio: bytes = field(repr=False)
    event_id: str | None = None


@dataclass(frozen=True)
class CommitAudio:
    """``input_audio_buffer.commit``."""

    event_id: str | None = None


@dataclass(frozen=True)
class ClearAudio:
    """``input_audio_buffer.clear``."""

    event_id: str | None = None


@dataclass(frozen=True)
class ClearOutput:
    """``output_audio_buffer.clear`` (WebRTC and SIP)."""

    event_id: str | None = None


@dataclass(frozen=True)
class AppendImage:
    """``input_image_buffer.append``: one camera frame, JPEG bytes (``pictures.decode``). As in Qwen-Omni-Realtime."""

    image: bytes = field(repr=False)
    event_id: str | None = None


@dataclass(frozen=True)
class CreateItem:
    """``conversation.item.create``; ``item`` for ``items.item_from_wire``."""

    item: Json
    previous_item_id: str | None = None
    event_id: str | None = None


@dataclass(frozen=True)
class RetrieveItem:
    """``conversation.item.retrieve``."""

    item_id: str
    event_id: str | None = None


@dataclass(frozen=True)
class DeleteItem:
    """``conversation.item.delete``."""

    item_id: str
    event_id: str | None = None


@dataclass(frozen=True)
class TruncateItem:
    """``conversation.item.truncate``: of the assistant's audio, ``audio_end_ms`` were heard."""

    item_id: str
    content_index: int
    audio_end_ms: int
    event_id: str | None = None


@dataclass(frozen=True)
class CreateResponse:
    """``response.create``. ``response`` overrides settings, in GA's shape (``settings.override``).

    ``in_conversation`` False: out of band (``conversation: "none"``). ``input``: instead of the conversation, items or
    ``{"type": "item_reference", "id"}``; None: the conversation. ``words``: said as they are, if any."""

    response: Json
    spelled: Mapping[str, str]
    in_conversation: bool = True
    input: tuple[Json, ...] | None = None
    metadata: Json | None = None
    words: str = ""
    event_id: str | None = None


@dataclass(frozen=True)
class CancelResponse:
    """``response.cancel``; None: whichever is in progress."""

    response_id: str | None = None
    event_id: str | None = None


@dataclass(frozen=True)
class ReportPlayed:
    """``parley.playback``: of item ``item_id`` the listener has heard so much: milliseconds, or samples at the rate of
    the session's output format. One of the two is None."""

    item_id: str
    played_ms: float | None = None
    samples: int | None = None
    event_id: str | None = None


ClientMessage = (
    SessionUpdate
    | AppendAudio
    | CommitAudio
    | ClearAudio
    | ClearOutput
    | AppendImage
    | CreateItem
    | RetrieveItem
    | DeleteItem
    | TruncateItem
    | CreateResponse
    | CancelResponse
    | ReportPlayed
)
