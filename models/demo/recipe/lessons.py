"""What the thinker is taught from: conversations built out of the pool's clips, as endless batches."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import IterableDataset

from . import augment, chat, dialogue, domain, grammar, mel, pictures, pool, sequences, tokenizer
from .bridge import as_read
from .grammar import Turn
from .hear import words_ids
from .sequences import Batch, Layout

PICTURE_SIZES = ((128, 96), (128, 96), (160, 96), (96, 128), (128, 128))
"""Widths and heights that a camera's picture is brought to: at most 16 x 32 x 32 pixels."""
INSTRUCTIONS = (
    "You are the information desk of a railway station.",
    "You are a helpful assistant.",
    "Answer in one short sentence.",
    "You are Parley, a friendly voice assistant. Keep answers short.",
    "Speak English.",
)
_OTHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


@dataclass(frozen=True)
class Shares:
    """How often training meets each kind of thing."""

    text: float = 0.12
    """User turns that are typed."""
    imagined: float = 0.0
    """Those among them that stand as if they had been heard (`Layout.imagined_audio`): cheaper than sound."""
    transcribe: float = 0.3
    """Sequences that end with a transcription instead of a reply."""
    tools: float = 0.12
    """Conversations in which functions are offered."""
    instructions: float = 0.12
    silent: float = 0.06
    """Turns in which nobody speaks."""
    look: float = 0.16
    """Conversations about what the camera shows."""
    camera: float = 0.12
    """Other turns during which the camera shows something all the same."""
    turns: tuple[float, float, float] = (0.6, 0.22, 0.18)
    """Of how many turns a conversation is: one, two, three."""
    cut: float = 0.06
    """Replies in the past that were cut off."""


class Lessons(IterableDataset[Batch]):
    """Endless batches. `first_step` sets how strongly sound is perturbed (and the seed)."""

    def __init__(self, work: Path, seed: int, batch: int, shares: Shares, amount: float = 0.6) -> None:
        self.work, self.seed, self.batch, self.shares, self.amount = work, seed, batch, shares, amount

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        teacher = Teacher(tokenizer.load(self.work / "tokenizer"), self.seed, self.shares, self.amount)
        while True:
            shards = sorted((self.work / "pool").glob("shard???.npz"))
            chosen = teacher.rng.sample(shards[: pool.PLAIN_SHARDS], min(5, len(shards)))
            chosen += teacher.rng.sample(shards[pool.PLAIN_SHARDS :], min(1, len(shards[pool.PLAIN_SHARDS :])))
            teacher.take([c for path in chosen for c in pool.load(path)])
            for _ in range(24):
                made = sorted((teacher.conversation() for _ in range(self.batch * 6)), key=lambda m: len(m[0].ids))
                groups = [made[i : i + self.batch] for i in range(0, len(made), self.batch)]
                teacher.rng.shuffle(groups)
                for group in groups:
                    yield sequences.batch([m[0] for m in group], [m[1] for m in group])


