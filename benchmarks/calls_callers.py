"""Callers for the browser benchmark: each says a clip, says it again over the answer, and notes what it plays and when.

Run as ``python -m benchmarks.calls_callers KIND URL CLIP COUNT TALK_S`` (KIND: rtc or ws, or another's server, fastrtc
or pipecat): JSON lines on stdout.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from websockets.asyncio.client import connect

from realtime.pcm import to_int16
from transport.call import read_question

RATE_HZ = 24000
CHUNK = RATE_HZ // 50
LOUD = 300
FIRST_WORDS_S = 0.6
"""So long the answer is listened to before it is talked over."""


@dataclass
class Heard:
    """What one caller measured; times of one clock, seconds."""

    connected: bool = False
    loud_s: list[float] = field(default_factory=list)
    """When each loud 20 ms of the answer was played."""
    spoke_s: float = 0.0
    """When the last loud sample of the clip left the microphone."""
    interrupted_s: float = 0.0
    """When the first loud sample of the second saying did."""
    underrun_ms: list[float] = field(default_factory=list)
    """Of each reply, as the server counts it."""
    loud_said: int = 0
    """Loud 20 ms that were said."""
    packets: int = 0
    """Of the answer's track, loud or not, that came over WebRTC."""


class Voice:
    """The clip, silence, and the clip again once ``FIRST_WORDS_S`` of an answer were heard: 20 ms at a time."""

    def __init__(self, clip: Path, heard: Heard) -> None:
        pcm = to_int16(read_question(clip).pcm)
        frames = [pcm[at : at + CHUNK] for at in range(0, len(pcm), CHUNK)]
        self._frames = [np.pad(frame, (0, CHUNK - len(frame))) for frame in frames]
        loud = [n for n, frame in enumerate(self._frames) if np.abs(frame.astype(np.int32)).max() > LOUD]
        self._first, self._last = loud[0], loud[-1]
        self._heard = heard
        self._at = 0
        self._sayings = 1

    def next(self, now: float) -> np.ndarray:
        """int16 [CHUNK], spoken from ``now`` on."""
        answer = [at for at in self._heard.loud_s if at > self._heard.spoke_s]
        over = self._at >= len(self._frames)
        if over and self._sayings == 1 and answer and now - answer[0] > FIRST_WORDS_S:
            self._at, self._sayings, over = 0, 2, False
        if over:
            return np.zeros(CHUNK, np.int16)
        if self._sayings == 1 and self._at == self._last:
            self._heard.spoke_s = now + CHUNK / RATE_HZ
        if self._sayings == 2 and self._at == self._first:
            self._heard.interrupted_s = now
        self._at += 1
        frame = self._frames[self._at - 1]
        self._heard.loud_said += bool(np.abs(frame.astype(np.int32)).max() > LOUD)
        return frame


