"""The pool of synthesized questions: shards of int16 speech with what was said, made once and read by training."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from . import grammar, over, voices
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
PLAIN_SHARDS = 24
"""Shards of questions..."""
SENSELESS_SHARDS = 6
"""...after them, of sentences without sense, to be written down only..."""
OVER_SHARDS = 10
"""...and of what people say over a reply (`over.py`)."""
SHARDS = PLAIN_SHARDS + SENSELESS_SHARDS + OVER_SHARDS
SENSELESS = "senseless"
"""The intent of such a sentence: it has no reply."""


@dataclass(frozen=True)
class Clip:
    """One spoken question."""

    pcm: npt.NDArray[np.int16]
    turn: Turn
    voice: str

    @property
    def samples(self) -> npt.NDArray[np.float32]:
        """The sound within -1..1."""
        return self.pcm.astype(np.float32) / np.float32(32768)


def draw_turn(desk: grammar.Desk) -> Turn:
    """A question in the shares that training uses; functions are always offered (an offer can be taken back)."""
    if desk.rng.random() < FOLLOW_UP_SHARE:
        return desk.follow_up(desk.rng.choices(list(FOLLOW_UPS), list(FOLLOW_UPS.values()))[0])
    return desk.turn(desk.rng.choices(list(FIRST_TURNS), list(FIRST_TURNS.values()))[0], tools=True)


def draw_senseless(desk: grammar.Desk) -> Turn:
    """The beginning of one sentence, the end of another, sometimes loose words: words are to be heard in any order."""
    rng = desk.rng
    first, last = draw_turn(desk).said.split(), draw_turn(desk).said.split()
    words = first[: rng.randint(0, min(len(first), 5))] + last[rng.randint(max(len(last) - 6, 0), len(last)) :]
    for _ in range(rng.choice((0, 0, 1, 2, 3)) if words else 4):
        words.insert(rng.randint(0, len(words)), rng.choice(draw_turn(desk).said.split()))
    return Turn(" ".join(words), "", SENSELESS)


def is_over(index: int) -> bool:
    """Does the shard hold what people say over a reply?"""
    return index >= PLAIN_SHARDS + SENSELESS_SHARDS


def _spoken(desk: grammar.Desk, index: int) -> tuple[Turn, voices.Speaker, voices.Pcm16]:
    """One clip of shard `index`."""
    if is_over(index):
        return over.spoken(desk, draw_turn(desk).said)
    turn, speaker = (draw_turn if index < PLAIN_SHARDS else draw_senseless)(desk), voices.draw(desk.rng)
    return turn, speaker, voices.say(turn.said, speaker)


def make_shard(folder: Path, index: int, clips: int = SHARD_CLIPS) -> Path:
    """Synthesizes shard `index` (its seed) unless it is there. Raises SynthesisError or FliteError."""
    path = folder / f"shard{index:03d}.npz"
    if path.exists():
        return path
    rng = random.Random(1000 + index)
    desk = grammar.Desk(rng, forbidden=frozenset(grammar.lines("held_out_sentences.txt")))
    sounds: list[voices.Pcm16] = []
    rows: list[dict[str, object]] = []
    while len(sounds) < clips:
        turn, speaker, sound = _spoken(desk, index)
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
    """The clips of a shard, those of voices that are still listed."""
    with np.load(path) as file:
        pcm, ends, rows = file["pcm"], file["ends"], json.loads(str(file["rows"]))
    starts = np.concatenate([[0], ends[:-1]])
    return [
        Clip(pcm[begin:end], _turn(row["turn"]), row["voice"])
        for begin, end, row in zip(starts, ends, rows, strict=True)
        if voices.is_trained(*row["voice"].split(":", 1))
    ]


def turns(path: Path) -> list[Turn]:
    """What is said in the clips that `load` gives, without their sound."""
    with np.load(path) as file:
        rows = json.loads(str(file["rows"]))
    return [_turn(row["turn"]) for row in rows if voices.is_trained(*row["voice"].split(":", 1))]


def _turn(row: dict[str, object]) -> Turn:
    call = row.pop("call")
    slots = row.pop("slots")
    assert isinstance(slots, list)
    made = Call(**call) if isinstance(call, dict) else None
    return Turn(**row, slots=tuple(slots), call=made)  # type: ignore[arg-type]
