"""sipp as a trunk: it challenges our REGISTER and our calls, and is registered at again in time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.transport.live import LiveServer
from tests.transport.phone.baresip import free_port
from tests.transport.phone.calling import call_id, calls, endpoint, eventually, nothing_is_left, phone_config, posted
from tests.transport.phone.sipp_scenarios import text
from transport.phone.config import TrunkConfig
from transport.phone.policy import Policy

pytestmark = pytest.mark.phone


@asynccontextmanager
async def playing(folder: Path, scenario: str, calls: int = 1) -> AsyncIterator[int]:
    """sipp waits as the scenario says, and must have had it all; gives its port. Its ``*_messages.log`` is in the
    folder."""
    path = folder / "scenario.xml"
    path.write_text(text(scenario))
    port, media = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM) // 2 * 2
    options = f"-sf {path} -m {calls} -p {port} -mp {media} -i 127.0.0.1 -mi 127.0.0.1"
    options += " -nostdin -trace_err -trace_msg -timeout 100"
    process = await asyncio.create_subprocess_exec(
        "sipp", *options.split(), cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        await asyncio.sleep(1.0)  # until it listens; what comes before is sent again
        yield port
        out, _ = await asyncio.wait_for(process.communicate(), 120)
    finally:
        if process.returncode is None:
            process.kill()
    errors = "".join(log.read_text(errors="replace") for log in folder.glob("*_errors.log"))
    assert process.returncode == 0, f"{scenario}: {errors[-3000:]}\n{out.decode(errors='replace')[-2000:]}"


async def test_we_register_with_a_password_and_again_before_it_expires(tmp_path: Path) -> None:
    async with playing(tmp_path, "registrar") as port:
        trunk = TrunkConfig(f"127.0.0.1:{port}", "4930", "secret", register=True)
        with LiveServer(phone=phone_config(trunk=trunk)) as server:
            registration = endpoint(server).registration
            assert registration is not None
            await eventually(lambda: registration.count == 2, "registered twice")
            assert registration.registered


async def test_a_trunk_that_wants_a_password_for_our_calls(tmp_path: Path) -> None:
    async with playing(tmp_path, "trunk") as port:
        trunk = TrunkConfig(f"127.0.0.1:{port}", "4930", "secret")
        with LiveServer(phone=phone_config(Policy(greeting="Hello."), trunk=trunk)) as server:
            assert (await posted(server, "/v1/phone/calls", {"to": "+49170"})).status_code == 201
            id_ = await call_id(server)
            call = calls(server)[id_]
            await eventually(lambda: call._speaking, "they answered, and we greet")
            assert (await posted(server, f"/v1/realtime/calls/{id_}/hangup")).status_code == 200
            await nothing_is_left(server)


@pytest.mark.parametrize("scenario", ["busy callee", "ringing callee"])
async def test_a_call_that_is_not_answered_leaves_nothing(tmp_path: Path, scenario: str) -> None:
    async with playing(tmp_path, scenario) as port:
        with LiveServer(phone=phone_config(Policy())) as server:
            made = await posted(server, "/v1/phone/calls", {"to": f"sip:bob@127.0.0.1:{port}"})
            assert made.status_code == 201
            if scenario == "ringing callee":
                leg = next(iter(endpoint(server)._calls.values()))
                await eventually(lambda: leg._provisional, "it rings")  # type: ignore[attr-defined]
                await posted(server, f"/v1/realtime/calls/{made.json()['id']}/hangup")
            await nothing_is_left(server)
