"""What is counted as it happens. Counts begin anew with the process, as Prometheus expects.

Invariants:
    * Labels have few values: sites, phases, transactions and codes. Codes that peers chose are kept as they are up to a
      number, and are `other` beyond it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

MAX_CODES: Final = 100
OTHER: Final = "other"
_MS_PER_S: Final = 1_000

_TRANSACTION_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_PHASE_S: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 4 * 3_600.0, 86_400.0)


class Meters:
    """The registry of one coordinator, and what adds to it.

    Attributes:
        registry: what is rendered.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.transactions = Histogram(
            "bedside_coordinator_transaction_seconds",
            "Time of a transaction, from its wait for others to its commit.",
            ["transaction"], buckets=_TRANSACTION_S, registry=registry,
        )  # fmt: skip
        self._phases = Histogram(
            "bedside_coordinator_phase_seconds", "Time that a cohort spent in a phase that it has left.",
            ["phase"], buckets=_PHASE_S, registry=registry,
        )  # fmt: skip
        self._contributions = Counter(
            "bedside_coordinator_contributions", "Updates in a sealed set, by the site of their device.",
            ["site"], registry=registry,
        )  # fmt: skip
        self._dropouts = Counter(
            "bedside_coordinator_dropouts", "Updates that were begun and were in no set when it was sealed.",
            ["site"], registry=registry,
        )  # fmt: skip
        self._refusals = Counter(
            "bedside_coordinator_refusals", "Words of devices and trustees that they take no part in a round.",
            ["role", "code"], registry=registry,
        )  # fmt: skip
        self._refused_calls = Counter(
            "bedside_coordinator_refused_calls", "Calls that were answered with an error.", ["code"], registry=registry
        )
        self.upload_bytes = Counter(
            "bedside_coordinator_upload_bytes", "Bytes of masked updates that were stored.", registry=registry
        )
        self._verdicts = Counter(
            "bedside_coordinator_verdicts", "Verdicts of trustees on finished rounds.", ["holds"], registry=registry
        )
        for holds in (True, False):  # an alert on the first one needs a zero before it
            self._verdicts.labels(str(holds).lower())
        self._codes: dict[str, set[str]] = {}

    def left_phase(self, phase: str, since_ms: int, now_ms: int) -> None:
        """A cohort has left a phase that it entered at `since_ms`."""
        self._phases.labels(phase).observe(max(0, now_ms - since_ms) / _MS_PER_S)

    def sealed(self, counted: Iterable[str], left_out: Iterable[str]) -> None:
        """A set was fixed: the sites of those in it, and of those who had begun and are not."""
        for site in counted:
            self._contributions.labels(site).inc()
        for site in left_out:
            self._dropouts.labels(site).inc()

    def refused(self, role: str, code: str) -> None:
        """A device or trustee takes no part."""
        self._refusals.labels(role, self._few(role, code)).inc()

    def refused_call(self, code: str) -> None:
        """A call was answered with an error."""
        self._refused_calls.labels(self._few("call", code)).inc()

    def judged(self, *, holds: bool) -> None:
        """A trustee has recomputed a round."""
        self._verdicts.labels(str(holds).lower()).inc()

    def _few(self, kind: str, code: str) -> str:
        known = self._codes.setdefault(kind, set())
        if code not in known and len(known) >= MAX_CODES:
            return OTHER
        known.add(code)
        return code
