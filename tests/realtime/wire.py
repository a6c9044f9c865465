"""Is it an event of the API? The ``openai`` package's own types say so, and no field may be one they don't know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from openai.types.beta import realtime as beta
from openai.types.beta.realtime.realtime_server_event import RealtimeServerEvent as BetaServerEvent
from openai.types.realtime import RealtimeServerEvent
from openai.types.realtime.realtime_session_create_response import RealtimeSessionCreateResponse
from pydantic import BaseModel


def by_type(union: Any) -> dict[str, type[BaseModel]]:
    models = get_args(get_args(union)[0])
    return {get_args(model.model_fields["type"].annotation)[0]: model for model in models}


GA = by_type(RealtimeServerEvent)
BETA = by_type(BetaServerEvent)
# What the session object and our extensions add.
FORMATS = ("session.audio.input.format", "session.audio.output.format", "response.audio.output.format")
OURS = {"session.parley_summarise", *(f"{fmt}.parley_rate_hz" for fmt in FORMATS)}
KNOWN_EXTRAS = {"session.id", "session.object", "session.expires_at"} | OURS
SAMPLING = {f"session.{name}" for name in ("temperature", "top_p", "top_k", "repetition_penalty", "seed")}


def extras(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, BaseModel):
        for name in value.model_extra or {}:
            yield f"{path}.{name}".removeprefix(".")
        for name in type(value).model_fields:
            yield from extras(getattr(value, name), f"{path}.{name}".removeprefix("."))
    elif isinstance(value, list):
        for each in value:
            yield from extras(each, path)


def check(event: dict[str, Any]) -> BaseModel | None:
    """Raises unless the event is one of GA's (or ours: ``parley.*``)."""
    if event["type"].startswith("parley."):
        return None
    model = GA[event["type"]].model_validate(event)
    assert set(extras(model)) <= KNOWN_EXTRAS | SAMPLING, set(extras(model)) - KNOWN_EXTRAS
    if "session" in event:
        session = RealtimeSessionCreateResponse.model_validate(event["session"])
        assert session.id.startswith("sess_")
    return model


def check_beta(event: dict[str, Any]) -> BaseModel | None:
    """Raises unless the event is one of the beta's."""
    if event["type"].startswith("parley."):
        return None
    if "session" in event:  # the beta's types list OpenAI's models; ours is another
        beta.Session.model_validate({**event["session"], "model": None})
        return None
    return BETA[event["type"]].model_validate(event)
