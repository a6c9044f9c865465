"""What the server says: plain builders, one for each event of a turn. Names and fields are the GA API's.

They return the event without its ``event_id``; ``Ids.stamp`` puts that in when it is sent, so that ids rise in the
order of the wire. Events of a response come from ``protocol_response``, which keeps their order.
"""

from __future__ import annotations

import base64
from dataclasses import fields
from typing import Any

from realtime.errors import ParleyError
from realtime.events import Limits, Play, Timing

Event = dict[str, Any]


class Ids:
    """Ids of one session: a seed that tells sessions apart, and counters. No clock and no chance, so that a session
    that is fed the same says the same."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._counts: dict[str, int] = {}

    def _next(self, prefix: str) -> str:
        count = self._counts[prefix] = self._counts.get(prefix, 0) + 1
        return f"{prefix}_{self._seed}{count:05d}"

    def event(self) -> str:
        return self._next("event")

    def item(self) -> str:
        return self._next("item")

    def response(self) -> str:
        return self._next("resp")

    def call(self) -> str:
        return self._next("call")

    def stamp(self, event: Event) -> Event:
        """The event with the next ``event_id``, right after its type."""
        return {"type": event["type"], "event_id": self.event(), **event}


# --- session and conversation ------------------------------------------------


def session_created(session: Event) -> Event:
    """The first event of a session; ``settings.session_object``."""
    return {"type": "session.created", "session": session}


def session_updated(session: Event) -> Event:
    return {"type": "session.updated", "session": session}


def item_added(item: Event, previous_item_id: str | None) -> Event:
    """An item stands in the conversation; ``items.item_to_wire``."""
    return {"type": "conversation.item.added", "previous_item_id": previous_item_id, "item": item}


def item_done(item: Event, previous_item_id: str | None) -> Event:
    """An item is complete. Items that come whole are added and done at once."""
    return {"type": "conversation.item.done", "previous_item_id": previous_item_id, "item": item}


def item_retrieved(item: Event) -> Event:
    """With its audio."""
    return {"type": "conversation.item.retrieved", "item": item}


def item_deleted(item_id: str) -> Event:
    return {"type": "conversation.item.deleted", "item_id": item_id}


def item_truncated(item_id: str, content_index: int, audio_end_ms: int) -> Event:
    return {
        "type": "conversation.item.truncated",
        "item_id": item_id,
        "content_index": content_index,
        "audio_end_ms": audio_end_ms,
    }


def heard(
    item_id: str, content_index: int, audio_end_ms: int, transcript: str, *, estimated: bool, proportional: bool
) -> Event:
    """``parley.heard``, an extension: after a truncation, the words that are left of the item, and how sure that is.

    ``estimated``: nobody reported what was played, it was counted by the clock. ``proportional``: the model doesn't
    tell which word it is saying; characters were spread evenly over the audio."""
    return {
        "type": "parley.heard",
        "item_id": item_id,
        "content_index": content_index,
        "audio_end_ms": audio_end_ms,
        "transcript": transcript,
        "estimated": estimated,
        "proportional": proportional,
    }


# --- what is heard ------------------------------------------------


def speech_started(item_id: str, audio_start_ms: int) -> Event:
    """``audio_start_ms``: of all audio of the session, prefix padding included. ``item_id``: of the item to come."""
    return {"type": "input_audio_buffer.speech_started", "audio_start_ms": audio_start_ms, "item_id": item_id}


def speech_stopped(item_id: str, audio_end_ms: int) -> Event:
    return {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": audio_end_ms, "item_id": item_id}


def audio_committed(item_id: str, previous_item_id: str | None) -> Event:
    return {"type": "input_audio_buffer.committed", "previous_item_id": previous_item_id, "item_id": item_id}


def audio_cleared() -> Event:
    return {"type": "input_audio_buffer.cleared"}


def timeout_triggered(item_id: str, audio_start_ms: int, audio_end_ms: int) -> Event:
    """Nothing was said for ``idle_timeout_ms``."""
    return {
        "type": "input_audio_buffer.timeout_triggered",
        "audio_start_ms": audio_start_ms,
        "audio_end_ms": audio_end_ms,
        "item_id": item_id,
    }


def _transcription(kind: str, item_id: str, content_index: int) -> Event:
    return {
        "type": f"conversation.item.input_audio_transcription.{kind}",
        "item_id": item_id,
        "content_index": content_index,
    }


def transcription_delta(item_id: str, delta: str, content_index: int = 0) -> Event:
    return _transcription("delta", item_id, content_index) | {"delta": delta}


def transcription_completed(item_id: str, transcript: str, audio_s: float, content_index: int = 0) -> Event:
    """``audio_s``: length of what was transcribed."""
    usage = {"type": "duration", "seconds": audio_s}
    return _transcription("completed", item_id, content_index) | {"transcript": transcript, "usage": usage}


def transcription_failed(item_id: str, error: ParleyError, content_index: int = 0) -> Event:
    shown = {name: value for name, value in error.as_error().items() if name != "event_id"}
    return _transcription("failed", item_id, content_index) | {"error": shown}


# --- what is played ------------------------------------------------


def audio_delta(play: Play, data: bytes, content_index: int = 0) -> Event:
    """Speech over a WebSocket: ``data`` is ``play.pcm`` in the session's output format."""
    return {
        "type": "response.output_audio.delta",
        "response_id": play.response_id,
        "item_id": play.item_id,
        "output_index": play.output_index,
        "content_index": content_index,
        "delta": base64.b64encode(data).decode("ascii"),
    }


def output_audio_started(response_id: str) -> Event:
    """Over WebRTC and SIP, where audio does not come as events."""
    return {"type": "output_audio_buffer.started", "response_id": response_id}


def output_audio_stopped(response_id: str) -> Event:
    return {"type": "output_audio_buffer.stopped", "response_id": response_id}


def output_audio_cleared(response_id: str) -> Event:
    return {"type": "output_audio_buffer.cleared", "response_id": response_id}


# --- the rest ------------------------------------------------


def error(problem: ParleyError) -> Event:
    """Whatever was wrong; the session goes on."""
    return {"type": "error", "error": problem.as_error()}


def rate_limits(limits: Limits) -> Event:
    """``rate_limits.updated``: tokens of this conversation's context, and sessions (the API's ``requests``)."""
    room: list[Event] = [
        {"name": "tokens", "limit": limits.tokens, "remaining": limits.tokens_left, "reset_seconds": 0.0}
    ]
    if limits.sessions:
        room.append(
            {
                "name": "requests",
                "limit": limits.sessions,
                "remaining": limits.sessions_left,
                "reset_seconds": limits.retry_after_s,
            }
        )
    return {"type": "rate_limits.updated", "rate_limits": room}


def latency(response_id: str, timing: Timing, **more: float | None) -> Event:
    """``parley.latency``, an extension: one reply in DESIGN's words for time, in milliseconds (null: did not happen).

    ``more``: what the session measured itself, like ``e2e_ms``; and ``guessed_tokens`` and ``wasted_tokens`` since
    the last one: wasted_speculation is their quotient.
    """
    event: Event = {"type": "parley.latency", "response_id": response_id, "prefill_lag": timing.prefill_lag}
    for each in fields(timing):
        if each.name.endswith("_s"):
            seconds = getattr(timing, each.name)
            event[f"{each.name[:-2]}_ms"] = None if seconds is None else round(seconds * 1000, 1)
    return event | {name: None if value is None else round(value, 1) for name, value in more.items()}
