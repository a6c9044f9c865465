"""What the user's audio means for the floor: edges of speech and lengths of silence become its events."""

from __future__ import annotations

from models.base import Pcm, Pixels
from realtime.errors import InvalidImage
from realtime.protocol_events import Ids
from realtime.session_input import UserAudio
from realtime.settings import TurnDetection
from realtime.turns import HEARS, REPLYING, TIMERS, Event, Floor, State, Where
from realtime.vad import SpeechStart

MESSAGE_OPEN = frozenset({State.USER, State.PAUSE, State.GUESS})
OVER_US = frozenset({State.OVERLAP, State.HELD})


class Ears:
    """Hears for the floor, in the mode the client asked for: ``turn`` None is manual."""

    def __init__(self, user: UserAudio, ids: Ids, floor: Floor) -> None:
        self.heard_at_s = 0.0
        """When audio last came."""
        self._user = user
        self._ids = ids
        self._floor = floor
        self._turn: TurnDetection | None = None

    def configure(self, turn: TurnDetection | None) -> None:
        """Another mode, from the next sample on."""
        self._turn = turn
        self._user.configure(turn)

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
                    self.notice(Event.QUIET)
            self._turn_over_yet()

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

    def _speech(self, at: int, now: float) -> None:
        if self._user.message is None:
            self._user.begin(self._ids.item(), at, now)
        if self._floor.state in REPLYING and not self._may_interrupt:
            self.notice(Event.TALK)
            return
        self.notice(Event.SPEECH)
        if self._floor.state in OVER_US:
            self.notice(Event.BARGE)

    def _turn_over_yet(self) -> None:
        """Silence is counted in samples of their audio, so that network jitter never ends a turn."""
        turn, vad, state = self._turn, self._user.vad, self._floor.state
        talking = state in MESSAGE_OPEN or (state in OVER_US and not self._may_interrupt)
        if turn is None or vad is None or not talking:
            return
        silent = not vad.speaking and self._user.silence * 1000 >= turn.silence_duration_ms * self._user.rate_hz
        if silent or self._user.full:
            self.notice(self._over)
