"""What the user's audio means for the floor: edges of speech and lengths of silence become its events."""

from __future__ import annotations

from models.base import Pcm, Pixels
from realtime.endpoint import Endpointer
from realtime.errors import InvalidImage
from realtime.pcm import to_float
from realtime.protocol_events import Ids
from realtime.session_config import SessionConfig
from realtime.session_guess import Guesses
from realtime.session_input import UserAudio
from realtime.session_overlap import SpeechOver
from realtime.settings import TurnDetection
from realtime.turns import HEARS, REPLYING, TIMERS, Event, Floor, State, Where
from realtime.vad import SpeechStart

MESSAGE_OPEN = frozenset({State.USER, State.PAUSE, State.GUESS})
OVER_US = frozenset({State.OVERLAP, State.HELD})
OTHERS_DONE_MS = 800.0
"""After this much silence somebody who was too faint to be this speaker has said what they had to say."""
SURELY_OPEN_MS = 800.0
"""Nothing is guessed longer than this before the turn's end is due: where their words need a continuation."""


class Ears:
    """Hears for the floor, in the mode the client asked for: ``turn`` None is manual."""

    def __init__(
        self,
        user: UserAudio,
        ids: Ids,
        floor: Floor,
        config: SessionConfig,
        over_us: SpeechOver,
        guesses: Guesses,
    ) -> None:
        self.heard_at_s = 0.0
        """When audio last came."""
        self._user = user
        self._ids = ids
        self._floor = floor
        self._config = config
        self._over_us = over_us
        self._guesses = guesses
        self._turn: TurnDetection | None = None
        self._endpointer = Endpointer(TurnDetection())
        self._ended_at = 0  # sample at which their latest speech ended
        self._others_at: int | None = None  # where the speech began that is too faint to be theirs
        self._read_after = -1  # the end of speech after which their words were last asked for
        self._guessed_after = -1  # and a reply guessed
        self._judged_after = -1  # and its sound judged
        self._sound: float | None = None  # that judgement

    def configure(self, turn: TurnDetection | None) -> None:
        """Another mode, from the next sample on."""
        self._turn = turn
        self._others_at = None
        self._user.configure(turn)
        self._endpointer = Endpointer(turn or TurnDetection(), self._config.end_of_turn)

    def hear(self, pcm: Pcm, now: float) -> None:
        """Microphone audio. Raises BufferFull."""
        self.heard_at_s = now
        if self._turn is None:
            if self._user.message is None:
                self._user.begin(self._ids.item(), self._user.position, now)
            self._user.hear(pcm, Where.CONTEXT)
            return
        for piece in self._user.cut(pcm):
            where = HEARS[self._floor.state]
            if where is Where.RING and self._user.message is not None:
                where = Where.CONTEXT  # begun in manual mode
            for edge in self._user.hear(piece, where):
                if isinstance(edge, SpeechStart):
                    self._speech(edge.at, now)
                else:
                    self._ended_at = edge.at
                    self.notice(Event.QUIET)
            self._others(now)
            self._listen_on()

    def see(self, pixels: Pixels, now: float) -> None:
        """A camera frame. Raises InvalidImage where the model is blind."""
        if not self._user.sees:
            raise InvalidImage("this model takes no camera frames")
        self._user.see(pixels, now)

    def notice(self, event: Event) -> None:
        """Tells the floor. What was said over us may be over by the time that it becomes a turn."""
        if event in (Event.OVER, Event.TAKEN) and self._floor.state in MESSAGE_OPEN:
            self._over_us.turn_taken()
        self._floor.notice(event)
        vad = self._user.vad
        if self._floor.state is State.USER and vad is not None and not vad.speaking:
            self._floor.notice(Event.QUIET)

    def silence_s(self, now: float) -> float:
        """Since the end of their last word."""
        return self._user.silence / self._user.rate_hz + now - self.heard_at_s

    def timer_s(self, quiet_since_s: float | None) -> float | None:
        """When the state's timer comes; None: it has none, or not in this mode. ``quiet_since_s``: nobody spoke."""
        turn, state = self._turn, self._floor.state
        if turn is None or state not in TIMERS:
            return None
        if state is not State.LISTEN:
            return self.heard_at_s + self._config.no_audio_s
        if turn.idle_timeout_ms is None or quiet_since_s is None:
            return None
        return quiet_since_s + turn.idle_timeout_ms / 1000

    def timely(self) -> Event:
        """What the state's timer raises in this mode."""
        event = TIMERS[self._floor.state]
        if event is Event.OVER or (event is Event.FALSE_ALARM and not self._may_interrupt):
            return self._over
        return event

    @property
    def _may_interrupt(self) -> bool:
        return self._turn is not None and self._turn.interrupt_response

    @property
    def _over(self) -> Event:
        return Event.OVER if self._turn is None or self._turn.create_response else Event.TAKEN

    @property
    def wants_words(self) -> bool:
        """The endpointer would use the words that were said so far."""
        return self._endpointer.wants_words

    @property
    def undecided(self) -> bool:
        """They speak over us, and it isn't clear yet what that is."""
        return self._floor.state in OVER_US and self._may_interrupt

    def _speech(self, at: int, now: float) -> None:
        """Somebody speaks since ``at``. Between turns, what is too faint to be this speaker opens none; it is looked at
        again with every frame, since many words begin softly."""
        state = self._floor.state
        self._others_at = None
        if state is State.LISTEN and self._user.message is None and self._over_us.faint:
            self._others_at = at
            return
        if state in (State.PAUSE, State.GUESS, State.THINK):
            self._endpointer.resumed(self._ms(at - self._ended_at))
        if self._user.message is None:
            self._user.begin(self._ids.item(), at, now)
        if state in REPLYING and state not in OVER_US:
            self._over_us.begin()
        quietly = state in (State.THINK, State.SPEAK) and self._over_us.faint
        self.notice(Event.TALK if state in REPLYING and (quietly or not self._may_interrupt) else Event.SPEECH)

    def _others(self, now: float) -> None:
        """Goes on looking at speech that was too faint to open a turn, until it is over."""
        vad = self._user.vad
        if self._others_at is None or vad is None:
            return
        if vad.speaking and not self._over_us.faint:
            self._speech(self._others_at, now)
        elif not vad.speaking and self._ms(self._user.silence) >= OTHERS_DONE_MS:
            self._others_at = None
            self._over_us.ignored()

    def _listen_on(self) -> None:
        """What lasts: silence, or speech over us. Counted in samples of their audio, so that network jitter decides
        nothing."""
        vad, state = self._user.vad, self._floor.state
        if vad is None or (state not in MESSAGE_OPEN and state not in OVER_US):
            return
        if state in OVER_US and self._may_interrupt:
            if (event := self._over_us.judge(state is State.HELD)) is not None:
                self.notice(event)
        elif self._user.full:
            self.notice(self._over)
        elif not vad.speaking:
            self._silence(self._ms(self._user.silence), vad.last_voiced)

    def _silence(self, silence_ms: float, since: int) -> None:
        wait_ms = self._endpointer.wait_ms(self._guesses.words, self._sounded(silence_ms, since), self._guesses.ended)
        if silence_ms >= wait_ms:
            self.notice(self._over)
            return
        if self._floor.state is not State.PAUSE:
            return
        config = self._config
        if (
            since != self._read_after
            and silence_ms >= config.words_after_ms
            and self.wants_words
            and self._guesses.may_read
        ):
            self._read_after = since
            self.notice(Event.BREATH)
        if config.speculate_ms is None or silence_ms < max(config.speculate_ms, wait_ms - SURELY_OPEN_MS):
            return
        if since != self._guessed_after and self._over is Event.OVER and self._guesses.may():
            self._guessed_after = since
            self.notice(Event.BRIEF)

    def _sounded(self, silence_ms: float, since: int) -> float | None:
        """How much what was said before this silence sounded like an end; judged once."""
        judge, message = self._config.sound_of_end, self._user.message
        if judge is None or message is None or not self._endpointer.wants_sound:
            return None
        if since != self._judged_after:
            if silence_ms < self._config.words_after_ms:
                return None
            self._judged_after = since
            self._sound = judge(to_float(message.audio.cut(0, message.audio.length)))
        return self._sound

    def _ms(self, samples: int) -> float:
        return samples * 1000 / self._user.rate_hz
