"""What the thinker is taught from: conversations about sentences that the grammar draws, as endless batches.

Most questions are imagined: laid out as the audio tower would hear them. Once there is a tower, others are clips of the
pool as it heard them (`heard.py`), and pictures are what the vision tower made of drawings (`see.py`). A conversation
forks: its prompt leads to several talks, a history to two next questions, a question to its reply and its transcript.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import IterableDataset

from . import chat, dialogue, domain, grammar, heard, over, pool, see, sequences, tokenizer
from .bridge import as_read, pieces
from .grammar import Turn
from .hear import words_ids
from .sequences import Batch, Layout, Sight
from .work import worker

INSTRUCTIONS = (
    "You are the information desk of a railway station.",
    "You are a helpful assistant.",
    "Answer in one short sentence.",
    "You are Parley, a friendly voice assistant. Keep answers short.",
    "Speak English.",
)
TALKS = 3
"""Talks that share a prompt with functions."""
CALLS = 0.35
"""Share of first questions, where functions are offered, that are about to need one."""
_OTHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
_MISHEARD = (0.0, 0.0, 0.04, 0.1, 0.2)
"""Shares of wrong or missed pieces in an imagined sentence."""
_CALLED = ("transfer", "departures")
_UNANSWERED = (pool.SENSELESS, over.BEGUN)
"""They are written down, and have no reply that could be learnt."""
_SILENT_TOKENS = (14, 20, 30, 50, 100, 390)


@dataclass(frozen=True)
class Shares:
    """How often training meets each kind of thing."""

    heard: float = 0.0
    """User turns that the tower heard; the others come from the grammar."""
    typed: float = 0.15
    """Turns among the others that are typed; the rest are imagined audio."""
    transcribe: float = 0.6
    """Last questions that are also to be written down."""
    senseless: float = 0.05
    """Sentences without sense, which are only to be written down."""
    over: float = 0.0
    """Phrases that people say over a reply, between two questions or for one."""
    begun: float = 0.0
    """Beginnings of questions, which are only to be written down."""
    turned: float = 0.15
    """Sentences of the grammar whose end is said first."""
    tools: float = 0.12
    """Conversations in which functions are offered."""
    instructions: float = 0.1
    silent: float = 0.04
    """Turns in which nobody speaks."""
    look: float = 0.0
    """Turns about what the camera shows."""
    camera: float = 0.0
    """Other turns during which the camera shows something all the same."""
    turns: tuple[float, float, float] = (0.72, 0.16, 0.12)
    """Of how many turns a conversation is: one, two, three."""
    cut: float = 0.06
    """Replies in the past that were cut off."""


@dataclass(frozen=True)
class Clip:
    """What is said, and what the audio tower made of it; None: it is typed or imagined."""

    turn: Turn
    states: Tensor | None = None


class Lessons(IterableDataset[Batch]):
    """Endless batches of about so many tokens."""

    def __init__(self, work: Path, seed: int, tokens: int, shares: Shares) -> None:
        self.work, self.seed, self.tokens, self.shares = work, seed, tokens, shares

    def __iter__(self) -> Iterator[Batch]:
        teacher = Teacher(tokenizer.load(self.work / "tokenizer"), 1000 * self.seed + worker(), self.shares)
        if self.shares.heard:
            teacher.clips = Clips(self.work, teacher.rng)
        if self.shares.look or self.shares.camera:
            teacher.sights = see.kept(self.work)
        while True:
            drawn = (teacher.conversation() for _ in range(max(self.tokens // 12, 2)))
            made = sorted(drawn, key=lambda layout: len(layout.ids))
            groups: list[list[Layout]] = [[]]
            for layout in made:
                if len(layout.ids) * (len(groups[-1]) + 1) > self.tokens and groups[-1]:
                    groups.append([])
                groups[-1].append(layout)
            teacher.rng.shuffle(groups)
            for group in groups:
                yield sequences.batch(group)


class Clips:
    """The pool as it was heard, by kinds: "first" (some are "calls"), "leaning", "look", "senseless", "over", "begun",
    "nothing"."""

    def __init__(self, work: Path, rng: random.Random) -> None:
        self.rng, self._of = rng, dict[str, list[tuple[Turn, heard.Kept, int]]]()
        for name in heard.names(work):
            turns = heard.turns(work, name)
            for variant in heard.variants(work, "heard"):
                kept = heard.kept(work / "heard" / f"{name}-{variant}.npy")
                for index, turn in enumerate(turns):
                    for one in {kind(turn), "calls" if turn.intent in _CALLED else kind(turn)}:
                        self._of.setdefault(one, []).append((turn, kept, index))

    def draw(self, wanted: str) -> Clip | None:
        """One of a kind; None where there is none."""
        if wanted not in self._of:
            return None
        turn, kept, index = self.rng.choice(self._of[wanted])
        return Clip(turn, kept[index])


def kind(turn: Turn) -> str:
    """Where in a conversation a turn may stand."""
    if turn.intent in ("look", "look_colour"):
        return "look"
    if turn.intent in (*_UNANSWERED, "nothing"):
        return turn.intent
    if turn.intent.startswith(f"{over.PHRASE}:"):
        return over.PHRASE
    return "leaning" if turn.intent.startswith("follow:") or turn.intent in ("repeat", "ask_ticket") else "first"


class Teacher:
    """Builds conversations."""

    def __init__(self, bpe: Tokenizer, seed: int, shares: Shares) -> None:
        self.bpe, self.shares, self.rng = bpe, shares, random.Random(seed)
        self.desk = grammar.Desk(self.rng, forbidden=frozenset(grammar.lines("held_out_sentences.txt")))
        self.read_as: list[int] = as_read(bpe).tolist()
        self.pieces = pieces(bpe)
        self.clips: Clips | None = None
        self.sights: dict[str, list[Sight]] = {}

    def conversation(self) -> Layout:
        """One prompt and the talks that begin with it."""
        rng, shares, layout = self.rng, self.shares, Layout(self.bpe)
        offered = self._tools() if rng.random() < shares.tools else ()
        instructions = rng.choice(INSTRUCTIONS) if rng.random() < shares.instructions else ""
        layout.text(chat.system(instructions, offered))
        names = {chat.name_of(tool) for tool in offered}
        if not offered:
            self._talk(layout, names)
            return layout
        begin = layout.fork()
        for number in range(TALKS):
            if number:
                layout.back(begin)
            self._talk(layout, names)
        return layout

    def _talk(self, layout: Layout, names: set[str]) -> None:
        before: list[Turn] = []
        for _ in range(self.rng.choices((0, 1, 2), self.shares.turns)[0]):
            clip = self._clip(before, names, last=False)
            turn = self._answered(clip.turn, before, names)
            if turn.intent != "nothing":
                self._said(layout, clip, turn)
                layout.text(chat.END + "\n")
                self._reply(layout, turn, last=False)
                before.append(turn)
        self._last(layout, before, names)

    def _last(self, layout: Layout, before: list[Turn], names: set[str]) -> None:
        """The last question; after a history there are two instead of it."""
        begin = layout.fork() if before else None
        for number in range(2 if before else 1):
            if number and begin is not None:
                layout.back(begin)
            clip = self._clip(before, names, last=True)
            turn = self._answered(clip.turn, before, names)
            self._said(layout, clip, turn)
            if turn.intent in _UNANSWERED:
                self._written_down(layout, turn)
                continue
            # Of noise nothing is written down.
            asked = kind(turn) == over.PHRASE or self.rng.random() < self.shares.transcribe
            question = layout.fork() if asked else None
            layout.text(chat.END + "\n")
            self._reply(layout, turn, last=True)
            if question is not None:
                layout.back(question)
                self._written_down(layout, turn)

    def _tools(self) -> tuple[dict[str, object], ...]:
        tools = [dict(tool) for tool in chat.TOOLS]
        if self.rng.random() < 0.2:
            tools.append(dict(_OTHER_TOOL))
        if self.rng.random() < 0.15:
            tools.pop(self.rng.randrange(2))
        if self.rng.random() < 0.3:
            self.rng.shuffle(tools)
        return tuple(tools)

    def _clip(self, before: Sequence[Turn], names: set[str], *, last: bool) -> Clip:
        """What is said next; only the `last` may be what has no reply (a reply of no words would be learnt)."""
        rng, shares = self.rng, self.shares
        wanted = "leaning" if rng.random() < (0.6 if before else 0.06) else "first"
        for other, share in (
            ("nothing", shares.silent),
            ("look", shares.look),
            (pool.SENSELESS, shares.senseless),
            (over.PHRASE, shares.over),
            (over.BEGUN, shares.begun),
        ):
            if rng.random() < share:
                wanted = other
        if wanted in _UNANSWERED and not last:
            wanted = "first"
        if names and wanted == "first" and rng.random() < CALLS:
            wanted = "calls"
        clip = self.clips.draw(wanted) if self.clips is not None and rng.random() < shares.heard else None
        return clip or Clip(self._drawn(wanted))

    def _drawn(self, wanted: str) -> Turn:
        if wanted == "nothing":
            return Turn("", "", "nothing")
        if wanted == pool.SENSELESS:
            return pool.draw_senseless(self.desk)
        if wanted == over.PHRASE:
            return over.phrase(self.desk)
        if wanted == over.BEGUN:
            return over.begun(self.rng, pool.draw_turn(self.desk).said)
        if wanted == "calls":
            return self.desk.turn(self.rng.choice(_CALLED), tools=True)
        while kind(turn := pool.draw_turn(self.desk)) != wanted:
            pass
        if turn.intent in ("order", "refusal") or self.rng.random() > self.shares.turned:
            return turn
        words = turn.said.split()
        cut = self.rng.randrange(len(words))
        said = " ".join(words[cut:] + words[:cut])
        return turn if grammar.is_held_out(said) else replace(turn, said=said)

    def _answered(self, turn: Turn, before: Sequence[Turn], names: set[str]) -> Turn:
        if turn.intent == "transfer":
            return grammar.with_call(turn, "transfer_to_person" in names, self.rng)
        if turn.intent == "departures":
            return grammar.with_call(turn, "get_departures" in names, self.rng)
        return dialogue.answer(turn, before)

    def _said(self, layout: Layout, clip: Clip, turn: Turn) -> None:
        """The user's message, still open."""
        rng = self.rng
        layout.text("<|im_start|>user\n")
        picture = turn.picture
        looks = turn.intent in ("look", "look_colour")
        if not looks and self.sights and rng.random() < self.shares.camera:
            picture = any_picture(rng)
        shown = self.sights.get(picture, ()) if picture or rng.random() < (0.6 if looks else 0.05) else ()
        typed = clip.states is None and bool(turn.said) and rng.random() < self.shares.typed
        if shown and clip.states is not None and rng.random() < 0.5:
            seconds = rng.choice((1.0, 1.0, 1.0, 2.0))
            count = max(round(len(clip.states) / 13 / seconds), 1)
            still = rng.choice(shown)
            film = [rng.choice(shown) if rng.random() < 0.1 else still for _ in range(count)]
            layout.heard_with_camera(clip.states, [one for one in film if one.rows == still.rows], seconds)
            return
        if shown:
            layout.seen(rng.choice(shown))
        if typed:
            layout.text(grammar.written(turn.said) if rng.random() < 0.7 else turn.said)
        elif clip.states is not None:
            layout.heard(clip.states)
        else:
            # What nobody taught it to hear sounds like words that it knows, in no order.
            unheard = turn.intent == "refusal" and rng.random() < 0.6
            layout.imagined_audio(self._imagined(turn.said, 0.7 if unheard else rng.choice(_MISHEARD)))

    def _imagined(self, said: str, wrong: float) -> list[int | None]:
        """A sentence's pieces as CTC hears them: far apart, some twice, a share `wrong` of them wrong or missed."""
        rng = self.rng
        if not said:
            return [None] * rng.choice(_SILENT_TOKENS)
        sounds: list[int | None] = [None] * rng.randint(1, 6)
        for piece in words_ids(self.bpe, said):
            slip = rng.random()
            if slip >= 0.4 * wrong:
                what = piece if slip >= wrong else rng.choice(self.pieces)
                sounds += [self.read_as[what]] * rng.choice((1, 1, 2))
            sounds += [None] * rng.choice((0, 1, 1, 2, 2, 3, 4))
        return sounds + [None] * rng.randint(1, 10)

    def _reply(self, layout: Layout, turn: Turn, last: bool) -> None:
        layout.text(chat.REPLY)
        if turn.call is not None:
            layout.text(chat.tool_call(turn.call.name, turn.call.arguments) + chat.END, learn=True)
            layout.text("\n" + chat.tool_result(turn.call.result) + chat.REPLY)
        words = turn.reply.split(" ")
        if not last and len(words) > 2 and self.rng.random() < self.shares.cut:
            layout.text(" ".join(words[: self.rng.randrange(1, len(words))]) + chat.END)
        else:
            layout.text(turn.reply + chat.END, learn=True)
        layout.text("\n")

    def _written_down(self, layout: Layout, turn: Turn) -> None:
        """The request for a transcript, which ends the user's message, and the transcript."""
        layout.text(chat.TRANSCRIBE + chat.END + "\n" + chat.REPLY)
        layout.text(grammar.written(turn.said) + chat.END, learn=True)


def any_picture(rng: random.Random) -> str:
    """Something that the camera may show, or nothing."""
    if rng.random() < 0.4:
        return ""
    kind = rng.choice(("shape", "digit", "item"))
    if kind == "shape":
        return f"{rng.choice(list(domain.COLOURS))} {rng.choice(domain.SHAPES)}"
    return f"digit {rng.choice(domain.DIGITS)}" if kind == "digit" else rng.choice(domain.ITEMS).one
