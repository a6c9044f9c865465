"""Which work the engine does next: by the moment each listener runs dry. Pure.

Theory of operation
-------------------
The engine's work comes in units: a batched call of one stage of the model. Every session names the units it is ready
for as ``Work``; ``choose`` takes the most urgent one and lets everybody who is ready for the same stage ride along.

1. Ranks never mix: a reply goes before the background prefill of people who still speak, that before transcripts, and
   these before contexts that are made anew, which is done in small pieces.
2. Within a rank the earliest deadline goes first. A reply's deadline is the moment its listener runs dry; before its
   first sound it is the turn's decision plus the target for first audio. Who waits for first sound goes before all who
   listen, whose lead may shrink to what rule 4 asks for: a lead that grows meanwhile helps nobody.
3. A reply whose listener has ``lead_ms`` of made audio is not ready before some of that was played (``start_s``).
4. A turn that just ended never makes a listener run dry: who waits for first sound yields, however late, when the unit
   could not end before somebody who listens needs theirs.
5. A prefill is cut into pieces that end before anybody who is listening runs dry, as far as the measured cost of a
   token tells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from realtime.events import Playout


@dataclass(frozen=True)
class EngineConfig:
    """How the engine divides its device."""

    lead_ms: float = 240.0
    """Made audio that may wait for its listener, at most."""
    ttfa_target_ms: float = 200.0
    """A turn's first audio is due this long after the turn was decided."""
    text_lead_tokens: int = 8
    """Tokens that text may run ahead of speech, at most; text-only replies run freely."""
    prefill_tokens: int = 512
    """Positions in one prefill, at most."""
    piece_tokens: int = 32
    """Positions in one prefill while somebody is about to run dry: enough to get on at all."""
    transcript_tokens: int = 256
    """Tokens of one transcript of user audio, at most."""
    reply_frames: int = 4096
    """Codec frames of one reply, at most."""
    max_sessions: int = 0
    """Sessions that may be open at once; 0 = as many as the model has slots for."""
    speaking_share: float = 0.5
    """Of the sessions inside, those who are counted as being spoken to at once when another asks to come in; 1 = all,
    which refuses early and never errs."""
    prefixes: int = 8
    """Prompts that are kept for the sessions that begin with them; 0 = every session prefills its own."""
    prefix_tokens: int = 16
    """Tokens from which on a prompt is kept."""
    retry_after_s: float = 5.0
    """What a refused session is told to wait."""
    fault_limit: int = 8
    """Faults of the model in a row, without one call that worked, after which the engine gives itself up."""

    def __post_init__(self) -> None:
        if not 0 < self.speaking_share <= 1:
            raise ValueError(f"EngineConfig.speaking_share lies above 0 and is at most 1, not {self.speaking_share}")
        for name in ("lead_ms", "ttfa_target_ms", "text_lead_tokens", "prefill_tokens", "piece_tokens", "fault_limit"):
            if not getattr(self, name) > 0:
                raise ValueError(f"EngineConfig.{name} must be positive, not {getattr(self, name)}")


class Stage(IntEnum):
    """Stages of the model; of two units with the same deadline the one nearer to the listener goes first."""

    RENDER = 0
    FRAME = 1
    DECODE = 2
    PREFILL = 3
    ENCODE = 4


SPARE = 0.8
"""Share of the slack that a piece of a prefill may take: what is predicted is a mean."""
LEAST_LEAD_S = 0.01
"""Lead that a listener keeps while somebody waits for first sound: no unit takes just what was predicted."""
RENEW_PIECES = 4
"""Of ``piece_tokens``, what is prefilled at once of a context that is made anew."""
SPOKEN = (Stage.DECODE, Stage.FRAME, Stage.RENDER)
"""What a frame of speech goes through."""


class Rank(IntEnum):
    """What waits for what, whatever the deadlines."""

    REPLY = 0
    LISTEN = 1
    TRANSCRIBE = 2
    RENEW = 3


@dataclass(frozen=True)
class Work:
    """Thinker slot ``slot`` is ready for one unit of ``stage``, from ``start_s`` on; it is due at ``deadline_s``."""

    slot: int
    stage: Stage
    rank: Rank
    deadline_s: float
    start_s: float = -math.inf
    listening: bool = False  # somebody hears this reply already: past the deadline there is silence
    waiting: bool = False  # somebody waits for this reply's first sound


