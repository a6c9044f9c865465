"""``parley call``: a caller in a box. Files in, in real time; the answer, the transcripts and the latencies out.

The shell round ``caller.Conversation``: it owns the socket, the clock and the pace of a microphone that is never
switched off (silence follows a question), or with ``push_to_talk`` of one that is.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import av
import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from models.base import Pcm
from realtime.events import Pcm16
from realtime.pcm import PCM16, encode
from transport.auth import is_loopback
from transport.caller import RATE_HZ, Conversation, Turn, speech_end

CHUNK = RATE_HZ // 50  # 20 ms
TRANSCRIPT_PATIENCE_S = 20.0  # a transcript is made below the reply's priority and may come after it
MAX_MESSAGE_BYTES = 32 * 1024 * 1024


class CallError(Exception):
    """The call can't be made; the text says why, and what to do."""


@dataclass(frozen=True)
class Question:
    """A clip to be said: float32 [n] at ``caller.RATE_HZ``."""

    name: str
    pcm: Pcm

    @property
    def seconds(self) -> float:
        return len(self.pcm) / RATE_HZ


@dataclass(frozen=True)
class CallOptions:
    """How a call is made."""

    url: str = "ws://127.0.0.1:8000/v1/realtime"
    api_key: str = ""
    image: Path | None = None
    """Shown before the first question."""
    speed: float = 1.0
    """1 = in real time; 2 = twice as fast (a latency is then still in seconds of the wall)."""
    patience_s: float = 60.0
    """How long the server may say nothing at all."""
    push_to_talk: bool = False
    """Commit and ask for the answer, instead of leaving the end of the turn to the server."""
    instructions: str = ""
    voice: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.speed <= 100:
            raise CallError(f"--speed must be above 0 and at most 100, not {self.speed:g}")


Progress = Callable[[int, float, float], None]
"""(question's number from 0, seconds said, seconds of answer that came)"""


def read_question(path: Path) -> Question:
    """Any rate, mono or stereo, any format that ffmpeg's libraries read. Raises CallError."""
    if not path.is_file():
        raise CallError(f"{path}: no such file")
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
    pieces: list[Pcm] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise CallError(f"{path}: there is no audio in it")
            for frame in [*container.decode(audio=0), None]:
                pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
    except (av.FFmpegError, ValueError) as error:
        raise CallError(f"{path}: not audio that can be read ({error}); a WAV file is what is wanted") from None
    pcm = np.concatenate(pieces).astype(np.float32) if pieces else np.zeros(0, np.float32)
    if not speech_end(pcm, RATE_HZ):
        raise CallError(f"{path}: {len(pcm) / RATE_HZ:.1f} s of silence; nothing would be answered")
    return Question(path.name, pcm)


def write_wav(path: Path, pcm: Pcm16) -> None:
    """int16 [n] at ``caller.RATE_HZ``."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes(pcm.astype("<i2").tobytes())


def websocket_url(url: str) -> str:
    """``http://host:8000`` or ``ws://host:8000/v1/realtime?model=x`` -> the WebSocket's address."""
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.netloc:
        raise CallError(f"{url!r} is not an address of a server: it looks like ws://127.0.0.1:8000/v1/realtime")
    path = parts.path.rstrip("/")
    if not path.endswith("/realtime"):
        path = f"{path}/realtime" if path.endswith("/v1") else f"{path}/v1/realtime"
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))


async def call(questions: list[Question], options: CallOptions, progress: Progress) -> Conversation:
    """Asks every question in turn and waits for each answer's end. Raises CallError."""
    url = websocket_url(options.url)
    proxy: Literal[True] | None = (
        None if is_loopback(urlsplit(url).hostname or "") else True
    )  # True: as the environment says
    headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
    try:
        async with connect(
            url, additional_headers=headers, max_size=MAX_MESSAGE_BYTES, open_timeout=options.patience_s, proxy=proxy
        ) as socket:
            return await Caller(socket, options, progress).run(questions)
    except InvalidStatus as refused:
        raise CallError(f"{url} refused the call: {_reason(refused)}") from None
    except InvalidURI as error:
        raise CallError(str(error)) from None
    except (OSError, TimeoutError, InvalidHandshake) as error:
        raise CallError(f"no server answers at {url} ({error}). Start one in another terminal: parley serve") from None


