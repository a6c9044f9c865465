"""Speech over a reply, from its onset until it is clear what it is: how much, how loud, which words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from realtime.events import TranscriptOut
from realtime.overlap import Over, OverlapRules, is_backchannel, judge, words_of
from realtime.pcm import Pcm16, to_float
from realtime.session_input import UserAudio
from realtime.turns import Event
from realtime.vad import START_VOICED, hissing, pitched

FIRST_ASK_MS, ASK_EVERY_MS = 160.0, 100.0
"""Speech after which its words are first asked for, and after which again, while it goes on; one at a time."""
ASK_QUIET_MS = 20.0
"""Silence after which all that was said is asked for, while the detector is not sure yet; a shorter one is none."""
PITCHED_SHARE = 0.35
"""Of the voiced frames of speech, more have a pitch; of a cough's, fewer."""
NOISE_FRAMES = 5
"""Of fewer it can't be told: a vowel's beginning often has no pitch. A cough's burst lasts 150 ms or more."""
HISS_SOFTER_DB = 12.0
"""...than a vowel an s is; speech that has a quarter of it may be fainter by as much."""
REACTION_S = 0.3
"""Who speaks so soon after our first sound can't have begun because of it: nobody reacts to speech within 200 ms, and
the voice detector takes 80 to tell. One word is enough then: they go on with a turn that we took for over ("to ...
Cambridge"). Some do so later, but later a word is as likely a cough that was taken for one."""
GOES_ON_MS = 500.0
"""...and what they say within so long of that still goes on with it."""
LEARN = 0.3
"""Weight of the latest turn in how loud this speaker is."""
IGNORED_DB = 2.0
"""So much softer they are believed to be after each time that nobody answered: they may have stepped back."""


@dataclass
class Asked:
    """Words that were asked for when ``voiced`` samples of voice had been heard."""

    voiced: int
    text: str = ""


