"""Camera and screen over RTP: sampled to what the model wants, the latest frame wins, near-duplicates are skipped.

A frame stands in the prompt where it was seen. So for a camera that is turned on in the middle of an utterance the
reference prompt is: the user's turn opens, the sound before the first frame, that frame, the sound up to the next one,
..., the last sound, the turn closes (``<|im_start|>user``, audio, image, audio, ..., ``<|im_end|>`` in Qwen3-Omni). The
frame shown last before an utterance, if it is fresh, stands after the utterance's first sample.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import av
import numpy as np
import numpy.typing as npt
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from models.base import Pixels
from realtime.pictures import MAX_SIDE

SAME = 3.0
"""Mean difference of two thumbnails, of 255, below which they show the same."""
REFRESH_S = 2.0
"""Even a picture that doesn't change is shown again after this long: sessions forget old ones."""
THUMBNAIL = 16  # pixels a side


class Watcher:
    """Takes frames from one track and gives ``see`` at most ``rate_hz`` of them a second.

    Frames are taken as fast as they come, so that none waits; only those that are due are converted, in a thread, one
    at a time.
    """

    def __init__(self, rate_hz: float, see: Callable[[Pixels], None]) -> None:
        self._interval_s = 1.0 / rate_hz
        self._see = see
        self._latest: av.VideoFrame | None = None
        self._arrived = asyncio.Event()
        self._shown: tuple[npt.NDArray[np.uint8], float] | None = None  # thumbnail, when

    async def watch(self, track: MediaStreamTrack) -> None:
        """Until the track ends."""
        sampling = asyncio.create_task(self._sample())
        try:
            while True:
                frame = await track.recv()
                if isinstance(frame, av.VideoFrame):
                    self._latest = frame
                    self._arrived.set()
        except MediaStreamError:
            pass
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)

    async def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            frame, taken_s = self._latest, loop.time()
            assert frame is not None
            pixels, thumbnail = await asyncio.to_thread(convert, frame)
            if not self._same(thumbnail, taken_s):
                self._shown = thumbnail, taken_s
                self._see(pixels)
            await asyncio.sleep(max(0.0, taken_s + self._interval_s - loop.time()))

    def _same(self, thumbnail: npt.NDArray[np.uint8], now: float) -> bool:
        if self._shown is None or now - self._shown[1] >= REFRESH_S:
            return False
        difference = np.abs(self._shown[0].astype(np.int16) - thumbnail)
        return float(difference.mean()) < SAME


def convert(frame: av.VideoFrame) -> tuple[Pixels, npt.NDArray[np.uint8]]:
    """uint8 [h, w, 3] RGB, at most MAX_SIDE on its longer side, and its thumbnail, uint8 [16, 16, 3]."""
    scale = min(1.0, MAX_SIDE / max(frame.width, frame.height))
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
    thumbnail = frame.to_ndarray(format="rgb24", width=THUMBNAIL, height=THUMBNAIL)
    return np.ascontiguousarray(pixels, np.uint8), np.asarray(thumbnail, np.uint8)
