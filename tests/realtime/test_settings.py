"""Settings: what stock clients send is never an error, and what they see is a session of the API."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.base import Sampling, Spec
from realtime.errors import InvalidField
from realtime.pcm import PCM16, PCMA, PCMU, AudioFormat
from realtime.protocol_events import Ids, session_updated
from realtime.settings import Settings, TurnDetection, override, session_object, update
from tests.realtime.wire import check

SPEC = Spec("tiny", 16000, 24000, 1920, 4, ("ethan", "chelsie"), 4096)
START = Settings.for_model(SPEC, "tiny")
TOOL = {"type": "function", "name": "weather", "description": "", "parameters": {"type": "object"}}


def shown(settings: Settings) -> dict[str, Any]:
    session = session_object(settings, "sess_1", expires_at_s=1_800_000_000)
    check(Ids("x").stamp(session_updated(session)))
    return session


def turned(**fields: Any) -> dict[str, Any]:
    return {"audio": {"input": {"turn_detection": fields}}}


@st.composite
def sessions(draw: st.DrawFn) -> dict[str, Any]:
    """Any right ``session``, every field there or not."""
    vad = st.fixed_dictionaries(
        {"type": st.just("server_vad")},
        optional={
            "threshold": st.floats(0, 1),
            "prefix_padding_ms": st.integers(0, 10_000),
            "silence_duration_ms": st.integers(0, 60_000),
            "idle_timeout_ms": st.none() | st.integers(5000, 30_000),
            "create_response": st.booleans(),
            "interrupt_response": st.booleans(),
        },
    )
    semantic = st.fixed_dictionaries(
        {"type": st.just("semantic_vad")}, optional={"eagerness": st.sampled_from(["low", "medium", "high", "auto"])}
    )
    fmt = st.sampled_from([{"type": "audio/pcm", "rate": 24000}, {"type": "audio/pcmu"}, {"type": "audio/pcma"}])
    return draw(
        st.fixed_dictionaries(
            {"type": st.just("realtime")},
            optional={
                "instructions": st.text(max_size=20),
                "output_modalities": st.sampled_from([["audio"], ["text"], ["text", "audio"]]),
                "tools": st.lists(st.just(TOOL), max_size=2),
                "tool_choice": st.sampled_from(["auto", "none", "required", {"type": "function", "name": "weather"}]),
                "max_output_tokens": st.integers(1, 4096) | st.just("inf"),
                "tracing": st.sampled_from([None, "auto"]),
                "temperature": st.floats(0, 2),
                "audio": st.fixed_dictionaries(
                    {},
                    optional={
                        "input": st.fixed_dictionaries(
                            {},
                            optional={
                                "format": fmt,
                                "turn_detection": st.none() | vad | semantic,
                                "transcription": st.none() | st.just({"model": "whisper-1", "language": "en"}),
                                "noise_reduction": st.none() | st.just({"type": "near_field"}),
                            },
                        ),
                        "output": st.fixed_dictionaries(
                            {}, optional={"format": fmt, "voice": st.sampled_from(["alloy", "Chelsie", {"id": "v_1"}])}
                        ),
                    },
                ),
            },
        )
    )


@given(st.lists(sessions(), max_size=4))
def test_any_updates_show_as_a_session_of_the_api_and_change_only_what_they_name(updates: list[dict[str, Any]]) -> None:
    settings = START
    for session in updates:
        before, settings = settings, update(settings, session)
        assert update(settings, session) == settings  # said twice is said once
        for name in ("instructions", "tools", "tool_choice", "max_output_tokens", "temperature"):
            if name not in session:
                assert getattr(settings, name) == getattr(before, name)
        for side, fields in {"input": ("turn_detection", "transcription"), "output": ("voice",)}.items():
            for name in fields:
                if name not in session.get("audio", {}).get(side, {}):
                    assert getattr(settings, name) == getattr(before, name)
    assert settings.voice in SPEC.voices
    json.dumps(shown(settings))


def test_a_voice_that_we_lack_becomes_ours_and_the_session_says_so() -> None:
    for asked, got in [("alloy", "ethan"), ("Chelsie", "chelsie"), ({"id": "voice_1"}, "ethan"), (None, "ethan")]:
        session = shown(update(START, {"audio": {"output": {"voice": asked}}}))
        assert session["audio"]["output"]["voice"] == got


def test_a_model_without_a_voice_writes() -> None:
    mute = Settings.for_model(Spec("tiny", 16000, 24000, 1920, 4, (), 4096), "tiny")
    asked = update(mute, {"output_modalities": ["audio"], "audio": {"output": {"voice": "alloy"}}})
    assert not asked.speak
    assert shown(asked)["output_modalities"] == ["text"]


def test_turn_detection_keeps_what_is_not_named_within_one_kind_and_starts_anew_with_another() -> None:
    strict = update(START, turned(type="server_vad", threshold=0.9, idle_timeout_ms=5000))
    later = update(strict, turned(type="server_vad", silence_duration_ms=200))
    assert later.turn_detection == TurnDetection(threshold=0.9, idle_timeout_ms=5000, silence_duration_ms=200)
    eager = update(later, turned(type="semantic_vad", eagerness="high"))
    assert eager.turn_detection == TurnDetection(kind="semantic_vad", eagerness="high")
    assert update(later, turned(type="server_vad", idle_timeout_ms=None)).turn_detection.idle_timeout_ms is None  # type: ignore[union-attr]
    assert update(eager, {"audio": {"input": {"turn_detection": None}}}).turn_detection is None
    assert update(eager, {"audio": {"input": {}}}).turn_detection == eager.turn_detection


@pytest.mark.parametrize(
    ("session", "param"),
    [
        (turned(type="server_vad", threshold=1.5), "session.audio.input.turn_detection.threshold"),
        (turned(type="server_vad", silence_duration_ms=-1), "session.audio.input.turn_detection.silence_duration_ms"),
        ({"max_output_tokens": 0}, "session.max_output_tokens"),
        ({"temperature": 9.0}, "session.temperature"),
        ({"output_modalities": []}, "session.output_modalities"),
        ({"tools": [TOOL, {"type": "mcp", "server_label": "x"}]}, "session.tools[1].type"),
        ({"tools": [{"type": "function"}]}, "session.tools[0].name"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "session.tool_choice.type"),
        ({"type": "transcription"}, "session.type"),
        ({"parley_summarise": "yes"}, "session.parley_summarise"),
        ({"audio": {"input": {"format": {"parley_rate_hz": 44100}}}}, "session.audio.input.format.parley_rate_hz"),
    ],
)
def test_out_of_range_names_the_field(session: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidField) as caught:
        update(START, session)
    assert caught.value.param == param


def test_a_summary_of_the_oldest_turns_is_asked_for_by_name() -> None:
    assert "parley_summarise" not in shown(START)
    asked = update(START, {"parley_summarise": True})
    assert asked.summarise
    assert shown(asked)["parley_summarise"] is True
    assert not update(asked, {"parley_summarise": False}).summarise


def test_formats() -> None:
    for wire, ours in [
        ({"type": "audio/pcm", "rate": 24000}, PCM16),
        ({}, PCM16),
        ({"type": "audio/pcmu"}, PCMU),
        ({"type": "audio/pcma"}, PCMA),
        ({"type": "audio/pcm", "parley_rate_hz": 16000}, AudioFormat("audio/pcm", 16000)),
    ]:
        changed = update(START, {"audio": {"input": {"format": wire}, "output": {"format": wire}}})
        assert (changed.input_format, changed.output_format) == (ours, ours)
        shown(changed)


def test_one_response_may_differ_and_the_session_stays() -> None:
    loud = override(START, {"output_modalities": ["text"], "instructions": "Shout.", "max_output_tokens": 7})
    assert (loud.speak, loud.instructions, loud.max_output_tokens) == (False, "Shout.", 7)
    assert Settings.for_model(SPEC, "tiny") == START
    with pytest.raises(InvalidField, match=r"response\.temperature"):
        override(START, {"temperature": -1})


def test_the_prompt_holds_the_tools_that_may_be_called() -> None:
    other = {**TOOL, "name": "time"}
    told = update(START, {"instructions": "Be brief.", "tools": [TOOL, other]})
    assert [json.loads(tool)["name"] for tool in told.prompt().tools] == ["weather", "time"]
    assert update(told, {"tool_choice": "none"}).prompt().tools == ()
    assert "function" in update(told, {"tool_choice": "required"}).prompt().text
    named = update(told, {"tool_choice": {"type": "function", "name": "time"}}).prompt()
    assert [json.loads(tool)["name"] for tool in named.tools] == ["time"]
    assert named.text.startswith("Be brief.")


def test_sampling_is_the_models_own_but_for_what_was_set() -> None:
    own = Sampling(temperature=0.7, top_k=20, top_p=0.8, seed=5)
    assert START.sampling(own) == own
    assert update(START, {"temperature": 0.0, "top_k": 1}).sampling(own) == Sampling(0.0, 1, 0.8, seed=5)