class Caller:
    """One call on an open socket."""

    def __init__(self, socket: ClientConnection, options: CallOptions, progress: Progress) -> None:
        self._socket = socket
        self._options = options
        self._progress = progress
        self._conversation = Conversation()
        self._due_s = 0.0  # when the chunk that is being recorded is complete
        self._last_event_s = 0.0

    async def run(self, questions: list[Question]) -> Conversation:
        """The whole call."""
        listening = asyncio.create_task(self._listen())
        try:
            talking = asyncio.create_task(self._talk(questions))
            done, _ = await asyncio.wait({listening, talking}, return_when=asyncio.FIRST_COMPLETED)
            if talking not in done:
                talking.cancel()
                listening.result()
            talking.result()
        except ConnectionClosed as closed:
            why = f": {self._conversation.last_error}" if self._conversation.last_error else ""
            raise CallError(f"the server ended the call ({_close_reason(closed)}){why}") from None
        finally:
            listening.cancel()
        return self._conversation

    async def _listen(self) -> None:
        while True:
            event = json.loads(await self._socket.recv())
            self._last_event_s = time.monotonic()
            self._conversation.receive(event, self._last_event_s)

    async def _talk(self, questions: list[Question]) -> None:
        self._due_s = self._last_event_s = time.monotonic()
        await self._send(type="session.update", session=self._session())
        if self._options.image is not None:
            await self._send(type="conversation.item.create", item=_image_item(self._options.image))
        for number, question in enumerate(questions):
            turn = self._conversation.ask(question.name)
            await self._say(number, question, turn)
            await self._hear(number, question, turn)

    async def _say(self, number: int, question: Question, turn: Turn) -> None:
        spoken = speech_end(question.pcm, RATE_HZ)
        for start in range(0, len(question.pcm), CHUNK):
            chunk = question.pcm[start : start + CHUNK]
            await self._record(chunk)
            end = start + len(chunk)
            if start < spoken <= end:
                turn.spoken_s = time.monotonic() - (end - spoken) / RATE_HZ / self._options.speed
                turn.asked = True
            self._progress(number, end / RATE_HZ, _heard_s(turn))
        if self._options.push_to_talk:
            await self._send(type="input_audio_buffer.commit")
            await self._send(type="response.create")

    async def _hear(self, number: int, question: Question, turn: Turn) -> None:
        silence = np.zeros(0 if self._options.push_to_talk else CHUNK, np.float32)
        self._last_event_s = max(self._last_event_s, time.monotonic())
        while not self._conversation.answered(now_s := time.monotonic()) or not self._conversation.transcribed:
            quiet_s = now_s - max(self._last_event_s, turn.player.ends_s)
            if quiet_s > self._options.patience_s:
                raise CallError(f"{question.name}: no answer; the server has said nothing for {quiet_s:.0f} s")
            if quiet_s > TRANSCRIPT_PATIENCE_S and self._conversation.answered(now_s):
                return
            await self._record(silence)
            self._progress(number, question.seconds, _heard_s(turn))

    async def _record(self, chunk: Pcm) -> None:
        """Waits until the chunk has been spoken, then sends it."""
        self._due_s += CHUNK / RATE_HZ / self._options.speed
        await asyncio.sleep(max(self._due_s - time.monotonic(), 0))
        if len(chunk):
            audio = base64.b64encode(encode(chunk, PCM16)).decode()
            await self._send(type="input_audio_buffer.append", audio=audio)

    async def _send(self, **event: Any) -> None:
        await self._socket.send(json.dumps(event))

    def _session(self) -> dict[str, Any]:
        wire = {"type": "audio/pcm", "rate": RATE_HZ}
        detection = None if self._options.push_to_talk else {"type": "server_vad"}
        output: dict[str, Any] = {"format": wire}
        session: dict[str, Any] = {"type": "realtime", "output_modalities": ["audio"]}
        if self._options.voice:
            output["voice"] = self._options.voice
        if self._options.instructions:
            session["instructions"] = self._options.instructions
        heard = {"format": wire, "turn_detection": detection, "transcription": {"model": "parley"}}
        return {**session, "audio": {"input": heard, "output": output}}


def _image_item(path: Path) -> dict[str, Any]:
    kinds = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise CallError(f"{path}: an image is a .jpg, .png or .webp file")
    try:
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise CallError(f"{path}: {error.strerror}") from None
    content = {"type": "input_image", "image_url": f"data:image/{kind};base64,{data}"}
    return {"type": "message", "role": "user", "content": [content]}


def _heard_s(turn: Turn) -> float:
    return sum(map(len, turn.player.pcm)) / RATE_HZ


def _reason(refused: InvalidStatus) -> str:
    """The server's own words, or the status alone."""
    status = refused.response.status_code
    try:
        return f"{json.loads(refused.response.body or b'')['error']['message']} (HTTP {status})"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}"


def _close_reason(closed: ConnectionClosed) -> str:
    if closed.rcvd is None:
        return "the connection broke; see the server's log"
    return f"{closed.rcvd.reason or 'no reason given'}, code {closed.rcvd.code}"
