"""The same as card.py on a processor: the demo on one core, as ``benchmarks/engine.py`` has it.

``python -m tests.realtime.cpu`` plays its conversations in virtual time, each call as long as it was measured to take
within the running engine (``cpu_costs.py``, 2026-11-27: processor time on a core of an AMD EPYC, Zen 4, float32, with
another program on the other core; medians over a few calls, what lies beyond five questions extrapolated). What it
prints is simulated. It is here so that a schedule that is made for a card is not paid for by who has none: on a core,
rows cost what they cost, and only tokens and frames share.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from benchmarks.engine import SPREAD_S
from tests.realtime.card import Card, between, converse

ENCODE_MS = ((1, 10.3), (2, 12.5), (5, 28.7), (8, 45.0))
"""Questions of three seconds: what is left of them when they end (mel frames and convolutions are made before)."""
PREFILL_MS = ((3, 7.5), (46, 21.8), (92, 29.1), (230, 52.9), (368, 77.0))
"""Positions; a question has 46. With the talker's part."""
DECODE_MS = ((1, 4.9), (2, 6.9), (4, 7.9), (8, 9.0))
FIRST_TOKEN_MS = ((1, 1.0), (8, 2.0))
"""The first token of a reply needs no step: it is drawn from what the prefill gave."""
FRAME_MS = ((1, 9.5), (2, 11.7), (3, 13.1), (4, 13.1), (8, 15.8))
FIRST_FRAME_MS = ((1, 1.2), (4, 4.2), (8, 6.0))
RENDER_MS = ((1, 5.0), (2, 5.4), (4, 6.2), (8, 7.5))


class Cpu(Card):
    """The demo on one core; its codec holds nothing back."""

    besides_ms, besides_each_ms = 0.5, 0.1
    withheld = 0

    def _ms(self, stage: str, slots: Sequence[int], size: int) -> float:
        if stage == "decode":
            first = all(not self.model.thinker.slots[slot].tokens for slot in slots)  # type: ignore[attr-defined]
            return between(FIRST_TOKEN_MS if first else DECODE_MS, size)
        if stage == "frame":
            first = sum(not self._talker.slots[slot].frames for slot in slots)
            return between(FRAME_MS, size) + (between(FIRST_FRAME_MS, first) if first else 0.0)
        costs = {"encode": ENCODE_MS, "prefill": PREFILL_MS, "render": RENDER_MS}
        return between(costs[stage], size) if stage in costs else 0.0  # the talker's prefill is in the thinker's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--turns", type=int, default=2)
    options = parser.parse_args()
    for callers in options.callers:
        found = converse(callers, SPREAD_S, options.turns, kind=Cpu)
        print(f"together@{callers} {json.dumps({key: round(value, 4) for key, value in found.items()})}", flush=True)


if __name__ == "__main__":
    main()
