"""Independent ears for `benchmarks.floor`: pocketsphinx, which nobody here trained.

`Ear` writes down what users say, where no checkpoint does: with a bigram model of the desk's training sentences, cut
anywhere, and of what people say when they interrupt or just listen. `Aligner` says when each word of a known text is
spoken: the truth that a heard boundary is held to.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from pocketsphinx import Decoder

from benchmarks.floor_sounds import FOLDER, RATE_HZ
from models.base import Pcm
from models.demo.recipe.grammar import spoken_words

DISCOUNT = 0.5
NOISE = 0.02
"""Prior of a cough or another noise in a word's place."""


def _pcm16(pcm: Pcm) -> bytes:
    quiet = np.zeros(RATE_HZ // 5, np.float32)
    return (np.concatenate([quiet, pcm, quiet]).clip(-1, 1) * 32767).astype("<i2").tobytes()


class Ear:
    """Words of float32 [n] at 16 kHz. Remembers on disk what it has heard before."""

    def __init__(self, sentences: Iterable[str]) -> None:
        spoken = [tuple(spoken_words(sentence)) for sentence in sentences]
        known = Decoder(loglevel="FATAL", samprate=float(RATE_HZ), lm=None)
        vocabulary = {word for words in spoken for word in words if known.lookup_word(word) is not None}
        model = arpa([words for words in spoken if words and vocabulary.issuperset(words)])
        with tempfile.NamedTemporaryFile("w", suffix=".arpa") as file:
            file.write(model)
            file.flush()
            self._decoder = Decoder(loglevel="FATAL", samprate=float(RATE_HZ), lm=file.name, fillprob=NOISE)
        self._path = FOLDER / f"ear-{hashlib.blake2b(f'{NOISE}{model}'.encode(), digest_size=8).hexdigest()}.json"
        self._heard: dict[str, str] = json.loads(self._path.read_text()) if self._path.is_file() else {}

    def hear(self, pcm: Pcm) -> str:
        raw = _pcm16(pcm)
        key = hashlib.blake2b(raw, digest_size=12).hexdigest()
        if key not in self._heard:
            self._decoder.start_utt()
            self._decoder.process_raw(raw, full_utt=True)
            self._decoder.end_utt()
            found = self._decoder.hyp()
            words = found.hypstr.split() if found is not None else []
            self._heard[key] = " ".join(word.partition("(")[0] for word in words if word[0] not in "<[+")
        return self._heard[key]

    def save(self) -> None:
        FOLDER.mkdir(exist_ok=True)
        self._path.write_text(json.dumps(self._heard))


def arpa(sentences: Sequence[tuple[str, ...]]) -> str:
    """A bigram language model with absolute discounting (Ney et al. 1994), in ARPA's format."""
    pairs: Counter[tuple[str, str]] = Counter()
    for words in sentences:
        pairs.update(zip(("<s>", *words), (*words, "</s>"), strict=True))
    firsts, seconds, kinds = Counter[str](), Counter[str](), Counter[str]()
    for (first, second), count in pairs.items():
        firsts[first] += count
        seconds[second] += count
        kinds[first] += 1
    total = sum(seconds.values())
    unigram = {word: count / total for word, count in seconds.items()}
    follow: dict[str, float] = defaultdict(float)  # the unigrams' share of what was seen after each word
    for first, second in pairs:
        follow[first] += unigram[second]
    lines = ["\\data\\", f"ngram 1={len(unigram) + 1}", f"ngram 2={len(pairs)}", "", "\\1-grams:"]
    for word in ["<s>", *sorted(unigram)]:
        left = DISCOUNT * kinds[word] / firsts[word] if firsts[word] else 1.0
        covered = follow[word]
        back = left / max(1e-9, 1 - covered) if covered < 1 - 1e-9 else 1e-9
        chance = -99.0 if word == "<s>" else math.log10(unigram[word])
        lines.append(f"{chance:.4f} {word} {math.log10(max(back, 1e-9)):.4f}")
    lines += ["", "\\2-grams:"]
    for (first, second), count in sorted(pairs.items()):
        chance = (count - DISCOUNT) / firsts[first] + DISCOUNT * kinds[first] / firsts[first] * unigram[second]
        lines.append(f"{math.log10(chance):.4f} {first} {second}")
    return "\n".join([*lines, "", "\\end\\", ""])


class Aligner:
    """Forced alignment of a known text."""

    def __init__(self) -> None:
        self._decoder = Decoder(loglevel="FATAL", samprate=float(RATE_HZ), lm=None, bestpath=False)
        self._path = FOLDER / "aligned.json"
        self._known: dict[str, list[float]] = json.loads(self._path.read_text()) if self._path.is_file() else {}

    def ends_s(self, text: str, pcm: Pcm) -> list[tuple[float, float]] | None:
        """(start, end) of each word of ``text.split()``, seconds into float32 [n] at 16 kHz; None: it can't tell."""
        key = hashlib.blake2b(text.encode() + pcm.tobytes(), digest_size=12).hexdigest()
        if key not in self._known:
            self._known[key] = self._align(text, pcm)
        times = self._known[key]
        return list(zip(times[::2], times[1::2], strict=True)) or None

    def save(self) -> None:
        self._path.parent.mkdir(exist_ok=True)
        self._path.write_text(json.dumps(self._known))

    def _align(self, text: str, pcm: Pcm) -> list[float]:
        words = spoken_words(text)
        if len(words) != len(text.split()) or any(self._decoder.lookup_word(word) is None for word in words):
            return []
        self._decoder.set_align_text(" ".join(words))
        self._decoder.start_utt()
        self._decoder.process_raw(_pcm16(pcm), full_utt=True)
        self._decoder.end_utt()
        segments = [s for s in self._decoder.seg() or [] if s.word[0] not in "<[+("]
        if [segment.word.partition("(")[0] for segment in segments] != words:
            return []
        quiet_s, frame_s = 0.2, 0.01
        return [
            max(0.0, at * frame_s - quiet_s)
            for segment in segments
            for at in (segment.start_frame, segment.end_frame + 1)
        ]
