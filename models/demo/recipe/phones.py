"""What words sound like: espeak-ng's phones, for the audio tower's own lesson beside whole words.

A few hundred words are rare each, but their forty phones are not: a head in the middle of the tower that writes phones
(hierarchical CTC, Sanabria and Metze 2018) teaches what the words share. It is thrown away at export.
"""

import json
import re
import subprocess
from pathlib import Path

from . import domain, grammar
from .voices import SynthesisError

FILE = "phones.json"
FILES = ("questions", "follow_ups", "wrappers", "out_of_domain", "over")
_STRESS = re.compile(r"[',%=|_]")


def words() -> list[str]:
    """Every word that a question may have, sorted."""
    texts = [(grammar.DATA / f"{name}.txt").read_text() for name in FILES]
    texts += [*domain.PLACES, *domain.SAME_PLACE, *domain.HOURS, *domain.ELSEWHERE, *domain.QUANTITIES]
    for rows in (domain.TOWNS, domain.ITEMS):
        texts += [str(value) for row in rows for value in vars(row).values()]
    plain = [re.sub(r"^@.*$|\{\w+\}", " ", text, flags=re.MULTILINE) for text in texts]
    return sorted({word for text in plain for word in grammar.spoken_words(text)})


def pronounced(words: list[str]) -> dict[str, list[str]]:
    """espeak-ng's phones of each word, without stress. Raises SynthesisError."""
    command = ["espeak-ng", "-q", "-x", "--sep= ", "-v", "en-us"]
    try:
        done = subprocess.run(command, input="\n\n".join(words), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SynthesisError(f"espeak-ng can't say how words sound: {error}; install the Debian package") from error
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if len(lines) != len(words):
        raise SynthesisError(f"espeak-ng gave {len(lines)} lines for {len(words)} words")
    return {word: _STRESS.sub("", line).split() for word, line in zip(words, lines, strict=True)}


class Dictionary:
    """Words to ids of phones, 0 .. size - 1. A word that isn't in it has no phones."""

    def __init__(self, sounds: dict[str, list[str]]) -> None:
        self.names = sorted({phone for phones in sounds.values() for phone in phones})
        number = {name: index for index, name in enumerate(self.names)}
        self._ids = {word: [number[phone] for phone in phones] for word, phones in sounds.items()}

    @classmethod
    def load(cls, work: Path) -> "Dictionary":
        """From the work folder, made there the first time."""
        path = work / FILE
        if not path.exists():
            path.write_text(json.dumps(pronounced(words())))
        return cls(json.loads(path.read_text()))

    def ids(self, said: str) -> list[int]:
        """The phones of a sentence."""
        return [phone for word in grammar.spoken_words(said) for phone in self._ids.get(word, ())]
