"""Offers of an in-memory federation for a tiny model that really exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from bedside.agent.rounds.offer import Standing
from bedside.core.bundle.manifest import MANIFEST, SIGNATURE, SIGNED_KIND
from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.policy import SitePolicy
from bedside.core.securesum.plans import layout_message
from bedside.core.signing.envelope import sign_message
from bedside.proto.v1.common_pb2 import BlobRef, Signed
from bedside.proto.v1.device_pb2 import Offer, OpeningEntry


@dataclass
class Offering:
    """Makes offers; what goes into one can be changed."""

    world: object
    built: object
    author: object
    plan_changes: dict = field(default_factory=dict)
    opening_changes: dict = field(default_factory=dict)

    def layout(self) -> Layout:
        slots = tuple(TensorSlot(tensor.name, tensor.shape) for tensor in self.built.manifest.shared())
        return Layout(
            (
                Segment("parameters", SegmentKind.VALUE, slots, clip_e6=1_000_000, bits=8, rotation_block=1024),
                Segment("examples", SegmentKind.COUNT, cap=400),
                Segment("correct", SegmentKind.COUNT, cap=400),
            )
        )

    def manifest(self) -> Signed:
        files = self.built.files
        return Signed(suite=1, kind=SIGNED_KIND, payload=files[MANIFEST], signature=files[SIGNATURE])

    def plan(self, **changes):
        return self.world.sign_plan(self.plan_message(**changes))

    def plan_message(self, **changes):
        named = {
            "layout": layout_message(self.layout()),
            "bundle": BlobRef(digest=self.built.digest, size_bytes=len(self.built.files[MANIFEST])),
            "checkpoint": BlobRef(digest=bytes.fromhex(self.built.manifest.checkpoint), size_bytes=10),
        }
        return self.world.plan_message(**(named | self.plan_changes | changes))

    def open(self, **changes):
        """A plan, its openings and the trustees' secrets."""
        plan = self.plan(**changes)
        return plan, *self.world.open_round(plan, **self.opening_changes)

    def offer(self, plan, openings) -> Offer:
        world = self.world
        return Offer(
            plan=plan.signed,
            cohort=0,
            openings=[OpeningEntry(opening=o.signed, credential=o.credential.signed) for o in openings],
            rosters=[sign_message("roster", world.roster(site), site.authority) for site in world.sites.values()],
            federation=sign_message("federation", world.federation, world.root),
            manifest=self.manifest(),
            previous_result=world.results.get(plan.plan.previous_result_digest),
        )

    def make(self, **changes) -> Offer:
        plan, openings, _ = self.open(**changes)
        return self.offer(plan, openings)

    def standing(self, site: str = "alder", **rules) -> Standing:
        policy = {
            "bundle_signers": {"author": bytes(self.author.verify_key).hex()},
            "trusted_sites": ("birch", "cedar"),
            "min_trusted": 3,
        }
        home = self.world.sites[site]
        return Standing(
            bytes(self.world.root.verify_key),
            bytes(home.authority.verify_key),
            home.devices[0].credential,
            SitePolicy(**(policy | rules)),
        )

    def with_changes(self, **changes) -> Offering:
        return replace(self, **changes)


@pytest.fixture
def offering(world, tiny, tiny_author) -> Offering:
    return Offering(world, tiny, tiny_author)


@pytest.fixture
def refusal() -> Callable[[Callable[[], object]], str]:
    """The code of the error that a call raises."""
    from bedside.core.errors import BedsideError

    def code(call: Callable[[], object]) -> str:
        with pytest.raises(BedsideError) as caught:
            call()
        return caught.value.code

    return code
