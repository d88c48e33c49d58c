"""What a device is offered: the round that wants it, and the words of its own trustee on rounds before."""

from __future__ import annotations

from collections.abc import Sequence

from bedside.coordinator.fleet.pacing import next_call_ms
from bedside.coordinator.parts import Parts
from bedside.coordinator.rounds.state import RoundState, checked_plan, find_round, phase_of, read_open_rounds
from bedside.coordinator.rounds.words import read_header_set
from bedside.coordinator.rounds.work import bundle_manifest, opening_entries, previous_envelope
from bedside.coordinator.store import tasks
from bedside.core.errors import ProtocolError, StoreError
from bedside.core.securesum.aggregator import CohortPhase
from bedside.core.securesum.merkle import prove_membership
from bedside.core.securesum.trustee import leaves_of
from bedside.core.signing import VerifiedCredential, digest, parse_strict
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.device_pb2 import Offer
from bedside.proto.v1.round_pb2 import Receipt


class Offers:
    """Finds offers and receipts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def offer(
        self, device: VerifiedCredential, known_plan: bytes, known_result: bytes, open_plans: Sequence[bytes]
    ) -> Offer:
        """What is new for a device; an offer without plan, result and receipts when there is nothing."""
        offer = Offer(next_call_ms=next_call_ms(self._parts.config.heartbeat_s, device.digest))
        offer.receipts.extend(self._receipts(device, open_plans))
        states = self._parts.store.run_tx("open-rounds", read_open_rounds(self._parts.sign_pk))
        for state in states:
            cohort = wanted_in(state, device)
            if cohort is not None and state.plan.digest != known_plan:
                self._fill(offer, state, cohort)
                return offer
        self._add_result(offer, device, known_result)
        return offer

    def _add_result(self, offer: Offer, device: VerifiedCredential, known_result: bytes) -> None:
        """The newest opened model, if the device's site was in that round; a plan brings its checkpoint anyhow."""
        row = self._parts.store.run_tx("newest-opened", tasks.newest_opened)
        if row is None:
            return
        signed = parse_strict(Signed, row.result or b"")
        plan = checked_plan(row.plan, self._parts.sign_pk)
        in_plan = any(device.site in cohort.sites for cohort in plan.plan.cohorts)
        if not in_plan or digest(signed.payload) == known_result:
            return
        state = self._parts.store.run_tx("find-round", find_round(row.plan_digest, self._parts.sign_pk))
        offer.result.CopyFrom(signed)
        offer.federation.CopyFrom(self._parts.registry.signed_federation)
        offer.manifest.CopyFrom(bundle_manifest(self._parts, state))
        offer.bundle_tar_digest = plan.plan.bundle_tar_digest

    def _fill(self, offer: Offer, state: RoundState, cohort: int) -> None:
        registry = self._parts.registry
        offer.plan.CopyFrom(state.plan.signed)
        offer.cohort = cohort
        previous = previous_envelope(self._parts, state)
        if previous is not None:
            offer.previous_result.CopyFrom(previous)
        offer.openings.extend(opening_entries(self._parts, state, cohort))
        offer.rosters.extend(registry.rosters(list(state.plan.cohort(cohort).sites)))
        offer.federation.CopyFrom(registry.signed_federation)
        offer.manifest.CopyFrom(bundle_manifest(self._parts, state))

    def _receipts(self, device: VerifiedCredential, plans: Sequence[bytes]) -> list[Receipt]:
        receipts = []
        for plan_digest in plans:
            try:
                state = self._parts.store.run_tx("find-round", find_round(plan_digest, self._parts.sign_pk))
                receipt = self._receipt(state, state.plan.cohort_of(device.site), device)
            except (ProtocolError, StoreError):
                continue  # a plan that was never ours, or not for this site; or a set that is lost
            if receipt is not None:
                receipts.append(receipt)
        return receipts

    def _receipt(self, state: RoundState, cohort: int, device: VerifiedCredential) -> Receipt | None:
        """The word of the device's own trustee: an answer uses the delta up whatever becomes of the cohort."""
        own = [one.credential_digest for one in state.plan.cohort(cohort).trustees if one.site == device.site]
        for trustee in own:
            answer = state.word(cohort, "answer", trustee)
            if answer is not None:
                leaves = leaves_of(read_header_set(self._parts, state, cohort))
                return Receipt(
                    plan_digest=state.plan.digest,
                    cohort=cohort,
                    answer=parse_strict(Signed, answer.signed),
                    membership=prove_membership(leaves, device.digest),
                )
            closed = state.word(cohort, "closed", trustee)
            if closed is not None:
                signed = parse_strict(Signed, closed.signed)
                return Receipt(plan_digest=state.plan.digest, cohort=cohort, closed=signed)
        return None


def wanted_in(state: RoundState, device: VerifiedCredential) -> int | None:
    """The cohort of a round that still waits for this device."""
    for cohort in state.plan.plan.cohorts:
        if device.site in cohort.sites:
            upload = state.upload(device.digest)
            decided = (upload is not None and upload.accepted) or state.refusal(cohort.index, device.digest)
            collecting = phase_of(state.cohort(cohort.index)) is CohortPhase.COLLECTING
            return cohort.index if collecting and not decided else None
    return None
