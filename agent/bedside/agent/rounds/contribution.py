"""The parent's side of one contribution: what the child is asked, and what comes back.

The child trains, encodes, masks, signs and writes the words durably under the outbox; it returns the header. The
parent then commits header and row in one transaction. Between the two a crash leaves an orphan file and no row: the
next start removes the file and trains again, and nothing of it was ever sent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from bedside.agent.rounds.slots import ActiveModel
from bedside.agent.training.budget import Budget
from bedside.agent.training.trainer import Trainer
from bedside.core.errors import ProtocolError
from bedside.core.signing import parse_strict
from bedside.ondevice.confinement import read_outcome
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.round_pb2 import Header

CHILD: Final = "bedside.agent.rounds.contribute_child"
ROUND_PREFIX: Final = "round-"
"""Begins the names of trainings for rounds."""


class ContributionJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the child needs. Secrets stay in their files.

    Attributes:
        offer: the serialised Offer; the child verifies it again.
        identity_dir: keys, pins and credential.
        state_dir: models and the buffer with the labelled windows.
        model: bundle and checkpoint to start from.
        target: where the masked words are to be written.
        kept: where the sealed delta is to be written.
        freed: the sealed delta of an earlier round that its own trustee gave back; empty when there is none.
        sequence: of the header, durable already.
        task: the name of its training, by which an unfinished one is found again.
        streams: that the model reads on this device; empty for the one that its manifest names.
        hold_out: whether windows are held out of the training, for the accuracy gate.
        budget: what training may take of the device.
    """

    offer: bytes
    identity_dir: str
    state_dir: str
    model: ActiveModel
    target: str
    kept: str
    freed: str
    sequence: int
    task: str
    streams: tuple[str, ...] = ()
    hold_out: bool = False
    budget: Budget = Budget()


class ContributionOutcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the child made. The counts stay on this device.

    Attributes:
        header: serialised Signed of kind `header`.
        size_bytes: of the words.
        examples: windows trained on.
        loss_before: mean loss of the first epoch; None when the freed delta was used.
        loss_after: mean loss of the last epoch; None as well.
        far: windows that were left out, because a label's value is far outside of its target's scale.
    """

    header: bytes
    size_bytes: int
    examples: int
    loss_before: float | None
    loss_after: float | None
    far: int = 0

    @property
    def reused(self) -> bool:
        """Whether the freed delta was encoded, and nothing was trained."""
        return self.loss_after is None


async def make_contribution(trainer: Trainer, job: ContributionJob, closes_at_s: int | None) -> ContributionOutcome:
    """Run the child on `job` under the gates.

    Raises:
        RefusedError: `too-few-examples`, `too-few-sessions`, `unaffordable-memory`, `unaffordable-time`.
        TrustError, MalformedError, ProtocolError, StoreError: from the job's inputs.
        UnavailableError: `training-waits`, `child-timeout`, `child-died`.
    """

    def with_budget(budget: Budget) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(job, budget=budget))

    result = await trainer.run(job.task, CHILD, with_budget, closes_at_s=closes_at_s)
    outcome = read_outcome(result, ContributionOutcome)
    header = parse_strict(Header, parse_strict(Signed, outcome.header).payload)
    size_bytes = Path(job.target).stat().st_size
    if (header.upload_bytes, header.sequence) != (size_bytes, job.sequence):
        raise ProtocolError("child-mismatch", "the training child's header and words do not belong together")
    return outcome
