"""The one that moves rounds on.

It holds nothing: at every step it reads the store, decides (`judge`), commits, and wakes whoever waits. A coordinator
that was killed at any moment goes on from the same facts.

Invariants:
    * What fails in one cohort, round or task ends or delays that one; the others go on, and so does the driver.
    * What may pass, as a full disk does, decides nothing: the step is done again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from sqlalchemy import Connection

from bedside.coordinator.aggregation.opening import OpenedSum, open_stored_sum
from bedside.coordinator.aggregation.result import make_result, result_without_step, took_step
from bedside.coordinator.parts import Parts
from bedside.coordinator.rounds.judge import Crowd, Next, Patience, judge_cohort
from bedside.coordinator.rounds.plans import PlanFacts, continues_model, make_plan, previous_result
from bedside.coordinator.rounds.seal import seal_cohort
from bedside.coordinator.rounds.state import RoundState, phase_of, read_round
from bedside.coordinator.rounds.trouble import Reason, log_trouble, may_pass, reason_of
from bedside.coordinator.store import contributions, log, tasks
from bedside.coordinator.store.contributions import CohortRow
from bedside.coordinator.store.tasks import RoundRow, TaskRow
from bedside.core.errors import BedsideError, ProtocolError
from bedside.core.securesum.aggregator import CohortInput, CohortPhase, advance
from bedside.core.securesum.plans import open_plan
from bedside.core.signing import parse_strict, sign_message
from bedside.proto.v1.common_pb2 import BlobRef
from bedside.proto.v1.operator_pb2 import StartTaskRequest
from bedside.proto.v1.round_pb2 import COHORT_OUTCOME_OPENED, Result
from bedside.service.logs import event

_LOGGER: Final = logging.getLogger(__name__)
_MS_PER_S: Final = 1_000
MAX_FAILURES_IN_A_ROW: Final = 3
"""Rounds that may fail one after another before a task stops and asks for its operator."""
LOOK_AGAIN_S: Final = 1.0
"""While a round collects, who is online changes without any message: look at least so often."""
IDLE_S: Final = 60.0
STORE_RETRY_S: Final = 5.0


class Driver:
    """Moves every active task on, one step at a time."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._parked: set[bytes] = set()

    @property
    def _patience(self) -> Patience:
        config = self._parts.config
        return Patience(int(config.opening_s * _MS_PER_S), int(config.answer_s * _MS_PER_S))

    async def run(self) -> None:
        """Work for ever, whatever fails; a full disk is waited out."""
        signal = self._parts.signals.rounds
        while True:
            seen = signal.version
            try:
                wait_s = await self.step()
            except Exception as error:  # noqa: BLE001  # a driver that ended would leave every round as it is, unseen
                log_trouble("driver-waits", error)
                wait_s = STORE_RETRY_S
            await signal.wait(seen, wait_s)

    async def step(self) -> float:
        """Do everything that can be done now; seconds until it is worth looking again without news."""
        while True:
            rows = self._parts.store.run_tx("open-rounds", tasks.open_rounds)
            moved = False
            wait_s = IDLE_S
            for row in rows:
                did, round_wait_s = await self._advance_row(row)
                moved = moved or did
                wait_s = min(wait_s, round_wait_s)
            busy = {row.task for row in rows}
            moved = self._begin_rounds(busy) or moved
            if not moved:
                return wait_s
            self._wake()

    async def _advance_row(self, row: RoundRow) -> tuple[bool, float]:
        """Move one round on; a failure in it is waited out, or parks it until the next start."""
        if row.plan_digest in self._parked:
            return False, IDLE_S
        try:
            state = self._parts.store.run_tx("read-round", read_round(row, self._parts.sign_pk))
            return await self._advance_round(state)
        except Exception as error:  # noqa: BLE001  # the boundary of a round
            if may_pass(error):
                log_trouble("round-waits", error, task=row.task, round=row.number)
                return False, STORE_RETRY_S
            log_trouble("round-parked", error, task=row.task, round=row.number)
            self._fail_task(row.task, f"round {row.number} cannot go on: {reason_of(error).sentence}")
            self._parked.add(row.plan_digest)
            return True, 0.0

    async def _advance_round(self, state: RoundState) -> tuple[bool, float]:
        if state.is_settled:
            await self._finish(state)
            return True, 0.0
        wait_s = IDLE_S
        for row in state.cohorts:
            try:
                did, cohort_wait_s = await self._advance_cohort(state, row)
            except Exception as error:
                if may_pass(error):
                    raise
                self._leave_out(state, row, error)
                return True, 0.0
            if did:
                return True, 0.0
            wait_s = min(wait_s, cohort_wait_s)
        return False, wait_s

    async def _advance_cohort(self, state: RoundState, row: CohortRow) -> tuple[bool, float]:
        decision = self._judge(state, row)
        if decision.event is not None:
            await self._apply(state, row, decision)
            return True, 0.0
        wait_s = LOOK_AGAIN_S if phase_of(row) is CohortPhase.COLLECTING else IDLE_S
        if decision.deadline_ms:
            wait_s = min(wait_s, max(0.01, (decision.deadline_ms - self._parts.now_ms()) / _MS_PER_S))
        return False, wait_s

    def _leave_out(self, state: RoundState, row: CohortRow, error: Exception) -> None:
        """End a cohort that cannot go on."""
        reason = reason_of(error)
        log_trouble("cohort-failed", error, task=state.row.task, round=state.row.number, cohort=row.cohort)
        answered = phase_of(row) is CohortPhase.ANSWERED
        self._move(row, CohortInput.SUM_FAILS if answered else CohortInput.STOPPED, reason.code, reason.sentence)

    def _judge(self, state: RoundState, row: CohortRow) -> Next:
        sites = state.plan.cohort(row.cohort).sites
        crowd = Crowd(self._parts.registry.devices(sites), self._parts.roll.is_online)
        return judge_cohort(state, row, crowd, self._patience, self._parts.now_ms())

    async def _apply(self, state: RoundState, row: CohortRow, decision: Next) -> None:
        """Take one input: the commit first, what follows from it afterwards."""
        if decision.event is CohortInput.SEAL:
            work = seal_cohort(state, row, self._parts.registry, self._parts.blobs, self._parts.now_ms())
            self._parts.store.run_tx("seal-cohort", work)
            self._meter_seal(state, row)
        elif decision.event is CohortInput.SUM_HOLDS:
            await self._open_sum(state, row)
        elif decision.event is not None:
            self._move(row, decision.event, decision.code, decision.sentence)
        event(_LOGGER, "cohort-moved", task=state.row.task, round=state.row.number, cohort=row.cohort,
              input=decision.event, code=decision.code)  # fmt: skip

    def _meter_seal(self, state: RoundState, row: CohortRow) -> None:
        """Count who is in the set that was fixed, and who had begun and is not."""
        self._parts.meters.left_phase(row.phase, row.phase_since_ms, self._parts.now_ms())
        uploads = self._parts.store.run_tx(
            "sealed-uploads", lambda tx: contributions.uploads(tx, state.plan.digest, row.cohort)
        )
        sites: dict[bool, list[str]] = {True: [], False: []}
        for upload in uploads:
            device = self._parts.registry.credential(upload.credential_digest)
            if device is not None:
                sites[upload.counted].append(device.site)
        self._parts.meters.sealed(sites[True], sites[False])

    async def _open_sum(self, state: RoundState, row: CohortRow) -> None:
        opened = await asyncio.to_thread(open_stored_sum, state, row.cohort, self._parts.blobs, self._parts.running)
        self._move(row, CohortInput.SUM_HOLDS, opened=opened)

    def _move(
        self, row: CohortRow, entered: CohortInput, code: str = "", sentence: str = "", opened: OpenedSum | None = None
    ) -> None:
        phase = advance(phase_of(row), entered).value
        now_ms = self._parts.now_ms()

        def work(tx: Connection) -> None:
            if opened is not None:
                contributions.set_sum(tx, row.plan_digest, row.cohort, opened.digest, opened.size_bytes)
            contributions.set_phase(tx, row, phase, now_ms, code, sentence)

        self._parts.store.run_tx("move-cohort", work)
        self._parts.meters.left_phase(row.phase, row.phase_since_ms, now_ms)

    async def _finish(self, state: RoundState) -> None:
        """Sign the result; identical whenever it is computed, unless stored bytes are lost: then without a step."""
        before = self._optimiser_state(state, self._previous(state.row.task, state.row.number))
        lost: Reason | None = None
        try:
            result = await asyncio.to_thread(make_result, state, before, self._parts.blobs)
        except Exception as error:
            if may_pass(error):
                raise
            lost = reason_of(error)
            log_trouble("step-failed", error, task=state.row.task, round=state.row.number)
            result = result_without_step(state, before, lost.code, lost.sentence)
        signed = sign_message("result", result, self._parts.sign_key)
        now_s = self._parts.now_ms() // _MS_PER_S
        ended = self._task_after(state, result, lost)

        def work(tx: Connection) -> None:
            tasks.finish_round(tx, state.row.plan_digest, signed, now_s)
            if ended is not None:
                tasks.set_task_state(tx, state.row.task, *ended)

        self._parts.store.run_tx("finish-round", work)
        for upload in state.uploads:
            if not upload.accepted:
                self._parts.staging.drop(upload.header_digest)
        for row in state.cohorts:
            self._parts.running.forget(state.plan, row.cohort)
        event(_LOGGER, "round-finished", task=state.row.task, round=state.row.number,
              opened=sum(one.outcome == COHORT_OUTCOME_OPENED for one in result.cohorts))  # fmt: skip

    def _optimiser_state(self, state: RoundState, previous: RoundRow | None) -> BlobRef | None:
        if not continues_model(previous, state.plan.plan.bundle.digest):
            return None
        result = previous_result(previous)
        return result.optimiser_state if result is not None else None

    def _task_after(self, state: RoundState, result: Result, lost: Reason | None) -> tuple[str, str] | None:
        """How the task stands once this round has ended; None while it goes on."""
        task = self._parts.store.run_tx("read-task", lambda tx: tasks.task(tx, state.row.task))
        if task is None:
            return None
        if task.state == tasks.STOPPING:
            return tasks.STOPPED, task.reason
        if lost is not None:
            return tasks.FAILED, lost.sentence
        stepped = took_step(result)
        refused = [row for row in state.cohorts if self._was_refused(state, row)]
        reason = result.no_step_sentence or (refused or list(state.cohorts))[0].sentence
        if not stepped and (refused or self._failures_before(task, state.row.number) + 1 >= MAX_FAILURES_IN_A_ROW):
            return tasks.FAILED, reason
        if state.row.number >= task.last_round:
            return (tasks.FINISHED, "") if stepped else (tasks.FAILED, reason)
        return None

    @staticmethod
    def _was_refused(state: RoundState, row: CohortRow) -> bool:
        """A rule said no: asking again changes nothing."""
        trustees = state.trustees(row.cohort)
        return row.code in ("ring-overflow", "noise-too-large") or any(
            state.refusal(row.cohort, trustee) is not None for trustee in trustees
        )

    def _failures_before(self, task: TaskRow, number: int) -> int:
        rows = self._parts.store.run_tx("recent-rounds", lambda tx: tasks.rounds(tx, task.task, MAX_FAILURES_IN_A_ROW))
        count = 0
        for row in rows:
            result = previous_result(row) if row.number < number and row.result else None
            if result is None:
                continue
            if took_step(result):
                break
            count += 1
        return count

    def _begin_rounds(self, busy: set[str]) -> bool:
        began = False
        for task in self._parts.store.run_tx("active-tasks", tasks.active_tasks):
            if task.task not in busy:
                began = True
                self._begin(task)
        return began

    def _begin(self, task: TaskRow) -> None:
        store = self._parts.store
        previous = store.run_tx("last-round", lambda tx: tasks.round_of_task(tx, task.task))
        if task.state == tasks.STOPPING or (previous is not None and previous.number >= task.last_round):
            store.run_tx("end-task", lambda tx: tasks.set_task_state(tx, task.task, tasks.STOPPED, task.reason))
            return
        try:
            self._plan(task, previous)
        except Exception as error:
            if may_pass(error):
                raise
            log_trouble("plan-failed", error, task=task.task)
            reason = error.diagnostics() if isinstance(error, BedsideError) else reason_of(error).sentence
            self._fail_task(task.task, reason)

    def _fail_task(self, task: str, reason: str) -> None:
        self._parts.store.run_tx("fail-task", lambda tx: tasks.set_task_state(tx, task, tasks.FAILED, reason))

    def _plan(self, task: TaskRow, previous: RoundRow | None) -> None:
        now_ms = self._parts.now_ms()
        key = self._parts.sign_key

        def work(tx: Connection) -> int:
            bundle = tasks.bundle(tx, parse_strict(StartTaskRequest, task.request).bundle_digest)
            if bundle is None:
                raise ProtocolError(
                    "no-bundle", f"the bundle of task {task.task} is not here", remedy="import it again"
                )
            size = log.size(tx)
            facts = PlanFacts(task, bundle, previous, size, log.root(tx, size), now_ms // _MS_PER_S)
            plan = make_plan(facts, self._parts.registry)
            checked = open_plan(sign_message("plan", plan, key), bytes(key.verify_key))
            envelope = checked.signed.SerializeToString(deterministic=True)
            row = RoundRow(checked.digest, plan.task, plan.round_number, envelope, now_ms // _MS_PER_S, 0, None)
            tasks.put_round(tx, row)
            for cohort in plan.cohorts:
                contributions.put_cohort(tx, checked.digest, cohort.index, CohortPhase.OPENING.value, now_ms)
            return plan.round_number

        number = self._parts.store.run_tx("plan-round", work)
        event(_LOGGER, "round-planned", task=task.task, round=number)

    def _previous(self, task: str, number: int) -> RoundRow | None:
        if number <= 1:
            return None
        return self._parts.store.run_tx("previous-round", lambda tx: tasks.round_of_task(tx, task, number - 1))

    def _wake(self) -> None:
        signals = self._parts.signals
        for signal in (signals.offers, signals.work, signals.rounds):
            signal.bump()
