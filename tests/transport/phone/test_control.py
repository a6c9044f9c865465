"""Calls under an application's control: told of by webhook, taken, turned away, watched, held, sent on, hung up."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from openai.types.webhooks import RealtimeCallIncomingWebhookEvent
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.transport.live import PATIENCE_S, LiveServer
from tests.transport.phone.calling import Watcher, call_id, calls, eventually, phone_config, posted
from tests.transport.phone.test_twilio import carrier
from transport.auth import Gate
from transport.phone.policy import Policy

SECRET = "whsec_" + base64.b64encode(b"a secret of bytes").decode()


class Application(http.server.ThreadingHTTPServer):
    """Remembers what it was told; answers with ``status``."""

    def __init__(self, status: int = 200) -> None:
        self.told: list[tuple[dict[str, Any], dict[str, str], bytes]] = []
        told = self.told

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                told.append((json.loads(body), dict(self.headers.items()), body))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/calls"

    @classmethod
    @contextmanager
    def running(cls, status: int = 200) -> Iterator[Application]:
        with cls(status) as application:
            threading.Thread(target=application.serve_forever, daemon=True).start()
            yield application
            application.shutdown()

    async def id(self) -> str:
        """Of the first call it was told of."""
        await eventually(lambda: bool(self.told), "the application is told")
        found: str = self.told[0][0]["data"]["call_id"]
        return found


@contextmanager
def serving(policy: Policy, **more: Any) -> Iterator[LiveServer]:
    with LiveServer(phone=phone_config(policy, sip=None, webhook_secret=SECRET), **more) as server:
        yield server


async def test_an_application_takes_a_call_with_a_session_of_its_own() -> None:
    with Application.running() as application, serving(Policy(webhook=application.url)) as server:
        async with carrier(server) as streams:
            streams.start()
            id_ = await application.id()
            event, headers, body = application.told[0]
            told = RealtimeCallIncomingWebhookEvent.model_validate(event)
            assert {header.name: header.value for header in told.data.sip_headers} == {
                "From": "+15550100300",
                "To": "+15550100200",
            }
            lower = {name.lower(): value for name, value in headers.items()}
            signed = f"{lower['webhook-id']}.{lower['webhook-timestamp']}.".encode() + body
            digest = hmac.new(b"a secret of bytes", signed, hashlib.sha256).digest()
            assert lower["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
            assert server.service.sessions == 0, "it only rings"
            early = await posted(server, f"/v1/realtime/calls/{id_}/hold")
            assert (early.status_code, early.json()["error"]["code"]) == (409, "call_not_answered")
            bad = await posted(server, f"/v1/realtime/calls/{id_}/accept", {"type": "realtime", "instructions": 7})
            assert bad.status_code == 400
            session = {"type": "realtime", "instructions": "Speak of trains."}
            assert (await posted(server, f"/v1/realtime/calls/{id_}/accept", session)).status_code == 200
            await eventually(lambda: id_ in calls(server), "the call is taken")
            assert calls(server)[id_].settings.instructions == "Speak of trains."
            again = await posted(server, f"/v1/realtime/calls/{id_}/accept", session)
            assert again.status_code == 409


@pytest.mark.parametrize(("status", "answer"), [(None, 200), (486, 200), (200, 400), ("x", 400)])
async def test_an_application_turns_a_call_away(status: Any, answer: int) -> None:
    with Application.running() as application, serving(Policy(webhook=application.url)) as server:
        async with carrier(server) as streams:
            streams.start()
            id_ = await application.id()
            body = {} if status is None else {"status_code": status}
            assert (await posted(server, f"/v1/realtime/calls/{id_}/reject", body)).status_code == answer
            if answer == 200:
                await eventually(streams.gone.done, "the stream is closed")  # type: ignore[attr-defined]
                assert server.service.sessions == 0


async def test_an_application_that_fails_leaves_no_call() -> None:
    with Application.running(500) as application, serving(Policy(webhook=application.url)) as server:
        async with carrier(server) as streams:
            streams.start()
            await eventually(streams.gone.done, "the stream is closed")  # type: ignore[attr-defined]
            assert not calls(server)


async def test_an_application_watches_and_answers_the_call_s_tools() -> None:
    with serving(Policy(greeting="Hello.")) as server:
        async with carrier(server) as streams:
            streams.start()
            id_ = await call_id(server)
            async with Watcher.of(server, id_) as watcher:
                created = await watcher.until("session.created")
                assert created["session"]["id"] == id_
                output = {"type": "function_call_output", "call_id": "call_x", "output": "{}"}
                await watcher.send("conversation.item.create", item=output)
                await watcher.until("conversation.item.added")
                await watcher.send("session.update", session={"type": "realtime", "instructions": "New."})
                await watcher.until("session.updated")
                await watcher.send("input_audio_buffer.append", audio="")
                error = await watcher.until("error")
                assert "telephone" in error["error"]["message"]
                assert not [event for event in watcher.events if event["type"] == "response.output_audio.delta"]
                streams.press("7")
                await watcher.until("parley.call.dtmf")
                streams.stop()
                await watcher.until("parley.call.ended")


async def test_hold_digits_refer_and_hang_up() -> None:
    with serving(Policy(greeting="Hello.")) as server:
        async with carrier(server) as streams:
            streams.start()
            id_ = await call_id(server)
            path = f"/v1/realtime/calls/{id_}"
            async with Watcher.of(server, id_) as watcher:
                assert (await posted(server, f"{path}/hold", {"hold": True})).status_code == 200
                await watcher.until("parley.call.held")
                before = len(streams.played)
                await eventually(lambda: len(streams.played) > before + 4000, "they hear music")
                assert (await posted(server, f"{path}/hold", {"hold": False})).status_code == 200
                await watcher.until("parley.call.resumed")
            assert (await posted(server, f"{path}/hold", {"hold": 1})).status_code == 400
            before = len(streams.played)
            assert (await posted(server, f"{path}/dtmf", {"digits": "42"})).status_code == 200
            await eventually(lambda: len(streams.played) > before + 2000, "they hear tones")
            assert (await posted(server, f"{path}/dtmf", {"digits": "x"})).status_code == 409
            refused = await posted(server, f"{path}/refer", {"target_uri": "tel:+4930123456"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_possible")
            assert (await posted(server, f"{path}/refer", {"target_uri": "http://x"})).status_code == 400
            assert (await posted(server, f"{path}/hangup")).status_code == 200
            await eventually(streams.gone.done, "the stream is closed")  # type: ignore[attr-defined]
            assert (await posted(server, f"{path}/hangup")).status_code == 404


async def test_control_needs_an_api_key() -> None:
    with serving(Policy(), gate=Gate(("sk-test",))) as server:
        key = {"Authorization": "Bearer sk-test"}
        for name in ("accept", "reject", "refer", "dtmf", "hold", "hangup"):
            url = f"{server.url}/v1/realtime/calls/rtc_x/{name}"
            assert httpx.post(url, json={}, timeout=PATIENCE_S).status_code == 401
            body = {"target_uri": "tel:+1", "digits": "1"}
            assert httpx.post(url, json=body, headers=key, timeout=PATIENCE_S).status_code == 404
        made = httpx.post(f"{server.url}/v1/realtime/client_secrets", json={}, headers=key, timeout=PATIENCE_S)
        secret = {"Authorization": f"Bearer {made.json()['value']}"}
        url = f"{server.url}/v1/realtime/calls/rtc_x/hold"
        assert httpx.post(url, json={}, headers=secret, timeout=PATIENCE_S).status_code == 403
        for headers, status in ((secret, 403), (key, 404)):
            with pytest.raises(InvalidStatus) as refused:
                async with connect(f"{server.ws_url}?call_id=x", proxy=None, additional_headers=headers):
                    pass
            assert refused.value.response.status_code == status


@pytest.mark.parametrize(
    ("config", "body", "status", "code"),
    [
        ({"sip": None}, {"to": "+4930123"}, 501, "no_sip"),
        ({"callees": ("+49*",)}, {"to": "+1900"}, 403, "callee_not_allowed"),
        ({}, {"to": "+4930123"}, 501, "no_trunk"),
        ({}, {"to": "mailto:x"}, 400, "bad_address"),
        ({}, {"to": 7}, 400, "invalid_value"),
        ({}, {"to": "+49", "session": 7}, 400, "invalid_value"),
        ({"default": None}, {"to": "sip:a@127.0.0.1"}, 404, "number_not_served"),
    ],
)
async def test_whom_we_may_not_call(config: dict[str, Any], body: Any, status: int, code: str) -> None:
    with LiveServer(phone=phone_config(**config)) as server:
        refused = await posted(server, "/v1/phone/calls", body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
