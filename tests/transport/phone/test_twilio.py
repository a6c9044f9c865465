"""The webhook that answers a call, its signature, and a stream over a real socket: our simulator, and one nobody here
wrote (streamdouble)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from streamdouble import api as streamdouble
from streamdouble.session import SessionConfig
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.transport.live import PATIENCE_S, LiveServer
from tests.transport.phone.calling import eventually
from tests.transport.phone.carriers import MediaStreams
from transport.auth import Gate
from transport.phone.config import PhoneConfig
from transport.phone.policy import Policy
from transport.phone.twilio import signature

TOKEN = "12345"
FORM = {"CallSid": "CA1234567890ABCDE", "From": "+14158675309", "To": "+18005551212", "Digits": "1234"}


@asynccontextmanager
async def carrier(server: LiveServer, path: str = "/phone/twilio", **headers: str) -> AsyncIterator[MediaStreams]:
    """A carrier on a real connection, as long as the server keeps it."""
    url = f"ws://127.0.0.1:{server.port}{path}"
    async with connect(url, proxy=None, additional_headers=headers, open_timeout=PATIENCE_S) as socket:
        outgoing: asyncio.Queue[str] = asyncio.Queue()
        streams = MediaStreams(outgoing.put_nowait, telnyx="telnyx" in path)

        async def read() -> None:
            try:
                async for message in socket:
                    streams.take(message)
            except ConnectionClosed:
                pass

        async def write() -> None:
            while True:
                await socket.send(await outgoing.get())

        tasks = [asyncio.create_task(read()), asyncio.create_task(write())]
        streams.gone = tasks[0]  # type: ignore[attr-defined]
        try:
            yield streams
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def voice(server: LiveServer, form: Any = None, **headers: str) -> httpx.Response:
    return httpx.post(f"{server.url}/phone/twilio/voice", data=form or FORM, headers=headers, timeout=PATIENCE_S)


def test_the_signature_is_that_of_the_documentation() -> None:
    """twilio.com/docs/usage/security has this example, made here as it describes, by hand."""
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    text = url + "CallSidCA1234567890ABCDEDigits1234From+14158675309To+18005551212"
    by_hand = base64.b64encode(hmac.new(TOKEN.encode(), text.encode(), hashlib.sha1).digest())
    assert signature(TOKEN, url, FORM.items()) == by_hand
    known = FORM | {"Caller": "+14158675309"}
    assert signature(TOKEN, url, known.items()) == b"RSOYDt4T1cUTdK1PDd93/VVr8B8="


def test_the_answer_opens_a_stream_that_knows_the_call() -> None:
    config = PhoneConfig(default=Policy(), public_url="https://voice.example.com")
    with LiveServer(phone=config) as server:
        answer = voice(server)
        assert answer.headers["content-type"].startswith("application/xml")
        stream = ElementTree.fromstring(answer.text).find("./Connect/Stream")
        assert stream is not None
        assert stream.get("url") == "wss://voice.example.com/phone/twilio"
        named = {each.get("name"): each.get("value") for each in stream}
        assert named == {"number": FORM["To"], "caller": FORM["From"]}
        evil = voice(server, FORM | {"To": '"/><Dial>+900</Dial><a b="'})
        assert ElementTree.fromstring(evil.text).find(".//Dial") is None


@pytest.mark.parametrize(
    ("policy", "reason"),
    [(Policy(callers=("+49*",)), "rejected"), (Policy(hours=()), None), (None, "rejected")],
)
def test_a_call_that_is_not_taken_is_rejected(policy: Policy | None, reason: str | None) -> None:
    with LiveServer(phone=PhoneConfig(default=policy)) as server:
        reject = ElementTree.fromstring(voice(server).text).find("Reject")
        assert (reject.get("reason") if reject is not None else None) == reason


async def test_only_twilio_comes_in_where_there_is_a_token() -> None:
    config = PhoneConfig(twilio_auth_token=TOKEN, public_url="https://voice.example.com")
    with LiveServer(phone=config) as server:
        assert voice(server).status_code == 403
        assert voice(server, **{"X-Twilio-Signature": "bm8="}).json()["error"]["code"] == "invalid_signature"
        signed = signature(TOKEN, "https://voice.example.com/phone/twilio/voice", FORM.items()).decode()
        assert voice(server, **{"X-Twilio-Signature": signed}).status_code == 200
        assert voice(server, FORM | {"From": "+1900"}, **{"X-Twilio-Signature": signed}).status_code == 403
        with pytest.raises(InvalidStatus):
            async with carrier(server):
                pass
        signed = signature(TOKEN, "wss://voice.example.com/phone/twilio").decode()
        async with carrier(server, **{"X-Twilio-Signature": signed}) as streams:
            streams.start()
            await eventually(lambda: server.service.sessions == 1, "the call goes on")


async def test_a_key_opens_where_there_is_no_token_and_telnyx_brings_it_in_a_header() -> None:
    with LiveServer(gate=Gate(("sk-test",))) as server:
        assert voice(server).status_code == 401
        assert voice(server, Authorization="Bearer sk-test").status_code == 200
        for path, header in (("/phone/telnyx", "x-telnyx-streaming-auth-token"), ("/phone/asterisk", "")):
            with pytest.raises(InvalidStatus):
                async with carrier(server, path):
                    pass
            basic = "Basic " + base64.b64encode(b"parley:sk-test").decode()
            async with carrier(server, path, **({header: "sk-test"} if header else {"Authorization": basic})):
                pass


def test_a_form_without_end_is_refused() -> None:
    with LiveServer() as server:
        assert voice(server, {"x": "y" * 100_000}).status_code == 413


@pytest.mark.parametrize("path", ["/phone/twilio", "/phone/telnyx"])
async def test_a_call_over_a_real_connection(path: str) -> None:
    with LiveServer(phone=PhoneConfig(default=Policy(greeting="Hello."))) as server:
        async with carrier(server, path) as streams:
            streams.start()
            await eventually(lambda: len(streams.played) > 4000, "half a second of the greeting was played")
            streams.press("5")
            streams.press("#")
            before = len(streams.played)
            await eventually(lambda: len(streams.played) > before + 2000, "the keys are answered")
            streams.stop()
            await eventually(lambda: server.service.sessions == 0, "the call is over")


@pytest.mark.slow
async def test_a_peer_that_nobody_here_wrote(question: Path) -> None:
    policy = Policy(greeting="Hello.")
    with LiveServer(phone=PhoneConfig(default=policy)) as server:
        config = SessionConfig(
            response_timeout_s=PATIENCE_S, custom_parameters={"number": "+15550100200", "caller": "+15550100300"}
        )
        report = await streamdouble.call(
            f"ws://127.0.0.1:{server.port}/phone/twilio", audio_path=str(question), config=config
        )
        assert report.spoke
        assert not report.violations
        await eventually(lambda: server.service.sessions == 0, "the call is over")
