"""How ``parley call`` shows itself: a progress bar while it runs, then transcripts and one latency table a turn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column, Table
from rich.text import Text

from transport.call import Question
from transport.caller import RATE_HZ, Conversation, Turn

MEANINGS = {
    "mouth_to_ear": "end of speech → first sample of the reply played, seen from here",
    "e2e": "end of speech → first packet of the reply sent",
    "eot_delay": "end of speech → turn decision",
    "prefill_lag": "thinker tokens still to prefill when speech ended",
    "ttft": "turn decision → first thinker token",
    "ttfa": "turn decision → first PCM out of the codec",
    "ttfa_audible": "the same, plus leading silence in that PCM",
    "interrupt_stop": "onset of an interruption → last sample of the reply played",
    "underrun": "silence the player had to insert",
    "guessed_tokens": "reply tokens made before it was sure that the turn was over",
    "wasted_tokens": "of those, thrown away",
}
"""The rows of a turn's table, in order. What the server says beyond them comes after."""


class Bar:
    """One line a question: how much was said, how much of the answer came. On a terminal only."""

    def __init__(self, console: Console, questions: Sequence[Question]) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[heard]}"), console=console
        )
        self._questions = questions
        self._tasks: dict[int, TaskID] = {}

    def __enter__(self) -> Bar:
        if self._progress.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def update(self, number: int, said_s: float, heard_s: float) -> None:
        """A ``call.Progress``."""
        question = self._questions[number]
        if number not in self._tasks:
            self._tasks[number] = self._progress.add_task(question.name, total=question.seconds, heard="")
        heard = f"answer {heard_s:.1f} s" if heard_s else ("waiting" if said_s >= question.seconds else "speaking")
        self._progress.update(self._tasks[number], completed=said_s, heard=heard)


def show(console: Console, conversation: Conversation, out: Path | None) -> None:
    """Prints the whole call."""
    for number, turn in enumerate(conversation.turns, 1):
        console.print(Text(f"{number}. {turn.question}", style="bold"))
        console.print(Text(f"   you     {turn.heard or '(no transcript)'}"))
        console.print(Text(f"   answer  {turn.said or '(no words)'}"))
        for made in turn.calls:
            console.print(Text(f"   calls   {made}", style="cyan"))
        for error in turn.errors:
            console.print(Text(f"   error   {error}", style="red"))
        if turn.status != "completed":
            console.print(Text(f"   status  {turn.status or 'no answer'}", style="yellow"))
        console.print(_table(turn))
    if out is not None:
        console.print(Text(f"answer written to {out}"))


def _table(turn: Turn) -> Table:
    table = Table("latency", Column(justify="right"), "from → to", box=None)
    figures = {name.removesuffix("_ms"): (value, name.endswith("_ms")) for name, value in turn.figures().items()}
    for word in dict.fromkeys([*MEANINGS, *figures]):
        if word in figures:
            value, is_time = figures[word]
            table.add_row(word, f"{value:.0f} ms" if is_time else f"{value:g}", MEANINGS.get(word, ""))
    return table


def as_json(conversation: Conversation, out: Path | None) -> str:
    """The call for machines."""
    return json.dumps({"turns": [_plain(turn) for turn in conversation.turns], "out": str(out) if out else None})


def _plain(turn: Turn) -> dict[str, Any]:
    audio = turn.player.audio()
    return {
        "question": turn.question,
        "heard": turn.heard,
        "said": turn.said,
        "status": turn.status,
        "calls": turn.calls,
        "errors": turn.errors,
        "audio_s": round(len(audio) / RATE_HZ, 3),
        "latency": turn.figures(),
    }
