"""The ledger of one reply's sound: what was generated, sent, played, heard.

Theory of operation
-------------------
Four counts, each at most the one before, all in samples of the reply at the model's output rate:

    generated   came from the engine
    sent        given to the transport: at most ``ahead_ms`` more than the listener's clock has come to
    played      left the listener's loudspeaker: as the client reports, else by the listener's clock
    heard       played, cut down to whole words by the alignment

The *listener's clock* starts with the first piece sent and runs in real time. It stands still while the reply is held,
and while it has come to everything that was sent although more is being made: that is an underrun, counted and never
hidden. A listener whose player can be paused stands still at once; any other plays on to the end of what was sent.
Without reports, what is played lies ``player_ms`` behind this clock (the network's way, assumed until its round trip
was measured, and a jitter buffer, assumed), and is marked as estimated. Pure: ``now`` is monotonic seconds, given by
the caller, never decreasing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from realtime.alignment import Alignment
from realtime.events import Pcm16

IN_THE_AIR_S = 3.0
"""What we said may come back as an echo, and be made out, for so long."""
LONGEST_TRIP_S = 2.0
"""By two satellites, there and back; a longer round trip was measured wrongly, and is not believed."""
REPORT_FRESH_S = 0.5
"""A playout report older than this no longer counts as a report."""


@dataclass(frozen=True)
class Pacing:
    """How far ahead of the listener a reply is sent."""

    ahead_ms: float | None = 100.0
    """At most this much more than was played is under way; None: all at once."""
    piece_ms: float = 20.0
    """Audio is sent in pieces of at least this length, except the last."""
    player_ms: float = 50.0
    """Assumed delay from sent to played, where the client doesn't report: ``way_ms``, and what its player holds."""
    way_ms: float = 20.0
    """Assumed time that audio, a report, or a pause, is on its way."""

    def __post_init__(self) -> None:
        if self.piece_ms <= 0 or min(self.player_ms, self.way_ms) < 0:
            raise ValueError("piece_ms must be positive, player_ms and way_ms not negative")
        if self.ahead_ms is not None and self.ahead_ms < self.piece_ms:
            raise ValueError(f"ahead_ms ({self.ahead_ms}) must hold at least one piece ({self.piece_ms} ms)")

    def measured(self, round_trip_s: float) -> Pacing:
        """The same to a listener who is that far away."""
        if round_trip_s > LONGEST_TRIP_S:
            return self
        way_ms = 500 * max(0.0, round_trip_s)
        return replace(self, way_ms=way_ms, player_ms=max(0.0, self.player_ms - self.way_ms) + way_ms)


@dataclass(frozen=True)
class Piece:
    """Audio that is due: ``start`` is its first sample's number, ``text_end`` the characters it may have said."""

    start: int
    pcm: Pcm16
    text_end: int


@dataclass(frozen=True)
class Heard:
    """What the listener heard of a reply."""

    samples: int
    tokens: int
    text: str
    estimated: bool
    """No fresh report: by the listener's clock less an assumed delay."""
    proportional: bool
    """The words come from the last resort of the alignment."""


