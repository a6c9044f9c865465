"""The issue's table: asks an exported checkpoint what training never heard, and counts what is exactly right.

Held out, by lists in `data/`: sentences (`held_out_sentences.txt`), word orders (lines with `!`), out-of-domain
sentences, speakers (`voices.txt`, "unseen") and noises (`augment.UNSEEN_NOISES`). Everything is drawn with fixed seeds.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from . import augment, dialogue, grammar, pictures, pool, see, voices
from .domain import COLOURS, DIGITS, ITEMS, QUANTITIES, SHAPES, TOWN_REPLIES, order_reply, order_words
from .grammar import Desk, Turn
from .hear import word_errors
from .reference import Message, Question, call_of

Asker = Callable[[Sequence[Question]], list[str]]


@dataclass(frozen=True)
class Row:
    """One line of the table; `right` of `of` (for "word errors": wrong words of words)."""

    what: str
    bar: str
    right: int
    of: int
    passed: bool

    @property
    def share(self) -> float:
        return self.right / max(self.of, 1)


@dataclass(frozen=True)
class Case:
    """A question and the turn that is right."""

    question: Question
    turn: Turn


def is_right(turn: Turn, reply: str) -> bool:
    """Every slot stands in the reply, in order; a turn without slots must be answered word for word."""
    if not turn.told or turn.reply == turn.told[0]:
        return reply == turn.reply
    at = 0
    for slot in turn.told:
        at = reply.lower().find(slot.lower(), at)
        if at < 0:
            return False
        at += len(slot)
    return _kind(turn.reply) == _kind(reply)


def _kind(reply: str) -> str:
    """Which kind of answer it is: its first two words without the slots' (a single, the last, ...)."""
    return " ".join(reply.lower().split()[:2]) if reply else ""


@cache
def held_out_turns() -> tuple[Turn, ...]:
    """The held-out sentences as turns, found among what the grammar draws."""
    wanted = set(grammar.lines("held_out_sentences.txt"))
    desk, found = Desk(random.Random(5)), dict[str, Turn]()
    for said in wanted:
        if re.search(_AMOUNT, said):
            found[said] = _order(said)
    draws: list[Callable[[], Turn]] = [partial(desk.plain, intent) for intent in pool.FIRST_TURNS]
    draws += [partial(desk.follow_up, kind) for kind in pool.FOLLOW_UPS]
    for _ in range(50_000):
        if len(found) == len(wanted):
            break
        for draw in draws:
            turn = draw()
            if turn.said in wanted:
                found.setdefault(turn.said, turn)
    for said in wanted - found.keys():  # orders by "a" and "an", which look like prices
        found[said] = _order(said)
    return tuple(found[said] for said in sorted(found))


_COUNTS = {word: count for count in QUANTITIES for word in ((count, "a", "an") if count == "one" else (count,))}
_NAMES = {name: item for item in ITEMS for name in (item.many, item.one)}
_AMOUNT = rf"\b({'|'.join(QUANTITIES)}) ({'|'.join(_NAMES)})\b"


def _order(said: str) -> Turn:
    """An order, of which there are too many to meet by chance, read from its words."""
    named = re.findall(_AMOUNT.replace("one|", "one|an|a|", 1), said)
    wanted = [(_COUNTS[count], _NAMES[name]) for count, name in named]
    return Turn(said, order_reply(wanted), "order", tuple(order_words([line]) for line in wanted))


