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
3. A reply whose listener has ``lead_ms`` of made audio is not ready before some of that was played (``start_s``). On
   most devices a call over many rows costs little more than over one, and listeners who come one by one would keep the
   device busy with calls of one row each: so those who are ready wait for those who soon will be, as long as
   all of them keep half of the lead, and nobody who waits for first sound is there to ride with.
4. A turn that just ended never makes a listener run dry: who waits for first sound yields, however late, when the unit
   could not end before somebody who listens needs theirs. It yields as a whole: listeners get more lead first, and
   then everybody who waits gets on in one unit, since cut into what fits between two frames it would cost many times as
   much. Only where no listener can get more lead is it cut.
5. So a prefill is cut into pieces that end before anybody who is listening runs dry, as far as the measured cost of so
   many positions tells, but not into pieces so small that their positions cost twice what they would in large ones.
6. Turns that end one after the other are prefilled together where all of them together wait less than one by one.
7. Frames cost the codec less in one call. Where a listener has two frames of lead and more can be made before that is
   used up, up to four are rendered at once (``ReplyRun``): never the first, and not within the lead that ships.
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


SPARE = 0.9
"""Share of the slack that a piece of a prefill may take: what is predicted is a mean, and of units alone. What passes
between two of them is in it too: counted by itself as well, it made 64 callers on a card wait a round longer."""
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
    tokens: int = 0  # of a prefill: positions that wait for it


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
class PieceCost:
    """Seconds of a prefill by its positions: means of what was measured, for each octave of positions, and lines
    between them. A call costs something before its first position; on a card a hundred cost little more than ten."""

    means: dict[int, tuple[float, float]] = field(default_factory=dict)  # octave -> positions, seconds

    def learn(self, tokens: int, seconds: float) -> None:
        """A prefill of ``tokens`` positions took ``seconds``. A machine that stalls for once is not believed."""
        octave = tokens.bit_length()
        if octave not in self.means:
            self.means[octave] = (float(tokens), seconds)
            return
        usual, usual_s = self.means[octave]
        off_s = min(seconds, 4 * usual_s) - usual_s
        self.means[octave] = (usual + 0.2 * (tokens - usual), usual_s + 0.2 * off_s)

    def at(self, tokens: float) -> float:
        """Seconds that ``tokens`` positions would take. More than were seen cost as much each as those that were seen,
        so that what is not known looks dear and is tried a little at a time."""
        points = sorted(self.means.values())
        if not points:
            return 0.0
        before = (0.0, points[0][1])
        for point in points:
            if tokens <= point[0]:
                share = (tokens - before[0]) / max(1e-9, point[0] - before[0])
                return before[1] + share * (point[1] - before[1])
            before = point
        return before[1] * tokens / before[0]

    def within(self, seconds: float, most: int) -> int:
        """Positions up to ``most`` that take ``seconds`` at most; all of them, before anything was measured."""
        low, high = (0 if self.means else most), most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.at(middle) <= seconds else (low, middle - 1)
        return low

    def worth(self, least: int, most: int) -> int:
        """Positions from ``least`` on that cost at most twice what a position costs at best."""
        best_s = min((self.at(tokens) / tokens for tokens in (*(t for t, _ in self.means.values()), most)), default=0.0)
        while least < most and self.at(least) / least > 2 * best_s:
            least *= 2
        return min(least, most)


@dataclass
class Costs:
    """What the stages cost here, learned while running: seconds a call, by its rows or by its positions."""

    call_s: dict[Stage, float] = field(default_factory=dict)
    rows: dict[Stage, RowCost] = field(default_factory=dict)
    prefill: PieceCost = field(default_factory=PieceCost)

    def learn(self, stage: Stage, seconds: float, tokens: int = 0, rows: int = 1) -> None:
        """A unit of ``stage`` over ``rows`` slots took ``seconds``; a prefill did ``tokens`` positions."""
        self.rows.setdefault(stage, RowCost()).learn(rows, seconds)
        known = self.call_s.get(stage, seconds)
        self.call_s[stage] = known + 0.1 * (seconds - known)
        if tokens:
            self.prefill.learn(tokens, seconds)

    def rows_s(self, stage: Stage, rows: int) -> float:
        """Seconds of a call over ``rows`` slots."""
        return self.rows[stage].at(rows) if stage in self.rows else 0.0

    def spoken_s(self, speakers: int) -> float:
        """Seconds that one frame for ``speakers`` at once would take: a token, its codes and its samples."""
        return sum(self.rows_s(stage, speakers) for stage in SPOKEN)

    @property
    def frame_s(self) -> float:
        """Seconds from one token to its sound: what must still fit before a listener runs dry."""
        return sum(self.call_s.get(stage, 0.0) for stage in SPOKEN)


