"""What the user's audio means for the floor: edges of speech and lengths of silence become its events."""

from __future__ import annotations

from collections.abc import Callable

from models.base import Pcm, Pixels
from realtime.endpoint import Endpointer
from realtime.errors import InvalidImage
from realtime.overlap import judge
from realtime.protocol_events import Ids
from realtime.session_config import SessionConfig
from realtime.session_input import UserAudio
from realtime.settings import TurnDetection
from realtime.turns import HEARS, REPLYING, TIMERS, Event, Floor, State, Where
from realtime.vad import SpeechStart

MESSAGE_OPEN = frozenset({State.USER, State.PAUSE, State.GUESS})
OVER_US = frozenset({State.OVERLAP, State.HELD})


class Ears:
    """Hears for the floor, in the mode the client asked for: ``turn`` None is manual."""

    def __init__(
        self,
        user: UserAudio,
        ids: Ids,
        floor: Floor,
        config: SessionConfig,
        may_guess: Callable[[], bool],
        words: Callable[[], str | None],
    ) -> None:
        self.heard_at_s = 0.0
        """When audio last came."""
        self._user = user
        self._ids = ids
        self._floor = floor
        self._config = config
        self._may_guess = may_guess
        self._words = words
        self._turn: TurnDetection | None = None
        self._endpointer = Endpointer(TurnDetection())
        self._ended_at = 0  # sample at which their latest speech ended
        self._guessed_after = -1  # the end of speech after which a reply was last guessed

    def configure(self, turn: TurnDetection | None) -> None:
        """Another mode, from the next sample on."""
        self._turn = turn
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
            self._listen_on()

    def see(self, pixels: Pixels, now: float) -> None:
        """A camera frame. Raises InvalidImage where the model is blind."""
        if not self._user.sees:
            raise InvalidImage("this model takes no camera frames")
        self._user.see(pixels, now)

    def notice(self, event: Event) -> None:
        """Tells the floor. What was said over us may be over by the time that it becomes a turn."""
        self._floor.notice(event)
        vad = self._user.vad
        if self._floor.state is State.USER and vad is not None and not vad.speaking:
            self._floor.notice(Event.QUIET)

    def silence_s(self, now: float) -> float:
        """Since the end of their last word."""
        return self._user.silence / self._user.rate_hz + now - self.heard_at_s

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
        state = self._floor.state
        if state in (State.PAUSE, State.GUESS, State.THINK):
            self._endpointer.resumed(self._ms(at - self._ended_at))
        if self._user.message is None:
            self._user.begin(self._ids.item(), at, now)
        self.notice(Event.TALK if state in REPLYING and not self._may_interrupt else Event.SPEECH)

    def _listen_on(self) -> None:
        """What lasts: silence, or speech over us. Counted in samples of their audio, so that network jitter decides
        nothing."""
        vad, state = self._user.vad, self._floor.state
        if vad is None or (state not in MESSAGE_OPEN and state not in OVER_US):
            return
        if state in OVER_US and self._may_interrupt:
            self._judge_overlap()
        elif self._user.full:
            self.notice(self._over)
        elif not vad.speaking:
            self._silence(self._ms(self._user.silence), vad.last_voiced)

    def _silence(self, silence_ms: float, since: int) -> None:
        if silence_ms >= self._endpointer.wait_ms(self._words()):
            self.notice(self._over)
            return
        brief_ms = self._config.speculate_ms
        if self._floor.state is not State.PAUSE or brief_ms is None or silence_ms < brief_ms:
            return
        if since != self._guessed_after and self._over is Event.OVER and self._may_guess():
            self._guessed_after = since
            self.notice(Event.BRIEF)

    def _judge_overlap(self) -> None:
        vad = self._user.vad
        assert vad is not None, "speech was heard"
        silence_ms = 0.0 if vad.speaking else self._ms(self._user.silence)
        held = self._floor.state is State.HELD
        event = judge(self._config.overlap, self._over_us_ms(), silence_ms, held)
        if event is not None:
            self.notice(event)

    def _over_us_ms(self) -> float:
        """Length of what they said over us so far."""
        message, vad = self._user.message, self._user.vad
        return self._ms(vad.last_voiced - message.onset) if message is not None and vad is not None else 0.0

    def _ms(self, samples: int) -> float:
        return samples * 1000 / self._user.rate_hz
