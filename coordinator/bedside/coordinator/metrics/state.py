"""How things stand when Prometheus asks: read from memory, and in one transaction from the store."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection

from bedside.coordinator.parts import Parts
from bedside.coordinator.privacy.charges import report_charges
from bedside.coordinator.store import contributions, log, members, tasks
from bedside.core.errors import StoreError, UnavailableError
from bedside.core.privacy import Spending
from bedside.proto.v1.operator_pb2 import PrivacyReport, SiteSummary
from bedside.service.logs import event

DELTA: Final = 1e-5
"""At which epsilon is told, as `bedside privacy show` does by default."""
PREFIX: Final = "bedside_coordinator"
STATES: Final = ("online", "late", "silent", "never", "revoked")

_LOGGER: Final = logging.getLogger(__name__)


class StateCollector(Collector):
    """Everything that needs no counting. Use from the event loop only."""

    def __init__(self, parts: Parts, expiries: Mapping[str, float]) -> None:
        """Prepare.

        Args:
            parts: of the running coordinator.
            expiries: seconds since 1970 at which what this process has loaded expires, by what it is.
        """
        self._parts = parts
        self._expiries = expiries
        self._charged = -1
        self._charges = PrivacyReport()

    def describe(self) -> Iterator[Metric]:
        """Nothing is read at registration."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Every family; those of the store are left out while it cannot be used."""
        yield _gauge("info", "What runs.", ["version"], [((version("bedside"),), 1)])
        yield _gauge("expiry_timestamp_seconds", "When it expires.", ["what"], _named(self._expiries))
        levels = {name: float(state.level) for name, state in self._parts.health.snapshot().items()}
        yield _gauge("component_level", "0 ok, 1 degraded, 2 failed.", ["component"], _named(levels))
        yield from self._fleet()
        found: list[Metric] = []
        try:
            found = self._parts.store.run_tx("scrape", self._stored)
        except (StoreError, UnavailableError) as error:
            event(_LOGGER, "scraped-without-store", level=logging.WARNING, error=error)
        yield _gauge("store_up", "Whether the database can be used.", [], [((), float(bool(found)))])
        yield from found

    def _fleet(self) -> Iterator[Metric]:
        summary = self._parts.roll.summary(0)
        counted = Counter((entry.site, entry.state) for entry in self._parts.roll.entries())
        devices = [((site.site, state), counted[site.site, state]) for site in summary.sites for state in STATES]
        yield _gauge("devices", "Devices by site and state.", ["site", "state"], devices)
        yield _gauge("devices_degraded", "Online devices of which a part is not well.", ["site"],
                     _of_sites(summary.sites, "degraded"))  # fmt: skip
        yield _gauge("trustee_online", "Whether a site's trustee asks for work.", ["site"],
                     _of_sites(summary.sites, "trustee_online"))  # fmt: skip

    def _stored(self, tx: Connection) -> list[Metric]:
        results = tasks.outcomes(tx)
        return [
            _gauge(
                "open_cohorts", "Cohorts of open rounds by phase.", ["phase"], _named(contributions.open_phases(tx))
            ),
            _gauge("tasks", "Tasks by state.", ["state"], _named(tasks.states(tx))),
            _counter("rounds", "Finished rounds: opened (a sum was) or failed.", ["outcome"], _named(results)),
            _gauge("log_entries", "Entries of the append-only log.", [], [((), log.size(tx))]),
            _gauge("pending_requests", "Enrolments that wait for a site.", [], [((), members.pending_count(tx))]),
            *self._privacy(tx),
        ]

    def _privacy(self, tx: Connection) -> list[Metric]:
        """Charges never change once they are there: they are read again when there are more."""
        charged = contributions.vote_count(tx)
        if charged != self._charged:
            self._charges, self._charged = report_charges(tx), charged
        multipliers: dict[tuple[str, ...], Counter[int]] = {}
        for charge in self._charges.charges:
            multipliers.setdefault((charge.task, charge.site), Counter())[charge.noise_multiplier_e6] += charge.rounds
        spent = {key: Spending.of(rounds.elements()) for key, rounds in multipliers.items()}
        labels = ["task", "site"]
        return [
            _counter("charged_rounds", "Rounds that a site's trustee voted for.", labels,
                     ((key, one.rounds) for key, one in spent.items())),
            _gauge("privacy_epsilon", f"Spent at a delta of {DELTA:g} by zCDP; +Inf without noise.", labels,
                   ((key, one.epsilon(DELTA)) for key, one in spent.items())),
        ]  # fmt: skip


def render(parts: Parts) -> bytes:
    """The page as Prometheus reads it."""
    return generate_latest(parts.meters.registry)


Samples = Iterable[tuple[tuple[str, ...], float]]


def _gauge(name: str, words: str, labels: list[str], samples: Samples) -> Metric:
    return _filled(GaugeMetricFamily(f"{PREFIX}_{name}", words, labels=labels), samples)


def _counter(name: str, words: str, labels: list[str], samples: Samples) -> Metric:
    return _filled(CounterMetricFamily(f"{PREFIX}_{name}", words, labels=labels), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Samples) -> Metric:
    for labels, value in samples:
        family.add_metric(list(labels), value)
    return family


def _named(values: Mapping[str, float]) -> Samples:
    return [((name,), value) for name, value in values.items()]


def _of_sites(sites: Iterable[SiteSummary], field: str) -> Samples:
    return [((site.site,), float(getattr(site, field))) for site in sites]
