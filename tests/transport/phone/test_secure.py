"""A real telephone over TLS, its sound encrypted (SRTP, keys by SDES): both ways, on hold and back, and refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.transport.certificates import self_signed
from tests.transport.live import LiveServer
from tests.transport.phone.baresip import Baresip, microphone
from tests.transport.phone.calling import (
    HZ,
    SIP,
    Watcher,
    address,
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
from transport.phone.config import TrunkConfig

pytestmark = pytest.mark.phone


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a certificate, and one file of it and its key for baresip."""
    folder = tmp_path_factory.mktemp("tls")
    tls = self_signed(folder)
    (folder / "both.pem").write_text(tls.cert.read_text() + tls.key.read_text())
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    """Takes encrypted calls only."""
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    sip = replace(SIP, tls_cert=cert, tls_key=key, tls_port=0, tls_ca=cert, srtp_required=True)
    trunk = TrunkConfig(transport="tls", srtp=True)
    with greeting(sip, trunk) as live:
        yield live


def tls_address(server: LiveServer) -> str:
    return f"sip:100@127.0.0.1:{endpoint(server).tls_port};transport=tls"


def secured(folder: Path) -> str:
    return f"module srtp.so\nsip_cafile {folder}/cert.pem\nsip_certificate {folder}/both.pem\n"


async def test_they_call_and_hold_and_come_back(
    server: LiveServer, folder: Path, said: np.ndarray, tmp_path: Path
) -> None:
    source = microphone(tmp_path / "say.wav", [silence(0.5), said, silence(2.0)] * 12, HZ)
    params = ";mediaenc=srtp-mand"
    async with Baresip.start(tmp_path / "phone", source, params=params, more=secured(folder)) as phone:
        await phone.dial(tls_address(server))
        id_ = await call_id(server)
        call = leg(server)
        assert call.dialog.peer.transport == "tls"
        cipher = call.speaker._cipher
        assert cipher is not None
        async with Watcher.of(server, id_) as watcher:
            await watcher.until("input_audio_buffer.committed")
            await watcher.until("output_audio_buffer.started")
            await phone.command("hold")
            await eventually(lambda: call.speaker.muted, "they hold the line")
            await phone.command("resume")
            await eventually(lambda: not call.speaker.muted, "they are back")
            turns = len(watcher.of_kind("input_audio_buffer.committed"))
            await watcher.until("input_audio_buffer.committed", turns + 1)
        assert call.speaker._cipher is not None
        await phone.command("hangup")
        await nothing_is_left(server)
        _, heard = phone.heard()
    assert np.abs(heard).max() > 1000, "what we said was opened there"


async def test_we_call(server: LiveServer, folder: Path, said: np.ndarray, tmp_path: Path) -> None:
    source = microphone(tmp_path / "say.wav", [silence(1.0), said, silence(30)], HZ)
    params = ";answermode=auto;mediaenc=srtp"
    async with Baresip.start(tmp_path / "phone", source, params=params, more=secured(folder)) as phone:
        id_ = await call_out(server, f"sip:alice@127.0.0.1:{phone.port + 1}")
        await phone.until("CALL_ESTABLISHED")
        await eventually(lambda: leg(server).speaker._cipher is not None, "their answer settles the keys")
        async with Watcher.of(server, id_) as watcher:
            await watcher.until("input_audio_buffer.committed")
            await watcher.until("output_audio_buffer.stopped")
        await posted(server, f"/v1/realtime/calls/{id_}/hangup")
        await phone.until("CALL_CLOSED")
        await nothing_is_left(server)
        _, heard = phone.heard()
    assert np.abs(heard).max() > 1000, "what we said was opened there"


async def test_who_does_not_encrypt_is_refused(server: LiveServer, tmp_path: Path) -> None:
    source = microphone(tmp_path / "say.wav", [silence(60)], HZ)
    async with Baresip.start(tmp_path / "phone", source) as phone:
        await phone.command("dial", address(server))
        closed = await phone.until("CALL_CLOSED")
        assert "488" in str(closed)
    await nothing_is_left(server)


async def test_whom_we_call_who_does_not_encrypt_is_not_talked_to(
    server: LiveServer, folder: Path, tmp_path: Path
) -> None:
    source = microphone(tmp_path / "say.wav", [silence(60)], HZ)
    more = f"sip_certificate {folder}/both.pem\n"
    async with Baresip.start(tmp_path / "phone", source, params=";answermode=auto", more=more) as phone:
        await call_out(server, f"sip:alice@127.0.0.1:{phone.port + 1}")
        await asyncio.wait_for(nothing_is_left(server), 60)
        assert not phone.told("CALL_ESTABLISHED")
