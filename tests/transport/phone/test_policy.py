from __future__ import annotations

from datetime import datetime

import pytest

from transport.phone.policy import Hours, Policy, normal


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("hours", "now", "open_"),
    [
        ("mon-fri 09:00-17:30", "2026-11-23T09:00+00:00", True),  # a Monday
        ("mon-fri 09:00-17:30", "2026-11-23T17:30+00:00", False),
        ("mon-fri 09:00-17:30", "2026-11-22T12:00+00:00", False),
        ("mon,wed 22:00-02:00", "2026-11-24T01:59+00:00", True),  # it was Monday's night
        ("mon,wed 22:00-02:00", "2026-11-25T01:59+00:00", False),
        ("sat-mon 00:00-00:00", "2026-11-22T03:00+00:00", True),
        ("sun 00:00-00:00", "2026-11-23T00:00+00:00", False),
    ],
)
def test_hours(hours: str, now: str, open_: bool) -> None:
    assert Hours.parse(hours).hold(at(now)) == open_


@pytest.mark.parametrize("text", ["", "mon", "mon 9-17", "xyz 09:00-10:00", "mon-fri", "mon 09:00", "mon 25:00-26:00"])
def test_hours_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="should look like"):
        Hours.parse(text)


def test_hours_are_local() -> None:
    policy = Policy(hours=(Hours.parse("mon 09:00-10:00"),), time_zone="Europe/Berlin")
    assert policy.objection("x", at("2026-11-23T08:30+00:00")) == ""
    assert policy.objection("x", at("2026-11-23T09:30+00:00")) == "closed"


def test_who_may_call() -> None:
    policy = Policy(callers=("+49*", "reception"))
    now = at("2026-11-23T08:30+00:00")
    assert [policy.objection(who, now) for who in ("+4930123", "reception", "+1555", "")] == [
        "", "", "caller_not_allowed", "caller_not_allowed",
    ]  # fmt: skip


def test_one_spelling_of_a_number() -> None:
    assert normal("+1 (555) 010-0200") == normal("+1.555.010/0200") == "+15550100200"
    assert normal("Sales") == "sales"


def test_what_is_said_first() -> None:
    assert Policy().first_words() is None
    words = Policy(instructions="Be kind.", greeting="Good day.", recordings="/x").first_words()
    assert words is not None
    assert words["response"] == {"parley_say": "This call is recorded. Good day."}
    assert Policy(greeting="Good day.", message="Call us.").message_left()["response"] == {"parley_say": "Call us."}
    assert Policy(recordings="/x", announcement="").first_words() is None


def test_its_session_is_the_policy_s_and_then_the_application_s() -> None:
    policy = Policy(instructions="Be kind.", voice="a")
    tool = {"type": "function", "name": "hang_up"}
    assert policy.session([tool], {}) == {
        "type": "realtime", "instructions": "Be kind.", "audio": {"output": {"voice": "a"}}, "tools": [tool],
    }  # fmt: skip
    assert policy.session([], {"instructions": "Be brief."})["instructions"] == "Be brief."


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_minutes": 0}, "max_minutes"),
        ({"time_zone": "Mars/Base"}, "time_zone"),
        ({"tools": ("fly",)}, "no tools fly"),
        ({"tools": ("transfer_call",)}, "transfers"),
        ({"webhook": "ftp://x"}, "webhook"),
    ],
)
def test_what_can_not_be(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Policy(**wrong)  # type: ignore[arg-type]
