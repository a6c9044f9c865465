"""What the camera shows: coloured shapes, digits and the cafe's items, drawn with PIL before a blurred background.

`draw` takes the names that `grammar` uses ("red circle", "digit seven", "banana"), "" for nothing but background.
"""

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from . import domain

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
Point = tuple[float, float]
Box = tuple[int, int, int, int]
SIZE = 96
"""Objects are drawn on a square of so many pixels, then turned, scaled and placed."""

_STROKES: dict[str, Sequence[Sequence[Point]]] = {
    "zero": [[(0.5 + 0.25 * math.sin(a), 0.5 - 0.4 * math.cos(a)) for a in np.linspace(0, 2 * math.pi, 17)]],
    "one": [[(0.35, 0.25), (0.52, 0.1), (0.52, 0.9)]],
    "two": [[(0.27, 0.3), (0.33, 0.15), (0.5, 0.1), (0.68, 0.17), (0.71, 0.33), (0.6, 0.52), (0.27, 0.9), (0.75, 0.9)]],
    "three": [[(0.28, 0.18), (0.5, 0.1), (0.7, 0.2), (0.68, 0.38), (0.48, 0.48), (0.7, 0.58), (0.73, 0.75),
               (0.52, 0.9), (0.27, 0.82)]],
    "four": [[(0.62, 0.9), (0.62, 0.1), (0.25, 0.65), (0.78, 0.65)]],
    "five": [[(0.7, 0.1), (0.34, 0.1), (0.3, 0.47), (0.52, 0.42), (0.72, 0.55), (0.72, 0.75), (0.52, 0.9),
              (0.27, 0.82)]],
    "six": [[(0.66, 0.12), (0.42, 0.25), (0.29, 0.55), (0.32, 0.8), (0.5, 0.9), (0.7, 0.8), (0.71, 0.62),
             (0.52, 0.52), (0.32, 0.64)]],
    "seven": [[(0.26, 0.1), (0.74, 0.1), (0.44, 0.9)]],
    "eight": [[(0.5, 0.48), (0.31, 0.36), (0.34, 0.16), (0.5, 0.1), (0.66, 0.16), (0.69, 0.36), (0.5, 0.48),
               (0.28, 0.62), (0.3, 0.83), (0.5, 0.9), (0.7, 0.83), (0.72, 0.62), (0.5, 0.48)]],
    "nine": [[(0.69, 0.36), (0.5, 0.48), (0.31, 0.38), (0.31, 0.2), (0.5, 0.1), (0.68, 0.2), (0.69, 0.36),
              (0.66, 0.65), (0.46, 0.9)]],
}  # fmt: skip


def draw(picture: str, rng: random.Random, width: int = 128, height: int = 96) -> Pixels:
    """uint8 [height, width, 3]: the object somewhere before a background; another each time."""
    return placed(picture, rng, width, height)[0]


def placed(picture: str, rng: random.Random, width: int, height: int) -> tuple[Pixels, Box]:
    """A drawing, and where the object is in it: left, top, right, bottom in pixels (all 0 when there is none)."""
    box: Box = (0, 0, 0, 0)
    canvas = _background(rng, width, height)
    if picture:
        layer = _object(picture, rng, canvas.resize((1, 1)).getpixel((0, 0)))
        layer = layer.rotate(rng.uniform(-16, 16), Image.Resampling.BICUBIC, expand=True)
        side = round(min(width, height) * rng.uniform(0.5, 0.98))
        layer = layer.resize((max(round(side * rng.uniform(0.85, 1.15)), 8), side), Image.Resampling.BILINEAR)
        x = rng.randint(-side // 10, max(width - layer.width + side // 10, 0))
        y = rng.randint(-side // 12, max(height - layer.height + side // 12, 0))
        canvas.paste(layer, (x, y), layer)
        box = (x, y, x + layer.width, y + layer.height)
    if rng.random() < 0.4:
        canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.1)))
    pixels = np.asarray(canvas, np.float32)
    light = rng.uniform(0.7, 1.15) + np.linspace(-1, 1, width)[None, :, None] * rng.uniform(-0.15, 0.15)
    grain = np.random.default_rng(rng.getrandbits(32)).standard_normal(pixels.shape) * rng.uniform(0, 9)
    return np.clip(pixels * light * _tint(rng) + grain, 0, 255).astype(np.uint8), box


def _tint(rng: random.Random) -> npt.NDArray[np.float64]:
    return np.array([rng.uniform(0.93, 1.05) for _ in range(3)])


def _background(rng: random.Random, width: int, height: int) -> Image.Image:
    base = tuple(rng.randint(60, 235) for _ in range(3)) if rng.random() < 0.4 else (rng.randint(60, 240),) * 3
    canvas = Image.new("RGB", (width, height), base)
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.randint(0, 6)):
        x, y = rng.uniform(-0.2, 1) * width, rng.uniform(-0.2, 1) * height
        w, h = rng.uniform(0.2, 0.7) * width, rng.uniform(0.2, 0.7) * height
        near = tuple(min(max(c + rng.randint(-45, 45), 0), 255) for c in base)
        (pen.rectangle if rng.random() < 0.6 else pen.ellipse)((x, y, x + w, y + h), fill=near)
    return canvas.filter(ImageFilter.GaussianBlur(rng.uniform(3, 9)))