def choose(works: Sequence[Work], now: float, costs: Costs, config: EngineConfig) -> Batch | float | None:
    """The next unit; or when to ask again, where everybody waits; or None, where there is no work."""
    able = [work for work in works if work.start_s <= now]
    ready, until_s = _gathered(able, works, now, costs, config)
    if not ready:
        return min((at_s for at_s in (until_s, *(w.start_s for w in works)) if now < at_s < math.inf), default=None)
    head = _encoded_first(min(ready, key=_urgency), ready, costs, config)
    slack_s = math.inf
    if not head.listening:
        slack_s = SPARE * (_dry_at_s(works) - now - LEAST_LEAD_S) - _round_s(works, costs)
        # Of what is only written down, as many go along as there is time for.
        first = _riders(head, ready) if head.rank <= Rank.LISTEN else [head]
        late_s = now + (_whole_s(first, costs, config) + _round_s(works, costs)) / SPARE + LEAST_LEAD_S
        there = ready if head.rank is Rank.REPLY else able  # gathered is in time for a turn, not for what is longer
        head = min((work for work in there if work.listening and work.deadline_s < late_s), key=_urgency, default=head)
    # Of what is only listened to, those who wait for more to come go along: the call is made anyway.
    riders = _riders(head, works if head.rank is Rank.LISTEN else able)
    if head.stage is Stage.ENCODE or head.rank > Rank.LISTEN:
        while len(riders) > 1 and costs.rows_s(head.stage, len(riders)) > slack_s:
            riders.pop()
    slots = tuple(work.slot for work in riders)
    if head.stage is not Stage.PREFILL:
        return Batch(head.stage, head.rank, slots)
    return Batch(head.stage, head.rank, slots, _piece(riders, slack_s, costs, config))


def _urgency(work: Work) -> tuple[Rank, bool, float, Stage]:
    return work.rank, not work.waiting, work.deadline_s, work.stage


def _riders(head: Work, ready: Sequence[Work]) -> list[Work]:
    """Everybody who is ready for the same, the most urgent first."""
    same = (work for work in ready if work.stage == head.stage and work.rank == head.rank)
    return sorted(same, key=lambda work: work.deadline_s)


def _dry_at_s(works: Sequence[Work]) -> float:
    """When the first of those who listen runs dry."""
    return min((work.deadline_s for work in works if work.listening), default=math.inf)


def _round_s(works: Sequence[Work], costs: Costs) -> float:
    """Seconds of a frame for everybody who listens."""
    listeners = sum(work.listening for work in works if work.stage is Stage.FRAME)
    return max(costs.frame_s, costs.spoken_s(listeners))


def _whole_s(riders: Sequence[Work], costs: Costs, config: EngineConfig) -> float:
    """Seconds until all of ``riders`` have got on: what is encoded is of no use before it is prefilled."""
    stage, rows = riders[0].stage, len(riders)
    if stage is Stage.PREFILL:
        tokens = sum(work.tokens for work in riders) or config.prefill_tokens
        return costs.prefill.at(min(config.prefill_tokens, tokens))
    prefilled = stage is Stage.ENCODE and riders[0].rank <= Rank.LISTEN  # of what is only written down, nobody waits
    return costs.rows_s(stage, rows) + (costs.rows_s(Stage.PREFILL, rows) if prefilled else 0.0)


def _piece(riders: Sequence[Work], slack_s: float, costs: Costs, config: EngineConfig) -> int:
    """Positions to prefill at once: what ends within ``slack_s``, as far as is known, but no crumbs."""
    most = config.prefill_tokens
    if riders[0].rank is Rank.RENEW:  # nobody waits for it, and somebody may come
        most = min(most, RENEW_PIECES * config.piece_tokens)
    return max(costs.prefill.worth(min(most, config.piece_tokens), most), costs.prefill.within(slack_s, most))


def _encoded_first(head: Work, ready: Sequence[Work], costs: Costs, config: EngineConfig) -> Work:
    """A prefill of several is little dearer than one of a few. Who is encoded joins it, and need not wait for a prefill
    of their own, and for the first sound of those before them: that is weighed against how long these wait for it."""
    if not (head.waiting and head.stage is Stage.PREFILL):
        return head
    others = [work for work in ready if work.waiting and work.stage is Stage.ENCODE]
    ours = [work for work in ready if work.waiting and work.stage is Stage.PREFILL]
    tokens = sum(work.tokens for work in ours)
    theirs = tokens / len(ours) * len(others)  # not known before they are encoded
    alone_s, together_s = costs.prefill.at(tokens), costs.prefill.at(tokens + theirs)
    lost_s = costs.rows_s(Stage.ENCODE, len(others))
    if tokens + theirs <= config.prefill_tokens:  # else ours go first, and theirs in a second call
        lost_s += together_s - alone_s
    won_s = max(0.0, alone_s + costs.prefill.at(theirs) - together_s) + costs.spoken_s(len(ours))
    return min(others, key=_urgency) if len(others) * won_s > len(ours) * lost_s else head


def _gathered(
    ready: list[Work], works: Sequence[Work], now: float, costs: Costs, config: EngineConfig
) -> tuple[list[Work], float]:
    """``ready`` without those listeners who can wait for others, and until when they do."""
    until_s = math.inf
    need_s = max(_round_s(works, costs) / SPARE + LEAST_LEAD_S, config.lead_ms / 2000)
    for stage in (Stage.DECODE, Stage.FRAME):
        ours = [work for work in ready if work.stage is stage and work.rank is Rank.REPLY]
        if not ours or not all(work.listening for work in ours):
            continue
        latest_s = min(work.deadline_s for work in ours) - need_s
        others = [w.start_s for w in works if w.stage is stage and w.listening and now < w.start_s <= latest_s]
        if others:
            ready = [work for work in ready if work.stage is not stage or not work.listening]
            until_s = min(until_s, max(others))
    return ready, until_s


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
