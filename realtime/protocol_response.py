"""One response on the wire, in the only order the API knows.

    response.created
      response.output_item.added                        a message: opened by its first text or audio
      conversation.item.added
      response.content_part.added
        response.output_audio_transcript.delta ...      (response.output_text.delta in a text response)
        response.output_audio.delta ...                 (the transport's, from Play)
      response.output_audio.done                        (response.output_text.done)
      response.output_audio_transcript.done
      response.content_part.done
      conversation.item.done
      response.output_item.done
      response.output_item.added                        a function call
      conversation.item.added
      response.function_call_arguments.delta, .done
      conversation.item.done
      response.output_item.done
    response.done

A call may be written while the message before it is still being spoken: ``output_index`` tells them apart, and an
application need not wait for the end of a sentence to start its work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from realtime.conversation import Conversation
from realtime.errors import ParleyError
from realtime.events import Usage
from realtime.items import Item, OutputAudio, OutputText, item_to_wire
from realtime.protocol_events import Event, Ids, item_added, item_done
from realtime.settings import Settings, format_object

_ITEM_STATUS = {"completed": "completed", "incomplete": "incomplete", "cancelled": "incomplete", "failed": "incomplete"}
_REASONS: dict[str, set[str | None]] = {
    "completed": {None},
    "cancelled": {"turn_detected", "client_cancelled"},
    "incomplete": {"max_output_tokens", "content_filter"},
    "failed": {None},
}


class ResponseWriter:
    """Writes one response: ``start``, then ``write``, ``open_message`` and ``call`` in any order, then ``finish``.

    Each gives the events to send. Its items go into ``conversation`` as they appear on the wire; None: the response is
    out of band. Wrong use is our own bug: ValueError.
    """

    def __init__(
        self,
        ids: Ids,
        settings: Settings,
        conversation: Conversation | None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self._ids = ids
        self._settings = settings
        self._conversation = conversation
        self._metadata = metadata
        self._items: list[Item] = []
        self._before: dict[str, str | None] = {}  # item id -> the id before it in the conversation
        self._message: int | None = None  # output index of the message
        self._state = "new"
        self.response_id = ids.response()
        self.text = ""

    @property
    def item_id(self) -> str | None:
        """Id of the message; None as long as there is none."""
        return None if self._message is None else self._items[self._message].id

    @property
    def output_index(self) -> int:
        """The message's place in the response."""
        return self._message or 0

    @property
    def done(self) -> bool:
        """True after ``finish``."""
        return self._state == "done"

    @property
    def items(self) -> tuple[Item, ...]:
        """What the response has made so far."""
        return tuple(self._items)

    def start(self) -> list[Event]:
        """``response.created``."""
        self._expect("new")
        self._state = "open"
        if self._conversation is not None:
            self._conversation.begin_reply(self.response_id)
        return [{"type": "response.created", "response": self._response("in_progress", None, None)}]

    def open_message(self) -> list[Event]:
        """Makes sure that there is a message, so that audio can be sent; [] if there is one."""
        self._expect("open")
        if self._message is not None:
            return []
        self._message = len(self._items)
        events = self._add(
            Item(self._ids.item(), "message", "assistant", status="in_progress", response_id=self.response_id)
        )
        part = {"type": "audio", "transcript": ""} if self._settings.speak else {"type": "text", "text": ""}
        return [*events, self._content("response.content_part.added", part=part)]

    def write(self, text: str) -> list[Event]:
        """What the assistant says: a delta of the transcript, or of the text in a text response."""
        events = self.open_message()
        if not text:
            return events
        self.text += text
        kind = "output_audio_transcript" if self._settings.speak else "output_text"
        return [*events, self._content(f"response.{kind}.delta", delta=text)]

    def call(self, name: str, arguments: str) -> list[Event]:
        """A whole function call."""
        self._expect("open")
        index = len(self._items)
        item = Item(
            self._ids.item(),
            "function_call",
            call_id=self._ids.call(),
            name=name,
            status="in_progress",
            response_id=self.response_id,
        )
        events = self._add(item)
        place = {
            "response_id": self.response_id,
            "item_id": item.id,
            "output_index": index,
            "call_id": item.call_id,
        }
        kind = "response.function_call_arguments"
        events.append({"type": f"{kind}.delta", **place, "delta": arguments})
        events.append({"type": f"{kind}.done", **place, "name": name, "arguments": arguments})
        return [*events, *self._end(index, replace(item, arguments=arguments, status="completed"))]

    def finish(
        self,
        status: str,
        reason: str | None = None,
        usage: Usage | None = None,
        error: ParleyError | None = None,
        heard: str | None = None,
        audio_ms: int = 0,
    ) -> list[Event]:
        """Closes what is open and ends with ``response.done``. No audio of the response may be sent after it.

        ``status``: ``completed``; ``cancelled`` (``reason`` ``turn_detected`` or ``client_cancelled``); ``incomplete``
        (``max_output_tokens``); ``failed`` (``error``). ``heard``: what the user heard of the text, where that is less
        than all. ``audio_ms``: length of the audio sent, which later truncation is checked against.
        """
        self._expect("open")
        if status not in _REASONS or reason not in _REASONS[status] or (error is not None) != (status == "failed"):
            raise ValueError(f"no such end of a response: {status}, {reason}, {error}")
        if heard is not None:
            self.text = heard
        events = self._close_message(_ITEM_STATUS[status], audio_ms)
        self._state = "done"
        if self._conversation is not None:
            self._conversation.end_reply(self.response_id)
        details: Event = {"type": status, "reason": reason} if reason else {"type": status}
        if error is not None:
            details = {"type": status, "error": {"type": error.type, "code": error.code, "message": error.message}}
        response = self._response(status, details if status != "completed" else None, usage or Usage())
        return [*events, {"type": "response.done", "response": response}]

    # --- parts

    def _expect(self, state: str) -> None:
        if self._state != state:
            raise ValueError(f"the response is {self._state}, not {state}")

    def _add(self, item: Item) -> list[Event]:
        index = len(self._items)
        self._items.append(item)
        shown = item_to_wire(item)
        events = [self._output("response.output_item.added", index, shown)]
        if self._conversation is not None:
            self._before[item.id] = self._conversation.add(item)
            events.append(item_added(shown, self._before[item.id]))
        return events

    def _end(self, index: int, item: Item) -> list[Event]:
        self._items[index] = item
        shown = item_to_wire(item)
        events = []
        if self._conversation is not None:
            self._conversation.replace(item)
            events.append(item_done(shown, self._before[item.id]))
        return [*events, self._output("response.output_item.done", index, shown)]

    def _close_message(self, status: str, audio_ms: int) -> list[Event]:
        if self._message is None:
            return []
        if self._settings.speak:
            part = {"type": "audio", "transcript": self.text}
            events = [
                self._content("response.output_audio.done"),
                self._content("response.output_audio_transcript.done", transcript=self.text),
            ]
        else:
            part = {"type": "text", "text": self.text}
            events = [self._content("response.output_text.done", text=self.text)]
        said = OutputAudio(self.text, audio_ms) if self._settings.speak else OutputText(self.text)
        item = replace(self._items[self._message], content=(said,), status=status)
        return [*events, self._content("response.content_part.done", part=part), *self._end(self._message, item)]

    def _content(self, kind: str, **fields: Any) -> Event:
        return {
            "type": kind,
            "response_id": self.response_id,
            "item_id": self.item_id,
            "output_index": self.output_index,
            "content_index": 0,
            **fields,
        }

    def _output(self, kind: str, index: int, item: Event) -> Event:
        return {"type": kind, "response_id": self.response_id, "output_index": index, "item": item}

    def _response(self, status: str, details: Event | None, usage: Usage | None) -> Event:
        settings = self._settings
        return {
            "object": "realtime.response",
            "id": self.response_id,
            "status": status,
            "status_details": details,
            "output": [item_to_wire(item) for item in self._items],
            "conversation_id": None,
            "output_modalities": ["audio"] if settings.speak else ["text"],
            "max_output_tokens": "inf" if settings.max_output_tokens is None else settings.max_output_tokens,
            "audio": {"output": {"format": format_object(settings.output_format), "voice": settings.voice}},
            "usage": usage and usage_object(usage),
            "metadata": None if self._metadata is None else dict(self._metadata),
        }


def usage_object(usage: Usage) -> Event:
    """Tokens as ``response.done`` counts them."""
    input_tokens = usage.input_text + usage.input_audio + usage.input_image
    output_tokens = usage.output_text + usage.output_audio
    return {
        "total_tokens": input_tokens + output_tokens,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "input_token_details": {
            "text_tokens": usage.input_text,
            "audio_tokens": usage.input_audio,
            "image_tokens": usage.input_image,
            "cached_tokens": usage.cached,
        },
        "output_token_details": {"text_tokens": usage.output_text, "audio_tokens": usage.output_audio},
    }
