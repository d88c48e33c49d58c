"""Starting and stopping tasks."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from bedside.coordinator.parts import Parts
from bedside.coordinator.rounds.plans import cohort_groups, plan_layout
from bedside.coordinator.rounds.state import phase_of, read_open_rounds
from bedside.coordinator.store import contributions, tasks
from bedside.coordinator.store.tasks import BundleRow, TaskRow
from bedside.core.bundle.manifest import decode_manifest
from bedside.core.errors import MalformedError, ProtocolError
from bedside.core.ids import check_id
from bedside.core.learning.combiners import combiner_of
from bedside.core.learning.optimisers import server_optimiser
from bedside.core.limits import MAX_CLOSE_AHEAD_S, MAX_CONTRIBUTORS, MAX_NOISE_MULTIPLIER
from bedside.core.privacy import ONE_E6
from bedside.core.securesum.aggregator import COHORT, CohortInput, advance
from bedside.core.signing import parse_strict
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.operator_pb2 import StartTaskRequest, StopTaskRequest, TaskStarted

MAX_ROUNDS: Final = 100_000
"""Rounds of one start: a slip of a key must not run for years."""
_MS_PER_S: Final = 1_000


class Tasks:
    """What operators ask for."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def start(self, request: StartTaskRequest) -> TaskStarted:
        """Start a task, or go on with an ended one: round numbers never begin again.

        Raises:
            ProtocolError: `no-bundle`, or `task-running`.
            MalformedError: `bad-task`, `bad-id`, `bad-layout`, `bad-optimiser` or `bad-combiner`, when no plan could be
                made of it.
        """
        check_id(request.task, "task")
        bundle = self._parts.store.run_tx("read-bundle", lambda tx: tasks.bundle(tx, request.bundle_digest))
        if bundle is None:
            raise ProtocolError("no-bundle", "this bundle was not imported", remedy="name it with --bundle")
        _check(request, bundle, len(cohort_groups(request.cohorts, self._parts.registry)))
        now_s = self._parts.now_ms() // _MS_PER_S

        def work(tx: Connection) -> int:
            known = tasks.task(tx, request.task)
            if known is not None and known.state in (tasks.RUNNING, tasks.STOPPING):
                raise ProtocolError(
                    "task-running",
                    f"task {request.task} is running",
                    remedy=f"wait for its end, or bedside round stop --task {request.task}",
                )
            last = tasks.round_of_task(tx, request.task)
            first = last.number + 1 if last is not None else 1
            asked = request.SerializeToString(deterministic=True)
            tasks.put_task(tx, TaskRow(request.task, asked, first + request.rounds - 1, tasks.RUNNING, "", now_s))
            return first

        first = self._parts.store.run_tx("start-task", work)
        self._parts.signals.rounds.bump()
        return TaskStarted(task=request.task, first_round=first)

    def stop(self, request: StopTaskRequest) -> None:
        """Stop a task after its open round, or close that round as well.

        Raises:
            ProtocolError: `no-task` or `task-ended`.
        """
        now_ms = self._parts.now_ms()

        def work(tx: Connection) -> None:
            known = tasks.task(tx, request.task)
            if known is None:
                raise ProtocolError("no-task", f"no task {request.task[:64]!r} is known", remedy="bedside round list")
            if known.state not in (tasks.RUNNING, tasks.STOPPING):
                raise ProtocolError(
                    "task-ended",
                    f"task {request.task} has ended already: {known.state}",
                    remedy=f"bedside round list --task {request.task}",
                )
            if known.state == tasks.RUNNING:
                tasks.set_task_state(tx, request.task, tasks.STOPPING, "stopped by the operator")
            if request.at_once:
                _close_round(tx, request.task, self._parts.sign_pk, now_ms)

        self._parts.store.run_tx("stop-task", work)
        self._parts.signals.rounds.bump()


def _close_round(tx: Connection, task: str, coordinator_pk: bytes, now_ms: int) -> None:
    for state in read_open_rounds(coordinator_pk)(tx):
        for row in state.cohorts:
            phase = phase_of(row)
            if state.row.task == task and COHORT.accepts(phase, CohortInput.STOPPED):
                after = advance(phase, CohortInput.STOPPED).value
                contributions.set_phase(tx, row, after, now_ms, "stopped", "the operator stopped the round")


def _check(request: StartTaskRequest, bundle: BundleRow, cohorts: int) -> None:
    """Refuse now what would fail at the first plan."""
    training = request.training
    _require(1 <= request.rounds <= MAX_ROUNDS, f"a task has 1 to {MAX_ROUNDS} rounds")
    _require(1 <= request.collect_s <= MAX_CLOSE_AHEAD_S, "a round collects for 1 second to 7 days")
    least, most = request.min_contributors, request.max_contributors or MAX_CONTRIBUTORS
    _require(1 <= least <= most <= MAX_CONTRIBUTORS, "the numbers of contributors are out of bounds")
    _require(training.epochs >= 1 and training.batch_size >= 1, "training needs at least one epoch and one example")
    _require(training.max_examples >= max(1, training.min_examples), "max_examples is below min_examples")
    most_e6 = MAX_NOISE_MULTIPLIER * ONE_E6
    _require(request.noise_multiplier_e6 <= most_e6, f"the noise multiplier is 0 to {MAX_NOISE_MULTIPLIER}")
    _require(training.level != 0 and training.weighting != 0, "training names no level or no weighting")
    manifest = decode_manifest(parse_strict(Signed, bundle.manifest).payload)
    plan_layout(manifest, request)
    server = request.server
    server_optimiser(
        server.optimiser,
        learning_rate_e6=server.learning_rate_e6,
        beta1_e6=server.beta1_e6,
        beta2_e6=server.beta2_e6,
        tau_e9=server.tau_e9,
    )
    combiner_of(server.combiner, server.trim_cohorts, cohorts, request.subsample_e32)


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise MalformedError("bad-task", sentence, remedy="see bedside round start --help")
