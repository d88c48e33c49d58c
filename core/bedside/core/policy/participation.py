"""Who takes part, in what, and with whom: the rules about task, purpose, sites and trustees."""

from __future__ import annotations

from bedside.core.policy.case import Case


def site_not_in_plan(case: Case) -> str:
    """The plan names the own site."""
    return "" if case.cohort is not None else f"the plan does not name site {case.own_site}"


def task_not_allowed(case: Case) -> str:
    """The task is one of the policy's, where it lists any."""
    task, allowed = case.plan.plan.task, case.policy.tasks
    if not allowed or task in allowed:
        return ""
    return f"the plan is of task {task}; site {case.own_site} takes part in {_listed(allowed)} only"


def purpose_not_allowed(case: Case) -> str:
    """The purpose is one of the policy's."""
    if case.purpose in case.policy.purposes:
        return ""
    return f"the plan sums for {case.purpose}; site {case.own_site} allows {_listed(case.policy.purposes)}"


def too_few_trustees(case: Case) -> str:
    """The own trustee opens, and so do those of other sites. A federation has no two sites under one authority."""
    cohort = case.cohort
    if cohort is None:
        return ""
    sites = {trustee.site for trustee in cohort.trustees}
    if case.own_site not in sites:
        return f"the trustee of site {case.own_site} is not among the cohort's trustees"
    if len(sites) < case.policy.min_trustees:
        return (
            f"the plan's trustees are of {len(sites)} sites;"
            f" site {case.own_site} asks for trustees of {case.policy.min_trustees} sites"
        )
    return ""


def too_few_contributors(case: Case) -> str:
    """No set may be smaller than the site wants."""
    asked, wanted = case.plan.plan.min_contributors, case.policy.min_contributors
    if asked >= wanted:
        return ""
    return f"the plan allows sets of {asked} devices; site {case.own_site} asks for at least {wanted}"


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return shown or "nothing"
