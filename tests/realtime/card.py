"""The real engine and its schedule on a card that isn't there: virtual time, and what each stage cost on one.

``python -m tests.realtime.card`` plays the conversations of ``benchmarks/gpu.py`` (``paced@N``: N callers who end
within a second; ``together@N``: within 100 ms) with the toy model in the model's place and the clock moved on by what
an H200 was measured to take (RESULTS.md, "On a card"). What it prints is simulated: it says what a schedule is worth,
and nothing of a card. The stages' costs by their rows lie on lines between what was measured at 1, 8 and 64.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.engine import SPREAD_S, Crowd, Turn
from benchmarks.question import RATE_HZ
from models.base import Audio, Model, Part, Pcm, Sampling
from realtime.events import EngineCommand, EngineOutput, Overhear, Playout, Reply, TranscriptOut
from realtime.schedule import EngineConfig
from tests.realtime.doubles import SPEC, ToyThinker, toy_model
from tests.realtime.doubles_speech import FRAME_SAMPLES, Array, OnCall, ToyCodec
from transport.cli import transcript_slots

TOKEN_SAMPLES = 1231  # of 16,000: thirteen audio tokens a second
WITHHELD = 555  # samples that code2wav holds back
FRAMES = 40
QUESTION_S = 3.0

THINKER_MS = (
    (1, 4.5), (8, 9.0), (16, 11.5), (24, 13.3), (32, 14.7), (48, 16.0), (64, 17.0),
    (150, 24.0), (300, 27.0), (512, 29.5),
)  # fmt: skip
"""Rows of a decoded token or of a prefill, which are the same to the card: the medians of ``paced@64`` by what a step
is rounded up to. It has the talker's own prefill in it, and what the host does in a call."""
FRAME_MS = ((1, 8.0), (8, 9.0), (16, 10.5), (24, 11.5), (32, 12.6), (48, 14.6), (64, 16.2))
"""With its samples, and with delivering them."""
FIRST_FRAME_MS = ((1, 1.9), (8, 1.8), (64, 6.0))
"""What a frame takes longer with so many replies that begin."""
BESIDES_MS, BESIDES_EACH_MS = 0.3, 0.02
"""What passes between two units, and for each session: 1.6 ms with 64 callers."""
ENCODE_MS, ENCODE_EACH_MS = 0.6, 1.05
"""A call, and the last second of each question."""
PREFILL_ROWS = 512
"""Rows of one replay."""


def between(points: Sequence[tuple[int, float]], rows: int) -> float:
    """On the lines through ``points``."""
    return float(np.interp(rows, [at for at, _ in points], [value for _, value in points]))


def thinker_ms(rows: int) -> float:
    """Milliseconds of ``rows`` rows, in as many replays as they need."""
    whole, rest = divmod(rows, PREFILL_ROWS)
    return whole * between(THINKER_MS, PREFILL_ROWS) + (between(THINKER_MS, rest) if rest else 0.0)


def encode_ms(windows: int) -> float:
    """Milliseconds of ``windows`` windows."""
    return ENCODE_MS + ENCODE_EACH_MS * windows


class CardClock:
    """Time that only work and waiting take."""

    def __init__(self) -> None:
        self.at_s = 100.0

    def now(self) -> float:
        return self.at_s

    def sleep(self, seconds: float) -> None:
        self.at_s += seconds


class CardThinker(ToyThinker):
    """Hears as the real one does: window by window, what is left when the question has ended. Eight seconds in exact
    mode."""

    window = 8 * 16_000

    def append(self, slot: int, part: Part) -> None:
        state = self.slots[slot]
        if not isinstance(part, Audio):
            super().append(slot, part)
            return
        pcm: Pcm = np.concatenate([state.remainder, part.pcm])
        end = len(pcm) if part.final else len(pcm) // self.window * self.window
        state.queue += [pcm[at : min(at + TOKEN_SAMPLES, end)] for at in range(0, end, TOKEN_SAMPLES)]
        state.remainder = pcm[end:]


class CardCodec(ToyCodec):
    """Silence of the right length: what is listened for here is when."""

    def __init__(self, on_call: OnCall, withheld: int) -> None:
        super().__init__(on_call)
        self._withheld = withheld

    def one(self, slot: int, frames: np.ndarray) -> Any:
        begun = bool(self.slots[slot][0])
        self.slots[slot] = [1, np.zeros(self._withheld, np.float32)]
        return np.zeros(len(frames) * FRAME_SAMPLES - (0 if begun else self._withheld), np.float32).view(Array)


def endless(cache: Sequence[int], base: int, sampling: Sampling) -> int:
    """Words, and no end."""
    return 10 + len(cache) % 80


class Card:
    """A model whose calls take their time. ``spent_ms``: each call by its stage, with its rows."""

    besides_ms, besides_each_ms = BESIDES_MS, BESIDES_EACH_MS
    withheld = WITHHELD
    window_s = 8.0

    def __init__(self, slots: int) -> None:
        self.clock = CardClock()
        self.calls: list[tuple[str, int, float]] = []
        on_call: OnCall = self._called
        model = toy_model(slots, on_call=on_call, spec=replace(SPEC, context_tokens=1 << 20))
        thinker: Any = CardThinker(slots, 1 << 30, on_call, endless)
        thinker.window = round(self.window_s * model.spec.input_rate_hz)
        self._codec = CardCodec(on_call, self.withheld)
        self._talker: Any = model.talker
        self.model = Model(model.spec, model.prompt, thinker, model.talker, self._codec)

    def _called(self, stage: str, slots: Sequence[int], size: int) -> None:
        self.calls.append((stage, size, took_ms := self._ms(stage, slots, size)))
        besides_ms = self.besides_ms + self.besides_each_ms * len(self._talker.slots)
        self.clock.at_s += (took_ms + (0.0 if stage in ("talker_prefill", "render") else besides_ms)) / 1000

    def _ms(self, stage: str, slots: Sequence[int], size: int) -> float:
        if stage == "encode":
            return encode_ms(size)
        if stage in ("prefill", "decode"):
            return thinker_ms(size)
        if stage == "frame":
            first = sum(not self._talker.slots[slot].frames for slot in slots)
            return between(FRAME_MS, size) + (between(FIRST_FRAME_MS, first) if first else 0.0)
        return 0.0  # the talker's prefill is in the thinker's, and a frame's samples in the frame


