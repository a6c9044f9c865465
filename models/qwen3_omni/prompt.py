"""ChatML for Qwen: segments of a conversation to parts, cut so that they can be appended one after the other.

Law: the parts of a conversation, concatenated, are the ids of the checkpoint's own chat template. The system block is
rendered by that template, the rest is ChatML as all of Qwen's templates write it. The cutting shows in four places,
none of which changes what is read:
- text is tokenized a segment at a time: two Texts in a row, or one that begins with a line break, may be other tokens
  of the same characters than in one piece;
- calls and answers are messages of their own, where a template would put several in a row into one message;
- special tokens written in a text stay text: nobody can end a message from inside it;
- a function is declared to the model in the nested form that Qwen was taught, whichever form the application sent.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from models.base import (
    Audio,
    Begin,
    CheckpointError,
    End,
    Frame,
    FunctionCall,
    FunctionResult,
    Instructions,
    Part,
    Segment,
    Text,
    Tokens,
)
from models.qwen3_omni.reader import Reader

log = logging.getLogger(__name__)

TRANSCRIBE = "Transcribe the audio into text."
"""Asks for the words just said, inside the user's message after its audio."""

_TEXT = "\ue000"
"""Stands for the instructions while the template is rendered; a private-use character that no template holds."""


class ChatMl:
    """Implements ``models.base.Prompt``."""

    def __init__(self, tokenizer: Tokenizer, template: str, eos: frozenset[int]) -> None:
        self.eos = eos
        self._tokenizer = tokenizer
        self._template = template
        added = tokenizer.get_added_tokens_decoder()
        self._special = {token.content: number for number, token in added.items() if token.special}
        self._split = re.compile("|".join(re.escape(token) for token in self._special))
        # With this set, a special token inside a text is encoded like any text. Ours are put in by id.
        tokenizer.encode_special_tokens = True
        self._tool_call = self._id("<tool_call>"), self._id("</tool_call>")
        self._id("<|im_end|>")  # every message ends so
        self._check_template()

    @classmethod
    def load(cls, folder: Path, eos: frozenset[int]) -> ChatMl:
        """The tokenizer and template of a checkpoint folder. Raises CheckpointError."""
        return cls(_read_tokenizer(folder), _read_template(folder), eos)

    def _id(self, token: str) -> int:
        found: int | None = self._tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(f"the tokenizer has no token {token!r}: is it Qwen's?")
        return found

    def _encode(self, markup: str, text: str = "") -> tuple[int, ...]:
        """Ids of ``markup``, special tokens and all, with ``text`` at its place and none in it."""
        ids: list[int] = []
        at = 0
        for match in self._split.finditer(markup):
            ids += self._plain(markup[at : match.start()], text)
            ids.append(self._special[match.group()])
            at = match.end()
        return (*ids, *self._plain(markup[at:], text))

    def _plain(self, markup: str, text: str) -> list[int]:
        encoded: list[int] = self._tokenizer.encode(markup.replace(_TEXT, text), add_special_tokens=False).ids
        return encoded

    # --- the conversation

    def parts(self, segment: Segment) -> list[Part]:
        """One segment -> parts."""
        if isinstance(segment, Audio | Frame):
            return [segment]
        if isinstance(segment, Begin):
            ids = self._encode(f"<|im_start|>{segment.role}\n")
        elif isinstance(segment, End):
            ids = self._encode("<|im_end|>\n")
        elif isinstance(segment, Text):
            ids = self._encode(_TEXT, segment.text)
        elif isinstance(segment, FunctionCall):
            name = json.dumps(segment.name, ensure_ascii=False)
            call = f'{{"name": {name}, "arguments": {segment.arguments}}}'
            ids = self._encode(f"<|im_start|>assistant\n<tool_call>\n{_TEXT}\n</tool_call><|im_end|>\n", call)
        elif isinstance(segment, FunctionResult):
            whole = f"<|im_start|>user\n<tool_response>\n{_TEXT}\n</tool_response><|im_end|>\n"
            ids = self._encode(whole, segment.output)
        else:
            ids = self._system(segment)
        return [Tokens(ids)] if ids else []

    def _system(self, segment: Instructions) -> tuple[int, ...]:
        if not segment.text and not segment.tools:
            return ()
        tools = [_nested(tool) for tool in segment.tools]
        messages = [{"role": "system", "content": _TEXT}] if segment.text else [_NOBODY]
        markup = _render(self._template, messages, tools).removesuffix(_NOBODY_RENDERED)
        return self._encode(markup, segment.text)

    def reply(self) -> list[Part]:
        """The header after which the assistant's tokens are decoded."""
        return [Tokens(self._encode("<|im_start|>assistant\n"))]

    def end_reply(self, eos: int | None) -> list[Part]:
        """Closes a reply; whatever ended it, the message ends as the template writes it."""
        return [Tokens(self._encode("<|im_end|>\n"))]

    def transcribe(self) -> list[Part]:
        """The request, and the header of its answer."""
        return [Tokens(self._encode(f"{TRANSCRIBE}<|im_end|>\n<|im_start|>assistant\n"))]

    def reader(self) -> Reader:
        """A fresh reader for one reply."""
        return Reader(self._tokenizer, *self._tool_call)

    def _check_template(self) -> None:
        """Says so in the log when the checkpoint's template is not the ChatML that ``parts`` writes."""
        conversation = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, _NOBODY]
        segments: list[Segment] = [
            Begin("user"),
            Text("a"),
            End(),
            Begin("assistant"),
            Text("b"),
            End(),
            Begin("user"),
            End(),
        ]
        ours = [token for segment in segments for part in self.parts(segment) for token in _ids(part)]
        if ours != list(self._encode(_render(self._template, conversation, []))):
            log.warning("the checkpoint's chat template is not the ChatML that this family writes; replies may suffer")


