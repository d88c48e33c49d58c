"""A plan, verified and bounded: the one object that everybody in a round agrees on.

`H`, the BLAKE2b-256 of the plan's bytes, names the round. Nothing in a plan differs between devices; the seeds of
rotation follow from H and the round keys, which are unknown when H is chosen.

Source: DESIGN section 5, step 1 and the overflow rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.errors import MalformedError, ProtocolError, TrustError
from bedside.core.ids import check_id
from bedside.core.learning.combiners import combiner_of
from bedside.core.limits import (
    MAX_BLOB_BYTES,
    MAX_CLOSE_AHEAD_S,
    MAX_COHORTS,
    MAX_CONTRIBUTORS,
    MAX_NOISE_MULTIPLIER,
    MAX_PLAN_BYTES,
    MAX_SEGMENTS,
    MAX_TIME_S,
    MAX_TRUSTEES,
    MIN_SUBSAMPLE_E32,
)
from bedside.core.privacy.gaussian import ONE_E6
from bedside.core.privacy.mechanism import check_ring
from bedside.core.securesum.ring import word_dtype
from bedside.core.signing.envelope import DIGEST_BYTES, SUITE, digest, open_signed, parse_strict
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.common_pb2 import Signed

READER_VERSION = 1
"""Plans that need a newer reader are refused."""


@dataclass(frozen=True, slots=True)
class CheckedPlan:
    """A plan whose signature, bounds and overflow rule held.

    Attributes:
        digest: H.
        plan: its fields.
        signed: the envelope it came in.
        layout: the vector's layout.
        coordinator_pk: the key that signed it, 32 bytes.
    """

    digest: bytes
    plan: plan_pb2.Plan
    signed: Signed
    layout: Layout
    coordinator_pk: bytes

    @property
    def vector_words(self) -> int:
        """Words of every vector of this plan."""
        return self.layout.words

    @property
    def noise_multiplier_e6(self) -> int:
        """What the plan asks of every trustee; each keeps its own policy's if that is more."""
        return self.plan.noise.noise_multiplier_e6

    def check_ring(self, multipliers_e6: Iterable[int]) -> None:
        """The overflow rule for the largest set and trustees with these noise multipliers.

        Raises:
            ProtocolError: `ring-overflow` or `noise-too-large`.
        """
        check_ring(self.layout, self.plan.max_contributors, self.plan.word_bits, multipliers_e6)

    def cohort(self, index: int) -> plan_pb2.Cohort:
        """The cohort with that index.

        Raises:
            ProtocolError: `no-such-cohort`.
        """
        for cohort in self.plan.cohorts:
            if cohort.index == index:
                return cohort
        raise ProtocolError("no-such-cohort", f"the plan has no cohort {index}")

    def cohort_of(self, site: str) -> int:
        """The index of the cohort that a site's devices belong to.

        Raises:
            ProtocolError: `site-not-in-plan`.
        """
        for cohort in self.plan.cohorts:
            if site in cohort.sites:
                return cohort.index
        raise ProtocolError("site-not-in-plan", f"the plan does not name site {site}")


def open_plan(signed: Signed, coordinator_pk: bytes) -> CheckedPlan:
    """Verify a plan under the coordinator's key and check every bound.

    Raises:
        TrustError: `stranger-plan` when the coordinator that the federation names did not sign it.
        MalformedError: `bad-plan`, `bad-layout`, `bad-combiner` or `bad-id`.
        ProtocolError: `ring-overflow` (with the noise that the plan asks for), `noise-too-large` or `reader-too-old`.
    """
    try:
        payload = open_signed("plan", signed, coordinator_pk)
    except TrustError as error:
        raise TrustError(
            "stranger-plan",
            "this plan is not signed by the coordinator that the federation names",
            remedy="check the federation document; a new coordinator key needs a new version of it",
        ) from error
    plan = parse_strict(plan_pb2.Plan, payload, MAX_PLAN_BYTES)
    if plan.min_reader_version > READER_VERSION:
        raise ProtocolError("reader-too-old", "this plan needs a newer version of Bedside", remedy="update Bedside")
    _check_header(plan)
    _check_cohorts(plan)
    combiner_of(plan.server.combiner, plan.server.trim_cohorts, len(plan.cohorts), plan.subsample_e32)
    layout = layout_of(plan.layout, plan.subsample_e32)
    most_trustees = max(len(cohort.trustees) for cohort in plan.cohorts)
    check_ring(layout, plan.max_contributors, plan.word_bits, [plan.noise.noise_multiplier_e6] * most_trustees)
    return CheckedPlan(digest(payload), plan, signed, layout, coordinator_pk)


def layout_of(message: plan_pb2.Layout, subsample_e32: int = 0) -> Layout:
    """Read a layout from the wire.

    Args:
        message: the plan's segments.
        subsample_e32: the plan's, which holds for all its VALUE segments.

    Raises:
        MalformedError: `bad-layout`.
    """
    if not 0 < len(message.segments) <= MAX_SEGMENTS:
        raise MalformedError("bad-layout", "a plan's layout has no segments, or too many")
    return Layout(tuple(_segment_of(segment, subsample_e32) for segment in message.segments))