class AppendCard(Card):
    """The same with ``--audio-mode append``."""

    window_s = 2.0


def converse(
    callers: int, spread_s: float, turns: int, config: EngineConfig | None = None, kind: type[Card] = Card
) -> dict[str, float]:
    """The figures of ``benchmarks/gpu.py``, with the mean rows of a call."""
    card = kind(callers)
    config = config or EngineConfig()
    crowd = Crowd(card.model, callers, replace(config, reply_frames=FRAMES, speaking_share=0.01), card.clock)
    turn = Turn(QUESTION_S, spread_s, max_tokens=FRAMES // 2)
    took_s = sum(crowd.turn(turn, epoch) for epoch in range(turns))
    figures = crowd.figures(took_s)
    replied = sum(heard.finished for heard in crowd.callers.values())
    crowd.close()
    kept = ("ttfa_p50", "ttfa_p95", "underrun_ms_max", "busy", "prefill_ms", "prefill_rows", "decode_ms", "decode_rows")
    return {
        **{name: figures[name] for name in (*kept, "frame_ms", "frame_rows")},
        "unanswered": float(turns * callers - replied),
        "took_s": took_s,
    }


SPEAK_UP_S, SPOKEN_OVER_S, ASK_EVERY_S = 0.6, 1.2, 0.1
"""After their turn was decided somebody speaks over the reply, for so long; so often their words are asked for, one at
a time, as in realtime/session_overlap.py."""
WORDS = 6


class TalkedOver(Crowd):
    """The first ``over`` callers speak over their replies, which are held meanwhile."""

    def __init__(self, card: Card, callers: int, over: int, config: EngineConfig) -> None:
        self._over = over
        self._now_s = card.clock.now
        self._asked_s: dict[int, float] = {}  # whose words are to come
        self.words_s: list[float] = []
        """How long each of their words took."""
        super().__init__(card.model, callers, config, card.clock)
        self._submit = self.engine.submit
        self.engine.submit = self._ask  # type: ignore[method-assign]

    def _take(self, output: EngineOutput) -> None:
        super()._take(output)
        if isinstance(output, TranscriptOut) and output.done:
            assert not output.failure, output.failure
            self.words_s.append(self._now_s() - self._asked_s.pop(output.session))

    def _ask(self, command: EngineCommand) -> None:
        if isinstance(command, Overhear):
            if command.session in self._asked_s:
                return
            self._asked_s[command.session] = self._now_s()
        self._submit(command)

    def play(
        self,
        script: Sequence[tuple[float, EngineCommand]],
        began_s: float = 0.0,
        enough: Callable[[], bool] = lambda: False,
    ) -> float:
        decided = {c.session: at_s for at_s, c in script if isinstance(c, Reply) and c.session <= self._over}
        more: list[tuple[float, EngineCommand]] = []
        for session, at_s in decided.items():
            for number in range(round(SPOKEN_OVER_S / ASK_EVERY_S)):
                said = np.zeros(round((0.3 + number * ASK_EVERY_S) * RATE_HZ), np.float32)
                more.append((at_s + SPEAK_UP_S + number * ASK_EVERY_S, Overhear(session, 0, str(number), said)))
            for late_s, held in ((SPEAK_UP_S, True), (SPEAK_UP_S + SPOKEN_OVER_S, False)):
                sent = round((SPEAK_UP_S - 0.2) * self.rate_hz)
                more.append((at_s + late_s, Playout(session, 0, sent, began_s + at_s + late_s, held)))
        return super().play([*script, *more], began_s, enough)


def talked_over(callers: int, over: int, kind: type[Card] = Card) -> dict[str, float]:
    """Callers end their turns within two seconds; ``over`` of them then speak over the replies. Underruns are of the
    others."""
    card = kind(callers + transcript_slots(callers))
    config = EngineConfig(reply_frames=FRAMES, transcript_tokens=WORDS, speaking_share=0.01, max_sessions=callers)
    crowd = TalkedOver(card, callers, over, config)
    figures = crowd.figures(crowd.turn(Turn(QUESTION_S, 2.0, max_tokens=FRAMES // 2), 0))
    others_s = [heard.underrun_s for number, heard in crowd.callers.items() if number > over]
    replied = sum(heard.finished for heard in crowd.callers.values())
    crowd.close()
    words_s = sorted(crowd.words_s)
    return {
        **{name: figures[name] for name in ("ttfa_p50", "ttfa_p95", "busy")},
        "underrun_ms_max": 1000 * max(others_s, default=0.0),
        "unanswered": float(callers - replied),
        "words": float(len(words_s)),
        **(
            {"words_p50": words_s[len(words_s) // 2], "words_p95": words_s[int(0.95 * len(words_s))]} if words_s else {}
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--append", action="store_true", help="windows of two seconds, as with --audio-mode append")
    options = parser.parse_args()
    kind = AppendCard if options.append else Card
    for name, spread_s, turns in (("paced", 1.0, options.turns), ("together", SPREAD_S, 1)):
        for callers in options.callers:
            found = {key: round(value, 4) for key, value in converse(callers, spread_s, turns, kind=kind).items()}
            print(f"{name}@{callers} {json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main()
