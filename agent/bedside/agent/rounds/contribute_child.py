"""`python -m bedside.agent.rounds.contribute_child`: train, encode, mask, sign, and write the words durably.

The plain delta never leaves this process's memory: what reaches the disk is sealed or masked. The limits are applied
before numpy and onnxruntime are loaded, onnxruntime only where there is something to train, and everything is given
back when the process ends.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bedside.core.errors import BedsideError
from bedside.ondevice.confinement import (
    confine,
    decode_job,
    heed_stop,
    read_job,
    report_error,
    report_progress,
    report_result,
)

if TYPE_CHECKING:
    from bedside.agent.personal.files import PersonalFiles
    from bedside.agent.rounds.contribution import ContributionJob, ContributionOutcome
    from bedside.agent.rounds.kept import KeptUpdate
    from bedside.agent.rounds.offer import CheckedOffer
    from bedside.agent.training.on_buffer import Learnt
    from bedside.core.bundle.verify import Bundle
    from bedside.core.codec import TensorUpdate, UpdateSource
    from bedside.core.securesum.plans import CheckedPlan
    from bedside.ondevice.training.train import Schedule, Trained
    from bedside.proto.v1.plan_pb2 import Plan
    from bedside.service.identity import Identity


def main() -> None:
    """Confine this process, do the job on standard input, report."""
    confine(sys.argv[1:])
    try:
        report_result(_run(read_job()))
    except BedsideError as error:
        report_error(error)


def _run(data: bytes) -> ContributionOutcome:
    from bedside.agent.rounds.contribution import ContributionJob, ContributionOutcome
    from bedside.proto.v1.identity_pb2 import Role
    from bedside.service.identity import open_identity

    job = decode_job(data, ContributionJob)
    identity = open_identity(Path(job.identity_dir), Role.ROLE_DEVICE)
    offer = _check(job, identity)
    update, told = _freed(job, identity, offer), None
    if update is None:
        update, told = _train(job, identity, offer)
    header, size_bytes = _mask(job, offer, identity, update)
    return ContributionOutcome(header, size_bytes, update.examples, *(told or (None, None)))


def _check(job: ContributionJob, identity: Identity) -> CheckedOffer:
    """Verify the stored offer again: the child trusts the parent's files no more than it must."""
    from bedside.agent.rounds.memory import Seen
    from bedside.agent.rounds.offer import CheckedOffer, own_opening
    from bedside.core.securesum.messages import open_openings
    from bedside.core.securesum.plans import open_plan
    from bedside.core.signing import Trust, open_federation, open_roster
    from bedside.proto.v1.device_pb2 import Offer

    pins = identity.pins
    offer = Offer.FromString(job.offer)
    federation = open_federation(offer.federation, bytes.fromhex(pins.root_pk))
    plan = open_plan(offer.plan, federation.coordinator.sign_pk)
    cohort = plan.cohort_of(pins.site)
    trust = Trust(federation, [open_roster(signed, federation) for signed in offer.rosters])
    openings = open_openings(offer.openings, plan, cohort, trust)
    return CheckedOffer(plan, cohort, openings, own_opening(openings, pins.site), Seen())


def _freed(job: ContributionJob, identity: Identity, offer: CheckedOffer) -> KeptUpdate | None:
    """The delta that the own trustee gave back, if this plan can take it."""
    from bedside.agent.buffer.keys import load_key_ring
    from bedside.agent.rounds.kept import KeptUpdate
    from bedside.core.errors import StoreError

    if not job.freed:
        return None
    try:
        update = KeptUpdate(Path(job.freed), load_key_ring(identity.directory).newest, offer.plan.layout)
    except StoreError:
        return None  # trained again
    return update if update.serves(offer.plan) else None


def _train(
    job: ContributionJob, identity: Identity, offer: CheckedOffer
) -> tuple[KeptUpdate, tuple[float, float, int]]:
    """Train, or go on, and seal the delta; the first and last loss, and how many windows had too strange a value."""
    from bedside.agent.buffer.keys import load_key_ring
    from bedside.agent.personal.files import PersonalFiles
    from bedside.agent.rounds.kept import KeptUpdate, write_kept
    from bedside.agent.rounds.models import ModelStore
    from bedside.agent.training.on_buffer import Course, Device, train_on_buffer
    from bedside.agent.windows.holdout import HoldOut, Split
    from bedside.service.platform import SystemClock, SystemEntropy

    stopping = heed_stop()
    plan, state_dir = offer.plan, Path(job.state_dir)
    training = plan.plan.training
    ring, entropy = load_key_ring(identity.directory), SystemEntropy()
    own = PersonalFiles(state_dir, ring)
    store = ModelStore(state_dir, personal=own)
    bundle = store.read_bundle(job.model)
    course = Course(
        job.task,
        plan.digest,
        bundle,
        store.parameters(job.model, bundle),
        _schedule(plan.digest, plan.plan, identity.device_secret),
        training.max_examples,
        job.streams,
        training.min_sessions,
        Split(HoldOut(identity.device_secret, bundle.manifest.window), "training") if job.hold_out else None,
    )
    device = Device(state_dir, ring, SystemClock(), entropy, stopping)
    learnt = train_on_buffer(course, device, job.budget, report_progress)
    _keep_local(job, own, bundle, course.schedule.suffix, learnt)
    trained = learnt.trained
    counts, kept = trained.counts, Path(job.kept)
    write_kept(kept, ring.newest, entropy, plan, _update(plan, trained), examples=counts.examples)
    return KeptUpdate(kept, ring.newest, plan.layout), (counts.loss_before, counts.loss_after, learnt.far)


