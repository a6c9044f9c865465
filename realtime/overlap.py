"""Speech over our reply: what is it? Counted in samples of the user's audio.

A cough, an "uh-huh" and our own echo are short; somebody who wants the floor goes on. So: after ``hold_after_ms`` of
speech the reply is held, with all its state; speech that reaches ``interrupt_after_ms``, or whose words are more than a
backchannel, is an interruption; speech that ends before, followed by ``false_alarm_ms`` of silence, was nothing, and
the reply goes on in mid-word. There is no moment at which nobody listens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from realtime.endpoint import word_set
from realtime.turns import Event

BACKCHANNELS = word_set(
    """uh huh uhhuh mhm mm mmhm hmm hm yeah yes yep yup right okay ok sure aha ah oh i see exactly good great wow cool
    really indeed true nice"""
)


@dataclass(frozen=True)
class OverlapRules:
    """When speech over a reply pauses it, and when it ends it."""

    hold_after_ms: float = 100.0
    interrupt_after_ms: float = 600.0
    """0: any speech cuts the reply, at once."""
    false_alarm_ms: float = 250.0

    def __post_init__(self) -> None:
        if min(self.hold_after_ms, self.interrupt_after_ms, self.false_alarm_ms) < 0:
            raise ValueError("durations are not negative")


def is_backchannel(text: str) -> bool:
    """Nothing but listening noises; no words at all count as such."""
    return all(word in BACKCHANNELS for word in re.findall(r"[a-z']+", text.lower().replace("-", " ")))


def judge(
    rules: OverlapRules, speech_ms: float, silence_ms: float, held: bool, text: str | None = None
) -> Event | None:
    """What the floor should hear of speech that has lasted ``speech_ms``, silent since ``silence_ms``; None: nothing
    yet. ``text``: its words, where they are known."""
    if speech_ms >= rules.interrupt_after_ms or (text is not None and not is_backchannel(text)):
        return Event.BARGE
    if silence_ms >= rules.false_alarm_ms:
        return Event.FALSE_ALARM
    if speech_ms >= rules.hold_after_ms and not held:
        return Event.LONG
    return None
