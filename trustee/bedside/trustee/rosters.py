"""Which rosters this trustee judges by: its own site's as it was signed here, and the newest of others it has seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bedside.core.errors import TrustError
from bedside.core.signing.envelope import digest
from bedside.core.signing.trust import Trust, open_roster
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.identity_pb2 import Federation
from bedside.trustee.site.register import Register
from bedside.trustee.store import Floor, TrusteeStore, check_floor


@dataclass(frozen=True, slots=True)
class View:
    """A trust with the envelopes it was made of.

    Attributes:
        trust: federation and rosters.
        rosters: the signed rosters, in the order of their sites.
        floors: what was seen in making it; remembered with the decision.
    """

    trust: Trust
    rosters: tuple[Signed, ...]
    floors: tuple[Floor, ...]


class RosterBook:
    """Keeps rosters from going back (rule T8)."""

    def __init__(self, store: TrusteeStore, register: Register, own_site: str) -> None:
        self._store = store
        self._register = register
        self._own_site = own_site

    def view(self, federation: Federation, offered: Iterable[Signed], sites: Sequence[str], *, now_s: int) -> View:
        """Judge the offered rosters and combine them with the known ones, for `sites`.

        What the coordinator says about the own site is not even read: its authority sits beside this trustee.

        Raises:
            TrustError: `roster-rollback`, `roster-fork`, `roster-expired`, `no-roster`, ...
            MalformedError: when a roster is not well-formed.
        """
        floors: dict[str, Floor] = {}
        for signed in offered:
            roster = open_roster(signed, federation, now_s=now_s)
            if roster.site == self._own_site or roster.site not in sites:
                continue
            name = f"roster/{roster.site}"
            new = Floor(name, roster.version, digest(signed.payload), signed)
            check_floor(self._store.floor(name), new)
            check_floor(floors.get(name), new)
            floors[name] = new
        chosen = [self._newest(site, floors) for site in sorted(sites)]
        rosters = [open_roster(signed, federation, now_s=now_s) for signed in chosen]
        return View(Trust(federation, rosters), tuple(chosen), tuple(floors.values()))

    def _newest(self, site: str, floors: dict[str, Floor]) -> Signed:
        if site == self._own_site:
            own = self._register.roster()
            signed = own.signed if own else None
        else:
            known = floors.get(f"roster/{site}") or self._store.floor(f"roster/{site}")
            signed = known.signed if known else None
        if signed is None:
            raise TrustError("no-roster", f"no roster of site {site} is known")
        return signed
