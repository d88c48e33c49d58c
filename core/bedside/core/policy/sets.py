"""Which sets a trustee may vote for: the site's rules about who is in a sum together (T3, T4).

A size alone protects nobody, because a coordinator chooses the set after it has the uploads, and may own the other
sites. So only devices of trusted sites count, and the difference of two sets counts like a set: where two sums are
over the same inputs, their difference is the sum over the devices in which they differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bedside.core.policy.site_policy import SitePolicy
from bedside.core.policy.verdict import ALLOWED, Verdict, refused

GUARDED_ANSWERS: Final = 8
"""Last sets of a task that a new one is compared with under `guard_membership`."""

Members = Mapping[str, frozenset[bytes]]
"""Names of a set's devices by their site."""


@dataclass(frozen=True, slots=True)
class EarlierSet:
    """A set whose sum this trustee has opened, or may have opened."""

    task: str
    round_number: int
    members: Members


def trusted_of(policy: SitePolicy, own_site: str) -> frozenset[str]:
    """The sites whose devices count."""
    return frozenset({own_site, *policy.trusted_sites})


def judge_set_members(members: Members, policy: SitePolicy, own_site: str) -> Verdict:
    """Judge who is in a set; refused with `min-trusted` or `one-site-dominates`. A set without own devices is free."""
    if not members.get(own_site):
        return ALLOWED
    trusted = sum(len(members.get(site, ())) for site in trusted_of(policy, own_site))
    if trusted < policy.min_trusted:
        return refused(
            "min-trusted",
            f"the set holds {trusted} devices of sites that {own_site} trusts; it asks for {policy.min_trusted}",
        )
    sizes = Counter({site: len(devices) for site, devices in members.items()})
    largest, size = sizes.most_common(1)[0]
    share = size / sizes.total()
    if share > policy.max_share_one_site:
        return refused(
            "one-site-dominates",
            f"{share:.0%} of the set are devices of site {largest};"
            f" site {own_site} allows {policy.max_share_one_site:.0%} of one site",
        )
    return ALLOWED


def judge_difference(members: Members, earlier: Iterable[EarlierSet], policy: SitePolicy, own_site: str) -> Verdict:
    """Compare a set with earlier ones over the same inputs; refused with `set-differs-too-little`.

    Sites that are trusted now decide: devices of others may all be the coordinator's, and hide no difference.
    """
    trusted = trusted_of(policy, own_site)
    for one in earlier:
        sites = trusted & {*members, *one.members}
        none: frozenset[bytes] = frozenset()
        differing = sum(len(members.get(site, none) ^ one.members.get(site, none)) for site in sites)
        if 0 < differing < policy.min_trusted:
            return refused(
                "set-differs-too-little",
                f"the set differs from that of round {one.round_number} of {one.task} by {differing} devices of trusted"
                f" sites, and no noise covers them; site {own_site} allows none, or at least {policy.min_trusted}",
            )
    return ALLOWED


def members_by_site(listed: Sequence[tuple[str, bytes]]) -> Members:
    """Group (site, name of device) by site."""
    found: dict[str, set[bytes]] = {}
    for site, name in listed:
        found.setdefault(site, set()).add(name)
    return {site: frozenset(names) for site, names in found.items()}
