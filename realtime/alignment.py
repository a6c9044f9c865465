"""From samples of a reply to its tokens and words.

Theory of operation
-------------------
The engine says two things as it goes: which text token adds which text (`TextOut`), and, with every piece of audio, how
many tokens the talker had taken in when it made the last sample (`AudioOut.tokens`). The second is an upper bound: a
talker reads ahead of what it says. Where an `Aligner` knows better (the talker's attention, a forced aligner), its word
counts. Otherwise characters are spread evenly over the audio, never beyond the bound: a guess, and marked so
(``proportional``). Only whole words count as heard: a word cut in half was not understood.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

CHARACTERS_PER_S = 15.0
"""Speaking rate assumed while a reply's length isn't known yet (English, unhurried: 150 words a minute)."""
WORD_SLACK = 0.35
"""Share of a word's characters that may be missing for it to count as heard: the evenly spread guess is that coarse."""

Aligner = Callable[[int], int | None]
"""samples -> characters said by then, None where it can't tell."""


@dataclass(frozen=True)
class Said:
    """What of a reply was said within some samples: whole words."""

    tokens: int
    """Reply tokens up to and with the last word."""
    text: str
    proportional: bool
    """The last resort was used: characters spread evenly over the audio."""


@dataclass
class Alignment:
    """One reply's text against its audio."""

    rate_hz: int
    aligner: Aligner | None = None
    text: str = ""
    samples: int = 0
    complete: bool = False
    _ends: list[int] = field(default_factory=list, repr=False)  # characters up to and with each piece of text
    _tokens: list[int] = field(default_factory=list, repr=False)  # reply tokens at the same places
    _heard_to: list[tuple[int, int]] = field(default_factory=list, repr=False)  # samples, tokens taken in by then

    def add_text(self, text: str, tokens: int) -> None:
        """Speech text as decoded; ``tokens`` counts the reply's tokens up to and with it."""
        self.text += text
        self._ends.append(len(self.text))
        self._tokens.append(tokens)

    def add_audio(self, samples: int, tokens: int) -> None:
        """Rendered speech; ``tokens`` bounds what it can have said."""
        self.samples += samples
        self._heard_to.append((self.samples, tokens))

    def bound(self, samples: int) -> int:
        """Characters that can have been said within ``samples`` at most."""
        if self.complete and samples >= self.samples:
            return len(self.text)
        at = bisect_left(self._heard_to, (samples, 0))
        if samples <= 0 or not self._heard_to:
            return 0
        tokens = self._heard_to[min(at, len(self._heard_to) - 1)][1]
        pieces = bisect_left(self._tokens, tokens + 1)
        return self._ends[pieces - 1] if pieces else 0

    def whole(self) -> Said:
        """All the text so far."""
        return Said(self._tokens[-1] if self._tokens else 0, self.text, False)

    def said(self, samples: int) -> Said:
        """Whole words within the first ``samples``."""
        if self.complete and self.samples and samples >= self.samples:
            return self.whole()
        known = self.aligner(samples) if self.aligner else None
        characters = self._spread(samples) if known is None else known
        return self._whole_words(min(characters, self.bound(samples)), proportional=known is None)

    def _spread(self, samples: int) -> int:
        if self.complete and self.samples:
            return int(len(self.text) * samples / self.samples)
        return int(CHARACTERS_PER_S * samples / self.rate_hz)

    def _whole_words(self, characters: int, *, proportional: bool) -> Said:
        kept = 0  # pieces that end a word within what was said
        previous_end = 0
        for piece, end in enumerate(self._ends):
            if not self._ends_word(end):
                continue
            allowed = WORD_SLACK * (end - previous_end) if proportional else 0
            if end > characters + allowed or end > self._cap(characters):
                break
            kept, previous_end = piece + 1, end
        if not kept:
            return Said(0, "", proportional)
        return Said(self._tokens[kept - 1], self.text[: self._ends[kept - 1]], proportional)

    def _cap(self, characters: int) -> int:
        """Slack never reaches past the word that ``characters`` falls into."""
        later = [end for end in self._ends if end >= characters and self._ends_word(end)]
        return later[0] if later else len(self.text)

    def _ends_word(self, end: int) -> bool:
        return is_word_end(self.text, end) and (end < len(self.text) or self.complete or not self.text[-1:].isalnum())


def is_word_end(text: str, end: int) -> bool:
    """True where ``text[:end]`` doesn't stop inside a word. Scripts without spaces break anywhere."""
    if end <= 0 or end >= len(text):
        return True
    before, after = text[end - 1], text[end]
    if ord(before) >= 0x2E80 or ord(after) >= 0x2E80:
        return True
    return not (_joins(before) and _joins(after))


def shorten(text: str, heard_ms: int, total_ms: int) -> str:
    """The whole words of ``text`` in ``heard_ms`` of ``total_ms``, spread evenly: for items whose ledger is gone."""
    if total_ms <= 0 or heard_ms >= total_ms:
        return text
    end = int(len(text) * max(heard_ms, 0) / total_ms)
    while end > 0 and not is_word_end(text, end):
        end -= 1
    return text[:end].rstrip()


def _joins(character: str) -> bool:
    return character.isalnum() or character in "'’"
