"""Pictures as the wire carries them: JPEG or PNG bytes -> pixels, bounded before anything is decoded."""

from __future__ import annotations

import base64
import binascii
import io

import numpy as np
from PIL import Image, ImageOps

from models.base import Pixels
from realtime.errors import InvalidImage

MAX_BYTES = 30_000_000
MAX_PIXELS = 40_000_000
MAX_SIDE = 1280  # pixels; what is larger is scaled down
FORMATS = ("JPEG", "PNG", "WEBP")


def decode(data: bytes) -> Pixels:
    """uint8 [h, w, 3] RGB, upright (EXIF), at most MAX_SIDE on its longer side.

    Raises InvalidImage for what is no picture, or is over MAX_BYTES or MAX_PIXELS (read off its header, so that a small
    file that unfolds to gigabytes costs nothing).
    """
    if len(data) > MAX_BYTES:
        raise InvalidImage(f"the picture has {len(data)} bytes; at most {MAX_BYTES} are taken: send it smaller")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise InvalidImage(
                    f"the picture is {picture.width} x {picture.height}; at most {MAX_PIXELS // 10**6} megapixels"
                    " are taken: send it smaller"
                )
            picture.draft("RGB", (MAX_SIDE, MAX_SIDE))  # lets JPEG decode at 1/2, 1/4 or 1/8
            upright = ImageOps.exif_transpose(picture).convert("RGB")
            upright.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC)
            return np.array(upright, dtype=np.uint8)
    except InvalidImage:
        raise
    # Pillow's decoders raise whatever their parsing met, struct.error and SyntaxError included.
    except Exception as error:
        raise InvalidImage(f"not a JPEG, PNG or WebP picture that can be decoded ({type(error).__name__})") from error


def from_url(url: str) -> Pixels:
    """The pixels of a ``data:image/...;base64,...`` URL. Raises InvalidImage; nothing is ever fetched."""
    head, comma, body = url.partition(",")
    if not head.lower().startswith("data:"):
        raise InvalidImage("pictures are not fetched from the network: send a data: URL with base64 JPEG or PNG")
    if not comma or not head.lower().endswith(";base64"):
        raise InvalidImage("a picture's data: URL must read data:image/jpeg;base64,...")
    try:
        return decode(base64.b64decode(body, validate=True))
    except (binascii.Error, ValueError) as error:
        raise InvalidImage(f"the picture's data: URL is not base64: {error}") from error
