"""Debian's chromium, headless, as the person at the screen: its microphone hears a WAV, its loudspeaker is recorded."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from playwright.sync_api import Browser, BrowserContext, Page, Playwright

from tests.transport.live import PATIENCE_S

CHROMIUM = shutil.which("chromium")
LOUDSPEAKER = (Path(__file__).parent / "loudspeaker.js").read_text()
VOICE = (Path(__file__).parent / "voice.js").read_text()
PATIENCE_MS = PATIENCE_S * 1000
FLAGS = [
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-gpu",
    "--use-fake-device-for-media-stream",
    "--disable-features=WebRtcHideLocalIpsWithMdns",  # no mDNS here: candidates with addresses
]


def launch(
    playwright: Playwright, wav: Path | None = None, camera: Path | None = None, screen: bool = False
) -> Browser:
    """``wav`` is heard over and over; ``camera`` is a .y4m or .mjpeg file. ``screen``: one of Chromium's making is
    shared without a question (and any camera and microphone given)."""
    flags = [*FLAGS]
    if wav is not None:
        flags.append(f"--use-file-for-fake-audio-capture={wav}")
    if camera is not None:
        flags.append(f"--use-file-for-fake-video-capture={camera}")
    if screen:
        flags.append("--use-fake-ui-for-media-stream")
    return playwright.chromium.launch(executable_path=CHROMIUM, args=flags, timeout=PATIENCE_MS)


def fake_microphone(path: Path, wav: Path, before_s: float, after_s: float) -> Path:
    """``wav`` at 48 kHz with silence around it: what Chromium plays in a loop as its microphone."""
    subprocess.run(["sox", wav, "-r", "48000", "-c", "1", path, "pad", str(before_s), str(after_s)], check=True)
    return path


def y4m(path: Path, picture: np.ndarray, frames: int = 20) -> Path:
    """A still picture, uint8 [h, w, 3], as a film that Chromium takes for a camera (YUV4MPEG2)."""
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
    planes = b"".join(
        np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width].tobytes()
        for plane in frame.planes
    )
    header = f"YUV4MPEG2 W{frame.width} H{frame.height} F10:1 Ip A1:1 C420\n".encode()
    path.write_bytes(header + (b"FRAME\n" + planes) * frames)
    return path


@contextmanager
def visit(
    browser: Browser, url: str, *, microphone: bool = True, voice: bool = False, clock: bool = False, **options: Any
) -> Iterator[Visitor]:
    """``microphone``: the person allows it. ``voice``: it hears what `Visitor.say` says, instead of the WAV.
    ``clock``: the page's timers are the test's to wind forward (``page.clock``)."""
    context = browser.new_context(permissions=["microphone", "camera"] if microphone else [], **options)
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(LOUDSPEAKER)
    if voice:
        context.add_init_script(VOICE)
    page = context.new_page()
    if clock:
        page.clock.install()
    visitor = Visitor(context, page)
    try:
        page.goto(url)
        yield visitor
    finally:
        context.close()
    assert not visitor.crashes, visitor.crashes


class Visitor:
    """One person at one page of ours (or of anybody's)."""

    def __init__(self, context: BrowserContext, page: Page) -> None:
        self.context = context
        self.page = page
        self.crashes: list[str] = []
        page.on("pageerror", lambda error: self.crashes.append(str(error)))
        page.expose_function("report", self._report)
        self.events: list[dict[str, Any]] = []

    def _report(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def follow(self) -> None:
        """Keeps the events of the page's element, each with the page's clock (``at``, s)."""
        self.page.evaluate(
            "document.querySelector('parley-agent').addEventListener('event', ({detail}) =>"
            " report({...detail, delta: undefined, at: performance.now() / 1000}))"
        )

    def start(self) -> None:
        self.page.get_by_role("button", name="Start talking").click()
        self.status("Listening", "Hearing you", "Thinking", "Speaking")

    def status(self, *any_of: str) -> None:
        """Waits for one of these words at the element's top."""
        words = "|".join(any_of)
        self.page.locator(".status").filter(has_text=_pattern(words)).wait_for()

    def until(self, condition: Callable[[], object]) -> None:
        """For something that events bring about."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, [event["type"] for event in self.events]
            self.page.wait_for_timeout(50)

    def of(self, type_: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == type_]

    def lines(self, role: str) -> list[str]:
        """The bubbles of the transcript."""
        return [text.strip() for text in self.page.locator(f".log li.{role}").all_inner_texts()]

    def say(self, wav: Path) -> float:
        """Says it once; the page's clock (s) at its first sample."""
        return float(self.page.evaluate("wav => speak(wav)", base64.b64encode(wav.read_bytes()).decode()))

    def write(self, text: str) -> None:
        """Instead of saying it."""
        box = self.page.get_by_placeholder("Or type here")
        box.fill(text)
        box.press("Enter")

    def loud(self) -> list[float]:
        """When (the page's clock, s) something audible was played."""
        found: list[float] = self.page.evaluate("loudspeaker.loud()")
        return found

    def heard(self) -> Sound:
        """All that was played so far."""
        rate_hz, pieces = self.page.evaluate("loudspeaker.take()")
        return Sound(int(rate_hz), [(at, np.frombuffer(base64.b64decode(data), "<i2")) for at, data in pieces])


class Sound:
    """``pieces``: (the page's clock in s at its first sample, int16 [n])."""

    def __init__(self, rate_hz: int, pieces: list[tuple[float, np.ndarray]]) -> None:
        self.rate_hz = rate_hz
        self.pieces = pieces

    @property
    def pcm(self) -> np.ndarray:
        """int16 [n], gaps of the recorder left out."""
        return np.concatenate([pcm for _, pcm in self.pieces]) if self.pieces else np.zeros(0, np.int16)


def _pattern(words: str) -> re.Pattern[str]:
    return re.compile(f"^({words})$")
