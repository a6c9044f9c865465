"""Reads a reply token by token: speech as text that is whole characters, function calls apart from it."""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from tokenizers import Tokenizer

from models.base import Call, MalformedCall, Reading, Speech


class Reader:
    """Implements ``models.base.ReplyReader``. ``opens`` and ``closes`` are the ids that stand round a call.

    A token inside a character waits for the character. Whitespace waits for what follows: next to a call it is the
    template's line break and not speech.
    """

    def __init__(self, tokenizer: Tokenizer, opens: int, closes: int) -> None:
        self._tokenizer = tokenizer
        self._opens, self._closes = opens, closes
        self._added = tokenizer.get_added_tokens_decoder()
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._call: list[int] | None = None  # ids since ``opens``
        self._waiting: list[Speech] = []
        self._after_call = False

    def push(self, token: int) -> Sequence[Reading]:
        """Takes the next token; gives what it completes."""
        if self._call is not None:
            if token != self._closes:
                self._call.append(token)
                return []
            text, self._call, self._after_call = self._text(self._call), None, True
            return [_read_call(text)]
        if token == self._opens:
            spoken = self._spoken()
            self._call = []
            return spoken
        if token == self._closes:
            return [MalformedCall(self._text([token]), "the end of a call that did not begin")]
        if token in self._added and self._added[token].special:
            return []
        return self._say(token)

    def finish(self) -> Sequence[Reading]:
        """The reply is over."""
        if self._call is not None:
            text, self._call = self._text(self._call), None
            return [MalformedCall(text, "the reply ended inside a call")]
        return self._spoken(at_end=True)

    def _say(self, token: int) -> list[Reading]:
        text = self._utf8.decode(self._bytes(token))
        self._waiting.append(Speech(token, text))
        inside = bool(self._utf8.getstate()[0])
        if inside or not any(said.text.strip() for said in self._waiting):
            return []
        return self._let_go()

    def _spoken(self, at_end: bool = False) -> list[Reading]:
        """What was waiting, now that something else than speech comes: half a character is spoken, blanks are not,
        but for those that end a reply without calls."""
        broken = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        if broken:
            last = self._waiting.pop()
            self._waiting.append(Speech(last.token, last.text + broken))
        blank = not any(said.text.strip() for said in self._waiting)
        if blank and not (at_end and not self._after_call):
            self._waiting.clear()
        return self._let_go()

    def _let_go(self) -> list[Reading]:
        readings: list[Reading] = list(self._waiting)
        self._waiting.clear()
        return readings

    def _bytes(self, token: int) -> bytes:
        """What a token stands for; nothing for an id the tokenizer doesn't have."""
        if token in self._added:
            content: str = self._added[token].content
            return content.encode()
        return bytes(_byte_of()[letter] for letter in self._tokenizer.id_to_token(token) or "")

    def _text(self, ids: Sequence[int]) -> str:
        return b"".join(map(self._bytes, ids)).decode("utf-8", "replace")


def _read_call(text: str) -> Reading:
    """``{"name": ..., "arguments": {...}}``; arguments may be missing where a function takes none."""
    try:
        call: Any = json.loads(text)
    except ValueError as error:
        return MalformedCall(text, f"not JSON: {error}")
    if not isinstance(call, dict):
        return MalformedCall(text, "not a JSON object")
    name, arguments = call.get("name"), call.get("arguments", {})
    if not isinstance(name, str) or not name:
        return MalformedCall(text, "no name of a function")
    if not isinstance(arguments, dict):
        return MalformedCall(text, "the arguments are no JSON object")
    return Call(name, json.dumps(arguments, ensure_ascii=False))


@cache
def _byte_of() -> dict[str, int]:
    """The alphabet of byte-level BPE (GPT-2's): printable bytes are their own letters, others are numbered from 256."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
