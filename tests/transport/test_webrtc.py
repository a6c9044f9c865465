from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import aioice.ice
import av
import httpx
import numpy as np
import pytest
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpreceiver import RTCRtpReceiver

from models.base import Audio, Begin, End, Frame
from realtime.events import EngineCommand, Extend
from realtime.host import EngineThread
from realtime.schedule import EngineConfig
from tests.clients.toy import long_winded, toy
from tests.realtime.doubles import toy_model
from tests.transport.live import PATIENCE_S, LiveServer
from tests.transport.rtc_peer import CALLS, Peer, Slides, Voice, post
from transport import rtc_call, rtc_line
from transport.auth import Gate


async def wait_for(condition: Callable[[], bool]) -> None:
    """For something that another thread brings about."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


def own_threads() -> set[str]:
    """All but those of asyncio's executors, which are kept for later."""
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


async def test_somebody_asks_aloud_and_hears_the_answer(server: LiveServer, question: Path) -> None:
    async with Peer.call(server, Voice(question)) as peer:
        await peer.until("input_audio_buffer.speech_started")
        await peer.until("input_audio_buffer.committed")
        await peer.until("output_audio_buffer.started")
        done = await peer.until("response.done")
        assert done["response"]["status"] == "completed"
        await peer.until("output_audio_buffer.stopped")
        assert peer.kinds[0] == "session.created"
        assert "response.output_audio.delta" not in peer.kinds, "audio goes over RTP"
        assert np.abs(np.concatenate(peer.heard).astype(np.int32)).max() > 100, "the reply is audible"


async def test_a_reply_is_cleared() -> None:
    with LiveServer(toy(long_winded)) as server:
        async with Peer.call(server, Slides([(0, 0, 0)])) as peer:
            content = [{"type": "input_text", "text": "Say something long."}]
            peer.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
            peer.send("response.create")
            started = await peer.until("output_audio_buffer.started")
            peer.send("output_audio_buffer.clear")
            cleared = await peer.until("output_audio_buffer.cleared")
            done = await peer.until("response.done")
    assert cleared["response_id"] == started["response_id"] == done["response"]["id"]
    assert done["response"]["status"] == "cancelled"
    assert "output_audio_buffer.stopped" not in peer.kinds


