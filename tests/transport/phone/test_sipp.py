"""sipp against our endpoint: many calls, cancelled at every stage, said twice, never acknowledged, malformed."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from realtime.schedule import EngineConfig
from tests import soak
from tests.realtime.doubles import toy_model
from tests.transport.live import PATIENCE_S, LiveServer
from tests.transport.phone.baresip import free_port
from tests.transport.phone.calling import SIP, endpoint, nothing_is_left, phone_config
from tests.transport.phone.sipp_scenarios import text
from transport.phone.policy import Policy

pytestmark = pytest.mark.phone

POLICY = Policy(greeting="Hello.")


async def sipp(
    server: LiveServer,
    folder: Path,
    scenario: str,
    *,
    calls: int = 1,
    at_once: int = 1,
    service: str = "100",
    tcp: bool = False,
    lost_percent: int = 0,
) -> None:
    """Runs it; every call must go as the scenario says, unless packets are lost: sipp never sends a lost ACK again."""
    path = folder / "scenario.xml"
    path.write_text(text(scenario))
    sip, media = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM) // 2 * 2
    options = f"-sf {path} -s {service} -m {calls} -l {at_once} -r 20 -p {sip} -mp {media} -t {'t1' if tcp else 'u1'}"
    fixed = "-i 127.0.0.1 -mi 127.0.0.1 -rtp_echo -nostdin -trace_err -recv_timeout 60000"
    fixed += f" -lost {lost_percent}" if lost_percent else ""
    command = ["sipp", f"127.0.0.1:{endpoint(server).port}", *options.split(), *fixed.split()]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 3 * PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
    errors = "".join(log.read_text(errors="replace") for log in folder.glob("*_errors.log"))
    assert process.returncode == 0 or lost_percent, (
        f"{scenario}: {errors[-3000:]}\n{out.decode(errors='replace')[-2500:]}"
    )


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    numbers = {"403": replace(POLICY, callers=("nobody",))}
    # The tests' machine may be too slow to speak to so many: they are to be let in all the same.
    engine = EngineConfig(max_sessions=40, speaking_share=0.01)
    with LiveServer(lambda: toy_model(64), engine=engine, phone=phone_config(POLICY, numbers=numbers)) as live:
        yield live


@contextmanager
def undecided() -> Iterator[str]:
    """An application that is told of calls and never decides; gives its URL."""

    class Silent(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    application = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    threading.Thread(target=application.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{application.server_address[1]}/"
    application.shutdown()


@pytest.mark.parametrize(
    "scenario",
    ["call", "late ack", "no codec", "cancel too late", "bye before ack", "unknown extension", "short timer",
     "options", "unknown method", "stray bye", "malformed"],
)  # fmt: skip
async def test_it_goes_as_the_scenario_says(server: LiveServer, tmp_path: Path, scenario: str) -> None:
    await sipp(server, tmp_path, scenario)
    await nothing_is_left(server)


async def test_it_goes_so_over_tcp_too(server: LiveServer, tmp_path: Path) -> None:
    await sipp(server, tmp_path, "call", calls=3, tcp=True)
    await nothing_is_left(server)


async def test_what_is_lost_is_said_again(server: LiveServer, tmp_path: Path) -> None:
    await sipp(server, tmp_path, "call", calls=soak.times(20, 8), at_once=soak.times(10, 8), lost_percent=10)
    await nothing_is_left(server)


async def test_who_is_not_allowed_is_told(server: LiveServer, tmp_path: Path) -> None:
    await sipp(server, tmp_path, "forbidden", service="403")
    await nothing_is_left(server)


async def test_other_codes_that_mean_what_they_say(tmp_path: Path) -> None:
    numbers = {"100": replace(POLICY, max_calls=1), "200": POLICY}
    config = replace(phone_config(numbers=numbers), default=None)
    with LiveServer(toy_model, engine=EngineConfig(max_sessions=2), phone=config) as server:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        await sipp(server, tmp_path / "a", "not found", service="999")
        first = asyncio.create_task(sipp(server, tmp_path / "b", "late ack", service="100"))
        while not len(endpoint(server)):
            await asyncio.sleep(0.01)
        await sipp(server, tmp_path / "a", "busy", service="100")
        await first
        await nothing_is_left(server)
    with LiveServer(toy_model, phone=phone_config(POLICY, sip=replace(SIP, trusted=()))) as server:
        await sipp(server, tmp_path, "forbidden")
        await nothing_is_left(server)


async def test_a_full_engine_is_a_busy_line(tmp_path: Path) -> None:
    with LiveServer(toy_model, engine=EngineConfig(max_sessions=1), phone=phone_config(POLICY)) as server:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        first = asyncio.create_task(sipp(server, tmp_path / "a", "late ack"))
        while server.service._host.stats().get("sessions", 0) == 0:
            await asyncio.sleep(0.01)
        await sipp(server, tmp_path / "b", "busy")
        await first
        await nothing_is_left(server)


async def test_cancelled_while_an_application_decides(tmp_path: Path) -> None:
    with undecided() as url:
        policy = replace(POLICY, webhook=url)
        with LiveServer(toy_model, phone=phone_config(policy)) as server:
            await sipp(server, tmp_path, "cancel while ringing", calls=5)
            await sipp(server, tmp_path, "cancel at once", calls=5)
            await nothing_is_left(server)


@soak.only  # in virtual time: test_sip_call.py
async def test_who_never_acknowledges_is_hung_up_on(server: LiveServer, tmp_path: Path) -> None:
    await sipp(server, tmp_path, "no ack")
    await nothing_is_left(server)


async def test_many_calls_in_a_row(server: LiveServer, tmp_path: Path) -> None:
    tasks = len(asyncio.all_tasks(server.loop))
    await sipp(server, tmp_path, "call", calls=soak.times(200, 40), at_once=8)
    await nothing_is_left(server)
    assert len(asyncio.all_tasks(server.loop)) <= tasks + 2


async def test_twenty_calls_at_once(server: LiveServer, tmp_path: Path) -> None:
    await sipp(server, tmp_path, "call", calls=soak.times(40, 20), at_once=20)
    await nothing_is_left(server)