def _keep_local(job: ContributionJob, own: PersonalFiles, bundle: Bundle, suffix: str, learnt: Learnt) -> None:
    """Leave the local tensors that were trained for the parent, sealed; they are in no delta."""
    from bedside.agent.personal.files import Personal, facts_of
    from bedside.service.platform import SystemEntropy

    changed = bundle.manifest.changed(suffix)
    local = {spec.name: learnt.trained.state[spec.name] for spec in changed if not spec.shared}
    if local:
        before = own.read("local", job.model.bundle)
        facts = facts_of(bundle.manifest.name, job.model.bundle, learnt.sessions, before)
        kept = {**(before.tensors if before is not None else {}), **local}
        own.write_pending(job.task, Personal(facts, kept), SystemEntropy())


def _schedule(plan_digest: bytes, plan: Plan, device_secret: bytes) -> Schedule:
    """What the plan says; only the noise is the device's own, and the same when a paused training goes on."""
    from bedside.core.bundle.training import ALL
    from bedside.core.learning.plan_graph import LEVELS, OPTIMISERS
    from bedside.ondevice.training.train import Schedule

    training = plan.training
    noise = hashlib.blake2b(plan_digest, key=device_secret, person=b"bedside-noise", digest_size=8).digest()
    return Schedule(
        learning_rate=training.learning_rate_e9 / 1e9,
        momentum=training.momentum_e6 / 1e6,
        proximal_mu=training.proximal_mu_e6 / 1e6,
        batch=training.batch_size,
        epochs=training.epochs,
        max_steps=training.max_local_steps,
        min_examples=training.min_examples,
        min_steps=training.min_local_steps,
        seed=int.from_bytes(plan_digest[:8], "big"),
        gradient_clip=training.gradient_clip_e6 / 1e6,
        level=LEVELS[training.level],  # judged: one of them
        suffix=training.suffix or ALL,
        optimiser=OPTIMISERS[training.optimiser],
        noise_seed=int.from_bytes(noise, "big"),
    )


def _update(plan: CheckedPlan, trained: Trained) -> TensorUpdate:
    """The weighed delta with the counts that the plan asks for."""
    from bedside.core.codec import SegmentKind, TensorUpdate
    from bedside.core.errors import ProtocolError
    from bedside.core.learning.weighting import Weighting, contribution_weight, counted_examples

    training = plan.plan.training
    examples, cap = trained.counts.examples, training.max_examples
    known = {"examples": counted_examples(examples, cap), "correct": trained.counts.correct_before}
    names = [segment.name for segment in plan.layout.segments if segment.kind is SegmentKind.COUNT]
    if not set(names) <= set(known):
        raise ProtocolError("unknown-count", "the plan asks for a count that this version does not know")
    weight = contribution_weight(Weighting(training.weighting), examples, cap)
    return TensorUpdate(trained.delta, {name: known[name] for name in names}, plan.layout, weight)


def _mask(job: ContributionJob, offer: CheckedOffer, identity: Identity, update: UpdateSource) -> tuple[bytes, int]:
    """Encode, mask and sign, a piece at a time; the words are on the disk when the header is returned."""
    from bedside.core.codec import encode_pieces
    from bedside.core.securesum.device import Hedge, contribute_pieces, rounding_key, vector_digest
    from bedside.core.securesum.messages import openings_digest
    from bedside.core.securesum.plans import rotation_seed
    from bedside.core.signing import sign_message
    from bedside.service.files import durable_file
    from bedside.service.platform import SystemEntropy

    plan, entropy = offer.plan, SystemEntropy()
    key = rounding_key(identity.device_secret, entropy, plan.digest)
    seed = rotation_seed(plan.digest, openings_digest(offer.openings))
    pieces = encode_pieces(update, plan.layout, seed, key, word_bits=plan.plan.word_bits)
    hedge = Hedge(identity.device_secret, entropy, vector_digest(update.digest, key), job.sequence)
    with durable_file(Path(job.target)) as file:
        header = contribute_pieces(
            plan, offer.cohort, offer.openings, identity.require_credential(), pieces, file.write, hedge
        )
    signed = sign_message("header", header, identity.signing_key)
    return signed.SerializeToString(deterministic=True), header.upload_bytes


if __name__ == "__main__":
    main()
