"""Teaches nothing: finds how the thinker's last state at the end of a transcript tells whole sentences from begun ones.

What was said is asked for while the speaker pauses (`realtime/session_guess.py`), and where that transcript ends, one
line through the hidden state says whether more is to come. It is fitted to sentences that training may use, whole and
broken off: said only so far (the synthesizer lets its voice fall), or cut out of the whole (it doesn't).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models.base import GREEDY, Audio, Begin, Thinker
from models.qwen3_omni.ending import FILE

from . import flite, grammar, pool, voices
from .asking import LONGEST_TOKENS, Served

SENTENCES, MEASURED = 2000, 300
FILLERS = ("um", "uh")
PENALTY = 0.003
"""Of the squared weights: without it, as many numbers as there are hidden values learn the examples by heart."""
Pcm = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """Something said, up to shortly after its last sound."""

    said: str
    whole: bool
    pcm: Pcm


@dataclass(frozen=True)
class Calibration:
    """How to read the state, and how good that is. Written to `end_of_turn.json` of the checkpoint."""

    weights: list[float]
    bias: float
    sentences: int
    """Fitted to."""
    held_out: int
    """Examples measured on: held-out sentences and word orders by speakers never heard."""
    area: float
    """Under the curve: how often a whole one is thought more finished than a broken one."""
    wholes_done: float
    """Share of the whole ones that are thought finished (over a half)..."""
    broken_done: float
    """...and of the broken ones."""

    def save(self, folder: Path) -> None:
        """Writes `end_of_turn.json`."""
        (folder / FILE).write_text(json.dumps(asdict(self)) + "\n")


def examples(count: int, seed: int, *, held_out: bool) -> Iterator[Example]:
    """Of `count` sentences each the whole and, where it has words enough, a beginning."""
    rng = random.Random(seed)
    noise = np.random.default_rng(seed)
    forbidden = frozenset(grammar.lines("held_out_sentences.txt"))
    desk = grammar.Desk(rng, held_out, forbidden=frozenset() if held_out else forbidden)
    known = sorted(forbidden)
    part = "unseen" if held_out else "train"
    for number in range(count):
        said = known[number // 2 % len(known)] if held_out and number % 2 else _said(desk)
        speaker = voices.draw(rng, part)
        yield Example(said, True, heard(voices.say(said, speaker), rng, noise))
        words = said.split()
        if len(words) < 2:
            continue
        place = rng.randrange(1, len(words))
        begun = " ".join(words[:place])
        if number % 2:
            whole = flite.speak(said, rng.choice(("slt", "rms", "awb", "kal16")))
            end = round(whole.words[place - 1][1] * flite.RATE_HZ)
            yield Example(begun, False, heard(whole.pcm[:end] * 32768, rng, noise))
        else:
            begun += f" {rng.choice(FILLERS)}" if rng.random() < 0.3 else ""
            yield Example(begun, False, heard(voices.say(begun, speaker), rng, noise))


def _said(desk: grammar.Desk) -> str:
    while True:
        turn = desk.out_of_domain() if desk.held_out and desk.rng.random() < 0.1 else _drawn(desk)
        if turn.said:
            return turn.said


def _drawn(desk: grammar.Desk) -> grammar.Turn:
    try:
        return pool.draw_turn(desk)
    except IndexError:  # an intent without a held-out word order
        return desk.turn("next_train")


def heard(pcm: npt.ArrayLike, rng: random.Random, noise: np.random.Generator) -> Pcm:
    """As a session gives it: quiet before it, a moment of quiet after it, at any level; int16's range in."""
    sound = np.asarray(pcm, np.float32)
    level = 10 ** (rng.uniform(-30, -16) / 20) / max(float(np.sqrt(np.mean(sound**2))), 1e-3)
    before, after = round(0.3 * voices.RATE_HZ), round(rng.uniform(0.06, 0.14) * voices.RATE_HZ)
    placed = np.pad(sound * np.float32(level), (before, after))
    room = 10 ** (rng.uniform(-75, -50) / 20)
    return np.asarray(placed + noise.normal(0, room, len(placed)), np.float32)


def states(served: Served, told: Sequence[Example]) -> torch.Tensor:
    """[examples, hidden]: what the thinker thinks where the transcript of each ends."""
    return torch.stack([_state(served, example.pcm) for example in told])


def _state(served: Served, pcm: Pcm) -> torch.Tensor:
    thinker, prompt = served.model.thinker, served.model.prompt
    slot = thinker.open()
    try:
        for segment in (Begin("user"), Audio(pcm, final=True)):
            for part in prompt.parts(segment):
                thinker.append(slot, part)
        for part in prompt.transcribe():
            thinker.append(slot, part)
        while thinker.unencoded(slot) or thinker.pending(slot):
            thinker.encode([slot])
            thinker.prefill([slot], 1000)
        thinker.begin(slot, GREEDY)
        for _ in range(LONGEST_TOKENS):
            if thinker.decode([slot])[0] in prompt.eos:
                break
        return _hidden(thinker, slot)
    finally:
        thinker.close(slot)


def _hidden(thinker: Thinker, slot: int) -> torch.Tensor:
    hidden: torch.Tensor = thinker.thought(slot)  # type: ignore[attr-defined]  # the demo's family has it
    return hidden.float().cpu()


def fit(seen: torch.Tensor, whole: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Logistic regression with a penalty: seen [n, hidden], whole [n] of 0 and 1 -> weights [hidden], bias."""
    mean, spread = seen.double().mean(0), seen.double().std(0) + 1e-6
    scaled, wanted = (seen.double() - mean) / spread, whole.double()
    weights = torch.zeros(seen.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros((), dtype=torch.double, requires_grad=True)
    search = torch.optim.LBFGS([weights, bias], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        wrong = torch.nn.functional.binary_cross_entropy_with_logits(scaled @ weights + bias, wanted)
        total = wrong + PENALTY * weights @ weights
        total.backward()  # type: ignore[no-untyped-call]  # torch again
        return total

    search.step(loss)  # type: ignore[no-untyped-call]  # torch's optimizers have no types
    found = (weights / spread).detach()
    return found.float(), float(bias.detach() - mean @ found)


def area(scores: torch.Tensor, whole: torch.Tensor) -> float:
    """How often a whole one scores more than a broken one; a tie counts half."""
    yes, no = scores[whole == 1][:, None], scores[whole == 0][None]
    return float((yes > no).double().mean() + 0.5 * (yes == no).double().mean())


def calibrate(folder: Path, sentences: int = SENTENCES, measured: int = MEASURED) -> Calibration:
    """Of an exported checkpoint; prints and saves it."""
    served = Served(folder)
    known = list(examples(sentences, 11, held_out=False))
    weights, bias = fit(states(served, known), _wholes(known))
    unknown = list(examples(measured, 12, held_out=True))
    scores, whole = states(served, unknown) @ weights + bias, _wholes(unknown)
    found = Calibration(
        weights=[round(float(weight), 5) for weight in weights],
        bias=round(bias, 5),
        sentences=sentences,
        held_out=len(unknown),
        area=round(area(scores, whole), 4),
        wholes_done=round(float((scores[whole == 1] > 0).double().mean()), 4),
        broken_done=round(float((scores[whole == 0] > 0).double().mean()), 4),
    )
    found.save(folder)
    print(f"end of turn: area {found.area}, wholes done {found.wholes_done}, broken ones {found.broken_done}")
    return found


def _wholes(told: Sequence[Example]) -> torch.Tensor:
    return torch.tensor([float(example.whole) for example in told])
