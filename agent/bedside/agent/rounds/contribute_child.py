"""`python -m bedside.agent.rounds.contribute_child`: train, encode, mask, sign, and write the words durably.

The plain delta never leaves this process's memory: what reaches the disk is masked. The limits are applied before
numpy and onnxruntime are loaded, and everything is given back when the process ends.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bedside.agent.inference.confinement import confine, read_job, report_error, report_progress, report_result
from bedside.core.errors import BedsideError

if TYPE_CHECKING:
    from bedside.agent.rounds.contribution import ContributionJob, ContributionOutcome
    from bedside.agent.rounds.offer import CheckedOffer
    from bedside.agent.training.train import Schedule, Trained, Windows
    from bedside.core.bundle.verify import Bundle, Parameters
    from bedside.core.securesum.ring import Words
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
    import msgspec

    from bedside.agent.rounds.contribution import ContributionJob, ContributionOutcome
    from bedside.agent.training.train import train
    from bedside.proto.v1.identity_pb2 import Role
    from bedside.service.identity import open_identity

    job = msgspec.json.decode(data, type=ContributionJob)
    identity = open_identity(Path(job.identity_dir), Role.ROLE_DEVICE)
    offer = _check(job, identity)
    bundle, start = _load(job)
    plan = offer.plan.plan
    windows = _windows(job, identity, bundle, plan)
    trained = train(bundle, start, windows, _schedule(offer.plan.digest, plan), report_progress)
    words = _encode(offer, identity, trained)
    header, size_bytes = _mask(job, offer, identity, words)
    counts = trained.counts
    return ContributionOutcome(header, size_bytes, counts.examples, counts.loss_before, counts.loss_after)


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


def _load(job: ContributionJob) -> tuple[Bundle, Parameters]:
    from bedside.agent.rounds.models import ModelStore

    store = ModelStore(Path(job.state_dir))
    bundle = store.read_bundle(job.model)
    return bundle, store.parameters(job.model, bundle)


def _windows(job: ContributionJob, identity: Identity, bundle: Bundle, plan: Plan) -> Windows:
    """The newest labelled windows, at most as many as the plan takes.

    Raises:
        RefusedError: `too-few-sessions`; `train` refuses too few examples.
    """
    from bedside.agent.config import BUFFER_NAME
    from bedside.agent.training.train import Windows
    from bedside.agent.windows.training import collect
    from bedside.core.errors import RefusedError

    manifest, training = bundle.manifest, plan.training
    found = collect(
        Path(job.state_dir) / BUFFER_NAME,
        identity.buffer_key,
        manifest.window,
        manifest.labels,
        max_windows=training.max_examples,
    )
    sessions = len(set(found.sessions))
    if sessions < training.min_sessions:
        raise RefusedError(
            "too-few-sessions",
            f"fewer labelled sessions are here than the {training.min_sessions} that the plan wants",
            remedy="the device takes part by itself when more sessions are labelled",
        )
    return Windows(found.x, found.y)


def _schedule(plan_digest: bytes, plan: Plan) -> Schedule:
    from bedside.agent.training.train import Schedule

    training = plan.training
    return Schedule(
        learning_rate=training.learning_rate_e9 / 1e9,
        momentum=training.momentum_e6 / 1e6,
        proximal_mu=training.proximal_mu_e6 / 1e6,
        batch=training.batch_size,
        epochs=training.epochs,
        min_examples=training.min_examples,
        min_steps=training.min_local_steps,
        seed=int.from_bytes(plan_digest[:8], "big"),
    )


def _encode(offer: CheckedOffer, identity: Identity, trained: Trained) -> Words:
    """Weigh, clip, rotate and round the delta, and lay the counts beside it."""
    from bedside.core.codec import SegmentKind, encode
    from bedside.core.errors import ProtocolError
    from bedside.core.learning.weighting import Weighting, counted_examples, weigh_delta
    from bedside.core.securesum.device import rounding_key
    from bedside.core.securesum.messages import openings_digest
    from bedside.core.securesum.plans import rotation_seed
    from bedside.service.platform import SystemEntropy

    plan, training = offer.plan, offer.plan.plan.training
    known = {
        "examples": counted_examples(trained.counts.examples, training.max_examples),
        "correct": trained.counts.correct_before,
    }
    names = [segment.name for segment in plan.layout.segments if segment.kind is SegmentKind.COUNT]
    if not set(names) <= set(known):
        raise ProtocolError("unknown-count", "the plan asks for a count that this version does not know")
    weighting = Weighting(training.weighting)
    return encode(
        weigh_delta(trained.delta, weighting, trained.counts.examples, training.max_examples),
        {name: known[name] for name in names},
        plan.layout,
        rotation_seed(plan.digest, openings_digest(offer.openings)),
        rounding_key(identity.device_secret, SystemEntropy(), plan.digest),
        word_bits=plan.plan.word_bits,
    )


def _mask(job: ContributionJob, offer: CheckedOffer, identity: Identity, words: Words) -> tuple[bytes, int]:
    """Mask and sign; the words are on the disk when the header is returned."""
    from bedside.core.securesum.device import contribute
    from bedside.core.signing import sign_message
    from bedside.service.files import write_durable
    from bedside.service.platform import SystemEntropy

    contribution = contribute(
        offer.plan,
        offer.cohort,
        offer.openings,
        identity.require_credential(),
        words,
        device_secret=identity.device_secret,
        entropy=SystemEntropy(),
        sequence=job.sequence,
    )
    write_durable(Path(job.target), contribution.packed)
    signed = sign_message("header", contribution.header, identity.signing_key)
    return signed.SerializeToString(deterministic=True), len(contribution.packed)


if __name__ == "__main__":
    main()
