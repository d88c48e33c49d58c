"""When a site takes part, and for how long a round may stay open. Times are passed in; without them nothing is said."""

from __future__ import annotations

from typing import Final

from bedside.core.policy.case import Case
from bedside.core.policy.hours import within_hours

HOUR_S: Final = 3_600

CLOCK_SKEW_S: Final = 3_600
"""How far the coordinator's clock may be ahead: summer time that one side has missed."""

HOURS_SKIPPED: Final = "the hours of the policy were not judged: this machine has no clock to trust"


def closes_too_late(case: Case) -> str:
    """The round was issued, has not closed yet, and closes within the limit, counted from its issue and from now."""
    plan, most_hours = case.plan.plan, case.policy.max_close_hours
    if case.now_s is not None and case.now_s > plan.close_at_s:
        return "the plan's round has already closed; only open rounds are joined"
    if case.now_s is not None and plan.issued_at_s > case.now_s + CLOCK_SKEW_S:
        return f"the plan was issued {(plan.issued_at_s - case.now_s) / HOUR_S:.1f} hours in the future"
    open_s = plan.close_at_s - plan.issued_at_s
    if case.now_s is not None:
        open_s = max(open_s, plan.close_at_s - case.now_s - CLOCK_SKEW_S)
    if open_s <= most_hours * HOUR_S:
        return ""
    return f"the plan stays open for {open_s / HOUR_S:.1f} hours; site {case.own_site} allows {most_hours}"


def outside_hours(case: Case) -> str:
    """It is one of the site's hours."""
    if case.local_minute is None or within_hours(case.policy.hours, case.local_minute):
        return ""
    at = f"{case.local_minute // 60:02}:{case.local_minute % 60:02}"
    return f"the plan came at {at}; site {case.own_site} joins rounds between {case.policy.hours} only"