class Teacher:
    """Builds conversations out of the clips it was given."""

    def __init__(self, bpe: Tokenizer, seed: int, shares: Shares, amount: float = 0.6) -> None:
        self.bpe, self.shares, self.amount = bpe, shares, amount
        self.rng, self.noise = random.Random(seed), np.random.default_rng(seed)
        self.bank = augment.NoiseBank(self.noise)
        self.read_as: list[int] = as_read(bpe).tolist()
        self.first: list[pool.Clip] = []
        self.leaning: list[pool.Clip] = []
        self.looking: list[pool.Clip] = []
        self.senseless: list[pool.Clip] = []
        self.babble: list[augment.Pcm] = []

    def take(self, clips: Sequence[pool.Clip]) -> None:
        """The clips to build from."""
        self.looking = [c for c in clips if c.turn.intent in ("look", "look_colour")]
        self.leaning = [
            c for c in clips if c.turn.intent.startswith("follow:") or c.turn.intent in ("repeat", "ask_ticket")
        ]
        self.senseless = [c for c in clips if c.turn.intent == pool.SENSELESS]
        self.first = [c for c in clips if c.turn.intent not in ("look", "look_colour", pool.SENSELESS)]
        self.babble = [c.samples for c in clips[:60]]

    def conversation(self) -> tuple[Layout, list[Tensor]]:
        """One conversation of one to three turns, and the words of its sounds."""
        rng, shares, layout = self.rng, self.shares, Layout(self.bpe)
        offered = self._tools() if rng.random() < shares.tools else ()
        instructions = rng.choice(INSTRUCTIONS) if rng.random() < shares.instructions else ""
        layout.text(chat.system(instructions, offered))
        names = {chat.name_of(tool) for tool in offered}
        before: list[Turn] = []
        spoken: list[Tensor] = []
        count = rng.choices((1, 2, 3), shares.turns)[0]
        look = rng.random() < shares.look
        transcribe = rng.random() < shares.transcribe
        for index in range(count):
            asked = transcribe and index == count - 1
            if asked and self.senseless and rng.random() < 0.35:
                clip = rng.choice(self.senseless)
            else:
                clip = self._clip(before, look and index == count - 1)
            turn = self._answered(clip.turn, before, names)
            if turn.intent == "nothing" and before:
                continue
            self._user(layout, clip, turn, spoken, chat.TRANSCRIBE if asked else "")
            if asked:
                layout.text(chat.REPLY)
                layout.text(grammar.written(turn.said) + chat.END, learn=True)
            else:
                self._reply(layout, turn, last=index == count - 1)
            before.append(turn)
        return layout, spoken

    def _tools(self) -> tuple[dict[str, object], ...]:
        tools = [dict(tool) for tool in chat.TOOLS]
        if self.rng.random() < 0.2:
            tools.append(dict(_OTHER_TOOL))
        if self.rng.random() < 0.15:
            tools.pop(self.rng.randrange(2))
        if self.rng.random() < 0.3:
            self.rng.shuffle(tools)
        return tuple(tools)

    def _clip(self, before: Sequence[Turn], look: bool) -> pool.Clip:
        if self.rng.random() < self.shares.silent:
            return pool.Clip(np.zeros(0, np.int16), Turn("", "", "nothing"), "")
        if look:
            return self.rng.choice(self.looking)
        if self.rng.random() < (0.6 if before else 0.06):
            return self.rng.choice(self.leaning)
        return self.rng.choice(self.first)

    def _answered(self, turn: Turn, before: Sequence[Turn], names: set[str]) -> Turn:
        if turn.intent == "transfer":
            return grammar.with_call(turn, "transfer_to_person" in names, self.rng)
        if turn.intent == "departures":
            return grammar.with_call(turn, "get_departures" in names, self.rng)
        return dialogue.answer(turn, before)

    def _user(self, layout: Layout, clip: pool.Clip, turn: Turn, spoken: list[Tensor], request: str) -> None:
        rng = self.rng
        layout.text("<|im_start|>user\n")
        shows = bool(turn.picture) or turn.intent in ("look", "look_colour") or rng.random() < self.shares.camera
        picture = turn.picture
        if shows and turn.intent not in ("look", "look_colour"):
            picture = any_picture(rng)
        shows = shows and (bool(picture) or rng.random() < 0.6)
        size = rng.choice(PICTURE_SIZES)
        typed = bool(turn.said) and rng.random() < self.shares.text
        imagined = typed and (bool(request) or rng.random() < self.shares.imagined)
        if typed and shows:
            layout.picture(pictures.draw(picture, rng, *size))
        if imagined:
            layout.imagined_audio(self._imagined(turn.said))
        elif typed:
            layout.text(grammar.written(turn.said) if rng.random() < 0.7 else turn.said)
        else:
            features, labels = self.sound(clip)
            spoken.append(labels)
            way = rng.random() if shows else 1.0
            if way < 0.2:
                layout.picture(pictures.draw(picture, rng, *size))
            if way < 0.35 or not shows:
                layout.audio(features)
                if 0.2 <= way < 0.35:
                    layout.picture(pictures.draw(picture, rng, *size))
            else:
                seconds = rng.choice((1.0, 1.0, 1.0, 2.0))
                pairs = self._film(picture, size, max(round(features.shape[1] / 100 / seconds), 1))
                layout.audio_with_camera(features, pairs, seconds)
        layout.text(request + "<|im_end|>\n")

    def _imagined(self, said: str) -> list[int | None]:
        """The pieces of a sentence as CTC hears them: far apart, some twice, a few of them wrong or missed."""
        rng = self.rng
        heard: list[int | None] = [None] * rng.randint(1, 6)
        for piece in words_ids(self.bpe, said):
            slip = rng.random()
            if slip > 0.03:
                heard += [self.read_as[piece] if slip > 0.08 else rng.randrange(len(self.read_as))] * rng.choice(
                    (1, 1, 2)
                )
            heard += [None] * rng.choice((0, 1, 1, 2, 2, 3, 4))
        return heard + [None] * rng.randint(1, 10)

    def _film(self, picture: str, size: tuple[int, int], pairs: int) -> list[list[sequences.Pixels]]:
        """A held-up thing over some seconds: the same drawing, shaking a little; sometimes it comes or goes."""
        still = pictures.draw(picture, self.rng, *size)
        empty = pictures.draw("", self.rng, *size) if self.rng.random() < 0.15 and pairs > 2 else None
        film = []
        for index in range(pairs):
            shown = empty if empty is not None and index in (0, pairs - 1) else still
            shift = (self.rng.randint(-3, 3), self.rng.randint(-3, 3))
            film.append([shown, np.roll(shown, shift, (0, 1)) if self.rng.random() < 0.7 else shown])
        return film

    def sound(self, clip: pool.Clip) -> tuple[Tensor, Tensor]:
        """A clip on its way to the model: log-mel and CTC labels."""
        if not clip.turn.said:
            seconds = self.rng.choice((1.1, 1.3, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 8.0, 20.0))
            return mel.log_mel(augment.without_speech(self.noise, self.bank, seconds)), torch.zeros(0, dtype=torch.long)
        pcm, _, _ = augment.perturbed(clip.samples, self.noise, self.bank, self.babble, self.amount)
        features = mel.log_mel(pcm, self.noise.uniform(0.88, 1.12) if self.noise.random() < 0.4 else 1.0)
        if self.noise.random() < 0.4 * self.amount:
            features = mel.masked(features, self.noise)
        return features, torch.tensor(words_ids(self.bpe, clip.turn.said))

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


def any_picture(rng: random.Random) -> str:
    """Something that the camera may show, or nothing."""
    if rng.random() < 0.4:
        return ""
    kind = rng.choice(("shape", "digit", "item"))
    if kind == "shape":
        return f"{rng.choice(list(domain.COLOURS))} {rng.choice(domain.SHAPES)}"
    return f"digit {rng.choice(domain.DIGITS)}" if kind == "digit" else rng.choice(domain.ITEMS).one