def layout_message(layout: Layout) -> plan_pb2.Layout:
    """The wire form of a layout; `layout_of` reads it back, given the plan's subsampling."""
    return plan_pb2.Layout(segments=[_segment_message(segment) for segment in layout.segments])


def rotation_seed(plan_digest: bytes, openings_digest: bytes) -> bytes:
    """Seed of the rotation and subsampling of one cohort's vectors: from H and all its round keys, 32 bytes."""
    return hashlib.blake2b(plan_digest + openings_digest, digest_size=32, person=b"bedside-rotate-1").digest()


def _segment_of(message: plan_pb2.Segment, subsample_e32: int) -> Segment:
    if message.kind not in (plan_pb2.SEGMENT_KIND_VALUE, plan_pb2.SEGMENT_KIND_COUNT):
        raise MalformedError("bad-layout", f"segment {message.name[:64]!r} is of no known kind")
    return Segment(
        name=message.name,
        kind=SegmentKind(message.kind),
        tensors=tuple(TensorSlot(slot.name, tuple(slot.shape)) for slot in message.tensors),
        clip_e6=message.clip_e6,
        bits=message.bits,
        rotation_block=message.rotation_block,
        cap=message.cap,
        subsample_e32=subsample_e32 if message.kind == plan_pb2.SEGMENT_KIND_VALUE else 0,
    )


def _segment_message(segment: Segment) -> plan_pb2.Segment:
    return plan_pb2.Segment(
        name=segment.name,
        kind=plan_pb2.SegmentKind.ValueType(segment.kind.value),
        tensors=[plan_pb2.TensorSlot(name=slot.name, shape=slot.shape) for slot in segment.tensors],
        clip_e6=segment.clip_e6,
        bits=segment.bits,
        rotation_block=segment.rotation_block,
        cap=segment.cap,
    )


def _check_header(plan: plan_pb2.Plan) -> None:
    if plan.suite != SUITE:
        raise TrustError("bad-suite", f"the plan uses suite {plan.suite}; this version knows {SUITE} only")
    check_id(plan.federation, "federation")
    check_id(plan.task, "task")
    word_dtype(plan.word_bits)
    _require(plan.round_number >= 1, "rounds are numbered from 1")
    first = plan.round_number == 1
    _require(len(plan.previous_result_digest) == (0 if first else DIGEST_BYTES), "the previous result is not named")
    _require(len(plan.log_root) == DIGEST_BYTES, "the log root has the wrong length")
    _require(plan.purpose != plan_pb2.PURPOSE_UNSPECIFIED, "the purpose is missing")
    for what, ref in (("bundle", plan.bundle), ("checkpoint", plan.checkpoint)):
        _require(len(ref.digest) == DIGEST_BYTES and 0 < ref.size_bytes <= MAX_BLOB_BYTES, f"the {what} is not named")
    _require(len(plan.bundle_tar_digest) == DIGEST_BYTES, "the bundle's tar is not named")
    _require(plan.noise.noise_multiplier_e6 <= MAX_NOISE_MULTIPLIER * ONE_E6, "the noise multiplier is out of bounds")
    share = plan.subsample_e32 == 0 or plan.subsample_e32 >= MIN_SUBSAMPLE_E32
    _require(share, "the plan sends less than 1/16 of the coordinates")
    bounds = 1 <= plan.min_contributors <= plan.max_contributors <= MAX_CONTRIBUTORS
    _require(bounds, "the numbers of contributors are out of bounds")
    _require(plan.close_at_s <= MAX_TIME_S, "the round closes after the year 9999")
    ahead_s = plan.close_at_s - plan.issued_at_s
    _require(0 < ahead_s <= MAX_CLOSE_AHEAD_S, "the round closes before it opens, or after more than seven days")


def _check_cohorts(plan: plan_pb2.Plan) -> None:
    _require(0 < len(plan.cohorts) <= MAX_COHORTS, "a plan has no cohort, or too many")
    _require(_unique(cohort.index for cohort in plan.cohorts), "a cohort stands twice in the plan")
    _require(_unique(site for cohort in plan.cohorts for site in cohort.sites), "a site stands in two cohorts")
    for cohort in plan.cohorts:
        _require(0 < len(cohort.trustees) <= MAX_TRUSTEES, "a cohort needs one to five trustees")
        _require(0 < len(cohort.sites) <= MAX_CONTRIBUTORS, "a cohort needs a site")
        for site in cohort.sites:
            check_id(site, "site")
        digests = [trustee.credential_digest for trustee in cohort.trustees]
        _require(_unique(digests) and all(len(d) == DIGEST_BYTES for d in digests), "a trustee is not named, or twice")


def _unique(items: Iterable[object]) -> bool:
    listed = list(items)
    return len(set(listed)) == len(listed)


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise MalformedError("bad-plan", sentence)
