"""The part of a round that trains: from a plan that was taken to words in the outbox, or to a reason why not.

Source: DESIGN section 5, step 3.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from bedside.agent.rounds.contribution import ROUND_PREFIX, ContributionJob, ContributionOutcome, make_contribution
from bedside.agent.rounds.journal import Contribution, Journal, KeptRow, OutboxRow
from bedside.agent.rounds.link import CoordinatorLink
from bedside.agent.rounds.models import ModelStore
from bedside.agent.rounds.offer import Standing, check_plan, judge_again
from bedside.agent.rounds.outbox import Outbox
from bedside.agent.rounds.refusals import Refusals
from bedside.agent.rounds.settings import RoundSettings
from bedside.agent.rounds.slots import ActiveModel
from bedside.agent.training.saved import discard_trainings
from bedside.agent.training.trainer import WAITS, Trainer
from bedside.core.clock import Clock
from bedside.core.errors import (
    BedsideError,
    MalformedError,
    ProtocolError,
    RefusedError,
    StoreError,
    TrustError,
    UnavailableError,
)
from bedside.core.securesum.device import ContributionState
from bedside.ondevice.runtimes.installed import is_installed
from bedside.proto.v1.device_pb2 import Offer
from bedside.service.identity import Identity, SequenceNumbers
from bedside.service.logs import event
from bedside.service.platform import local_minute
from bedside.service.policy_file import read_policy

_LOGGER = logging.getLogger(__name__)

JUDGEMENTS: Final = (RefusedError, TrustError, MalformedError, ProtocolError)
"""Errors that end a plan for this device; others pass by."""
DISK_PAUSE_S: Final = 60.0
"""Seconds until a training is tried again that the disk refused: by then somebody, or retention, may have made room."""
_NS_PER_S: Final = 1_000_000_000

Report = Callable[[str, BedsideError | None], None]
"""Takes the component (`link` or `trainer`) and what is wrong with it, None when nothing is."""


def standing_of(identity: Identity, policy_path: Path) -> Standing:
    """Who we are and by what we judge, read again: a site may change its policy at any time."""
    pins = identity.pins
    return Standing(
        root_pk=bytes.fromhex(pins.root_pk),
        authority_pk=bytes.fromhex(pins.authority_pk),
        credential=identity.require_credential(),
        policy=read_policy(policy_path).policy,
        local_minute=local_minute,
    )


def task_of(contribution: Contribution) -> str:
    """The name of a contribution's training."""
    return f"{ROUND_PREFIX}{contribution.plan_digest.hex()}"


