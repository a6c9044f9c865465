"""aiortc as the caller: a peer of its own loop, against a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from tests.transport.live import PATIENCE_S, LiveServer, read_wav

CALLS = "/v1/realtime/calls"


class Voice(MediaStreamTrack):
    """A WAV, then silence, in 20 ms frames on a schedule. It waits for ``begin_on``, where set."""

    kind = "audio"

    def __init__(self, wav: Path) -> None:
        super().__init__()
        self.rate, pcm = read_wav(wav)
        self.size = self.rate // 50
        self.frames = [np.ascontiguousarray(pcm[at : at + self.size]) for at in range(0, len(pcm), self.size)]
        self.count = 0
        self.origin: float | None = None
        self.begin_on: asyncio.Event | None = None

    async def recv(self) -> av.AudioFrame:
        if self.begin_on is not None:
            await self.begin_on.wait()
        if self.readyState != "live":
            raise MediaStreamError
        loop = asyncio.get_running_loop()
        self.origin = self.origin or loop.time()
        await asyncio.sleep(max(0.0, self.origin + self.count / 50 - loop.time()))
        pcm = self.frames[self.count] if self.count < len(self.frames) else np.zeros(0, np.int16)
        frame = av.AudioFrame.from_ndarray(np.pad(pcm, (0, self.size - len(pcm)))[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self.rate, self.count * self.size, Fraction(1, self.rate)
        self.count += 1
        return frame


class Slides(MediaStreamTrack):
    """A camera before which something of one colour is held up; the colour changes every ``every`` frames. It shows
    nothing before ``on``."""

    kind = "video"

    def __init__(self, colours: list[tuple[int, int, int]], every: int = 20) -> None:
        super().__init__()
        self.colours, self.every, self.count = colours, every, 0
        self.on: asyncio.Event | None = None

    async def recv(self) -> av.VideoFrame:
        if self.on is not None:
            await self.on.wait()
        await asyncio.sleep(0.05)
        colour = self.colours[self.count // self.every % len(self.colours)]
        pixels = np.full((96, 128, 3), colour, np.uint8)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = self.count * 4500, Fraction(1, 90000)
        self.count += 1
        return frame


class Peer:
    """A caller. ``heard``: the reply's samples, int16 at 48 kHz, one channel, as they came."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self.peer = RTCPeerConnection(RTCConfiguration([]))
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.seen: list[dict[str, Any]] = []
        self.heard: list[np.ndarray] = []
        self.location = ""
        self.channel = self.peer.createDataChannel("oai-events")
        self.channel.on("message", lambda text: self.events.put_nowait(json.loads(text)))
        self.peer.on("track", self._track)
        self.listening: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def call(cls, server: LiveServer, *tracks: MediaStreamTrack, **post: Any) -> AsyncIterator[Peer]:
        """Connected, and greeted."""
        peer = cls(server)
        try:
            await peer.offer(*tracks, **post)
            await peer.until("session.created")
            yield peer
        finally:
            await peer.close()

    async def offer(self, *tracks: MediaStreamTrack, path: str = CALLS, **headers: str) -> None:
        for track in tracks:
            self.peer.addTrack(track)
        await self.peer.setLocalDescription(await self.peer.createOffer())
        answer = await post(self.server, path, self.peer.localDescription.sdp, **headers)
        assert answer.status_code in (200, 201), answer.text
        self.location = answer.headers["location"]
        await self.peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))

    def _track(self, track: MediaStreamTrack) -> None:
        self.listening = asyncio.create_task(self._listen(track))

    async def _listen(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            assert isinstance(frame, av.AudioFrame)
            self.heard.append(frame.to_ndarray()[0, :: len(frame.layout.channels)])

    async def close(self) -> None:
        await self.peer.close()
        if self.listening is not None:
            await self.listening

    def send(self, type_: str, **fields: Any) -> None:
        self.channel.send(json.dumps({"type": type_, **fields}))

    async def until(self, *types: str) -> dict[str, Any]:
        """The next event of one of these types; what comes before is kept in ``seen``."""
        while True:
            async with asyncio.timeout(PATIENCE_S):
                event = await self.events.get()
            self.seen.append(event)
            if event["type"] in types:
                return event

    @property
    def kinds(self) -> list[str]:
        return [event["type"] for event in self.seen]


async def post(server: LiveServer, path: str, body: str = "", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
        typed = {"content-type": "application/sdp"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return await http.post(server.url + path, content=body, headers=typed)
