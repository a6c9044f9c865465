"""Who may come in: only as many as can be spoken to without making a listener run dry. Pure.

The costs of the stages are measured while they run, by the number of rows in a call. From them follows what a frame of
speech will cost when one more is inside; what is left of the frame's own length is the slack. The first is always let
in: a device that is too slow for one is too slow for all, and says so by its underruns.
"""

from __future__ import annotations

import math

from models.base import Spec
from realtime.events import Limits
from realtime.schedule import Costs, EngineConfig


class Admission:
    """The door of one engine. ``inside`` counts the sessions."""

    def __init__(self, config: EngineConfig, spec: Spec, costs: Costs) -> None:
        self.inside = 0
        self._config = config
        self._spec = spec
        self._costs = costs

    def slack_s(self, sessions: int) -> float:
        """Seconds of a frame's time that are left with ``sessions`` inside, as far as anything was measured."""
        return self._spec.frame_s - self._costs.spoken_s(self._speakers(sessions))

    def why_not(self) -> str:
        """Why one more can't come in; "" when they can."""
        if self._config.max_sessions and self.inside >= self._config.max_sessions:
            return f"All {self._config.max_sessions} sessions are taken."
        if self.inside and self.slack_s(self.inside + 1) < 0:
            return "The server is busy: with one more, those who are here would hear gaps."
        return ""

    def limits(self, length: int) -> Limits:
        """What a session with ``length`` positions in its context may still do."""
        tokens, most = self._spec.context_tokens, self._most()
        left = 0 if self.why_not() else max(0, most - self.inside)
        return Limits(tokens, max(0, tokens - length), most, left, 0.0 if left or not most else self.retry_after_s)

    @property
    def retry_after_s(self) -> float:
        """When to try again."""
        return self._config.retry_after_s

    def _most(self) -> int:
        """Sessions that can be inside, by what is known now; 0: nobody counts them."""
        most = self._config.max_sessions
        while most > max(1, self.inside) and self.slack_s(most) < 0:
            most -= 1
        return most

    def _speakers(self, sessions: int) -> int:
        return math.ceil(sessions * self._config.speaking_share)
