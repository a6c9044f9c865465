"""An attended transfer with telephones that know Replaces (RFC 3891): the second call takes the place of ours."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transport.live import LiveServer
from tests.transport.phone.calling import (
    address,
    call_id,
    call_out,
    calls,
    eventually,
    greeting,
    nothing_is_left,
    posted,
)
from tests.transport.phone.test_trunk import playing
from tests.transport.phone.twinkle import ANSWERED, ESTABLISHED, Twinkle
from transport.phone.sip_dialog import Dialog

pytestmark = pytest.mark.phone


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with greeting() as live:
        yield live


async def consulted(server: LiveServer, caller: Twinkle, colleague: str) -> tuple[str, str, Dialog]:
    """Somebody calls us, and we call a colleague meanwhile: both calls, and what our side of the second is."""
    await caller.command(f"call {address(server)}")
    await caller.until(ANSWERED)
    first = await call_id(server)
    second = await call_out(server, colleague)
    dialog: Dialog = calls(server)[second]._leg.dialog  # type: ignore[attr-defined]
    await eventually(lambda: bool(dialog.remote_tag), "the colleague answers")
    return first, second, dialog


def replaced(messages: str) -> list[str]:
    return re.findall(r"^Replaces: *(.*?)\r?$", messages, re.MULTILINE)


def as_they_see_it(dialog: Dialog) -> str:
    """The call at the colleague's end: "to" is its own tag there."""
    return f"{dialog.call_id};to-tag={dialog.remote_tag};from-tag={dialog.local_tag}"


async def test_the_caller_s_telephone_takes_our_place(server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "colleague").mkdir()
    async with Twinkle.start(tmp_path / "caller", "alice") as caller:
        async with playing(tmp_path / "colleague", "replaced callee", calls=2) as port:
            first, second, dialog = await consulted(server, caller, f"sip:bob@127.0.0.1:{port}")
            sent_on = await posted(server, f"/v1/realtime/calls/{first}/refer", {"call_id": second})
            assert sent_on.status_code == 200, sent_on.text
            await nothing_is_left(server)
            await caller.until(ANSWERED, 2)  # of its call to the colleague, who is left by us
            await caller.command("bye")
        (log,) = (tmp_path / "colleague").glob("*_messages.log")
        told = replaced(log.read_text(errors="replace"))
    assert set(told) == {as_they_see_it(dialog)}


async def test_the_colleague_s_telephone_knows_which_call_is_meant(server: LiveServer, tmp_path: Path) -> None:
    """Twinkle 1.10 says so and stops there for ever, waiting for a lock that it holds: so no transfer ends at it."""
    async with (
        Twinkle.start(tmp_path / "caller", "alice") as caller,
        Twinkle.start(tmp_path / "colleague", "bob") as colleague,
    ):
        first, second, dialog = await consulted(server, caller, colleague.address)
        await colleague.until(ESTABLISHED)
        sending = asyncio.create_task(posted(server, f"/v1/realtime/calls/{first}/refer", {"call_id": second}))
        await eventually(lambda: "End call due to Replaces header." in colleague.log, "it finds the call")
        assert set(replaced(colleague.log)) == {as_they_see_it(dialog)}
        for id_ in (first, second):
            await posted(server, f"/v1/realtime/calls/{id_}/hangup")
        await sending
        colleague.kill()
    await nothing_is_left(server)