class SpeechOver:
    """Watches what they say over a reply. ``ask(name, pcm)`` asks for words; ``ours()`` is what we say meanwhile,
    ``heard_s()`` how much of it they have heard."""

    def __init__(
        self,
        rules: OverlapRules,
        user: UserAudio,
        ask: Callable[[str, Pcm16], None],
        ours: Callable[[], str],
        heard_s: Callable[[], float],
    ) -> None:
        self._rules = rules
        self._user = user
        self._ask = ask
        self._ours = ours
        self._heard_s = heard_s
        self._usual_db: float | None = None
        self._unheard = False
        self._ended_at = 0  # sample at which the speech that was judged last had ended
        self._voiced_before = 0
        self._asked: dict[str, Asked] = {}  # words that are to come
        self._count = 0
        self._asked_ms = 0.0
        self._asked_voiced = 0  # voiced samples by then
        self._words: str | None = None
        self._heard = 0  # voiced samples that these words were made out from
        self._steady = 0
        self._voiced_seen = 0
        self._doubted = False  # something else than listening noises was made out
        self._voiced_at = 0  # end of the last voiced frame, be it speech already or not
        self._frames = 0  # voiced ones that were looked at, those that hiss left out
        self._pitched = 0  # of those, with a pitch
        self._hisses = 0  # voiced ones that hiss
        self._hissed = False  # the latest of them does

    @property
    def faint(self) -> bool:
        """So much fainter than this speaker that it is somebody else, or a loudspeaker."""
        return self._fainter_by(0.0)

    def _fainter_by(self, more_db: float) -> bool:
        vad, faint_db = self._user.vad, self._rules.faint_db
        if vad is None or self._usual_db is None or faint_db is None:
            return False
        return vad.level_db < self._usual_db - faint_db - more_db

    def turn_taken(self) -> None:
        """They had a turn: that is how loud they are."""
        if (vad := self._user.vad) is None or not vad.voiced:
            return
        self._usual_db = vad.turn_db + (1 - LEARN) * ((self._usual_db or vad.turn_db) - vad.turn_db)

    def ignored(self) -> None:
        """Speech too faint to be theirs went by in a silence, as if it were not for us."""
        if self._usual_db is not None:
            self._usual_db -= IGNORED_DB
        if self._user.vad is not None:
            self._user.vad.forget()

    def begin(self) -> None:
        """Their speech begins over us; perhaps they just go on, and don't know yet that we have begun."""
        vad = self._user.vad
        assert vad is not None, "speech was heard"
        goes_on = self._unheard and self._ms(vad.position - self._ended_at) < GOES_ON_MS
        self._unheard = goes_on or self._heard_s() < REACTION_S
        self._voiced_before = vad.voiced - START_VOICED * vad.frame_samples
        self._words, self._heard, self._steady = None, 0, 0
        self._asked.clear()
        self._asked_ms, self._asked_voiced = FIRST_ASK_MS - ASK_EVERY_MS, 0
        self._doubted = self._hissed = False
        self._voiced_seen, self._frames, self._pitched, self._hisses = vad.voiced - vad.frame_samples, 0, 0, 0

    def judge(self, held: bool) -> Event | None:
        """What the floor should hear now; asks for words where they would help."""
        vad, message = self._user.vad, self._user.message
        assert vad is not None, "speech was heard"
        assert message is not None, "and is kept"
        self._look()
        silence_ms = self._ms(vad.position - self._voiced_at)
        over = Over(
            speech_ms=self._ms(vad.voiced - self._voiced_before),
            silence_ms=silence_ms if silence_ms >= ASK_QUIET_MS else 0.0,
            held=held,
            faint=self._fainter_by(HISS_SOFTER_DB if 3 * self._hisses > self._frames else 0.0),
            noisy=self._frames >= NOISE_FRAMES and not self._hisses and self._pitched < PITCHED_SHARE * self._frames,
            hissed=self._hissed,
            unheard=self._unheard,
            words=self._words,
            heard_ms=self._ms(self._heard - self._voiced_before),
            steady=self._steady,
            doubted=self._doubted,
            whole=self._words is not None and self._heard == vad.voiced,
            asked=bool(self._asked),
            ours=self._ours() if self._words else "",
        )
        self._ask_words(over, vad.voiced)
        return judge(self._rules, over)

    def take(self, output: TranscriptOut) -> bool:
        """Words that came; False: they are somebody else's."""
        asked = self._asked.get(output.item_id)
        if asked is None:
            return output.item_id.startswith(PREFIX)
        asked.text += output.text
        if output.done:
            del self._asked[output.item_id]
            if not output.failure and asked.voiced > self._heard:
                self._steady = alike(words_of(self._words or ""), words_of(asked.text))
                self._doubted = self._doubted or not is_backchannel(asked.text)
                self._words, self._heard = asked.text, asked.voiced
        return True

    def _look(self) -> None:
        """At the latest frame."""
        message, vad = self._user.message, self._user.vad
        assert message is not None, "speech is kept"
        assert vad is not None, "speech was heard"
        self._ended_at = vad.last_voiced
        if vad.voiced <= self._voiced_seen:
            return
        self._voiced_seen, self._voiced_at = vad.voiced, vad.position
        latest = message.audio.cut(max(0, message.audio.length - self._user.rate_hz // 25), message.audio.length)
        sound = to_float(latest)
        self._hissed = hissing(sound, self._user.rate_hz)
        if self._hissed:
            self._hisses += 1
        else:
            self._frames += 1
            self._pitched += pitched(sound, self._user.rate_hz)

    def _ask_words(self, over: Over, voiced: int) -> None:
        """While they speak now and then, and once when they are silent; silence asks anew at once."""
        if not self._rules.overhear or over.faint or over.speech_ms < self._rules.hold_after_ms:
            return
        ended = over.silence_ms > 0
        due = self._asked_voiced != voiced if ended else over.speech_ms >= self._asked_ms + ASK_EVERY_MS
        if not due or (self._asked and not ended):
            return
        message = self._user.message
        assert message is not None, "speech is kept"
        self._count += 1
        name = f"{PREFIX}{self._count}"
        self._asked[name] = Asked(voiced)
        self._asked_ms, self._asked_voiced = over.speech_ms, voiced
        self._ask(name, message.audio.cut(0, message.audio.length))

    def _ms(self, samples: int) -> float:
        return samples * 1000 / self._user.rate_hz


def alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words they begin with alike."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


PREFIX = "overheard_"
"""How the names of words that were asked for begin."""
