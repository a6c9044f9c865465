"""Registered over TLS at a real trunk: calls come in on the connection that we made, go out over it, and after it broke
they do so over another."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.transport.live import LiveServer
from tests.transport.phone.baresip import Baresip, microphone
from tests.transport.phone.calling import (
    HZ,
    SIP,
    Watcher,
    call_id,
    call_out,
    endpoint,
    eventually,
    greeting,
    leg,
    nothing_is_left,
    posted,
    silence,
)
from tests.transport.phone.kamailio import PASSWORD, Kamailio
from transport.phone.config import TrunkConfig
from transport.phone.sip_registration import Registration

pytestmark = pytest.mark.phone

OURS = "4930"


def at(trunk: Kamailio) -> LiveServer:
    """A server of ours that is registered there and trusts nobody else."""
    account = TrunkConfig(f"127.0.0.1:{trunk.tls}", OURS, PASSWORD, register=True, transport="tls")
    sip = replace(SIP, tls_ca=str(trunk.certificate.cert), trusted=())
    return greeting(sip, account)


def registration(server: LiveServer) -> Registration:
    found = endpoint(server).registration
    assert found is not None
    return found


async def called(server: LiveServer, phone: Baresip, trunk: Kamailio) -> None:
    """The telephone calls our number at the trunk, is greeted and hangs up."""
    await phone.dial(f"sip:{OURS}@127.0.0.1:{trunk.udp}")
    id_ = await call_id(server)
    peer = leg(server).dialog.peer
    assert (peer.transport, peer.port) == ("tls", trunk.tls), "on the connection that we made"
    async with Watcher.of(server, id_) as watcher:
        await watcher.until("output_audio_buffer.stopped")
        await phone.command("hangup")
        assert (await watcher.until("parley.call.ended"))["reason"] == "they hung up"
    await nothing_is_left(server)


async def test_calls_over_the_connection_on_which_we_registered(tmp_path: Path) -> None:
    trunk = Kamailio(tmp_path / "trunk")
    source = microphone(tmp_path / "say.wav", [silence(60)], HZ)
    account = f";auth_user=alice;auth_pass={PASSWORD};answermode=auto"
    async with trunk.running():
        with at(trunk) as server:
            where = f"127.0.0.1:{trunk.udp}"
            async with Baresip.start(tmp_path / "phone", source, params=account, registrar=where) as phone:
                await phone.until("REGISTER_OK")
                await eventually(lambda: registration(server).count == 2, "registered, and again before it expires")
                await called(server, phone, trunk)
                _, heard = phone.heard()
                assert np.abs(heard).max() > 1000, "the greeting"
                id_ = await call_out(server, f"sip:alice@127.0.0.1:{trunk.tls}")
                await phone.until("CALL_ESTABLISHED", 2)
                async with Watcher.of(server, id_) as watcher:
                    await watcher.until("output_audio_buffer.stopped")
                    await posted(server, f"/v1/realtime/calls/{id_}/hangup")
                await phone.until("CALL_CLOSED", 2)
                await nothing_is_left(server)


async def test_the_trunk_restarts_and_we_are_there_again(tmp_path: Path) -> None:
    trunk = Kamailio(tmp_path / "trunk")
    source = microphone(tmp_path / "say.wav", [silence(60)], HZ)
    account = f";auth_user=alice;auth_pass={PASSWORD}"
    where = f"127.0.0.1:{trunk.udp}"
    async with AsyncExitStack() as first_run:
        await first_run.enter_async_context(trunk.running())
        with at(trunk) as server:
            await eventually(lambda: registration(server).registered, "registered")
            await first_run.aclose()
            await eventually(lambda: not registration(server).registered, "its end is noticed")
            before = registration(server).count
            async with trunk.running():
                await eventually(lambda: registration(server).count > before, "registered anew")
                async with Baresip.start(tmp_path / "phone", source, params=account, registrar=where) as phone:
                    await phone.until("REGISTER_OK")
                    await called(server, phone, trunk)
