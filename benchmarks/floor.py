"""Who has the floor: scripted spoken exchanges in virtual time, judged against what was truly said and heard.

Callers ask, hesitate, answer fast, cough, say "uh-huh", let others talk in the background, interrupt, and have our
voice come back as an echo (`floor_script`). They are heard by the real voice detector, endpointer, overlap rules, echo
canceller and session; in the model's place stand flite and pocketsphinx, with a model's published times
(`floor_engine`). Every figure is counted in samples. ``..._without`` is the same caller without the mechanism: a fixed
silence of 500 ms ends turns, nothing is guessed, any speech cuts, no canceller, words spread evenly over the audio.
With ``--model`` ends of turns are judged by the model's own opinion, where it has one, and ``..._by_words`` is the same
caller with the general rule in its place.

    eot_delay_p50, _p95        true end of speech -> turn decision, seconds
    premature_cut_ins          share of turns decided before they had ended (``_hesitating``: of those that pause)
    e2e_p50, _p95              true end of speech -> first packet of the reply sent
    mouth_to_ear_p50, _p95     true end of speech -> first sample of the reply played
    interrupt_stop_p50, _p95   onset of an interruption -> last sample of the reply played
    missed_interruptions       share of interruptions after which we spoke on
    false_interruptions        share of coughs, backchannels and background talk that ended a reply
    resume_gap_ms_p50, _p95    end of such a false alarm -> reply audible again (0: it never stood still)
    background_turns           share of other people's talk in a silence that was taken for a turn
    self_interruptions         replies that our own echo ended, of those under echo
    heard_word_right           share of cuts whose transcript ends at the word that was truly heard last
    heard_word_within_one      ... or beside it
    heard_error_ms_p95         place of the cut, as told, against the sample that was truly played
    wasted_speculation         share of guessed tokens thrown away

A word was truly heard if more than half of it was played, by the times of a forced aligner (pocketsphinx).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.floor_ear import Aligner, Ear
from benchmarks.floor_engine import FloorEngine, Timings
from benchmarks.floor_kept import Kept
from benchmarks.floor_model import ModelEngine
from benchmarks.floor_run import Outcome, Replier, Setup, run
from benchmarks.floor_script import KINDS, Talk, ear_sentences, talks, training_sentences
from benchmarks.report import report
from models.base import LoadOptions
from models.registry import load
from realtime.endings import Endings
from realtime.endpoint import model_ends_turn, words_end_turn

T = TypeVar("T")
TALKS, QUICK_TALKS = 50, 4
COLUMNS = {"full": "", "without": "_without", "by_words": "_by_words"}
"""Callers with all that we have, and with less: what each adds to the names of figures."""
FALSE_ALARMS = ("backchannel", "cough", "background")


def main() -> int:
    options = parsed()
    count = options.talks or (QUICK_TALKS if options.quick else TALKS)
    drawn = list(talks(options.first + count, tune=options.tune))[options.first :]
    engines, aligner, kept = Engines(options.model), Aligner(), Kept(options.keep)
    columns = {name: setup for name, setup in setups(options.model).items() if name in options.columns}
    outcomes: dict[str, list[Outcome]] = {name: [] for name in columns}
    with suppress(KeyboardInterrupt):  # then: the figures of the callers that were heard
        for talk in drawn:
            for name, setup in columns.items():
                found = kept.read(name, talk.seed)
                if found is None:
                    found = run(talk, setup, engines.make(talk, setup), aligner)
                    kept.write(name, talk.seed, found)
                outcomes[name] += found
                for outcome in found:
                    if options.verbose and outcome.wrong:
                        print(f"{name} {talk.seed}: {outcome}", file=sys.stderr, flush=True)
    figures: dict[str, float] = {"exchanges": max(map(len, outcomes.values()))}
    for name, found in outcomes.items():
        figures |= {f"{figure}{COLUMNS[name]}": value for figure, value in measure(found).items()}
    engines.save()
    aligner.save()
    report("floor", figures, options.json)
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few callers, within a minute")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument(
        "--tune", action="store_true", help="the sentences that constants are chosen on, not the reported"
    )
    parser.add_argument("--talks", type=int, help=f"callers, instead of {TALKS}")
    parser.add_argument("--first", type=int, default=0, help="callers to leave out before them")
    parser.add_argument(
        "--keep",
        type=Path,
        help="a folder for what came of each caller: who stands there is not heard again, so that callers can be heard "
        "in parts, by several processes, and a last call gives the figures of all. One state of the code, one folder",
    )
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=[*COLUMNS], help="default: all there are")
    parser.add_argument(
        "--model", default="", help="a checkpoint folder in the model's place; default: flite and an ear"
    )
    parser.add_argument("--verbose", action="store_true", help="every exchange that went wrong")
    options = parser.parse_args()
    if not set(setups(options.model)) & set(options.columns):
        parser.error("there is no such column without --model")
    return options


def setups(model: str) -> dict[str, Setup]:
    """The columns, by name."""
    if model:
        return {
            "without": Setup.plain(),
            "full": Setup(model_ends_turn),
            "by_words": Setup(words_end_turn),
        }
    return {"without": Setup.plain(), "full": Setup(Endings.learn(training_sentences()))}


class Engines:
    """What stands in the model's place: an engine a caller."""

    def __init__(self, folder: str) -> None:
        self._ear = None if folder else Ear(ear_sentences())
        self._model = load(Path(folder), LoadOptions(device="cpu", slots=4)) if folder else None

    def make(self, talk: Talk, setup: Setup) -> Replier:
        if self._model is not None:
            return ModelEngine(self._model)
        assert self._ear is not None, "one or the other"
        return FloorEngine(self._ear.hear, Timings(), attends=setup.attends, seed=talk.seed)

    def save(self) -> None:
        """What the ear has heard is known the next time."""
        if self._ear is not None:
            self._ear.save()


