"""Pictures: sizes, orientations, and bytes that are none."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from realtime import pictures
from realtime.errors import InvalidImage


def encoded(width: int, height: int, kind: str = "JPEG", colour: tuple[int, int, int] = (200, 40, 10)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_colours_and_shape_survive(kind: str) -> None:
    pixels = pictures.decode(encoded(64, 48, kind))
    assert pixels.shape == (48, 64, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - (200, 40, 10)).max() <= 4


@pytest.mark.parametrize(
    ("size", "wanted"), [((2560, 1280), (640, 1280)), ((100, 5000), (1280, 26)), ((1280, 9), (9, 1280))]
)
def test_large_pictures_are_scaled_down(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert pictures.decode(encoded(*size)).shape[:2] == wanted


def test_a_picture_on_its_side_is_put_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20)).save(buffer, "JPEG", exif=exif)
    assert pictures.decode(buffer.getvalue()).shape == (40, 20, 3)


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize("side", [7000, 12_000, 60_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(InvalidImage):
        pictures.decode(png_header(side, side))


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(InvalidImage, match="bytes"):
        pictures.decode(bytes(pictures.MAX_BYTES + 1))


@given(st.binary(max_size=300), st.integers(0, 600))
def test_nothing_but_invalid_image_comes_of_garbage(garbage: bytes, keep: int) -> None:
    for data in (garbage, encoded(32, 32)[:keep] + garbage, png_header(8, 8) + garbage):
        with contextlib.suppress(InvalidImage):
            assert pictures.decode(data).shape[2] == 3


def test_data_urls() -> None:
    url = "data:image/png;base64," + base64.b64encode(encoded(8, 4, "PNG")).decode()
    assert pictures.from_url(url).shape == (4, 8, 3)
    for wrong, why in [
        ("https://example.com/cat.jpg", "network"),
        ("data:image/png,abc", "base64"),
        ("data:image/png;base64,!!!", "base64"),
        ("", "network"),
    ]:
        with pytest.raises(InvalidImage, match=why):
            pictures.from_url(wrong)
