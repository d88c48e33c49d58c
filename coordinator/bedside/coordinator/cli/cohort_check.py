"""Whether the fleet can do what a task asks: a slip of the operator is told at once, and not by the first round."""

from __future__ import annotations

from bedside.core.errors import ConfigError
from bedside.proto.v1.operator_pb2 import FleetSummary, StartTaskRequest


def check_cohorts(request: StartTaskRequest, fleet: FleetSummary) -> None:
    """Compare a task's cohorts with the sites and devices that the coordinator knows.

    Raises:
        ConfigError: `unknown-site`, or `too-few-devices`.
    """
    devices = {site.site: site.devices for site in fleet.sites}
    for cohort in request.cohorts:
        for site in cohort.sites:
            if site not in devices:
                raise ConfigError(
                    "unknown-site",
                    f"--cohort {site[:64]}: the federation names no such site",
                    remedy=f"it names {', '.join(sorted(devices))}",
                )
    least = request.min_contributors
    for sites in [list(cohort.sites) for cohort in request.cohorts] or [sorted(devices)]:
        have = sum(devices[site] for site in sites)
        if have < least:
            raise ConfigError(
                "too-few-devices",
                f"the cohort {', '.join(sites)} has {have} device{'' if have == 1 else 's'}, and a round needs {least}",
                remedy="enrol more devices, make larger cohorts, or lower --min-contributors",
            )
