from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests import virtual_time
from transport.phone.policy import TOOLS, Policy
from transport.phone.tools import Tools, Unable

POLICY = Policy(tools=TOOLS, transfers={"sales": "sip:sales@pbx"})


class RecordingCall:
    def __init__(self) -> None:
        self.done: list[Any] = []

    def hang_up(self, reason: str = "hung up") -> None:
        self.done.append("hang_up")

    async def spoken(self) -> None:
        self.done.append("spoken")

    async def transfer(self, target: str) -> None:
        if target != "sales":
            raise Unable("nobody of that name")
        self.done.append(("transfer", target))

    def send_digits(self, digits: str) -> None:
        self.done.append(("digits", digits))

    def hold(self, held: bool) -> None:
        self.done.append(("hold", held))

    def feed(self, event: Mapping[str, Any]) -> None:
        self.done.append(event)


def asked(name: str, arguments: Any, status: str = "completed") -> dict[str, Any]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    item = {"type": "function_call", "name": name, "call_id": "c1", "arguments": text, "status": "completed"}
    return {"type": "response.done", "response": {"status": status, "output": [item]}}


def run(name: str, arguments: Any) -> list[Any]:
    call = RecordingCall()
    doing = Tools(POLICY, call).asked(asked(name, arguments))
    assert doing is not None
    virtual_time.run(doing)
    return call.done


def output(done: list[Any]) -> Any:
    created = next(event for event in done if isinstance(event, dict) and event["type"] == "conversation.item.create")
    assert created["item"]["call_id"] == "c1"
    assert done[-1] == {"type": "response.create"}
    return json.loads(created["item"]["output"])


def test_each_does_what_it_says_after_what_is_being_said() -> None:
    assert run("hang_up", {})[:2] == ["spoken", "hang_up"]
    assert run("transfer_call", {"to": "sales"})[:2] == ["spoken", ("transfer", "sales")]
    assert run("send_digits", {"digits": "12#"})[:2] == ["spoken", ("digits", "12#")]
    assert run("hold_call", {"seconds": 30})[:3] == ["spoken", ("hold", True), ("hold", False)]
    assert output(run("send_digits", {"digits": "1"})) == {"done": True}


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("transfer_call", {"to": "boss"}, "nobody"),
        ("hold_call", {"seconds": -1}, "seconds"),
        ("hold_call", {"seconds": "x"}, "seconds"),
        ("hold_call", "{", "JSON"),
        ("hold_call", [], "object"),
    ],
)
def test_what_can_not_be_done_is_told_to_the_model(name: str, arguments: Any, why: str) -> None:
    assert why in output(run(name, arguments))["error"]


def test_others_functions_and_cut_responses_are_left_alone() -> None:
    tools = Tools(POLICY, RecordingCall())
    assert tools.asked(asked("look_up", {})) is None
    assert tools.asked(asked("hang_up", {}, "cancelled")) is None
    assert tools.asked({"type": "response.done", "response": {"status": "completed", "output": []}}) is None
    assert Tools(Policy(), RecordingCall()).asked(asked("hang_up", {})) is None


def test_the_model_sees_what_the_policy_allows_and_what_the_application_brings() -> None:
    mine = Tools(Policy(tools=("hang_up",)), RecordingCall()).definitions({"tools": [{"name": "look_up"}]})
    assert [tool["name"] for tool in mine] == ["hang_up", "look_up"]
    transfer = Tools(POLICY, RecordingCall()).definitions({})[1]
    assert transfer["parameters"]["properties"]["to"]["enum"] == ["sales"]
