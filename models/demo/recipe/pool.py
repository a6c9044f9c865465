"""The pool of synthesized questions: shards of int16 speech with what was said, made once and read by training."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from . import grammar, voices
from .grammar import Call, Turn

SHARD_CLIPS = 2000
FIRST_TURNS: dict[str, float] = {
    "next_train": 8, "platform": 7, "single": 6, "return": 6, "fare": 6, "last_train": 6, "duration": 6, "where": 8,
    "hours": 5, "menu": 3, "item_price": 5, "order": 9, "greeting": 2, "thanks": 2, "goodbye": 2, "who": 2, "help": 2,
    "repeat": 2, "transfer": 5, "departures": 6, "look": 4, "look_colour": 2, "ask_ticket": 2, "no_train": 4,
    "refusal": 12,
}  # fmt: skip
FOLLOW_UPS: dict[str, float] = {
    "town": 5, "single": 2, "return": 2, "fare": 1.5, "platform": 1.5, "last_train": 1.5, "next_train": 1,
    "duration": 1,
}  # fmt: skip
FOLLOW_UP_SHARE = 0.14


@dataclass(frozen=True)
class Clip:
    """One spoken question."""

    pcm: npt.NDArray[np.int16]
    turn: Turn
    voice: str


def draw_turn(desk: grammar.Desk) -> Turn:
    """A question in the shares that training uses; functions are always offered (an offer can be taken back)."""
    if desk.rng.random() < FOLLOW_UP_SHARE:
        return desk.follow_up(desk.rng.choices(list(FOLLOW_UPS), list(FOLLOW_UPS.values()))[0])
    return desk.turn(desk.rng.choices(list(FIRST_TURNS), list(FIRST_TURNS.values()))[0], tools=True)


def make_shard(folder: Path, index: int, clips: int = SHARD_CLIPS) -> Path:
    """Synthesizes shard `index` (its seed) unless it is there. Raises SynthesisError."""
    path = folder / f"shard{index:03d}.npz"
    if path.exists():
        return path
    rng = random.Random(1000 + index)
    desk = grammar.Desk(rng, forbidden=frozenset(grammar.lines("held_out_sentences.txt")))
    sounds: list[voices.Pcm16] = []
    rows: list[dict[str, object]] = []
    while len(sounds) < clips:
        turn, speaker = draw_turn(desk), voices.draw(rng)
        sound = voices.say(turn.said, speaker)
        if len(sound) > 7 * voices.RATE_HZ:
            continue
        sounds.append(sound)
        rows.append({"turn": asdict(turn), "voice": f"{speaker.engine}:{speaker.voice}"})
    save(path, sounds, rows)
    return path


def save(path: Path, sounds: Sequence[voices.Pcm16], rows: Sequence[dict[str, object]]) -> None:
    """Writes a shard in one step, so that a stopped run leaves no half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.stem + ".partial.npz")
    ends = np.cumsum([len(sound) for sound in sounds])
    np.savez(partial, pcm=np.concatenate(sounds), ends=ends, rows=np.array(json.dumps(rows)))
    partial.rename(path)


def load(path: Path) -> list[Clip]:
    """The clips of a shard."""
    with np.load(path) as file:
        pcm, ends, rows = file["pcm"], file["ends"], json.loads(str(file["rows"]))
    starts = np.concatenate([[0], ends[:-1]])
    return [Clip(pcm[a:b], _turn(row["turn"]), row["voice"]) for a, b, row in zip(starts, ends, rows, strict=True)]


def _turn(row: dict[str, object]) -> Turn:
    call = row.pop("call")
    slots = row.pop("slots")
    assert isinstance(slots, list)
    made = Call(**call) if isinstance(call, dict) else None
    return Turn(**row, slots=tuple(slots), call=made)  # type: ignore[arg-type]