_NOBODY = {"role": "user", "content": ""}
"""Templates look at the first message, so that there must be one."""
_NOBODY_RENDERED = "<|im_start|>user\n<|im_end|>\n"


def _ids(part: Part) -> tuple[int, ...]:
    return part.ids if isinstance(part, Tokens) else ()


def _nested(tool: str) -> dict[str, Any]:
    """A function as Qwen was taught to read it. The Realtime API writes its fields flat."""
    fields: dict[str, Any] = json.loads(tool)
    if "function" in fields:
        return fields
    wanted = ("name", "description", "parameters")
    return {"type": "function", "function": {name: fields[name] for name in wanted if name in fields}}


def _render(template: str, messages: list[dict[str, str]], tools: list[dict[str, Any]]) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        rendered, _ = render_jinja_template([messages], tools=tools or None, chat_template=template)
    except Exception as error:  # a template is a program of the checkpoint's: anything may go wrong in it
        raise CheckpointError(f"the checkpoint's chat template fails: {error}") from error
    text: str = rendered[0]
    return text


def _read_tokenizer(folder: Path) -> Tokenizer:
    """tokenizer.json, or what transformers makes of vocab.json and merges.txt (as Qwen releases it)."""
    file = folder / "tokenizer.json"
    if file.is_file():
        try:
            return Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises plain Exception
            raise CheckpointError(f"{file} can't be read: {error}") from error
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} has neither tokenizer.json nor {name}: is it a whole checkpoint?")
    from transformers import AutoTokenizer

    backend: Tokenizer = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    return backend


def _read_template(folder: Path) -> str:
    """chat_template.jinja, chat_template.json, or the one inside tokenizer_config.json."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        file = folder / name
        if file.is_file():
            template = json.loads(file.read_text(encoding="utf-8")).get("chat_template")
            if isinstance(template, str):
                return template
    raise CheckpointError(f"{folder} has no chat template (chat_template.json or chat_template.jinja)")
