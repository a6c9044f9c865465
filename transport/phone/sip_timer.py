"""Session timers (RFC 4028): a call is refreshed now and then, or it is over. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from aiosipua.message import SipMessage, SipRequest
from aiosipua.session_timer import parse_session_expires, watchdog_delay

MIN_S = 90
"""The shortest that the RFC allows."""
LONGEST_S = 86_400


class TooShort(ValueError):
    """They want a shorter interval than ``MIN_S`` (422)."""


@dataclass(frozen=True)
class SessionTimer:
    """What was agreed."""

    interval_s: int
    we_refresh: bool
    told: bool
    """They know of timers: our answer says so."""

    @property
    def header(self) -> str:
        """``Session-Expires`` of our answer to their request."""
        return f"{self.interval_s};refresher={'uas' if self.we_refresh else 'uac'}"

    @property
    def next_s(self) -> float:
        """From a refresh until we refresh, or hang up because they did not."""
        return self.interval_s / 2 if self.we_refresh else watchdog_delay(self.interval_s)


def agreed(request: SipRequest, ours_s: int) -> SessionTimer | None:
    """For a request of theirs; None: there is none. Raises TooShort."""
    supported = {option.strip().lower() for option in request.headers.get("supported")}
    value = request.headers.get_first("session-expires") or request.headers.get_first("x")
    if value is None:
        return SessionTimer(ours_s, True, True) if ours_s and "timer" in supported else None
    interval_s, refresher = parse_session_expires(value)
    if 0 < interval_s < MIN_S:
        raise TooShort(f"{interval_s} s")
    if interval_s <= 0:
        return None
    interval_s = min(interval_s, LONGEST_S)
    return SessionTimer(interval_s, refresher == "uas" or "timer" not in supported, "timer" in supported)


def least(refusal: SipMessage) -> int:
    """The shortest interval that they take, by their 422; 0: they don't say."""
    value = (refusal.headers.get_first("min-se") or "").partition(";")[0].strip()
    return min(int(value), LONGEST_S) if value.isascii() and value.isdigit() and len(value) < 10 else 0


def answered(response: SipMessage, ours_s: int) -> SessionTimer | None:
    """By their answer to our request, which asked for ``ours_s``."""
    value = response.headers.get_first("session-expires") or response.headers.get_first("x")
    if value is None:
        return SessionTimer(ours_s, True, False) if ours_s else None
    interval_s, refresher = parse_session_expires(value)
    return SessionTimer(max(MIN_S, interval_s), refresher != "uas", True) if interval_s > 0 else None