def _object(picture: str, rng: random.Random, behind: object) -> Image.Image:
    layer = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    first, _, second = picture.partition(" ")
    assert isinstance(behind, tuple)
    if first in domain.COLOURS and second in domain.SHAPES:
        colour = _varied(domain.COLOURS[first], rng)
        if rng.random() < 0.45 or _distance(colour, behind) < 110:
            _paper(pen, rng, colour)
        _shape(pen, second, colour, rng)
    elif first == "digit":
        ink = _varied(rng.choice([(20, 20, 20), (20, 20, 120), (160, 20, 20), (15, 90, 40)]), rng)
        if rng.random() < 0.75 or _distance(ink, behind) < 150:
            _paper(pen, rng, ink)
        _digit(pen, second, ink, rng)
    elif picture in _ITEMS:
        if rng.random() < 0.25:
            _paper(pen, rng, (90, 60, 40))
        _ITEMS[picture](pen, rng)
    else:
        raise ValueError(f"no picture of {picture!r}: shapes, digits and the cafe's items can be drawn")
    return layer


def _varied(colour: Sequence[int], rng: random.Random) -> Colour:
    r, g, b = (min(max(c + rng.randint(-16, 16), 0), 255) for c in colour)
    return r, g, b


def _distance(a: Sequence[int], b: Sequence[int]) -> float:
    return math.dist(a[:3], b[:3])


def _paper(pen: ImageDraw.ImageDraw, rng: random.Random, ink: Colour) -> None:
    """A sheet that stands out from the ink."""
    shade = rng.randint(215, 255) if sum(ink) < 560 else rng.randint(20, 90)
    pen.rectangle((2, 2, SIZE - 3, SIZE - 3), fill=(shade, shade, shade, 255))


def _scaled(points: Sequence[Point], grow: float = 1.0) -> list[Point]:
    return [((0.5 + (x - 0.5) * grow) * SIZE, (0.5 + (y - 0.5) * grow) * SIZE) for x, y in points]


def _shape(pen: ImageDraw.ImageDraw, shape: str, colour: Colour, rng: random.Random) -> None:
    grow = rng.uniform(0.8, 1.0)
    if shape == "circle":
        points = [(0.5 + 0.42 * math.cos(a), 0.5 + 0.42 * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 40)]
    elif shape == "square":
        points = [(0.13, 0.13), (0.87, 0.13), (0.87, 0.87), (0.13, 0.87)]
    elif shape == "triangle":
        points = [(0.5, 0.1), (0.92, 0.86), (0.08, 0.86)]
    else:
        radii = [0.46, 0.46 * rng.uniform(0.38, 0.48)] * 5
        points = [
            (0.5 + r * math.sin(k * math.pi / 5), 0.5 - r * math.cos(k * math.pi / 5)) for k, r in enumerate(radii)
        ]
    pen.polygon(_scaled(points, grow), fill=(*colour, 255))


def _digit(pen: ImageDraw.ImageDraw, digit: str, ink: Colour, rng: random.Random) -> None:
    if rng.random() < 0.4:
        font = ImageFont.load_default(rng.randint(66, 86))
        pen.text(
            (SIZE / 2, SIZE / 2),
            str(domain.DIGITS.index(digit)),
            ink,
            font,
            anchor="mm",
            stroke_width=rng.choice((0, 1, 2)),
        )
        return
    grow, slant, width = rng.uniform(0.75, 1.0), rng.uniform(-0.12, 0.12), rng.randint(6, 12)
    for stroke in _STROKES[digit]:
        points = [
            (x + slant * (0.5 - y) + rng.uniform(-0.015, 0.015), y + rng.uniform(-0.015, 0.015)) for x, y in stroke
        ]
        placed = _scaled(points, grow)
        pen.line(placed, ink, width, joint="curve")
        for x, y in placed:
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=ink)


def _poly(pen: ImageDraw.ImageDraw, points: Sequence[Point], colour: Colour) -> None:
    pen.polygon(_scaled(points), fill=(*colour, 255))


def _box(*corners: float) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (c * SIZE for c in corners)
    return x0, y0, x1, y1


