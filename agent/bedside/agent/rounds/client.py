"""The rounds loop: ask for an offer, judge it, contribute once, upload until it arrived, believe the receipt.

It never gives up by time: whatever is committed waits for the coordinator, for days if need be, and the loop only
waits longer between attempts. Nothing in it can stop ingest or inference, which run beside it.

Source: DESIGN section 5; promises 2, 5 and 6.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from bedside.agent.rounds.contributor import JUDGEMENTS, Contributor, Report, standing_of
from bedside.agent.rounds.journal import Contribution, Journal, OutboxRow
from bedside.agent.rounds.kept import MAX_AGE_ROUNDS
from bedside.agent.rounds.link import CoordinatorLink
from bedside.agent.rounds.models import ModelStore
from bedside.agent.rounds.offer import SignedPlan, Standing, check_offer, check_plan, is_signed, judge_again
from bedside.agent.rounds.outbox import Outbox
from bedside.agent.rounds.receipts import check_receipt
from bedside.agent.rounds.refusals import Refusals
from bedside.agent.rounds.results import CheckedResult, check_result
from bedside.agent.rounds.settings import RoundSettings
from bedside.agent.rounds.slots import ActiveModel
from bedside.agent.rounds.upload import send_upload, upload_holds
from bedside.agent.training.trainer import Trainer
from bedside.core.clock import Clock, Entropy
from bedside.core.errors import BedsideError, MalformedError, ProtocolError, RefusedError, TrustError, UnavailableError
from bedside.core.securesum.device import ContributionInput, ContributionState
from bedside.core.signing import digest, parse_strict
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.device_pb2 import Offer, OfferRequest
from bedside.proto.v1.round_pb2 import Receipt
from bedside.service.identity import Identity, SequenceNumbers
from bedside.service.link.channel import Backoff
from bedside.service.link.errors import unexpected
from bedside.service.logs import event
from bedside.service.text import bounded

_LOGGER = logging.getLogger(__name__)

_FIRST_RETRY_S: Final = 0.5
_LONGEST_RETRY_S: Final = 30.0
_SHORTEST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 60.0
"""Seconds between two questions for an offer, whatever pace the coordinator asks for."""
_MAX_OPEN_RECEIPTS: Final = 64
_AGAIN: Final = frozenset({"upload-gap", "unknown-upload"})
"""Refusals of bytes, not of the upload: it begins again where the coordinator stands."""
_TURNED_AWAY: Final = frozenset({"round-closed", "round-full"})
"""Refusals of an upload that say nothing about whether the delta was used."""
_NS_PER_S: Final = 1_000_000_000


class RoundClient:
    """One device's loop. Use from one event loop.

    Args:
        settings: of the device.
        identity: its keys and pins.
        journal: opened by the caller, who closes it.
        models: bundles and checkpoints.
        link: to the coordinator.
        sequence: the process's one counter of signed messages.
        trainer: the device's.
        on_model: awaited when a verified model is here that should serve; returns the streams that it reads.
        report: called when link or trainer change.
    """

    def __init__(
        self,
        settings: RoundSettings,
        identity: Identity,
        journal: Journal,
        models: ModelStore,
        link: CoordinatorLink,
        sequence: SequenceNumbers,
        trainer: Trainer,
        *,
        clock: Clock,
        entropy: Entropy,
        on_model: Callable[[ActiveModel], Awaitable[Sequence[str]]],
        report: Report,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._journal = journal
        self._models = models
        self._link = link
        self._sequence = sequence
        self._clock = clock
        self._entropy = entropy
        self._on_model = on_model
        self._report = report
        self._outbox = Outbox(settings.state_dir)
        self._refusals = Refusals(identity, journal, sequence, clock)
        self._contributor = Contributor(
            settings, identity, journal, models, link, sequence, trainer, self._outbox, self._refusals,
            clock=clock, on_model=on_model, report=report,
        )  # fmt: skip
        self._known_result = b""
        self._refused = False
        self._patience = Backoff(entropy, first_s=_FIRST_RETRY_S, cap_s=_LONGEST_RETRY_S)

    async def run(self) -> None:
        """Loop until cancelled."""
        for name in self._outbox.remove_orphans(self._journal):
            event(_LOGGER, "orphan-removed", file=name)
        self._contributor.discard_stale()
        backoff = Backoff(self._entropy, first_s=_FIRST_RETRY_S, cap_s=_LONGEST_RETRY_S)
        while True:
            try:
                wait_s = await self.step()
                backoff.reset()
                self._report("link", None)
            except BedsideError as error:
                self._report("link", error)
                event(_LOGGER, "round-waits", level=logging.WARNING, error=error)
                wait_s = backoff.next_s()
            except Exception as error:
                self._report("link", unexpected(error))
                _LOGGER.exception("round-failed")
                wait_s = backoff.next_s()
            await asyncio.sleep(wait_s)

    async def step(self) -> float:
        """Do everything that can be done now, then ask once; returns how many seconds to wait before the next step.

        Raises:
            UnavailableError: the link broke; nothing is lost.
            BedsideError: the coordinator refuses this device for now, or the disk does.
        """
        await self._refusals.send(self._link)
        for contribution in self._journal.open_contributions():
            await self._continue(contribution)
        await self._refusals.send(self._link)  # what was declined just now: the round waits for that word
        newest = self._journal.newest()
        waiting = [item for item in self._journal.open_contributions() if item.state is not ContributionState.TRAINING]
        request = OfferRequest(
            known_plan_digest=newest.plan_digest if newest is not None else b"",
            wait_ms=self._settings.poll_wait_ms,
            open_plan_digests=[item.plan_digest for item in waiting[-_MAX_OPEN_RECEIPTS:]],
            known_result_digest=self._known_result,
        )
        self._refused = False
        offer = await self._link.get_offer(request)
        for receipt in offer.receipts:
            self._take_receipt(receipt)
        if offer.HasField("result") and await self._take_result(offer):
            return _SHORTEST_PAUSE_S  # a plan may already wait behind it
        if offer.HasField("plan") and await self._consider(offer):
            return _SHORTEST_PAUSE_S
        pause_s = min(max(offer.next_call_ms / 1000, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)
        if self._refused:  # whoever offers what does not hold is asked ever more rarely
            return max(pause_s, self._patience.next_s())
        self._patience.reset()
        return pause_s

    async def _consider(self, offer: Offer) -> bool:
        """Judge an offer and remember the verdict; False when it was dealt with before."""
        plan_digest = digest(offer.plan.payload)
        if self._journal.find(plan_digest) is not None:
            return False
        signed_plan: SignedPlan | None = None
        seen = self._journal.seen()
        now_s = self._clock.now_ns() // _NS_PER_S
        try:
            standing = self._standing()
            signed_plan = check_plan(offer, standing, seen, now_s=now_s)
            checked = check_offer(offer, signed_plan, standing, now_s=now_s)
        except BedsideError as error:
            if signed_plan is None and not is_signed(offer, bytes.fromhex(self._identity.pins.root_pk)):
                raise  # whoever sends such a plan is not worth a row
            self._refusals.refuse(offer, signed_plan, error)
            return True
        plan = checked.plan.plan
        contribution = Contribution(
            plan_digest,
            plan.task,
            plan.round_number,
            ContributionState.TRAINING,
            offer.SerializeToString(deterministic=True),
            "",
            "",
        )
        self._journal.accept(contribution, checked.seen, now_ns=self._clock.now_ns())
        event(_LOGGER, "plan-accepted", task=plan.task, round=plan.round_number)
        for sentence in checked.notes:
            event(_LOGGER, "rule-not-judged", level=logging.WARNING, why=sentence)
        return True

    async def _continue(self, contribution: Contribution) -> None:
        if contribution.state is ContributionState.TRAINING:
            await self._contributor.train(contribution)
        current = self._journal.find(contribution.plan_digest)
        if current is not None and current.state is ContributionState.READY:
            await self._upload(current)

    async def _upload(self, contribution: Contribution) -> None:
        row = self._journal.outbox(contribution.plan_digest)
        if row is None:
            raise ProtocolError("no-outbox-row", "a contribution that is ready has no row in the outbox")
        try:
            judge_again(Offer.FromString(contribution.offer), self._standing(), now_s=None)
        except JUDGEMENTS as error:
            self._refusals.withdraw(contribution, error)
            self._finish(contribution, ContributionInput.CLOSED, error.code, error.sentence)
            return
        header = parse_strict(Signed, row.header)
        path = self._outbox.path_of(row)
        try:
            await send_upload(self._link, header, path, row.size_bytes)
        except (ProtocolError, RefusedError, MalformedError) as error:
            if error.code.startswith("peer-"):
                raise  # a proxy or another version spoke, not the round: the bytes go on waiting
            if error.code in _AGAIN or (error.code == "upload-digest" and await upload_holds(path, header)):
                raise UnavailableError("upload-again", error.sentence, remedy=error.remedy) from error
            if error.code in _TURNED_AWAY:
                self._turn_away(contribution, row, error)
                return
            self._finish(contribution, ContributionInput.CLOSED, error.code, error.sentence)
            return
        self._journal.mark_sent(contribution.plan_digest, now_ns=self._clock.now_ns())
        self._outbox.discard(row.file)
        event(_LOGGER, "contribution-sent", task=contribution.task, round=contribution.round_number)

    def _turn_away(self, contribution: Contribution, row: OutboxRow, error: BedsideError) -> None:
        """Too late for this round, says the coordinator; whether the delta is free is for the own trustee to say."""
        self._journal.turn_away(
            contribution.plan_digest, now_ns=self._clock.now_ns(), code=error.code, sentence=bounded(error.sentence)
        )
        self._outbox.discard(row.file)
        event(_LOGGER, "contribution-turned-away", task=contribution.task, round=contribution.round_number,
              code=error.code)  # fmt: skip

    async def _take_result(self, offer: Offer) -> bool:
        """Serve the newest checkpoint of a task, also when no plan follows; after a broken link, with a later offer.

        True when a checkpoint serves that did not before.
        """
        served = False
        standing = self._standing()
        try:
            checked = check_result(offer, standing, self._journal.seen(), lost=self._models.lost)
        except (TrustError, MalformedError, RefusedError) as error:
            self._refuse_result(error)
            checked = None
        try:
            if checked is not None:
                served = await self._serve_result(offer, checked, standing)
        except (TrustError, MalformedError, RefusedError) as error:
            self._refuse_result(error)
        self._known_result = digest(offer.result.payload)
        return served

    async def _serve_result(self, offer: Offer, checked: CheckedResult, standing: Standing) -> bool:
        model = await self._models.fetch(
            offer.manifest.payload, checked.tar, checked.result.checkpoint, standing.policy, self._link.get_blob
        )
        await self._on_model(model)
        self._journal.remember(checked.seen)
        self._forget_stale(checked.result.task, checked.result.round_number)
        event(_LOGGER, "model-updated", task=checked.result.task, round=checked.result.round_number)
        return True

    def _refuse_result(self, error: BedsideError) -> None:
        self._refused = True
        event(_LOGGER, "result-refused", level=logging.WARNING, error=error)

    def _forget_stale(self, task: str, round_number: int) -> None:
        """A freed delta that no plan after this result could take goes."""
        freed = self._journal.freed(task)
        contribution = self._journal.find(freed.plan_digest) if freed is not None else None
        if contribution is not None and contribution.round_number + MAX_AGE_ROUNDS <= round_number:
            self._finish(contribution, ContributionInput.SUPERSEDED, "superseded", "a newer model is here")

    def _take_receipt(self, receipt: Receipt) -> None:
        contribution = self._journal.find(receipt.plan_digest)
        if contribution is None or not contribution.offer:
            return
        row = self._journal.outbox(receipt.plan_digest)
        header_digest = digest(parse_strict(Signed, row.header).payload) if row is not None else None
        offer = Offer.FromString(contribution.offer)
        try:
            outcome = check_receipt(receipt, offer, self._standing(), self._journal.seen(), header_digest=header_digest)
        except BedsideError as error:
            event(_LOGGER, "receipt-refused", level=logging.WARNING, error=error)
            return
        self._journal.remember(outcome.seen)
        self._finish(contribution, outcome.event, outcome.code, outcome.sentence)

    def _finish(self, contribution: Contribution, event_: ContributionInput, code: str, sentence: str) -> None:
        row, kept = self._journal.outbox(contribution.plan_digest), self._journal.kept(contribution.plan_digest)
        self._journal.finish(
            contribution.plan_digest, event_, now_ns=self._clock.now_ns(), code=code, sentence=bounded(sentence)
        )
        if row is not None:
            self._outbox.discard(row.file)
        if kept is not None and self._journal.kept(contribution.plan_digest) is None:
            self._outbox.discard(kept.file)
        event(
            _LOGGER, "contribution-ended", task=contribution.task, round=contribution.round_number, outcome=code or "in"
        )

    def _standing(self) -> Standing:
        return standing_of(self._identity, self._settings.policy_path)
