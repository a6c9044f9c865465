"""Speech over our reply: what is it? Counted in samples of the user's audio.

A cough, an "uh-huh", our own echo and people in the background are one thing, somebody who wants the floor is another.
After ``hold_after_ms`` of speech the reply is held, with all its state. Then, whichever comes first:

    words that are more than listening noises and not what we just said, and that were made out twice or are all they
    said; one alone, or from less than `WORDS_MS` of voice, if it is all and a `TAKERS`,
    or hardly anything of the reply was heard yet                                       -> an interruption
    no words known, or others than listening noises, and ``interrupt_after_ms`` of speech -> an interruption
    listening noises or a noise, and ``noise_after_ms`` of speech                       -> an interruption
    they are silent for ``settled_ms``, and all words are known and nothing             -> it was nothing
    they are silent: after a noise, after listening noises, or all words are known
    and nothing                                                                         -> the reply goes on, softly
    they are silent for ``resume_after_ms``, words still to come                        -> the reply goes on, softly
    they are silent for ``false_alarm_ms`` (for ``words_wait_ms``, if words are to come) -> it was nothing

While we are held, to wait costs nobody anything; to speak in a gap of their words, or to stop for a cough, does.

Speech that is ``faint_db`` fainter than this speaker's is somebody else's, or what a loudspeaker leaks. What has hardly
any pitch is a cough or a rustle, whatever one or two words a recognizer makes of it; but an s has none either, and
after it, a word often has a silence ("stop", "excuse"). There is no moment at which nobody listens.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from realtime.endpoint import word_set
from realtime.turns import Event

BACKCHANNELS = word_set(
    """um er erm uh huh uhhuh mhm mhmm mm mmm mmhm mmhmm hmmm hmm hm yeah yes yep yup right okay ok sure aha ah oh i
    see exactly good great wow cool really indeed true nice"""
)
TAKERS = word_set(
    """stop wait no nope hold hang hey hello sorry excuse but actually listen enough quiet pause cancel halt please
    again repeat help"""
)
"""Words that take the floor by themselves."""
SURE_WORDS = 2
"""Other words do so together (listening noises don't count): one alone, and shorter than
`OverlapRules.interrupt_after_ms`, is as likely a cough that was taken for a word, and the first piece of a word is
often taken for another."""
SURE_OF_NOISE = 3
"""...or so many, if it sounds like a cough."""
WORDS_MS = 240.0
"""Nobody says two words with less voice than that: a syllable takes 120 ms, even of those who speak fast."""
QUIET_MS = 40.0
"""A shorter silence may be a moment in which the voice detector wasn't sure."""
FRESH_MS = 160.0
"""Of voice, since words were made out that were listening noises: less makes nothing else of them."""


@dataclass(frozen=True)
class OverlapRules:
    """When speech over a reply pauses it, and when it ends it."""

    hold_after_ms: float = 60.0
    interrupt_after_ms: float = 600.0
    """0: any speech cuts the reply, at once."""
    noise_after_ms: float = 1500.0
    resume_after_ms: float = 240.0
    settled_ms: float = 120.0
    """Before, their words may not be all: a stop consonant's closure is a silence of 50 to 100 ms in a word."""
    false_alarm_ms: float = 250.0
    words_wait_ms: float = 600.0
    faint_db: float | None = 10.0
    """None: faint speech counts like any other."""
    overhear: bool = True
    """Ask the model for the words of what they say over a reply."""

    def __post_init__(self) -> None:
        times = (self.hold_after_ms, self.interrupt_after_ms, self.noise_after_ms, self.resume_after_ms)
        if min(*times, self.settled_ms, self.false_alarm_ms, self.words_wait_ms) < 0:
            raise ValueError("durations are not negative")


@dataclass(frozen=True)
class Over:
    """What is known of speech over a reply."""

    speech_ms: float
    """Voiced so far."""
    silence_ms: float
    """Since its end; 0 while it goes on."""
    held: bool = False
    faint: bool = False
    unheard: bool = False
    """Hardly anything of the reply had been heard when it began: they may just be going on."""
    noisy: bool = False
    """It has no pitch, mostly."""
    hissed: bool = False
    """It ended in an s or the like."""
    words: str | None = None
    """None: not known."""
    heard_ms: float = math.inf
    """Of their voice, what those words were made out from."""
    steady: int = 99
    """So many of the words began what was made out before, too; the others may change yet."""
    doubted: bool = False
    """Something else than listening noises was made out, now or before."""
    whole: bool = False
    """These are all its words."""
    asked: bool = False
    """Words are to come."""
    ours: str = ""
    """What we said meanwhile and just before."""


def words_of(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"[a-z']+", text.lower().replace("-", " "))


def is_backchannel(text: str) -> bool:
    """Nothing but listening noises; no words at all count as such."""
    return all(word in BACKCHANNELS for word in words_of(text))


def is_echo(text: str, ours: str) -> bool:
    """They seem to say what we just said: the words stand in ours, in the same order and side by side."""
    heard, said = words_of(text), words_of(ours)
    return bool(heard) and any(said[at : at + len(heard)] == heard for at in range(len(said) - len(heard) + 1))


@dataclass(frozen=True)
class Facts:
    """What follows from what is known of it."""

    listening: bool
    """Words are known, and all of them are listening noises, or what we just said."""
    enough: bool
    """They have said what takes the floor, if it stays so."""
    nothing: bool
    """As it stands, it is nothing."""
    clear: bool
    """...and it stays so: all is known."""


def facts(over: Over) -> Facts:
    """What follows from ``over`` whatever the rules' times are; ``judge`` counts those."""
    listening = over.words is not None and (is_backchannel(over.words) or is_echo(over.words, over.ours))
    enough = _enough(over)
    a_few = not enough and (over.noisy or (over.whole and over.silence_ms > 0))
    nothing = over.faint or listening or a_few
    return Facts(listening, enough, nothing, over.faint or (nothing and over.whole))


def judge(rules: OverlapRules, over: Over) -> Event | None:
    """What the floor should hear of it; None: nothing yet."""
    if rules.interrupt_after_ms == 0:
        return Event.BARGE
    known = facts(over)
    if _takes_the_floor(rules, over, known) or _lasts(rules, over, known):
        return Event.BARGE
    if over.silence_ms > 0:
        return _silent(rules, over, known)
    pauses = over.speech_ms >= rules.hold_after_ms and not over.held and not over.faint
    return Event.LONG if pauses else None


def _enough(over: Over) -> bool:
    """So many words, or one that is enough."""
    words = words_of(over.words or "")
    stay = words if over.whole else words[: over.steady]
    said = [word for word in stay if word not in BACKCHANNELS]
    if over.whole and said and ((over.unheard and not over.noisy) or TAKERS & set(said)):
        return True
    return len(said) >= (SURE_OF_NOISE if over.noisy else SURE_WORDS) and over.heard_ms >= WORDS_MS


def _takes_the_floor(rules: OverlapRules, over: Over, known: Facts) -> bool:
    """By their words."""
    changes = over.whole and over.silence_ms < rules.settled_ms  # what seems to be all may be half of a word
    return known.enough and not known.nothing and not changes


def _lasts(rules: OverlapRules, over: Over, known: Facts) -> bool:
    """They speak for so long that the words don't matter, unless they seem to be none."""
    patience_ms = rules.noise_after_ms if known.nothing else rules.interrupt_after_ms
    return over.speech_ms >= patience_ms and not over.faint


def _silent(rules: OverlapRules, over: Over, known: Facts) -> Event | None:
    """They are silent again."""
    if over.silence_ms >= _wait_ms(rules, over, known):
        return Event.FALSE_ALARM
    return Event.LULL if over.held and _go_on(rules, over, known) else None


def _wait_ms(rules: OverlapRules, over: Over, known: Facts) -> float:
    """Silence after which it was nothing."""
    if known.clear:
        return min(QUIET_MS if over.faint else rules.settled_ms, rules.false_alarm_ms)
    return rules.words_wait_ms if over.asked else rules.false_alarm_ms


def _go_on(rules: OverlapRules, over: Over, known: Facts) -> bool:
    """Whether to speak on, softly, before it is clear what it was."""
    if _listened(over, known):
        return True
    if (known.clear or over.noisy) and not over.hissed:
        return True
    return over.silence_ms >= (rules.resume_after_ms if over.asked else rules.settled_ms)


def _listened(over: Over, known: Facts) -> bool:
    """Listening noises it was, or as good as surely."""
    words = words_of(over.words or "")
    if not known.listening or not words:
        return False
    sure = not over.doubted or over.steady >= len(words)
    fresh = over.speech_ms - over.heard_ms <= FRESH_MS and over.silence_ms >= QUIET_MS
    return over.whole or (sure and fresh)