@dataclass(frozen=True)
class Batch:
    """One unit: ``slots`` in order of urgency; ``max_tokens`` bounds a prefill."""

    stage: Stage
    rank: Rank
    slots: tuple[int, ...]
    max_tokens: int = 0


@dataclass
class RowCost:
    """Seconds of a call by its number of rows: a line through what was measured, the older the fainter."""

    weight: float = 0.0
    rows: float = 0.0  # means, weighted
    seconds: float = 0.0
    spread: float = 0.0  # of the rows: their variance
    together: float = 0.0  # covariance of rows and seconds

    def learn(self, rows: int, seconds: float) -> None:
        """A call of ``rows`` took ``seconds``. A machine that stalls for once is not believed."""
        if self.weight > 2:
            seconds = min(seconds, 4 * self.at(rows))
        self.weight = 0.98 * self.weight + 1
        share = 1 / self.weight
        off = rows - self.rows
        self.rows += share * off
        self.seconds += share * (seconds - self.seconds)
        self.spread = (1 - share) * (self.spread + share * off * off)
        self.together += share * (off * (seconds - self.seconds) - self.together)

    def at(self, rows: int) -> float:
        """Seconds that ``rows`` would take. Before different numbers were seen, a row costs what it costs alone."""
        if not self.weight:
            return 0.0
        alone = self.seconds / self.rows
        slope = min(alone, max(0.0, self.together / self.spread)) if self.spread > 0.25 else alone
        return max(0.0, self.seconds + slope * (rows - self.rows))


@dataclass
class Costs:
    """What the stages cost here, learned while running: seconds a call, and seconds a position of a prefill."""

    call_s: dict[Stage, float] = field(default_factory=dict)
    token_s: float = 0.0
    rows: dict[Stage, RowCost] = field(default_factory=dict)
    tokens: RowCost = field(default_factory=RowCost)  # of a prefill, by its positions

    def learn(self, stage: Stage, seconds: float, tokens: int = 0, rows: int = 1) -> None:
        """A unit of ``stage`` over ``rows`` slots took ``seconds``; a prefill did ``tokens`` positions."""
        self.rows.setdefault(stage, RowCost()).learn(rows, seconds)
        known = self.call_s.get(stage, seconds)
        self.call_s[stage] = known + 0.1 * (seconds - known)
        if tokens:
            self.tokens.learn(tokens, seconds)
            self.token_s += (0.2 if self.token_s else 1.0) * (seconds / tokens - self.token_s)

    def least_s(self, stage: Stage, piece_tokens: int, rows: int) -> float:
        """Seconds of the smallest unit of ``stage`` over ``rows`` slots: a prefill can be cut, the others can't."""
        if stage is not Stage.PREFILL:
            return self.rows[stage].at(rows) if stage in self.rows else self.call_s.get(stage, 0.0)
        return self.tokens.at(piece_tokens) if self.tokens.weight else piece_tokens * self.token_s

    def prefilled_in(self, seconds: float) -> float:
        """Positions that a prefill does in ``seconds``. A call costs something before its first position: who shares it
        out among few sees a dear position, and would hold back everybody who waits for one."""
        if not self.tokens.weight:
            return seconds / self.token_s
        begin_s = self.tokens.at(0)
        each_s = (self.tokens.at(1000) - begin_s) / 1000
        return (seconds - begin_s) / each_s if each_s > 0 else math.inf

    def spoken_s(self, speakers: int) -> float:
        """Seconds that one frame for ``speakers`` at once would take: a token, its codes and its samples."""
        return sum(self.rows[stage].at(speakers) for stage in SPOKEN if stage in self.rows)

    @property
    def frame_s(self) -> float:
        """Seconds from one token to its sound: what must still fit before a listener runs dry."""
        return sum(self.call_s.get(stage, 0.0) for stage in SPOKEN)


