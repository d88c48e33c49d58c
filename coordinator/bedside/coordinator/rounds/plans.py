"""Making the plan of a task's next round.

Nothing in a plan differs between devices. The round number grows by one within the task, the previous result is named
by its digest, and the log's size and root commit to everything that was planned and published before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bedside.coordinator.enrolment.registry import Registry
from bedside.coordinator.store.tasks import BundleRow, RoundRow, TaskRow
from bedside.core.bundle.manifest import Manifest, decode_manifest
from bedside.core.codec.layout import Layout
from bedside.core.errors import ProtocolError, RefusedError
from bedside.core.learning.plan_graph import plan_graph
from bedside.core.learning.schedule import half_cosine
from bedside.core.learning.training_layout import ValueTerms, narrowest_ring, training_layout
from bedside.core.limits import MAX_TRUSTEES
from bedside.core.privacy import noise_tails
from bedside.core.securesum.plans import READER_VERSION, layout_message
from bedside.core.signing import digest, parse_strict
from bedside.core.signing.envelope import SUITE
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.common_pb2 import BlobRef, Signed
from bedside.proto.v1.operator_pb2 import StartTaskRequest
from bedside.proto.v1.round_pb2 import Result


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What a plan is made from.

    Attributes:
        task: what the operator asked for.
        bundle: the model.
        previous: the task's last round, finished; None before the first.
        log_size: entries of the log.
        log_root: their root; the plan's own entry is the next.
        now_s: seconds since 1970.
    """

    task: TaskRow
    bundle: BundleRow
    previous: RoundRow | None
    log_size: int
    log_root: bytes
    now_s: int


def make_plan(facts: PlanFacts, registry: Registry) -> plan_pb2.Plan:
    """Return the next plan of a task.

    Raises:
        RefusedError: `no-trustee` when a site has none, or `no-site`.
        ProtocolError: `ring-overflow` or `noise-too-large` when no ring holds the sum.
    """
    request = parse_strict(StartTaskRequest, facts.task.request)
    manifest = decode_manifest(parse_strict(Signed, facts.bundle.manifest).payload)
    layout = plan_layout(manifest, request)
    cohorts = plan_cohorts(request.cohorts, registry)
    most = request.max_contributors or _largest_crowd(cohorts, request.min_contributors, registry)
    previous = previous_result(facts.previous)
    number = facts.previous.number + 1 if facts.previous else 1
    return plan_pb2.Plan(
        suite=SUITE,
        min_reader_version=READER_VERSION,
        federation=registry.federation.federation,
        task=facts.task.task,
        round_number=number,
        previous_result_digest=digest(_result_envelope(facts.previous).payload) if facts.previous else b"",
        log_size=facts.log_size,
        log_root=facts.log_root,
        purpose=plan_pb2.PURPOSE_TRAIN,
        bundle=BlobRef(digest=facts.bundle.digest, size_bytes=facts.bundle.tar_bytes),
        bundle_tar_digest=facts.bundle.tar_digest,
        checkpoint=_checkpoint(facts, previous),
        training=_training(request, number - (facts.task.last_round - request.rounds)),
        layout=layout_message(layout),
        word_bits=request.word_bits or narrowest_ring(layout, most, _noise_tails(layout, cohorts, request)),
        cohorts=cohorts,
        min_contributors=request.min_contributors,
        max_contributors=most,
        noise=plan_pb2.Noise(noise_multiplier_e6=request.noise_multiplier_e6),
        issued_at_s=facts.now_s,
        close_at_s=facts.now_s + request.collect_s,
        server=request.server,
        subsample_e32=request.subsample_e32,
    )


def _training(request: StartTaskRequest, nth: int) -> plan_pb2.Training:
    """The local work of the nth of the rounds that were asked for, at its own learning rate."""
    training = plan_pb2.Training()
    training.CopyFrom(request.training)
    if request.final_learning_rate_e9:
        first, last = request.training.learning_rate_e9, request.final_learning_rate_e9
        training.learning_rate_e9 = round(half_cosine(first, last, nth, request.rounds))
    return training


