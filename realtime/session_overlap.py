"""Speech over a reply, from its onset until it is clear what it is: how much, how loud, which words."""

from __future__ import annotations

from collections.abc import Callable

from realtime.events import TranscriptOut
from realtime.overlap import Over, OverlapRules, judge
from realtime.pcm import Pcm16, to_float
from realtime.session_input import UserAudio
from realtime.turns import Event
from realtime.vad import START_VOICED, pitched

FIRST_ASK_MS, ASK_EVERY_MS = 280.0, 300.0
"""Speech after which its words are first asked for, and after which again, while it goes on."""
ASK_QUIET_MS, QUIET_MS = 20.0, 40.0
"""Silence after which all that was said is asked for, and after which it may have been all: both while the detector is
not sure yet."""
PITCHED_SHARE = 0.35
"""Of the voiced frames of speech, more have a pitch; of a cough's, fewer."""
REACTION_S = 0.3
"""Who speaks so soon after our first sound can't have begun because of it: nobody reacts to speech within 200 ms, and
the voice detector takes 80 to tell."""
GOES_ON_MS = 500.0
"""...and what they say within so long of that still goes on with it."""
LEARN = 0.3
"""Weight of the latest turn in how loud this speaker is."""
IGNORED_DB = 2.0
"""So much softer they are believed to be after each time that nobody answered: they may have stepped back."""


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
        self._name: str | None = None  # of the words that were asked for last
        self._count = 0
        self._asked_ms = 0.0
        self._asked_at = 0  # end of the speech that was asked about
        self._waiting = False
        self._text = ""
        self._words: str | None = None
        self._words_at = -1
        self._voiced_seen = 0
        self._frames = 0  # voiced ones that were looked at
        self._pitched = 0  # of those, with a pitch

    @property
    def faint(self) -> bool:
        """So much fainter than this speaker that it is somebody else, or a loudspeaker."""
        vad, faint_db = self._user.vad, self._rules.faint_db
        if vad is None or self._usual_db is None or faint_db is None:
            return False
        return vad.level_db < self._usual_db - faint_db

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
        self._name, self._waiting, self._words = None, False, None
        self._asked_ms, self._words_at = FIRST_ASK_MS - ASK_EVERY_MS, -1
        self._voiced_seen, self._frames, self._pitched = vad.voiced, 0, 0

    def judge(self, held: bool) -> Event | None:
        """What the floor should hear now; asks for words where they would help."""
        vad, message = self._user.vad, self._user.message
        assert vad is not None, "speech was heard"
        assert message is not None, "and is kept"
        silence_ms = self._ms(self._user.silence)
        silence_ms = silence_ms if silence_ms >= QUIET_MS else 0.0
        over = Over(
            speech_ms=self._ms(vad.voiced - self._voiced_before),
            silence_ms=silence_ms,
            held=held,
            faint=self.faint,
            noisy=self._noisy(),
            unheard=self._unheard,
            words=self._words,
            whole=self._words is not None and self._words_at >= vad.last_voiced,
            asked=self._waiting,
            ours=self._ours() if self._words else "",
        )
        self._ask_words(over, vad.last_voiced)
        return judge(self._rules, over)

    def take(self, output: TranscriptOut) -> bool:
        """Words that came; False: they are somebody else's."""
        if self._name is None or output.item_id != self._name:
            return output.item_id.startswith(PREFIX)
        self._text += output.text
        if output.done:
            self._waiting = False
            if not output.failure:
                self._words, self._words_at = self._text, self._asked_at
        return True

    def _noisy(self) -> bool:
        """Looks at the latest frame; True once most of what was heard has no pitch."""
        message, vad = self._user.message, self._user.vad
        assert message is not None, "speech is kept"
        assert vad is not None, "speech was heard"
        self._ended_at = vad.last_voiced
        if vad.voiced > self._voiced_seen:
            self._voiced_seen = vad.voiced
            latest = message.audio.cut(max(0, message.audio.length - self._user.rate_hz // 25), message.audio.length)
            self._frames += 1
            self._pitched += pitched(to_float(latest), self._user.rate_hz)
        return self._frames > 0 and self._pitched < PITCHED_SHARE * self._frames

    def _ask_words(self, over: Over, last_voiced: int) -> None:
        """While they speak now and then, and once when they are silent; silence asks anew at once."""
        if not self._rules.overhear or over.faint or over.speech_ms < self._rules.hold_after_ms:
            return
        ended = self._ms(self._user.silence) >= ASK_QUIET_MS
        due = self._asked_at != last_voiced if ended else over.speech_ms >= self._asked_ms + ASK_EVERY_MS
        if not due or (self._waiting and not ended):
            return
        message = self._user.message
        assert message is not None, "speech is kept"
        self._count += 1
        self._name, self._text, self._waiting = f"{PREFIX}{self._count}", "", True
        self._asked_ms, self._asked_at = over.speech_ms, last_voiced
        self._ask(self._name, message.audio.cut(0, message.audio.length))

    def _ms(self, samples: int) -> float:
        return samples * 1000 / self._user.rate_hz


PREFIX = "overheard_"
"""How the names of words that were asked for begin."""