def choose(works: Sequence[Work], now: float, costs: Costs, config: EngineConfig) -> Batch | float | None:
    """The next unit; or when to ask again, where everybody waits; or None, where there is no work."""
    ready = [work for work in works if work.start_s <= now]
    if not ready:
        return min((work.start_s for work in works if math.isfinite(work.start_s)), default=None)
    head = min(ready, key=_urgency)
    if not head.listening:
        rows = sum(work.stage == head.stage and work.rank == head.rank for work in ready)
        listeners = sum(work.listening for work in works if work.stage is Stage.FRAME)
        frame_s = max(costs.frame_s, costs.spoken_s(listeners))
        fits_s = now + (costs.least_s(head.stage, config.piece_tokens, rows) + frame_s) / SPARE + LEAST_LEAD_S
        head = min((work for work in ready if work.listening and work.deadline_s < fits_s), key=_urgency, default=head)
    riders = [work for work in ready if work.stage == head.stage and work.rank == head.rank]
    riders.sort(key=lambda work: work.deadline_s)
    slots = tuple(work.slot for work in riders)
    if head.stage is not Stage.PREFILL:
        return Batch(head.stage, head.rank, slots)
    tokens = piece(works, set(slots), now, costs, config)
    if head.rank is Rank.RENEW:  # nobody waits for it, and somebody may come
        tokens = min(tokens, RENEW_PIECES * config.piece_tokens)
    return Batch(head.stage, head.rank, slots, tokens)


def _urgency(work: Work) -> tuple[Rank, bool, float, Stage]:
    return work.rank, not work.waiting, work.deadline_s, work.stage


def piece(works: Sequence[Work], prefilled: set[int], now: float, costs: Costs, config: EngineConfig) -> int:
    """Positions that may be prefilled at once without making a listener outside ``prefilled`` run dry."""
    due = [work.deadline_s for work in works if work.rank is Rank.REPLY and work.slot not in prefilled]
    if not due or not costs.token_s:
        return config.prefill_tokens
    slack_s = min(due) - now - costs.frame_s - LEAST_LEAD_S
    return int(max(config.piece_tokens, min(config.prefill_tokens, costs.prefilled_in(SPARE * slack_s))))


@dataclass
class Listener:
    """One listener's clock: how much of what was made has been sent, and when that runs out. Times in seconds."""

    rate_hz: int
    epoch: int = 0
    made: int = 0  # samples made in this epoch
    sent: int = 0  # samples sent at ``at_s``
    at_s: float = 0.0
    held: bool = False

    def report(self, playout: Playout) -> None:
        """What the session says of its playout, perhaps before the epoch's first reply; older epochs were cut."""
        if playout.epoch < self.epoch:
            return
        self.start(playout.epoch)
        self.sent = min(playout.samples, self.made)
        self.at_s = playout.at_s
        self.held = playout.held

    def start(self, epoch: int) -> None:
        """A reply of ``epoch`` begins."""
        if epoch != self.epoch:
            self.epoch, self.made, self.sent, self.held = epoch, 0, 0, False

    def add(self, samples: int, now: float) -> float:
        """``samples`` more are made. Gives the seconds for which the listener had nothing to play before."""
        dry_s = max(0.0, now - self.dry_at_s(now)) if self.made else 0.0
        if self.made == self.sent or dry_s:  # playout can't have run past what was there: it goes on from here
            self.sent, self.at_s = self.made, now
        self.made += samples
        return dry_s

    def dry_at_s(self, now: float) -> float:
        """When everything made has been sent. Held playout counts as if it went on now."""
        return (now if self.held else self.at_s) + (self.made - self.sent) / self.rate_hz

    def ready_at_s(self, now: float, lead_s: float) -> float:
        """When no more than ``lead_s`` of made audio waits; infinite while held with more than that."""
        waits_s = self.dry_at_s(now) - now
        if waits_s <= lead_s:
            return -math.inf
        return math.inf if self.held else now + waits_s - lead_s


@dataclass
class Load:
    """Share of the last ``window_s`` seconds that replies kept the device busy, as a decaying mean."""

    window_s: float = 5.0
    value: float = 0.0
    at_s: float = 0.0

    def add(self, busy_s: float, now: float) -> None:
        """The device was busy for ``busy_s`` until ``now``."""
        self.value = self.at(now) + busy_s / self.window_s
        self.at_s = now

    def at(self, now: float) -> float:
        """The share as of ``now``, 0 to about 1."""
        return self.value * math.exp(min(0.0, self.at_s - now) / self.window_s)
