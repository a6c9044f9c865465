"""What an operator sees: Prometheus figures of one server, in the words of the design.

Every server has a registry of its own, so that several can live in one process (tests, benchmarks).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric

SECONDS = (0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
LATENCIES = {
    "eot_delay": "True end of speech to turn decision",
    "ttft": "Turn decision to first thinker token",
    "ttfa": "Turn decision to first PCM out of the codec",
    "ttfa_audible": "Turn decision to first audible PCM",
    "e2e": "True end of speech to first packet of the reply sent",
}
disable_created_metrics()  # type: ignore[no-untyped-call]  # the start of each series, which doubles the page and tells nobody anything
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The figures. Methods are called on the loop and cost microseconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sessions = Gauge("parley_sessions", "Sessions that are open", registry=self.registry)
        self._opened = Counter("parley_sessions_opened", "Sessions since the start", registry=self.registry)
        self._refused = Counter("parley_refused", "Sessions refused", ["reason"], registry=self.registry)
        self._errors = Counter("parley_errors", "Error events sent", ["code"], registry=self.registry)
        self._replies = Counter("parley_replies", "Replies that ended", ["status"], registry=self.registry)
        self._bytes = Counter("parley_bytes", "Bytes on session sockets", ["direction"], registry=self.registry)
        self._underrun = Counter("parley_underrun_seconds", "Silence players had to insert", registry=self.registry)
        self._guessed = Counter(
            "parley_guessed_tokens", "Reply tokens made before a turn was over", registry=self.registry
        )
        self._wasted = Counter("parley_wasted_tokens", "Of those, thrown away", registry=self.registry)
        self._prefill_lag = Histogram(
            "parley_prefill_lag_tokens",
            "Thinker tokens still to prefill when speech ended",
            buckets=(0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
            registry=self.registry,
        )
        self._latencies = {
            name: Histogram(f"parley_{name}_seconds", text, buckets=SECONDS, registry=self.registry)
            for name, text in LATENCIES.items()
        }

    def opened(self) -> None:
        """A session began."""
        self._opened.inc()
        self.sessions.inc()

    def ended(self) -> None:
        """A session is over."""
        self.sessions.dec()

    def refused(self, reason: str) -> None:
        """Somebody was not let in; ``reason`` is an error code."""
        self._refused.labels(reason).inc()

    def carried(self, direction: str, count: int) -> None:
        """``count`` bytes of messages went ``in`` or ``out``."""
        self._bytes.labels(direction).inc(count)

    def sent(self, event: Mapping[str, Any]) -> None:
        """A server event goes out: counts what it says."""
        match event.get("type"):
            case "error":
                self._errors.labels(str((event.get("error") or {}).get("code"))).inc()
            case "response.done":
                self._replies.labels(str((event.get("response") or {}).get("status"))).inc()
            case "parley.latency":
                self._latency(event)

    def _latency(self, event: Mapping[str, Any]) -> None:
        for name, histogram in self._latencies.items():
            if (value_ms := event.get(f"{name}_ms")) is not None:
                histogram.observe(value_ms / 1000)
        if (lag := event.get("prefill_lag")) is not None:
            self._prefill_lag.observe(lag)
        self._underrun.inc((event.get("underrun_ms") or 0.0) / 1000)
        self._guessed.inc(event.get("guessed_tokens") or 0)
        self._wasted.inc(event.get("wasted_tokens") or 0)

    def watch_engine(self, stats: Callable[[], Mapping[str, float]]) -> None:
        """Shows the engine's own figures, read when somebody scrapes."""
        self.registry.register(_EngineCollector(stats))

    def page(self) -> bytes:
        """All figures, in Prometheus' text format."""
        return generate_latest(self.registry)


class _EngineCollector:
    def __init__(self, stats: Callable[[], Mapping[str, float]]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        for name, value in sorted(self._stats().items()):
            yield GaugeMetricFamily(f"parley_engine_{name}", f"The engine's {name.replace('_', ' ')}", value=value)