class Microphone(MediaStreamTrack):
    """A voice for aiortc."""

    kind = "audio"

    def __init__(self, voice: Voice) -> None:
        super().__init__()
        self._voice, self._count, self._origin = voice, 0, 0.0

    async def recv(self) -> av.AudioFrame:
        """In real time."""
        loop = asyncio.get_running_loop()
        self._origin = self._origin or loop.time()
        due = self._origin + self._count * CHUNK / RATE_HZ
        await asyncio.sleep(due - loop.time())
        frame = av.AudioFrame.from_ndarray(self._voice.next(due)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, self._count * CHUNK, Fraction(1, RATE_HZ)
        self._count += 1
        return frame


def note(heard: Heard, event: dict[str, Any]) -> None:
    """What the server says of itself."""
    if event.get("type") == "parley.latency" and event.get("underrun_ms") is not None:
        heard.underrun_ms.append(float(event["underrun_ms"]))


async def offered(url: str, sdp: str) -> str:
    """The answer to an offer, as the OpenAI Realtime API has it."""
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
        headers = {"content-type": "application/sdp"}
        answer = await http.post(f"{url}/v1/realtime/calls", content=sdp, headers=headers)
    answer.raise_for_status()
    return answer.text


async def offered_as_json(url: str, sdp: str) -> str:
    """The same as FastRTC and Pipecat have it."""
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
        answer = await http.post(url, json={"sdp": sdp, "type": "offer", "webrtc_id": secrets.token_hex(8)})
    answer.raise_for_status()
    return str(answer.json()["sdp"])


async def over_rtc(
    url: str, clip: Path, heard: Heard, talk_s: float, offer: Callable[[str, str], Awaitable[str]] = offered
) -> None:
    """As a browser calls. What aiortc's jitter buffer lets out counts as played."""
    peer = RTCPeerConnection(RTCConfiguration([]))
    peer.addTrack(Microphone(Voice(clip, heard)))
    channel = peer.createDataChannel("oai-events")
    channel.on("message", lambda text: note(heard, json.loads(text)))
    listening: list[asyncio.Task[None]] = []
    peer.on("track", lambda track: listening.append(asyncio.create_task(listen(track, heard))))
    try:
        await peer.setLocalDescription(await peer.createOffer())
        answer = await offer(url, peer.localDescription.sdp)
        await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        heard.connected = True
        await asyncio.sleep(talk_s)
    finally:
        await peer.close()
        await asyncio.gather(*listening, return_exceptions=True)


async def listen(track: MediaStreamTrack, heard: Heard) -> None:
    """Until it ends."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        assert isinstance(frame, av.AudioFrame)
        heard.packets += 1
        if np.abs(frame.to_ndarray().astype(np.int32)).max() > LOUD:
            heard.loud_s.append(loop.time())


async def over_ws(url: str, clip: Path, heard: Heard, talk_s: float) -> None:
    """As `parley_client` calls: played from a buffer, 20 ms at a time, and flushed as stock clients do."""
    from parley_client import Player

    player, voice, loop = Player(), Voice(clip, heard), asyncio.get_running_loop()
    async with connect(url.replace("http", "ws") + "/v1/realtime", proxy=None, max_size=None) as socket:
        heard.connected = True
        receiving = asyncio.create_task(receive(socket, player, heard))
        origin = loop.time()
        for count in range(round(talk_s * 50)):
            due = origin + count * CHUNK / RATE_HZ
            await asyncio.sleep(due - loop.time())
            played = np.frombuffer(player.pull(CHUNK), "<i2").astype(np.int32)
            if np.abs(played).max() > LOUD:
                heard.loud_s.append(due)
            audio = base64.b64encode(voice.next(due).tobytes()).decode()
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            for item, played_ms in player.reports():
                await socket.send(json.dumps({"type": "parley.playback", "item_id": item, "played_ms": played_ms}))
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)


async def receive(socket: Any, player: Any, heard: Heard) -> None:
    """The server's events."""
    async for text in socket:
        event = json.loads(text)
        match event["type"]:
            case "response.output_audio.delta":
                player.push(event["item_id"], base64.b64decode(event["delta"]))
            case "parley.playout.pause" | "parley.playout.resume":
                player.pause(event["type"].endswith("pause"))
            case "input_audio_buffer.speech_started" | "conversation.item.truncated":
                player.flush()
            case _:
                note(heard, event)


async def over_fastrtc(url: str, clip: Path, heard: Heard, talk_s: float) -> None:
    await over_rtc(f"{url}/webrtc/offer", clip, heard, talk_s, offered_as_json)


async def over_pipecat(url: str, clip: Path, heard: Heard, talk_s: float) -> None:
    await over_rtc(f"{url}/api/offer", clip, heard, talk_s, offered_as_json)


CALLERS: dict[str, Callable[..., Any]] = {
    "rtc": over_rtc,
    "ws": over_ws,
    "fastrtc": over_fastrtc,
    "pipecat": over_pipecat,
}


async def main(kind: str, url: str, clip: str, count: int, talk_s: float) -> None:
    """``count`` callers at once, begun over a second."""
    heard = [Heard() for _ in range(count)]

    async def one(n: int) -> None:
        await asyncio.sleep(n / count)
        await CALLERS[kind](url, Path(clip), heard[n], talk_s)

    await asyncio.gather(*map(one, range(count)), return_exceptions=True)
    for each in heard:
        print(json.dumps(asdict(each)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