async def test_cameras_are_watched_at_the_models_rate(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    monkeypatch.setattr(rtc_call.RtcCall, "_see", lambda _, pixels: seen.append(pixels))
    async with Peer.call(server, Slides([(200, 30, 30), (30, 30, 200)])):
        await wait_for(lambda: len(seen) >= 3)
    colours = {"red" if picture.mean((0, 1))[0] > 120 else "blue" for picture in seen}
    assert colours == {"red", "blue"}
    assert seen[0].shape == (96, 128, 3)


async def test_of_a_camera_and_a_screen_the_screen_counts_while_it_moves(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last section is the screen's; once it stands still for long, the camera is seen again."""
    seen: list[str] = []
    monkeypatch.setattr(
        rtc_call.RtcCall, "_see", lambda _, pixels: seen.append("red" if pixels.mean((0, 1))[0] > 120 else "blue")
    )
    camera, screen = Slides([(200, 30, 30), (200, 90, 30)], every=4), Slides([(30, 30, 200), (30, 90, 200)], every=4)
    screen.on = asyncio.Event()
    async with Peer.call(server, camera, screen):
        await wait_for(lambda: seen.count("red") >= 2)
        screen.on.set()
        await wait_for(lambda: seen[-3:] == ["blue"] * 3)
        screen.on = asyncio.Event()
        await wait_for(lambda: seen[-2:] == ["red"] * 2)


async def test_a_call_ends_and_leaves_nothing(server: LiveServer, question: Path) -> None:
    calls = server.server.config.app.state.calls  # type: ignore[union-attr]
    threads = own_threads()
    async with Peer.call(server, Voice(question)):
        assert server.service.sessions == 1
        assert len(calls) == 1
    await wait_for(lambda: not server.service.sessions and not len(calls))
    await wait_for(lambda: own_threads() <= threads)


async def test_hanging_up(server: LiveServer) -> None:
    async with Peer.call(server, Slides([(0, 0, 0)])) as peer:
        assert (await post(server, peer.location + "/hangup")).status_code == 200
        await wait_for(lambda: peer.channel.readyState == "closed")
        assert (await post(server, peer.location + "/hangup")).status_code == 404
    await wait_for(lambda: not server.service.sessions)


async def test_a_caller_who_vanishes_is_waited_for_and_then_forgotten(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.05)  # seconds; 5 by RFC 7675
    monkeypatch.setattr(rtc_call, "GRACE_S", 0.2)
    calls = server.server.config.app.state.calls  # type: ignore[union-attr]
    peer = Peer(server)
    await peer.offer(Slides([(0, 0, 0)]))
    await peer.until("session.created")
    assert len(calls) == 1
    assert peer.peer.sctp is not None
    for protocol in peer.peer.sctp.transport.transport._connection._protocols:
        protocol.transport.abort()  # no word of goodbye reaches the server
    await wait_for(lambda: not server.service.sessions and not len(calls))
    await peer.close()


async def test_a_caller_without_a_data_channel_is_served(server: LiveServer, question: Path) -> None:
    peer = RTCPeerConnection(RTCConfiguration([]))
    peer.addTrack(Voice(question))
    heard: list[int] = []

    async def listen(track: MediaStreamTrack) -> None:
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.AudioFrame)
                heard.append(int(np.abs(frame.to_ndarray().astype(np.int32)).max()))

    listening: list[asyncio.Task[None]] = []
    peer.on("track", lambda track: listening.append(asyncio.create_task(listen(track))))
    await peer.setLocalDescription(await peer.createOffer())
    answer = await post(server, CALLS, peer.localDescription.sdp)
    await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
    await wait_for(lambda: max(heard, default=0) > 100)
    await peer.close()
    await asyncio.gather(*listening)
    await wait_for(lambda: not server.service.sessions)


async def test_a_call_goes_on_with_another_peer_connection(server: LiveServer) -> None:
    first, second = Peer(server), Peer(server)
    try:
        await first.offer(Slides([(0, 0, 0)]))
        created = await first.until("session.created")
        item = {"id": "kept", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi."}]}
        first.send("conversation.item.create", item=item)
        await first.until("conversation.item.done")
        await second.offer(Slides([(0, 0, 0)]), path=first.location)
        assert second.location == first.location
        async with asyncio.timeout(PATIENCE_S):
            while second.channel.readyState != "open":
                await asyncio.sleep(0.02)
        second.send("conversation.item.retrieve", item_id="kept")
        assert (await second.until("conversation.item.retrieved"))["item"]["id"] == "kept"
        second.send("session.update", session={"type": "realtime"})
        updated = await second.until("session.updated")
        assert updated["session"]["id"] == created["session"]["id"]
        assert server.service.sessions == 1
    finally:
        await first.close()
        await second.close()
    await wait_for(lambda: not server.service.sessions)


async def test_a_camera_is_added_to_a_call(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renegotiation: the same peer connection offers one section more."""
    seen: list[np.ndarray] = []
    monkeypatch.setattr(rtc_call.RtcCall, "_see", lambda _, pixels: seen.append(pixels))
    peer = Peer(server)
    try:
        peer.peer.addTransceiver("audio")
        await peer.offer()
        created = await peer.until("session.created")
        await peer.offer(Slides([(200, 30, 30)]), path=peer.location)
        await wait_for(lambda: len(seen) > 0)
        peer.send("session.update", session={"type": "realtime"})
        updated = await peer.until("session.updated")
        assert updated["session"]["id"] == created["session"]["id"]
        assert peer.peer.connectionState == "connected"
        refused = await post(server, peer.location, "v=0")
        assert refused.status_code == 400
        peer.send("session.update", session={"type": "realtime"})
        await peer.until("session.updated")
    finally:
        await peer.close()
    assert seen[0].mean((0, 1))[0] > 120
    await wait_for(lambda: not server.service.sessions)


async def test_a_camera_turned_on_in_the_middle_of_an_utterance(question: Path) -> None:
    """The engine is given the prompt that rtc_video.py states: sound, frame, sound, within one user turn."""
    given: list[object] = []

    class Watched(EngineThread):
        def submit(self, command: EngineCommand) -> None:
            given.append(command)
            super().submit(command)

    camera = Slides([(200, 30, 30), (30, 30, 200)], every=10)
    camera.on = asyncio.Event()
    with LiveServer(host=Watched(toy_model)) as server:
        async with Peer.call(server, Voice(question), camera) as peer:
            await peer.until("input_audio_buffer.speech_started")
            camera.on.set()
            await peer.until("response.created")
        await wait_for(lambda: not server.service.sessions)
    turn = [segment for command in given if isinstance(command, Extend) for segment in command.segments]
    begin = next(n for n, segment in enumerate(turn) if isinstance(segment, Begin) and segment.role == "user")
    kinds = [type(segment) for segment in turn[begin : turn.index(End(), begin)]]
    first = kinds.index(Frame)
    assert kinds[0] is Begin
    assert first > 1, "there was sound before the camera was on"
    assert set(kinds[1:first]) == {Audio}
    assert set(kinds[first:]) == {Audio, Frame}
    assert kinds[-1] is Audio
    samples = sum(len(segment.pcm) for segment in turn[begin + 1 : begin + first] if isinstance(segment, Audio))
    frame = turn[begin + first]
    assert isinstance(frame, Frame)
    assert frame.t_s is not None
    assert samples == round(frame.t_s * 16000), "the frame stands where it was seen"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "begins with v=0"),
        ("hello", "begins with v=0"),
        ("v=0\r\n", "neither audio nor a data channel"),
        ("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", "can't be answered"),
        ("v=0\r\nm=audio x y z\r\na=candidate:a b c\r\n", "can't be answered"),
        ("v=0\r\n" + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n" * 9, "media sections"),
        ("v=0\r\nm=audio 9 X 0\r\n" + "a=candidate:1 1 udp 1 192.0.2.1 1 typ host\r\n" * 129, "candidates"),
        ("v=0\r\n" + "a" * 70_000, "at most"),
    ],
)
async def test_what_is_no_offer_is_refused_with_words(server: LiveServer, body: str, says: str) -> None:
    answer = await post(server, CALLS, body)
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == "sdp"
    await wait_for(lambda: not server.service.sessions)


async def test_a_form_carries_the_session(server: LiveServer) -> None:
    peer = Peer(server)
    peer.peer.addTransceiver("audio")
    await peer.peer.setLocalDescription(await peer.peer.createOffer())
    session = {"type": "realtime", "instructions": "Speak of trains."}
    parts = {"sdp": (None, peer.peer.localDescription.sdp), "session": (None, json.dumps(session), "application/json")}
    async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
        answer = await http.post(server.url + CALLS, files=parts)
        assert answer.status_code == 201, answer.text
        await peer.peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        created = await peer.until("session.created")
        assert created["session"]["instructions"] == "Speak of trains."
        refused = await http.post(server.url + CALLS, files={"session": (None, "{}")})
        assert refused.status_code == 400
        refused = await http.post(server.url + CALLS, files={"sdp": (None, "v=0"), "session": (None, "[]")})
        assert refused.status_code == 400
    await peer.close()
    await wait_for(lambda: not server.service.sessions)


async def test_keys_secrets_and_room() -> None:
    gate = Gate(("key",), ("https://app.example",))
    with LiveServer(gate=gate, engine=EngineConfig(max_sessions=1)) as server:
        assert (await post(server, CALLS, "v=0")).status_code == 401
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as http:
            bound = {"session": {"type": "realtime", "instructions": "Bound."}}
            secret = await http.post(
                server.url + "/v1/realtime/client_secrets", json=bound, headers={"authorization": "Bearer key"}
            )
            value = secret.json()["value"]
            asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
            preflight = await http.options(server.url + CALLS, headers=asked)
            assert preflight.status_code == 204
            assert preflight.headers["access-control-allow-origin"] == "https://app.example"
            stranger = await http.options(server.url + CALLS, headers=asked | {"origin": "https://evil.example"})
            assert "access-control-allow-origin" not in stranger.headers
        bearer = {"authorization": f"Bearer {value}", "origin": "https://app.example"}
        first = Peer(server)
        await first.offer(Slides([(0, 0, 0)]), **bearer)
        created = await first.until("session.created")
        assert created["session"]["instructions"] == "Bound."
        full = Peer(server)
        full.peer.addTransceiver("audio")
        await full.peer.setLocalDescription(await full.peer.createOffer())
        refused = await post(server, CALLS, full.peer.localDescription.sdp, **bearer)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "server_full"
        assert refused.headers["retry-after"]
        await full.close()
        await first.close()
        await wait_for(lambda: not server.service.sessions)


def test_aiortc_keeps_its_jitter_buffer_where_ours_goes() -> None:
    assert rtc_line.JITTER_BUFFER.startswith(f"_{RTCRtpReceiver.__name__}__")
    assert rtc_line.JITTER_BUFFER in RTCRtpReceiver.__init__.__code__.co_names


@pytest.mark.parametrize("url", ["http://x", "stun:", "turn:host:1", "turn:@host", ""])
def test_what_is_no_ice_server(url: str) -> None:
    with pytest.raises(ValueError, match=r"STUN or TURN|user and a password"):
        rtc_line.ice_server(url)


def test_an_ice_server_with_a_password() -> None:
    server = rtc_line.ice_server("turn:me:p%40ss@turn.example:3478?transport=tcp")
    assert (server.urls, server.username, server.credential) == ("turn:turn.example:3478?transport=tcp", "me", "p@ss")
