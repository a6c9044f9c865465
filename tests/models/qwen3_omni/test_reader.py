"""What is read of a reply: every character once, no function call spoken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from models.base import Call, MalformedCall, Reading, Speech
from models.qwen3_omni.reader import Reader
from models.qwen3_omni.tiny_text import id_of


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Tokenizer:
    return Tokenizer.from_file(str(checkpoint / "tokenizer.json"))


def reader(tokenizer: Tokenizer) -> Reader:
    return Reader(tokenizer, id_of(tokenizer, "<tool_call>"), id_of(tokenizer, "</tool_call>"))


def read(tokenizer: Tokenizer, ids: list[int]) -> list[Reading]:
    one = reader(tokenizer)
    return [*(reading for token in ids for reading in one.push(token)), *one.finish()]


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text).ids


def tokens(readings: list[Reading]) -> list[int]:
    return [reading.token for reading in readings if isinstance(reading, Speech)]


def spoken(readings: list[Reading]) -> str:
    return "".join(reading.text for reading in readings if isinstance(reading, Speech))


@given(st.text(max_size=30))
def test_text_is_spoken_whole(tokenizer: Tokenizer, text: str) -> None:
    ids = encode(tokenizer, text.replace("<", ""))
    readings = read(tokenizer, ids)
    assert spoken(readings) == tokenizer.decode(ids)
    assert tokens(readings) == ids


@given(st.lists(st.integers(0, 490), max_size=40))
def test_any_tokens_read_as_they_decode(tokenizer: Tokenizer, ids: list[int]) -> None:
    """Also broken UTF-8; every token is spoken once, in order."""
    readings = read(tokenizer, ids)
    assert spoken(readings) == tokenizer.decode(ids, skip_special_tokens=False)
    assert tokens(readings) == ids


@given(st.text(min_size=1, max_size=10))
def test_no_half_character_leaves_early(tokenizer: Tokenizer, text: str) -> None:
    one = reader(tokenizer)
    for token in encode(tokenizer, text.replace("<", "").replace("\ufffd", "")):
        assert "\ufffd" not in spoken(list(one.push(token)))


CALLS = st.builds(
    Call,
    st.text("abc_", min_size=1, max_size=8),
    st.dictionaries(st.text(max_size=4), st.text(max_size=6), max_size=2).map(
        lambda found: json.dumps(found, ensure_ascii=False)
    ),
)


@given(st.lists(CALLS, max_size=3), st.sampled_from(["", "Wait.", "é?"]), st.sampled_from(["", "\n", "\nDone."]))
def test_calls_are_read_and_not_spoken(tokenizer: Tokenizer, calls: list[Call], before: str, after: str) -> None:
    text = before
    for call in calls:
        body = f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments.replace("<", "")}}}'
        text += f"\n<tool_call>\n{body}\n</tool_call>"
    readings = read(tokenizer, encode(tokenizer, text + after))
    wanted = [Call(call.name, call.arguments.replace("<", "")) for call in calls]
    assert [reading for reading in readings if not isinstance(reading, Speech)] == wanted
    assert spoken(readings).strip() == (before + after).strip()
    if calls and not before + after.strip():
        assert not spoken(readings), "line breaks beside a call are the template's"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<tool_call>\n{oh}\n</tool_call>", "JSON"),
        ("<tool_call>\n[]\n</tool_call>", "object"),
        ('<tool_call>\n{"arguments": {}}\n</tool_call>', "name"),
        ('<tool_call>\n{"name": 3}\n</tool_call>', "name"),
        ('<tool_call>\n{"name": "f", "arguments": "x"}\n</tool_call>', "arguments"),
        ('<tool_call>\n{"name": "f"', "ended inside"),
        ("<tool_call><tool_call>{}</tool_call>", "JSON"),
        ("</tool_call>", "did not begin"),
    ],
)
def test_what_is_no_call_is_not_spoken_either(tokenizer: Tokenizer, text: str, reason: str) -> None:
    readings = read(tokenizer, encode(tokenizer, "Hm. " + text))
    assert spoken(readings).strip() == "Hm."
    (wrong,) = [reading for reading in readings if not isinstance(reading, Speech)]
    assert isinstance(wrong, MalformedCall)
    assert reason in wrong.reason


def test_a_function_without_arguments(tokenizer: Tokenizer) -> None:
    assert read(tokenizer, encode(tokenizer, '<tool_call>{"name": "f"}</tool_call>')) == [Call("f", "{}")]


def test_special_tokens_are_silent(tokenizer: Tokenizer) -> None:
    ids = [id_of(tokenizer, "<|im_start|>"), *encode(tokenizer, "so"), 10**6]
    assert spoken(read(tokenizer, ids)) == "so"
