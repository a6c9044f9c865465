"""Speakers of espeak-ng who don't exist: variants of its voices, drawn once, kept apart from those that it ships.

Its forty shipped variants are too few to learn from what all speakers share: a tower that knew thirty of them was lost
with the other ten. A variant is a file of espeak-ng's: pitch, formants (frequency, height and width in percent), and
how voiced, rough, breathy or synthetic it sounds.
"""

import random
import tempfile
from functools import cache
from pathlib import Path

SPEAKERS = 160
"""espeak-ng lists no more than 350 voices, the shipped ones among them."""
_SHIPPED = (
    Path("/usr/lib/x86_64-linux-gnu/espeak-ng-data"),
    Path("/usr/lib/aarch64-linux-gnu/espeak-ng-data"),
    Path("/usr/share/espeak-ng-data"),
    Path("/usr/local/share/espeak-ng-data"),
)


def names() -> tuple[str, ...]:
    """Of the variants, as espeak-ng takes them after a voice's `+`."""
    return tuple(f"made{number}" for number in range(SPEAKERS))


def variant(number: int) -> str:
    """A variant's file: always the same for the same number."""
    rng = random.Random(31 * number + 5)
    low_hz = round(rng.uniform(60, 210))
    high_hz = low_hz + round(rng.uniform(15, 90))
    tract = rng.uniform(86, 126)
    lines = ["language variant", f"name made{number}", f"pitch {low_hz} {high_hz}"]
    for formant in range(9):
        hz = round(tract + rng.gauss(0, 7))
        height, width = round(rng.uniform(50, 110)), round(rng.uniform(60, 180))
        if formant and rng.random() < 0.85:
            lines.append(f"formant {formant} {hz} {height} {width}")
    for chance, line in (
        (0.2, f"klatt {rng.choice((1, 2, 3, 4, 5))}"),
        (0.4, f"flutter {rng.randint(0, 12)}"),
        (0.3, f"roughness {rng.randint(0, 4)}"),
        (0.4, f"voicing {rng.randint(70, 140)}"),
        (0.5, f"consonants {rng.randint(60, 130)} {rng.randint(60, 130)}"),
        (0.15, "breath 0 {} {} {} 3 3 3 2".format(*(rng.randint(0, 4) for _ in range(3)))),
        (0.2, f"intonation {rng.randint(1, 4)}"),
        (0.15, f"echo {rng.randint(40, 150)} {rng.randint(5, 20)}"),
        (0.3, f"tone 600 {rng.randint(120, 220)} 1200 {rng.randint(70, 150)} 2000 {rng.randint(50, 130)}"),
    ):
        if rng.random() < chance:
            lines.append(line)
    return "\n".join(lines) + "\n"


@cache
def data_path() -> str:
    """A folder for `ESPEAK_DATA_PATH` that holds what is shipped for English and the made-up variants; it lasts as long
    as this process. Raises FileNotFoundError where espeak-ng's data is at none of the usual places."""
    shipped = next((path for path in _SHIPPED if path.exists()), None)
    if shipped is None:
        raise FileNotFoundError("espeak-ng's data is missing: install the Debian package espeak-ng")
    folder = Path(_held().name) / "espeak-ng-data"
    variants, english = Path("voices", "!v"), Path("lang", "gmw")
    for part in (variants, english):
        (folder / part).mkdir(parents=True)
    for part in (Path(), variants, english):
        for entry in (shipped / part).iterdir():
            if entry.is_file() and (entry.name == "en_dict" or not entry.name.endswith("_dict")):
                (folder / part / entry.name).symlink_to(entry)
    for number, name in enumerate(names()):
        (folder / variants / name).write_text(variant(number))
    return str(folder.parent)


@cache
def _held() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="espeak-ng-")
