from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import httpx
import pytest
from openai import OpenAI
from openai.types.realtime import ClientSecretCreateResponse

from models.base import CheckpointError, Model
from tests.realtime.doubles import toy_model
from tests.transport.live import PATIENCE_S, LiveServer, RawClient

LOOK = """
import sys, transport.app, transport.cli, transport.checkpoints
print([name for name in ("torch", "transformers") if name in sys.modules])
"""


def test_the_shells_never_load_torch() -> None:
    out = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_health_tells_the_truth(server: LiveServer) -> None:
    answer = server.get("/healthz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "alive", "model": "toy", "sessions": 0}


def post(server: LiveServer, path: str, body: Any, **headers: str) -> httpx.Response:
    return httpx.post(server.url + path, json=body, headers=headers, timeout=PATIENCE_S)


async def test_a_client_secret_opens_the_session_it_is_bound_to(server: LiveServer) -> None:
    session = {"type": "realtime", "instructions": "Speak of trains.", "audio": {"output": {"voice": "toyb"}}}
    body = {"session": session, "expires_after": {"anchor": "created_at", "seconds": 60}}
    answer = post(server, "/v1/realtime/client_secrets", body)
    assert answer.status_code == 200
    made = ClientSecretCreateResponse.model_validate(answer.json())
    assert made.value.startswith("ek_")
    assert made.session.instructions == "Speak of trains."
    secret = {"Authorization": f"Bearer {made.value}"}
    async with RawClient.connect(server, additional_headers=secret) as client:
        assert client.seen[0]["session"]["instructions"] == "Speak of trains."
        assert client.seen[0]["session"]["audio"]["output"]["voice"] == "toyb"
    assert post(server, "/v1/realtime/client_secrets", {}, **secret).status_code == 403
    assert server.get("/metrics", **secret).status_code == 403


def test_the_beta_s_way_to_a_secret(server: LiveServer) -> None:
    answer = post(server, "/v1/realtime/sessions", {"voice": "toyb", "modalities": ["audio", "text"]})
    assert answer.status_code == 200
    made = answer.json()
    assert made["voice"] == "toyb"
    assert made["client_secret"]["value"].startswith("ek_")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"session": {"type": "realtime", "output_modalities": 7}}, "session.output_modalities"),
        ({"session": "x"}, "session"),
        ({"expires_after": {"seconds": 5}}, "expires_after.seconds"),
        ({"expires_after": {"seconds": "x"}}, "expires_after"),
        ({"expires_after": {"seconds": True}}, "expires_after"),
        ({"expires_after": 7}, "expires_after"),
        ([], None),
    ],
)
def test_a_secret_that_could_not_be_used_is_refused(server: LiveServer, body: Any, param: str | None) -> None:
    answer = post(server, "/v1/realtime/client_secrets", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_a_body_without_end_is_refused(server: LiveServer) -> None:
    answer = httpx.post(f"{server.url}/v1/realtime/client_secrets", content=b" " * 2_000_000, timeout=PATIENCE_S)
    assert answer.status_code == 400


def test_the_model_is_listed(server: LiveServer) -> None:
    client = OpenAI(api_key="x", base_url=f"{server.url}/v1")
    assert [model.id for model in client.models.list()] == ["toy"]


async def test_metrics_count_what_happens(server: LiveServer) -> None:
    def figure(name: str) -> float:
        return next(
            float(line.split()[-1]) for line in server.get("/metrics").text.splitlines() if line.startswith(name)
        )

    replies = 'parley_replies_total{status="completed"}'
    opened, carried = figure("parley_sessions_opened_total"), figure('parley_bytes_total{direction="out"}')
    ttft = figure("parley_ttft_seconds_count")
    async with RawClient.connect(server) as client:
        assert (await client.ask("Hello?"))["response"]["status"] == "completed"
        await client.until("parley.latency")
        assert figure("parley_sessions ") == 1
        assert figure("parley_sessions_opened_total") == opened + 1
        assert figure(replies) >= 1
        assert figure("parley_ttft_seconds_count") == ttft + 1
        assert figure('parley_bytes_total{direction="out"}') > carried
        assert figure("parley_engine_sessions") >= 0


def test_there_is_a_page(server: LiveServer) -> None:
    answer = server.get("/")
    assert answer.status_code == 200
    assert "Parley" in answer.text
    assert server.get("/no/such/thing").status_code == 404


async def test_words_are_logged_on_request_alone(caplog: pytest.LogCaptureFixture) -> None:
    for package in ("transport", "realtime", "models"):
        caplog.set_level("DEBUG", logger=package)
    for asked in (False, True):
        caplog.clear()
        with LiveServer(log_transcripts=asked) as server:
            async with RawClient.connect(server) as client:
                done = await client.ask("A secret question")
        said = next(item for item in done["response"]["output"] if "content" in item)["content"][0]["text"].split()
        assert any(word in caplog.text for word in said) == asked


def test_a_model_that_can_not_be_loaded_stops_the_server() -> None:
    def broken() -> Model:
        raise CheckpointError("no such tensor: thinker.embed")

    with LiveServer(broken) as server:
        server.join()
        assert server.service.state == "dead"
        assert "thinker.embed" in server.service.failure


async def test_nobody_comes_in_while_the_model_loads() -> None:
    ready = threading.Event()

    def slow() -> Model:
        ready.wait(PATIENCE_S)
        return toy_model()

    with LiveServer(slow, wait=False) as server:
        answer = server.get("/healthz")
        assert (answer.status_code, answer.json()["status"]) == (503, "loading")
        refused = post(server, "/v1/realtime/client_secrets", {})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_loading")
        assert int(refused.headers["Retry-After"]) > 0
        ready.set()
        server.loaded()
        assert server.get("/healthz").json()["status"] == "alive"
