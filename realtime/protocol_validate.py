"""Checks of what came over the wire: is it JSON we can hold, has it the API's types, and if not, which field is wrong.

load        text -> a JSON object of sane depth, all of whose strings can be written out again
validated   an object -> the same with the types of an ``openai.types.realtime`` model, unset fields left out
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from realtime.errors import InvalidField

Json = Mapping[str, Any]

_PYDANTIC_OBJECT = re.compile(r"a valid dictionary or instance of \w+")
MAX_NUMBER = 2.0**64
MAX_DEPTH = 64  # a tool's JSON schema is the deepest thing that is sent; 64 is far beyond any


def load(text: str | bytes) -> dict[str, Any]:
    """The JSON object in ``text``. Raises InvalidField for anything else, too deep nesting and broken Unicode."""
    try:
        event = json.loads(text, parse_constant=_no_such_number)
    except RecursionError:
        raise InvalidField(f"nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:  # not JSON, not UTF-8, a number of 5,000 digits
        raise InvalidField(f"an event must be a JSON object in UTF-8: {error}") from None
    if not isinstance(event, dict):
        raise InvalidField(f"an event must be a JSON object, not {named(event)}")
    _check_tree(event)
    return event


def _no_such_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _check_tree(event: Json) -> None:
    """Bounds depth and numbers (1e999 is infinite, and 4,000 digits overflow a float), without recursion."""
    stack: list[tuple[Any, int]] = [(event, 1)]
    while stack:
        value, depth = stack.pop()
        if isinstance(value, str):
            _check_unicode(value)
        elif isinstance(value, int | float) and abs(value) > MAX_NUMBER:
            raise InvalidField("a number is too large")
        elif isinstance(value, dict | list):
            if depth > MAX_DEPTH:
                raise InvalidField(f"nested more than {MAX_DEPTH} levels deep")
            inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            stack.extend((each, depth + 1) for each in inside)


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidField("a string holds half a surrogate pair, which is not Unicode") from None


def named(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def mapping(event: Json, name: str) -> Json:
    """The object in field ``name``. Raises InvalidField."""
    value = event.get(name)
    if not isinstance(value, Mapping):
        said = "is missing" if name not in event else f"must be an object, not {named(value)}"
        raise InvalidField(f"{name} {said}", param=name)
    return value


def validated(
    model: type[BaseModel], value: Json, where: str = "", spelled: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """``value`` with the model's types; fields that were not sent stay out, unknown ones stay in.

    ``where``: path of ``value`` in the event; ``spelled``: GA path -> the client's own name. Raises InvalidField.
    """
    try:
        return model.model_validate(value).model_dump(exclude_unset=True, by_alias=True, warnings=False)
    except ValidationError as error:
        raise _field_error(error, value, where, spelled or {}) from None


def respelled(path: str, spelled: Mapping[str, str]) -> str:
    """A GA path as the client wrote it: ``session.audio.input.turn_detection.threshold`` may have been sent as
    ``session.turn_detection.threshold``."""
    for ga, own in spelled.items():
        if path == ga or path.startswith((f"{ga}.", f"{ga}[")):
            # A format was one word, so there is nothing below it to point to.
            return own if own.endswith("_format") else own + path.removeprefix(ga)
    return path


def _field_error(error: ValidationError, value: Json, where: str, spelled: Mapping[str, str]) -> InvalidField:
    """One error for the field that is most likely meant.

    A union fails in every branch; branches whose ``type`` is another one say nothing about this value.
    """
    errors = error.errors(include_url=False, include_input=True)
    other = [e["loc"][:-1] for e in errors if e["loc"][-1:] == ("type",) and e["type"] == "literal_error"]
    meant = [e for e in errors if not any(e["loc"][: len(branch)] == branch for branch in other)] or errors
    path = _path(meant[0]["loc"], value, where, meant[0]["type"] == "missing")
    same = [e for e in meant if _path(e["loc"], value, where, e["type"] == "missing") == path]
    why = "; or ".join(dict.fromkeys(_PYDANTIC_OBJECT.sub("an object", e["msg"]) for e in same))
    got = "" if same[0]["type"] == "missing" else f" (got {same[0]['input']!r:.100})"
    path = respelled(path, spelled)
    return InvalidField(f"{path}: {why}{got}", param=path)


def _path(loc: Sequence[int | str], value: Any, where: str, missing: bool) -> str:
    """``session.tools[0].name`` from pydantic's location, in which branches of unions appear as steps too."""
    path = where
    for step in loc:
        if isinstance(value, Mapping) and step in value:
            path, value = f"{path}.{step}", value[step]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            path, value = f"{path}[{step}]", value[step]
    return (f"{path}.{loc[-1]}" if missing else path).removeprefix(".")