class Playback:
    """One reply's ledger. ``opened`` false keeps everything back (a guessed reply) until `open`."""

    def __init__(self, rate_hz: int, pacing: Pacing, *, opened: bool = True) -> None:
        self.rate_hz = rate_hz
        self._pacing = pacing
        self.alignment = Alignment(rate_hz)
        self._opened = opened
        self._waiting: list[Pcm16] = []
        self._origin_s: float | None = None  # when the listener's clock would have stood at sample 0
        self._held = False
        self._stopped_at: float | None = None  # the clock's samples while a player is paused
        self._floor = 0  # what was played before the clock was last set back, or the way became longer
        self._report: tuple[int, float] | None = None
        self.sent = 0
        self.underrun_samples = 0
        self.shifts = 0
        """Changes of the listener's clock so far: whoever follows it looks here for news."""

    # --- what comes in ---

    def add_text(self, text: str, tokens: int) -> None:
        self.alignment.add_text(text, tokens)

    def add_audio(self, pcm: Pcm16, tokens: int, said: int | None = None) -> None:
        """Rendered speech, int16 [n]; may be empty."""
        self.alignment.add_audio(len(pcm), tokens, said)
        if len(pcm):
            self._waiting.append(pcm)

    def finish(self) -> None:
        """Nothing more will be generated."""
        self.alignment.complete = True

    def open(self) -> None:
        """What was kept back may be sent."""
        self._opened = True

    def report(self, samples: int, now: float, *, stopped: bool = False) -> None:
        """The client says what was played by now; ``stopped``: and that its player stopped there."""
        self._report = (max(0, min(samples, self.sent)), now)
        if stopped:
            self._stopped_at = min(self._running(now), float(self.sent))

    def repace(self, pacing: Pacing, now: float) -> None:
        """The listener turned out to be nearer, or farther. What was played never becomes less."""
        if self._report is None:
            self._floor = self.played(now)
        self._pacing = pacing

    # --- counts ---

    @property
    def generated(self) -> int:
        return self.alignment.samples

    @property
    def all_sent(self) -> bool:
        """Nothing is left to send, and nothing will come."""
        return self.alignment.complete and self.sent == self.generated

    @property
    def underrun_ms(self) -> float:
        return 1000 * self.underrun_samples / self.rate_hz

    def clock(self, now: float) -> float:
        """Where the listener's clock stands, in samples; may lie past ``sent`` while an underrun goes on."""
        return min(self._running(now), float(self.sent)) if self._held else self._running(now)

    def played(self, now: float) -> int:
        """Samples that left the loudspeaker by now."""
        if self._report is not None:
            samples, at_s = self._report
            since_s = 0.0 if self._stopped_at is not None else now - at_s + self._pacing.way_ms / 1000
            return min(self.sent, samples + int(since_s * self.rate_hz))
        behind = self._pacing.player_ms / 1000 * self.rate_hz
        return max(self._floor, min(self.sent, int(self._running(now) - behind)))

    def over(self, now: float) -> bool:
        """Everything was played (or there was nothing to play)."""
        return self.all_sent and now >= self._over_s()

    def heard(self, now: float) -> Heard:
        """What the listener heard by now."""
        samples = self.played(now)
        said = self.alignment.said(samples)
        fresh = self._report is not None and now - self._report[1] <= REPORT_FRESH_S
        return Heard(samples, said.tokens, said.text, not fresh, said.proportional)

    def saying(self, now: float) -> str:
        """Words from `IN_THE_AIR_S` before what is played now to what was sent, the one begun there included."""
        earliest = self.played(now) - int(IN_THE_AIR_S * self.rate_hz)
        before = self.alignment.said(earliest).text if earliest > 0 else ""
        return self.alignment.text[len(before) : self.alignment.reached(self.sent)]

    # --- what goes out ---

    def due(self, now: float) -> list[Piece]:
        """What may be sent now; counted as sent."""
        if not self._opened or self._held or not self._waiting:
            return []
        self._notice_underrun(now)
        room = self._room(now)
        pieces = []
        while self._waiting and room >= self._least():
            pcm = self._take(room)
            if self._origin_s is None:
                self._origin_s = now
                self.shifts += 1
            start, self.sent = self.sent, self.sent + len(pcm)
            room -= len(pcm)
            pieces.append(Piece(start, pcm, self.alignment.bound(self.sent)))
        return pieces

    def deadline(self) -> float | None:
        """When `due` or `over` will have something new to say, if only time passes."""
        if self._origin_s is None or self._stopped_at is not None:
            return None
        if self.all_sent:
            return self._over_s()
        if self._held or self._pacing.ahead_ms is None or self.generated - self.sent < self._least():
            return None  # more must come first
        wanted = self.sent + self._least() - self._ahead
        return self._origin_s + wanted / self.rate_hz

    def hold(self, now: float, *, pauses: bool = False) -> None:
        """Nothing more is sent. ``pauses``: the listener's player is paused as well, here and now."""
        if self._held:
            return
        if pauses:
            on_its_way = int(self._pacing.way_ms / 1000 * self.rate_hz)
            self._report = (min(self.sent, self.played(now) + on_its_way), now)
            self._stopped_at = min(self._running(now), float(self.sent))
        self._held = True
        self.shifts += 1

    def release(self, now: float) -> None:
        """On from where it stands."""
        if not self._held:
            return
        if self._origin_s is not None:
            self._floor = self.played(now)
            self._origin_s = now - self.clock(now) / self.rate_hz
        self._report = None
        self._held, self._stopped_at = False, None
        self.shifts += 1

    @property
    def held(self) -> bool:
        return self._held

    def _running(self, now: float) -> float:
        if self._stopped_at is not None:
            return self._stopped_at
        return 0.0 if self._origin_s is None else (now - self._origin_s) * self.rate_hz

    @property
    def _piece(self) -> int:
        return int(self._pacing.piece_ms / 1000 * self.rate_hz)

    @property
    def _ahead(self) -> float:
        assert self._pacing.ahead_ms is not None
        return self._pacing.ahead_ms / 1000 * self.rate_hz

    def _least(self) -> int:
        """Samples worth sending: a piece, or the last of all."""
        return min(self._piece, self.generated - self.sent) if self.alignment.complete else self._piece

    def _room(self, now: float) -> int:
        unsent = self.generated - self.sent
        if self._pacing.ahead_ms is None:
            return unsent
        # Half a sample: a wake-up at exactly the deadline must find its piece due, whatever the rounding.
        return min(unsent, int(self.clock(now) + self._ahead - self.sent + 0.5))

    def _notice_underrun(self, now: float) -> None:
        if self._origin_s is None:
            return
        late = self.clock(now) - self.sent
        if late > 0:
            self.underrun_samples += int(late)
            self._origin_s += late / self.rate_hz
            self.shifts += 1

    def _take(self, room: int) -> Pcm16:
        """At most ``room`` samples from the front."""
        front = self._waiting.pop(0)
        if len(front) < min(self._piece, room) and self._waiting:
            self._waiting[0] = np.concatenate([front, self._waiting[0]])
            return self._take(room)
        if len(front) > room:
            self._waiting.insert(0, front[room:])
            front = front[:room]
        return front

    def _over_s(self) -> float:
        if self._origin_s is None:
            return float("-inf") if not self.generated else float("inf")
        return self._origin_s + self.generated / self.rate_hz + self._pacing.player_ms / 1000
