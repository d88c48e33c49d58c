"""What all schedules share: sites, keys, credentials, rosters and plans. Made once per process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.securesum.plans import CheckedPlan, layout_message
from bedside.core.signing.trust import Trust, VerifiedCredential
from bedside.proto.v1 import plan_pb2

DEVICES_OF = {"alder": 12, "birch": 12, "cedar": 8}
COHORT_SITES = (("alder", "birch"), ("cedar",))
DEVICES = sum(DEVICES_OF.values())
ROUNDS = 3
WORD_BITS = (8, 13, 16, 32)
MIN_CONTRIBUTORS = 3


class RememberingTrust(Trust):
    """The same answers about the same bytes: rosters do not change while a schedule runs."""

    def __init__(self, *told: object) -> None:
        super().__init__(*told)  # type: ignore[arg-type]
        self._verified: dict[tuple[bytes, bytes, int], VerifiedCredential] = {}

    def credential(self, signed, role, *, now_s=None):
        key = (signed.payload, signed.signature, role)
        if key not in self._verified:
            self._verified[key] = super().credential(signed, role, now_s=now_s)
        return self._verified[key]


class Stage:
    """A federation of three sites and two cohorts, whose devices count in buckets of their own."""

    def __init__(self, make_world) -> None:
        self.world = make_world(DEVICES_OF)
        self.trust = RememberingTrust(self.world.federation, [self.world.roster(s) for s in self.world.sites.values()])
        slot = (TensorSlot("buckets", (DEVICES * ROUNDS,)),)
        self.layout = Layout((Segment("buckets", SegmentKind.COUNT, slot, cap=1),))
        self._plans: dict[tuple[int, int], CheckedPlan] = {}

    def plan(self, round_number: int, word_bits: int) -> CheckedPlan:
        """The plan of a round."""
        key = (round_number, word_bits)
        if key not in self._plans:
            self._plans[key] = self.world.plan(
                round_number=round_number,
                previous_result_digest=b"" if round_number == 1 else b"r" * 32,
                layout=layout_message(self.layout),
                word_bits=word_bits,
                cohorts=[self._cohort(index, sites) for index, sites in enumerate(COHORT_SITES)],
                min_contributors=MIN_CONTRIBUTORS,
                max_contributors=DEVICES,
            )
        return self._plans[key]

    def _cohort(self, index: int, sites: Sequence[str]) -> plan_pb2.Cohort:
        trustees = [self.world.sites[site].trustee.credential for site in sites]
        named = [
            plan_pb2.CohortTrustee(site=t.site, trustee=t.credential.subject, credential_digest=t.digest)
            for t in trustees
        ]
        return plan_pb2.Cohort(index=index, sites=sites, trustees=named)


class Bytes:
    """Deterministic bytes of one party in one schedule."""

    def __init__(self, name: str, kinds: int = 0) -> None:
        self._name, self._count, self._kinds = name, 0, kinds

    def token_bytes(self, count: int) -> bytes:
        """With `kinds`, only that many different draws per length: keys that were made before can be found again."""
        self._count += 1
        draw = self._count % self._kinds if self._kinds else self._count
        return hashlib.shake_256(f"{self._name}/{draw}/{count}".encode()).digest(count)