def plan_layout(manifest: Manifest, request: StartTaskRequest) -> Layout:
    """The vector of a training plan: the shared tensors that it trains, those that devices observe, and two counts.

    Raises:
        RefusedError: `no-such-graph`.
    """
    graph = plan_graph(request.training, manifest)
    if graph is None:
        raise RefusedError(
            "no-such-graph",
            "the bundle has no training graph for this level, optimiser and suffix",
            remedy="ask for one that `bedside model inspect` shows, or have the bundle built with it",
        )
    terms = ValueTerms(request.clip_e6, request.value_bits, request.subsample_e32)
    return training_layout(manifest.shared(graph.suffix), terms, request.training.max_examples)


def plan_cohorts(asked: Sequence[plan_pb2.Cohort], registry: Registry) -> list[plan_pb2.Cohort]:
    """The cohorts that were asked for, with their trustees; by default all sites together, up to five to a cohort.

    Raises:
        RefusedError: `no-site` or `no-trustee`.
    """
    if not registry.sites:
        raise RefusedError("no-site", "the federation names no site", remedy="bedside federation sign --site ...")
    groups = cohort_groups(asked, registry)
    return [
        plan_pb2.Cohort(index=index, sites=sites, trustees=[_trustee(site, registry) for site in sites[:MAX_TRUSTEES]])
        for index, sites in enumerate(groups)
    ]


def _noise_tails(layout: Layout, cohorts: Sequence[plan_pb2.Cohort], request: StartTaskRequest) -> list[int]:
    """Of the cohort with the most trustees; noise that sites add beyond what is asked is not known here."""
    return noise_tails(layout, [request.noise_multiplier_e6] * max(len(cohort.trustees) for cohort in cohorts))


def cohort_groups(asked: Sequence[plan_pb2.Cohort], registry: Registry) -> list[list[str]]:
    """The sites of each cohort: as asked for, or all sites in groups of up to five."""
    return [list(cohort.sites) for cohort in asked] or _even_groups(registry.sites)


def previous_result(row: RoundRow | None) -> Result | None:
    """The result of the last round."""
    return parse_strict(Result, _result_envelope(row).payload) if row is not None else None


def continues_model(previous: RoundRow | None, bundle_digest: bytes) -> bool:
    """Whether the last round trained the same bundle, so that its checkpoint and optimiser state go on."""
    if previous is None:
        return False
    plan = parse_strict(plan_pb2.Plan, parse_strict(Signed, previous.plan).payload)
    return plan.bundle.digest == bundle_digest


def _checkpoint(facts: PlanFacts, previous: Result | None) -> BlobRef:
    if previous is not None and continues_model(facts.previous, facts.bundle.digest):
        return previous.checkpoint
    return BlobRef(digest=facts.bundle.checkpoint_digest, size_bytes=facts.bundle.checkpoint_bytes)


def _result_envelope(row: RoundRow) -> Signed:
    if row.result is None:
        raise ProtocolError("round-open", f"round {row.number} of {row.task} has no result yet")
    return parse_strict(Signed, row.result)


def _trustee(site: str, registry: Registry) -> plan_pb2.CohortTrustee:
    trustee = registry.trustee(site)
    if trustee is None:
        raise RefusedError(
            "no-trustee",
            f"site {site} has no trustee on its roster",
            remedy="start the site's trustee once it is enrolled, or name cohorts without that site",
        )
    return plan_pb2.CohortTrustee(site=site, trustee=trustee.credential.subject, credential_digest=trustee.digest)


def _largest_crowd(cohorts: Sequence[plan_pb2.Cohort], least: int, registry: Registry) -> int:
    return max(least, *(len(registry.devices(cohort.sites)) for cohort in cohorts))


def _even_groups(sites: Sequence[str]) -> list[list[str]]:
    count = math.ceil(len(sites) / MAX_TRUSTEES)
    return [list(sites[at::count]) for at in range(count)]