class Contributor:
    """Trains for one device's rounds; see `RoundClient` for what it takes."""

    def __init__(
        self,
        settings: RoundSettings,
        identity: Identity,
        journal: Journal,
        models: ModelStore,
        link: CoordinatorLink,
        sequence: SequenceNumbers,
        trainer: Trainer,
        outbox: Outbox,
        refusals: Refusals,
        *,
        clock: Clock,
        on_model: Callable[[ActiveModel], Awaitable[Sequence[str]]],
        report: Report,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._journal = journal
        self._models = models
        self._link = link
        self._sequence = sequence
        self._trainer = trainer
        self._outbox = outbox
        self._refusals = refusals
        self._clock = clock
        self._on_model = on_model
        self._report = report
        self._not_before_s = 0.0

    def discard_stale(self) -> None:
        """Remove unfinished trainings of plans that are over: at a start, before anything trains."""
        open_ones = self._journal.open_contributions()
        keep = frozenset(task_of(one) for one in open_ones if one.state is ContributionState.TRAINING)
        for task in discard_trainings(self._settings.state_dir, ROUND_PREFIX, keep):
            event(_LOGGER, "training-discarded", task=task)

    async def train(self, contribution: Contribution) -> None:
        """Train for a plan that was taken, or go on; or give it up, or leave it for a later step.

        Where the disk refuses, the plan waits, and everything else of the link goes on.

        Raises:
            UnavailableError: the link broke; nothing is lost.
            StoreError: the journal cannot be written.
        """
        offer = Offer.FromString(contribution.offer)
        try:
            judge_again(offer, self._standing(), now_s=self._clock.now_ns() // _NS_PER_S)
        except JUDGEMENTS as error:
            self._give_up(contribution, error, judged=True)
            return
        if self._clock.monotonic_s() < self._not_before_s:
            return
        try:
            await self._contribute(contribution, offer)
            self._report("trainer", None)
        except StoreError as error:
            self._report("trainer", error)
            self._not_before_s = self._clock.monotonic_s() + DISK_PAUSE_S
            event(_LOGGER, "training-refused-by-disk", level=logging.WARNING, error=error)
        except JUDGEMENTS as error:
            self._report("trainer", None if isinstance(error, RefusedError) else error)
            self._give_up(contribution, error)
        except UnavailableError as error:
            if error.code == WAITS:
                self._report("trainer", None)
                return
            if error.code not in ("child-died", "child-timeout"):
                raise
            self._report("trainer", error)
            self._give_up(contribution, error)

    def _give_up(self, contribution: Contribution, error: BedsideError, *, judged: bool = False) -> None:
        self._refusals.decline(contribution, error, judged=judged)
        self._trainer.done(task_of(contribution))

    async def _contribute(self, contribution: Contribution, offer: Offer) -> None:
        """Fetch the model, serve it, train, and commit header and outbox row."""
        standing = self._standing()
        plan = check_plan(offer, standing, self._journal.seen(), now_s=None).plan
        named = plan.plan
        model = await self._models.fetch(
            offer.manifest.payload, named.bundle_tar_digest, named.checkpoint, standing.policy, self._link.get_blob
        )
        streams = await self._on_model(model)
        if not self._settings.training.enabled:
            raise RefusedError("training-disabled", "this device only infers; its configuration says so")
        if not is_installed("onnx"):
            raise RefusedError("training-impossible", "this device only infers: onnxruntime is not installed on it")
        if self._clock.now_ns() // _NS_PER_S > named.close_at_s:
            raise RefusedError("round-closed", "the round had closed before this device could train")
        task = task_of(contribution)
        self._trainer.check(task)
        freed = self._journal.freed(contribution.task)
        job = self._job(contribution, task, model, streams, freed)
        erasures, own = self._journal.erasures(), self._models.personal
        before = own.erasures if own is not None else 0
        outcome = await make_contribution(self._trainer, job, named.close_at_s)
        if self._journal.erasures() != erasures:  # nothing of it is used; the next step trains on what is left
            for path in (job.target, job.kept):
                self._outbox.discard(Path(path).name)
            if own is not None:
                own.discard_pending(task)
            self._trainer.done(task)
            event(_LOGGER, "training-discarded", task=task)
            return
        if outcome.far:
            event(_LOGGER, "labels-too-far-off", level=logging.WARNING, task=task, windows=outcome.far)
        if own is not None:  # a crash before the commit trains once more, from these
            own.adopt(task, "local", model.bundle, before)
        self._commit(contribution, job, outcome, freed)
        self._trainer.done(task)

    def _job(
        self,
        contribution: Contribution,
        task: str,
        model: ActiveModel,
        streams: Sequence[str],
        freed: KeptRow | None,
    ) -> ContributionJob:
        directory, plan_digest = self._outbox.directory, contribution.plan_digest
        return ContributionJob(
            offer=contribution.offer,
            identity_dir=str(self._identity.directory),
            state_dir=str(self._settings.state_dir),
            model=model,
            streams=tuple(streams),
            hold_out=self._settings.hold_out,
            target=str(directory / Outbox.name_for(plan_digest)),
            kept=str(directory / Outbox.kept_name_for(plan_digest)),
            freed=str(directory / freed.file) if freed is not None else "",
            sequence=self._sequence.next(),
            task=task,
        )

    def _commit(
        self, contribution: Contribution, job: ContributionJob, outcome: ContributionOutcome, freed: KeptRow | None
    ) -> None:
        """Header, outbox row and kept delta in one transaction."""
        plan_digest = contribution.plan_digest
        row = OutboxRow(plan_digest, outcome.header, Path(job.target).name, outcome.size_bytes)
        reused = freed is not None and outcome.reused
        kept = KeptRow(plan_digest, freed.file if freed is not None and reused else Path(job.kept).name)
        self._journal.commit_upload(row, kept, freed, now_ns=self._clock.now_ns())
        if freed is not None and not reused:
            self._outbox.discard(freed.file)
        event(_LOGGER, "contribution-ready", task=contribution.task, round=contribution.round_number, reused=reused)

    def _standing(self) -> Standing:
        return standing_of(self._identity, self._settings.policy_path)