def measure(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Outcomes -> figures, those that nothing was measured for left out."""
    turns = [o for o in outcomes if o.said]
    over = [o for o in outcomes if o.kind == "interruption" and o.over_at_s is not None]
    alarms = [o for o in outcomes if o.kind in FALSE_ALARMS and o.over_at_s is not None]
    off = [o.words_off for o in over if o.cut and o.words_off is not None]
    guessed = sum(o.guessed_tokens for o in outcomes)
    figures: dict[str, float | None] = {
        **spread("eot_delay", [o.eot_delay_s for o in turns]),
        "premature_cut_ins": share(turns, lambda o: o.premature),
        "premature_cut_ins_hesitating": share([o for o in turns if o.hesitates], lambda o: o.premature),
        "unanswered": share(turns, lambda o: o.e2e_s is None),
        **spread("e2e", [o.e2e_s for o in turns]),
        **spread("mouth_to_ear", [o.mouth_to_ear_s for o in turns]),
        **spread("interrupt_stop", [o.stop_s for o in over if o.cut]),
        "missed_interruptions": share(over, lambda o: not o.cut),
        "false_interruptions": share(alarms, lambda o: o.cut),
        **{
            f"false_interruptions_{kind}": share([o for o in alarms if o.kind == kind], lambda o: o.cut)
            for kind in KINDS
        },
        **{
            n.replace("gap_", "gap_ms_"): v
            for n, v in spread("resume_gap", [o.gap_ms for o in alarms if not o.cut]).items()
        },
        "background_turns": share([o for o in outcomes if o.opened is not None], lambda o: bool(o.opened)),
        "self_interruptions": share([o for o in outcomes if o.echo], lambda o: o.by_itself),
        "heard_word_right": share(off, lambda wrong: wrong == 0),
        "heard_word_within_one": share(off, lambda wrong: wrong <= 1),
        "heard_error_ms_p95": spread("x", [o.heard_error_ms for o in over if o.cut]).get("x_p95"),
        "wasted_speculation": sum(o.wasted_tokens for o in outcomes) / guessed if guessed else None,
    }
    return {name: value for name, value in figures.items() if value is not None}


def share(of: Sequence[T], true: Callable[[T], bool]) -> float | None:
    return sum(map(true, of)) / len(of) if of else None


def spread(name: str, values: Iterable[float | None]) -> Mapping[str, float]:
    known = [value for value in values if value is not None]
    if not known:
        return {}
    return {f"{name}_p50": float(np.quantile(known, 0.5)), f"{name}_p95": float(np.quantile(known, 0.95))}


if __name__ == "__main__":
    sys.exit(main())
