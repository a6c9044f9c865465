"""What can go wrong, and its code on the wire.

ParleyError
+-- ClientError            theirs: they sent something we can't take; an ``error`` event, the session goes on
|   +-- UnknownEvent         unknown_event
|   +-- InvalidField         invalid_value (``param`` names the field)
|   +-- InvalidAudio         invalid_audio
|   +-- InvalidImage         invalid_image
|   +-- BufferFull           input_audio_buffer_full
|   +-- NothingToCommit      input_audio_buffer_commit_empty
|   +-- NotFound             item_not_found, or item_VERB_invalid_item_id
|   +-- DuplicateItem        item_create_duplicate_item_id
|   +-- NotActive            response_cancel_not_active
|   +-- Conflict             conversation_already_has_active_response
|   +-- NothingToAnswer      function_call_cut_off
+-- ServerError            ours: an ``error`` event of type server_error
    +-- ServerFull           server_full (``retry_after_s``)
    +-- ContextFull          context_full
    +-- EngineFailed         engine_failed
    +-- MalformedCallError   malformed_function_call

``assert`` is for our own bugs only; nothing that a client sends raises AssertionError.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ParleyError(Exception):
    """Base of all; ``type`` and ``code`` as in the OpenAI API's error object."""

    type: ClassVar[str] = "server_error"
    code: str = "server_error"

    def __init__(self, message: str, *, param: str | None = None, event_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.event_id = event_id

    def as_error(self) -> dict[str, Any]:
        """The ``error`` object of an ``error`` event."""
        return {
            "type": self.type,
            "code": self.code,
            "message": self.message,
            "param": self.param,
            "event_id": self.event_id,
        }


class ClientError(ParleyError):
    """The client sent something that can't be taken. Nothing else is lost."""

    type = "invalid_request_error"
    code = "invalid_request"


class UnknownEvent(ClientError):
    """No such client event."""

    code = "unknown_event"


class InvalidField(ClientError):
    """A field is missing, of the wrong type or out of range; ``param`` names it."""

    code = "invalid_value"


class InvalidAudio(ClientError):
    """Not base64, an odd byte count, or too much in one event."""

    code = "invalid_audio"


class InvalidImage(ClientError):
    """Not a picture we can decode, or too large."""

    code = "invalid_image"


class BufferFull(ClientError):
    """The input audio buffer holds all it may: commit or clear it."""

    code = "input_audio_buffer_full"


class NothingToCommit(ClientError):
    """A commit of an empty (under 100 ms) input audio buffer."""

    code = "input_audio_buffer_commit_empty"


class NotFound(ClientError):
    """No item with that id. ``verb``: what was to be done with it (``retrieve``, ``delete``, ``truncate``), where the
    API has a code of its own for that; stock clients look at it to tell what is harmless."""

    code = "item_not_found"

    def __init__(
        self, message: str, *, param: str | None = None, event_id: str | None = None, verb: str | None = None
    ) -> None:
        super().__init__(message, param=param, event_id=event_id)
        if verb is not None:
            self.code = f"item_{verb}_invalid_item_id"


class DuplicateItem(ClientError):
    """There is an item of that id already."""

    code = "item_create_duplicate_item_id"


class NotActive(ClientError):
    """There is no such response in progress. Its message begins with "Cancellation failed", as the API's does: that is
    what stock clients forgive."""

    code = "response_cancel_not_active"


class Conflict(ClientError):
    """A response is in progress; cancel it or wait for response.done."""

    code = "conversation_already_has_active_response"


class NothingToAnswer(ClientError):
    """A reply was asked for to a function's result that was dropped."""

    code = "function_call_cut_off"


class ServerError(ParleyError):
    """Our side failed."""


class ServerFull(ServerError):
    """Every slot is taken."""

    code = "server_full"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def as_error(self) -> dict[str, Any]:
        return {**super().as_error(), "retry_after_s": self.retry_after_s}


class ContextFull(ServerError):
    """The conversation (or all of them together) holds more than the model's cache: delete items."""

    code = "context_full"


class EngineFailed(ServerError):
    """A step failed for this session, or the engine went away."""

    code = "engine_failed"


class MalformedCallError(ServerError):
    """The model wrote something that is no function call where one should be."""

    code = "malformed_function_call"