class Examiner:
    """Makes the cases. `size` scales how many there are (1 = the whole evaluation)."""

    def __init__(self, seed: int = 2026, size: float = 1.0) -> None:
        self.rng, self.noise, self.size = random.Random(seed), np.random.default_rng(seed), size

    def _count(self, whole: int) -> int:
        return max(round(whole * self.size), 4)

    def turns(self, whole: int = 240) -> list[Turn]:
        """Half held-out sentences, half held-out word orders: all intents but pictures and out-of-domain sentences."""
        count = self._count(whole)
        skip = ("look", "look_colour", "refusal")
        known = [t for t in held_out_turns() if t.intent not in skip]
        known = self.rng.sample(known, min(count // 2, len(known)))
        desk = Desk(self.rng, held_out=True)
        intents = [intent for intent in pool.FIRST_TURNS if intent not in skip]
        ordered = [desk.turn(intents[i % len(intents)]) for i in range(count - len(known))]
        answered = [dialogue.answer(_without_tools(turn, self.rng), ()) for turn in [*known, *ordered]]
        return [turn for turn in answered if turn.reply]

    def speech(self, said: str, part: str = "train", voice: voices.Speaker | None = None) -> augment.Pcm:
        """A sentence in a voice of `part`, with quiet before and after."""
        pcm = voices.say(said, voice or voices.draw(self.rng, part)).astype(np.float32) / np.float32(32768)
        pcm = augment.placed(pcm * np.float32(0.5 / max(float(np.abs(pcm).max()), 1e-3)), 0.3, 0.6)
        if len(pcm) < 17000:
            pcm = augment.placed(pcm, 0.0, (17000 - len(pcm)) / 16000)
        return pcm + self.noise.standard_normal(len(pcm)).astype(np.float32) * np.float32(3e-4)

    def asked(self, turns: Sequence[Turn], path: str = "clean", part: str = "train") -> list[Case]:
        """One case a turn, spoken and sent down `path`: "clean", "noise" (10 dB) or "telephone" (3% loss)."""
        cases = []
        for turn in turns:
            pcm = self.speech(turn.said, part)
            if path == "noise":
                make = augment.UNSEEN_NOISES[self.rng.choice(list(augment.UNSEEN_NOISES))]
                pcm = augment.mixed(pcm, make(len(pcm), self.noise), 10.0)
                pcm = pcm * np.float32(0.5 / max(float(np.abs(pcm).max()), 1e-3))
            elif path == "telephone":
                pcm = augment.telephone(pcm, self.noise, 0.03)
            cases.append(Case(Question((Message("user", pcm=pcm),)), turn))
        return cases

    def dialogues(self, whole: int = 60) -> list[Case]:
        """The third turn of three: a question about a town, two that lean on it. The replies between are right."""
        cases, desk, unheard = [], Desk(self.rng), Desk(self.rng, held_out=True)
        for _ in range(self._count(whole)):
            before: list[Turn] = [desk.turn(self.rng.choice(list(TOWN_REPLIES)))]
            for step in range(2):
                kinds = [kind for kind in pool.FOLLOW_UPS if kind != before[-1].intent]
                who = unheard if step == 1 else desk
                before.append(dialogue.answer(who.follow_up(self.rng.choice(kinds)), before))
            messages: list[Message] = []
            for turn in before:
                messages.append(Message("user", pcm=self.speech(turn.said)))
                messages.append(Message("assistant", text=turn.reply))
            cases.append(Case(Question(tuple(messages[:-1])), before[-1]))
        return cases

    def pictures(self, whole: int = 120) -> list[Case]:
        """Spoken questions about a picture, still or from the camera; drawings that training never drew."""
        cases, desk = [], Desk(self.rng)
        names = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
        names += [f"digit {digit}" for digit in DIGITS] + [item.one for item in ITEMS] * 2
        for index in range(self._count(whole)):
            name = names[index % len(names)]
            while True:
                turn = desk.turn("look_colour" if index % 7 == 6 and " " in name else "look")
                if turn.picture and (turn.picture == name or (turn.intent == "look_colour" and turn.picture in names)):
                    break
            pixels = pictures.draw(turn.picture, self.rng, *self.rng.choice(see.PICTURE_SIZES))
            message = Message("user", pcm=self.speech(turn.said), picture=pixels, camera=index % 2 == 0)
            cases.append(Case(Question((message,)), turn))
        return cases

    def functions(self, whole: int = 120) -> list[Case]:
        """Functions are offered: half of the questions need one."""
        cases, desk = [], Desk(self.rng, held_out=True)
        seen = [t for t in held_out_turns() if t.intent in ("transfer", "departures")]
        plain = [t for t in self.turns(whole) if t.intent not in ("transfer", "departures")]
        for index in range(self._count(whole)):
            if index % 2:
                turn = plain[index // 2 % len(plain)]
            elif index % 4:
                turn = grammar.with_call(self.rng.choice(seen), True, self.rng)
            else:
                turn = desk.turn(self.rng.choice(("transfer", "departures")), tools=True)
            cases.append(Case(Question((Message("user", pcm=self.speech(turn.said)),), tools=True), turn))
        return cases

    def refusals(self, whole: int = 80) -> list[Case]:
        desk = Desk(self.rng, held_out=True)
        said = grammar.lines("held_out_out_of_domain.txt")
        turns = [replace(desk.out_of_domain(), said=said[i % len(said)]) for i in range(self._count(whole))]
        return self.asked(turns)

    def silence(self, whole: int = 12) -> list[Case]:
        """30 s of silence, noise and music."""
        cases = []
        makers = [None, *augment.NOISES.values(), *augment.UNSEEN_NOISES.values()]
        for index in range(self._count(whole)):
            make, n = makers[index % len(makers)], 30 * voices.RATE_HZ
            pcm = self.noise.standard_normal(n).astype(np.float32) * np.float32(1e-4)
            if make is not None:
                sound = make(n, self.noise)
                pcm = pcm + sound * np.float32(0.1 / max(float(np.abs(sound).max()), 1e-6))
            cases.append(Case(Question((Message("user", pcm=pcm),)), Turn("", "", "nothing")))
        return cases


def _without_tools(turn: Turn, rng: random.Random) -> Turn:
    return grammar.with_call(turn, False, rng) if turn.intent in ("transfer", "departures") else turn


def judged(what: str, bar: float, cases: Sequence[Case], ask: Asker, shown: list[str]) -> Row:
    """Right answers. What went wrong is noted in `shown`."""
    replies = ask([case.question for case in cases])
    right = 0
    for case, reply in zip(cases, replies, strict=True):
        good = is_right(case.turn, reply)
        right += good
        if not good:
            shown.append(f"{what}: {case.turn.said!r} -> {reply!r}, not {case.turn.reply!r}")
    return Row(what, f">= {bar:.0%}", right, len(cases), right >= bar * len(cases))


def transcripts(cases: Sequence[Case], ask: Asker, shown: list[str]) -> Row:
    """Word errors of the transcripts."""
    heard = ask([replace(case.question, transcribe=True) for case in cases])
    wrong = words = 0
    for case, text in zip(cases, heard, strict=True):
        said = grammar.spoken_words(case.turn.said)
        errors = word_errors(said, grammar.spoken_words(text))
        wrong, words = wrong + errors, words + len(said)
        if errors:
            shown.append(f"transcript: {case.turn.said!r} -> {text!r}")
    return Row("word errors of the transcript, clean held-out", "<= 8%", wrong, words, wrong <= 0.08 * words)


def calls(cases: Sequence[Case], ask: Asker, shown: list[str]) -> tuple[Row, Row]:
    """Function called when and only when it should be; and what is said of its result."""
    right, results = 0, []
    for case, reply in zip(cases, ask([case.question for case in cases]), strict=True):
        call = case.turn.call
        good = call_of(reply) == ((call.name, call.arguments) if call else None) and (call is not None) == (
            "<" in reply
        )
        right += good
        if not good:
            shown.append(f"function: {case.turn.said!r} -> {reply!r}, not {call}")
        if call is not None:
            made = Message("assistant", text=f"<tool_call>\n{_call_json(call)}\n</tool_call>")
            answer = Message("user", text=f"<tool_response>\n{call.result}\n</tool_response>")
            question = replace(case.question, messages=(*case.question.messages, made, answer))
            results.append(Case(question, case.turn))
    spoken = judged("a function's result is spoken rightly", 0.95, results, ask, shown)
    return Row(
        "function called when and only when it should be", ">= 97%", right, len(cases), right >= 0.97 * len(cases)
    ), spoken


def _call_json(call: grammar.Call) -> str:
    from .chat import tool_call

    return tool_call(call.name, call.arguments).removeprefix("<tool_call>\n").removesuffix("\n</tool_call>")


def evaluate(ask: Asker, size: float = 1.0) -> tuple[list[Row], list[str]]:
    """The table's rows, and every answer that was wrong."""
    examiner = Examiner(size=size)
    shown: list[str] = []
    rows: list[Row] = []
    turns = examiner.turns()
    clean = examiner.asked(turns)
    rows.append(judged("right answer, clean held-out, seen speakers", 0.95, clean, ask, shown))
    rows.append(judged("right answer, unseen speakers", 0.85, examiner.asked(turns, part="unseen"), ask, shown))
    rows.append(judged("right answer, 10 dB unseen noise", 0.80, examiner.asked(turns, "noise"), ask, shown))
    rows.append(judged("right answer, telephone with 3% loss", 0.80, examiner.asked(turns, "telephone"), ask, shown))
    rows.append(judged("right answer, third turn of three", 0.95, examiner.dialogues(), ask, shown))
    rows.append(transcripts(clean, ask, shown))
    rows.append(judged("picture questions", 0.95, examiner.pictures(), ask, shown))
    rows.extend(calls(examiner.functions(), ask, shown))
    rows.append(judged("out-of-domain sentences refused", 0.80, examiner.refusals(), ask, shown))
    rows.append(judged("30 s of silence, noise, music: no reply", 1.0, examiner.silence(), ask, shown))
    return rows, shown


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| what | bar | measured | of | |", "|---|---|---|---|---|"]
    lines += [f"| {r.what} | {r.bar} | {r.share:.1%} | {r.of} | {'yes' if r.passed else 'NO'} |" for r in rows]
    return "\n".join(lines)
