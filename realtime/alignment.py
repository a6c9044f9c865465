"""From samples of a reply to its tokens and words.

Theory of operation
-------------------
The engine says three things as it goes: which text token adds which text (`TextOut`), how many tokens the talker had
taken in when it made a piece of audio (`AudioOut.tokens`, a bound: a talker reads ahead of what it says) and, where the
talker can tell, which token it was saying (`AudioOut.said`).

With the last, every piece of audio belongs to a word. Single pieces may be wrong, but speech never goes back: the
longest run of pieces whose words don't go back is believed, the others are not. Without it, characters are spread
evenly over the audio, never beyond the bound: a guess, and marked so (``proportional``).

Only whole words count as heard, each with the punctuation behind it: of a word cut short, more than half must have been
played. A word whose end is not made yet is taken to be as long as its characters say, and one before a comma to end a
little earlier than the next begins.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

CHARACTERS_PER_S = 15.0
"""Speaking rate assumed while a reply's length isn't known yet (English, unhurried: 150 words a minute)."""
WORD_SLACK = 0.35
"""Share of a word's characters that may be missing for it to count as heard, where they are spread evenly..."""
PLAYED_SLACK = 0.5
"""...and of its time, where the talker tells which word it says."""
LONGEST = 64
"""Characters in which the end of a word's letters is looked for."""
CLOSING = ("Po", "Pe", "Pf", "Pd")
"""Unicode's categories of punctuation that belongs to the word before it."""
PAUSES = ".,;:?!。，、；：？！"
PAUSE_S = 0.1
"""Of the time of a word that one of these follows, so much is silence, though at most half."""
PACE_CHARACTERS = 20
"""How fast a reply is spoken is told by what was said of it, and by the usual pace as if for so much before it."""
KNOWN_SHARE = 0.5
"""Share of the pieces of audio whose word must be known for the talker's word to count."""


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
    text: str = ""
    samples: int = 0
    complete: bool = False
    _ends: list[int] = field(default_factory=list, repr=False)  # characters up to and with each piece of text
    _tokens: list[int] = field(default_factory=list, repr=False)  # reply tokens at the same places
    _settled: list[int] = field(default_factory=list, repr=False)  # where words end, but for the end of the text
    _heard_to: list[tuple[int, int]] = field(default_factory=list, repr=False)  # samples, tokens taken in by then
    _saying: list[tuple[int, int]] = field(default_factory=list, repr=False)  # start of a piece, token it says

    def add_text(self, text: str, tokens: int) -> None:
        """Speech text as decoded; ``tokens`` counts the reply's tokens up to and with it."""
        before = len(self.text)
        self.text += text
        if text and self._ends and self._ends_word(before):
            self._settled.append(before)
        self._ends.append(len(self.text))
        self._tokens.append(tokens)

    def add_audio(self, samples: int, tokens: int, said: int | None = None) -> None:
        """Rendered speech; ``tokens`` bounds what it can have said, ``said`` is the token it says, where known."""
        if said is not None:
            self._saying.append((self.samples, said))
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

    def reached(self, samples: int) -> int:
        """Characters that may have been begun within ``samples``: to the end of the word being said, where the talker
        tells which that is, else the bound."""
        said = self.said(samples)
        bound = self.bound(samples)
        if said.proportional:
            return bound
        return min(bound, next((end for end in self._words() if end > len(said.text)), bound))

    def whole(self) -> Said:
        """All the text so far."""
        return Said(self._tokens[-1] if self._tokens else 0, self.text, False)

    def said(self, samples: int) -> Said:
        """Whole words within the first ``samples``."""
        if self.complete and self.samples and samples >= self.samples:
            return self.whole()
        if len(self._saying) >= KNOWN_SHARE * len(self._heard_to) > 0:
            return self._by_talker(samples)
        return self._whole_words(min(self._spread(samples), self.bound(samples)))

    def _by_talker(self, samples: int) -> Said:
        """Every word before the one being said, and that one too if most of its time has passed."""
        words = self._words()
        runs: dict[int, tuple[int, int]] = {}  # word -> its samples, [start, end)
        believed = _never_back([(start, bisect_left(words, self._end_of(token))) for start, token in self._saying])
        for (start, word), (end, _) in zip(believed, [*believed[1:], (self.samples, 0)], strict=True):
            runs[word] = (runs.get(word, (start, end))[0], end)
        kept = 0
        for word, (start, end) in runs.items():
            if end == self.samples and not self.complete:  # the rest of it is still to be made
                end = max(end, start + self._usual(word, start))
            elif self.text[words[min(word, len(words) - 1)] - 1] in PAUSES:
                end -= min((end - start) // 2, int(PAUSE_S * self.rate_hz))
            if samples >= end - PLAYED_SLACK * (end - start):
                kept = max(kept, word + 1)
            elif samples >= start:
                kept = max(kept, word)
        end = words[min(kept, len(words)) - 1] if kept and words else 0
        return self._up_to(end, proportional=False)

    def _usual(self, word: int, before: int) -> int:
        """Samples that a word takes by its length, at the pace of the words ``before`` it, which took so many."""
        ends = [0, *self._words()]
        length = ends[min(word + 1, len(ends) - 1)] - ends[min(word, len(ends) - 1)]
        said, least = ends[min(word, len(ends) - 1)], PACE_CHARACTERS
        usual = self.rate_hz / CHARACTERS_PER_S
        return int(length * (before + least * usual) / (said + least))

    def _words(self) -> list[int]:
        """Where each word ends, in characters; ascending."""
        over = bool(self.text) and (self.complete or not self.text[-1].isalnum())
        return [*self._settled, len(self.text)] if over else self._settled

    def _end_of(self, token: int) -> int:
        """Characters up to and with a token."""
        place = bisect_left(self._tokens, token)
        return self._ends[min(place, len(self._ends) - 1)] if self._ends else 0

    def _up_to(self, end: int, *, proportional: bool) -> Said:
        piece = bisect_right(self._ends, end)
        if not piece:
            return Said(0, "", proportional)
        return Said(self._tokens[piece - 1], self.text[: self._ends[piece - 1]], proportional)

    def _spread(self, samples: int) -> int:
        if self.complete and self.samples:
            return int(len(self.text) * samples / self.samples)
        return int(CHARACTERS_PER_S * samples / self.rate_hz)

    def _whole_words(self, characters: int) -> Said:
        kept = 0
        for end in self._words():
            if end > characters + WORD_SLACK * (end - kept) or end > self._cap(characters):
                break
            kept = end
        return self._up_to(kept, proportional=True)

    def _cap(self, characters: int) -> int:
        """Slack never reaches past the word that ``characters`` falls into."""
        later = [end for end in self._words() if end >= characters]
        return later[0] if later else len(self.text)

    def _ends_word(self, end: int) -> bool:
        """With text behind it. Not between a word and the comma after it, nor after the quote before it: whichever of
        them the talker looks at, it says the word."""
        last = "".join(self.text[max(0, end - LONGEST) : end].split()[-1:])
        begun = any(map(str.isalnum, last))
        return begun and is_word_end(self.text, end) and unicodedata.category(self.text[end]) not in CLOSING


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


def _never_back(pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest run of (start, word) in which no word comes before an earlier one's."""
    tops: list[int] = []  # smallest last word of a run of each length
    places: list[int] = []  # the piece that it ends with
    before: list[int] = []
    for place, (_, word) in enumerate(pieces):
        length = bisect_right(tops, word)
        tops[length : length + 1] = [word]
        places[length : length + 1] = [place]
        before.append(places[length - 1] if length else -1)
    run, place = [], places[-1] if places else -1
    while place >= 0:
        run.append(pieces[place])
        place = before[place]
    return run[::-1]


def _joins(character: str) -> bool:
    return character.isalnum() or character in "'’"
