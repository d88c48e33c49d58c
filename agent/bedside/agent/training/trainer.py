"""The parent's side of training: spawn the child, follow its progress, take its outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from bedside.agent.training.job import Job, Outcome
from bedside.ondevice.confinement import Limits, read_outcome, run_child
from bedside.ondevice.training.train import Progress

CHILD: Final = "bedside.agent.training.child"
DEFAULT_LIMITS: Final = Limits(address_space_bytes=2 << 30, timeout_s=3_600)
"""A child that trains the shipped models maps about 0.5 GB and touches 0.1 GB."""


async def run_training(
    job: Job, on_progress: Callable[[Progress], None] = lambda _: None, limits: Limits = DEFAULT_LIMITS
) -> Outcome:
    """Train in a child process.

    Raises:
        RefusedError: `too-few-examples`.
        TrustError, MalformedError, StoreError, ConfigError: from the job's inputs.
        UnavailableError: `child-timeout`, `child-died`.
    """

    def follow(line: bytes) -> None:
        on_progress(read_outcome(line, Progress))

    outcome = await run_child(CHILD, msgspec.json.encode(job), limits, follow)
    return read_outcome(outcome, Outcome)