def _coffee(pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    cup = _varied(rng.choice([(245, 245, 240), (200, 60, 50), (60, 90, 160), (90, 60, 45)]), rng)
    pen.arc(_box(0.62, 0.42, 0.94, 0.74), -100, 110, cup, 8)
    _poly(pen, [(0.14, 0.36), (0.74, 0.36), (0.68, 0.88), (0.2, 0.88)], cup)
    pen.ellipse(_box(0.14, 0.27, 0.74, 0.45), fill=cup)
    pen.ellipse(_box(0.18, 0.3, 0.7, 0.42), fill=_varied((70, 40, 20), rng))
    for x in (0.32, 0.5):
        pen.line(_scaled([(x, 0.24), (x + 0.04, 0.17), (x - 0.02, 0.1), (x + 0.03, 0.03)]), (225, 225, 225), 3)


def _tea(pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    """A teapot."""
    body = _varied(rng.choice([(235, 235, 230), (60, 130, 120), (170, 110, 160), (50, 80, 150)]), rng)
    pen.arc(_box(0.0, 0.38, 0.36, 0.76), 80, 290, body, 8)
    _poly(pen, [(0.68, 0.6), (0.96, 0.3), (0.99, 0.37), (0.74, 0.82)], body)
    pen.ellipse(_box(0.16, 0.32, 0.8, 0.92), fill=body)
    lid = _varied((110, 80, 60), rng)
    pen.chord(_box(0.32, 0.24, 0.64, 0.5), 180, 360, fill=lid)
    pen.ellipse(_box(0.43, 0.15, 0.53, 0.26), fill=lid)


def _juice(pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    pen.line(_scaled([(0.56, 0.3), (0.74, 0.03)]), _varied((220, 50, 60), rng), 5)
    _poly(pen, [(0.2, 0.16), (0.8, 0.16), (0.7, 0.95), (0.3, 0.95)], _varied((222, 232, 240), rng))
    _poly(pen, [(0.25, 0.3), (0.75, 0.3), (0.67, 0.91), (0.33, 0.91)], _varied((250, 150, 20), rng))


def _sandwich(pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    """A triangle of bread, cut side down: its layers show."""
    bread = _varied((232, 200, 145), rng)
    _poly(pen, [(0.04, 0.5), (0.96, 0.5), (0.5, 0.12)], bread)
    layers = [(250, 225, 160), (70, 160, 60), (205, 60, 50), (245, 205, 70)]
    rng.shuffle(layers)
    for k, colour in enumerate([bread, *layers[:3], bread]):
        y = 0.5 + 0.075 * k
        pen.rectangle(_box(0.04, y, 0.96, y + 0.08), fill=_varied(colour, rng))


def _cake(pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    sponge = _varied(rng.choice([(240, 200, 130), (110, 65, 40)]), rng)
    cream = _varied(rng.choice([(255, 240, 240), (245, 170, 190)]), rng)
    _poly(pen, [(0.06, 0.42), (0.94, 0.3), (0.94, 0.86), (0.06, 0.92)], sponge)
    _poly(pen, [(0.06, 0.62), (0.94, 0.54), (0.94, 0.62), (0.06, 0.7)], cream)
    _poly(pen, [(0.06, 0.42), (0.55, 0.2), (0.94, 0.3), (0.94, 0.4), (0.06, 0.5)], cream)
    pen.ellipse(_box(0.46, 0.08, 0.62, 0.25), fill=_varied((205, 20, 40), rng))


def _apple(pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    skin = _varied(rng.choice([(205, 35, 40), (120, 175, 50)]), rng)
    pen.ellipse(_box(0.1, 0.24, 0.6, 0.9), fill=skin)
    pen.ellipse(_box(0.4, 0.24, 0.9, 0.9), fill=skin)
    pen.ellipse(_box(0.22, 0.4, 0.78, 0.95), fill=skin)
    pen.line(_scaled([(0.5, 0.32), (0.53, 0.08)]), (85, 55, 30), 5)
    pen.chord(_box(0.52, 0.06, 0.82, 0.26), 20, 200, fill=_varied((60, 150, 50), rng))


def _crescent(bend: float, thick: float) -> list[Point]:
    angles = np.linspace(0.12 * math.pi, 0.88 * math.pi, 16)
    outer = [(0.5 - 0.46 * math.cos(a), 0.2 + bend * math.sin(a)) for a in angles]
    inner = [(0.5 - 0.4 * math.cos(a), 0.2 + (bend - thick * math.sin(a)) * math.sin(a)) for a in angles]
    return outer + inner[::-1]


def _banana(pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    _poly(pen, _crescent(0.62, rng.uniform(0.24, 0.32)), _varied((245, 215, 55), rng))
    for x in (0.05, 0.87):
        pen.rectangle(_box(x, 0.32, x + 0.08, 0.42), fill=(95, 70, 30))


def _croissant(pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    crust = _varied((205, 140, 65), rng)
    for k, angle in enumerate(np.linspace(-1.15, 1.15, 7)):
        radius = 0.1 + 0.11 * math.cos(angle * 1.1)
        x, y = 0.5 + 0.36 * math.sin(angle), 0.62 - 0.32 * math.cos(angle)
        shade = _varied(crust, rng) if k % 2 else _varied((175, 105, 45), rng)
        pen.ellipse(_box(x - radius, y - radius + 0.1, x + radius, y + radius + 0.1), fill=shade)


_ITEMS: dict[str, Callable[[ImageDraw.ImageDraw, random.Random], None]] = {
    "coffee": _coffee,
    "tea": _tea,
    "orange juice": _juice,
    "sandwich": _sandwich,
    "cake": _cake,
    "apple": _apple,
    "banana": _banana,
    "croissant": _croissant,
}
