from __future__ import annotations

import asyncio

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from realtime.pictures import MAX_SIDE
from transport.rtc_video import Watcher, convert


class Film(MediaStreamTrack):
    """Frames as fast as they are asked for; ends with the last."""

    kind = "video"

    def __init__(self, shades: list[int], pause_s: float = 0.002) -> None:
        super().__init__()
        self.shades, self.pause_s = shades, pause_s

    async def recv(self) -> av.VideoFrame:
        if not self.shades:
            raise MediaStreamError
        await asyncio.sleep(self.pause_s)
        return av.VideoFrame.from_ndarray(np.full((48, 64, 3), self.shades.pop(0), np.uint8), format="rgb24")


async def seen(film: Film, rate_hz: float) -> list[int]:
    shades: list[int] = []
    await Watcher(rate_hz, lambda pixels: shades.append(int(pixels.mean()))).watch(film)
    return shades


async def test_what_does_not_change_is_seen_once() -> None:
    assert await seen(Film([80] * 100), 1000.0) == [80]


async def test_changes_are_seen_in_order_and_the_latest_wins() -> None:
    shades = await seen(Film(list(range(0, 250, 2)), 0.005), 50.0)
    assert len(shades) >= 2
    assert shades == sorted(set(shades))


async def test_no_more_than_the_model_wants() -> None:
    assert len(await seen(Film([0, 250] * 50), 0.5)) == 1


def test_large_pictures_are_made_smaller_and_keep_their_shape() -> None:
    pixels, thumbnail = convert(av.VideoFrame.from_ndarray(np.zeros((1440, 2560, 3), np.uint8), format="rgb24"))
    assert pixels.shape == (720, MAX_SIDE, 3)
    assert pixels.dtype == np.uint8
    assert thumbnail.shape == (16, 16, 3)
