"""The accuracy gate: before a model replaces another, both say what they make of labelled windows that are held out.

Both in the form in which they serve, int8 on the runtime that was chosen, and in a limited child: what a candidate does
to a runtime is seen there first, and the memory goes back. Where there is nothing to compare with, the candidate is
tried on its golden windows alone. A candidate that crashes or stalls the child on these is refused like one that is
surely worse; where the child ends later, the machine may be to blame, and somebody, or the shadow, decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from bedside.agent.inference.choice import Wish
from bedside.agent.rounds.slots import ActiveModel, Verdict
from bedside.core.errors import UnavailableError
from bedside.ondevice.confinement import Limits, read_outcome, run_child

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bedside.agent.serving.rules import ServingConfig
    from bedside.core.clock import Clock

CHILD: Final = "bedside.agent.serving.gate_child"
LIMITS: Final = Limits(address_space_bytes=2 << 30, timeout_s=300, background=True)
MAX_WINDOWS: Final = 2_000
"""Newest validation windows of one judgement: the bound of the child's time."""
MAX_WINDOWS_BYTES: Final = 128 << 20
"""Of these windows: the bound of its memory, which holds them twice while they are gathered."""
_CHILD_CODES: Final = frozenset({"child-died", "child-timeout"})
_NS_PER_S: Final = 1_000_000_000


class GateJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the child needs.

    Attributes:
        state_dir: models and the buffer with the labelled windows.
        identity_dir: the buffer's keys, and the secret that says which windows are held out.
        old: serves.
        new: is to be judged.
        wish: `[inference] runtime`.
        streams: that the slot reads; empty for the one that a manifest names.
        margin: by how much of the score the new one may surely be worse.
        min_windows: with fewer there is no judgement.
        max_windows: the newest so many are used.
        max_bytes: and no more than fit into this, but for `min_windows`.
    """

    state_dir: str
    identity_dir: str
    old: ActiveModel
    new: ActiveModel
    wish: Wish
    streams: tuple[str, ...]
    margin: float
    min_windows: int
    max_windows: int = MAX_WINDOWS
    max_bytes: int = MAX_WINDOWS_BYTES


class Judged(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the child found; as in `Verdict`."""

    outcome: Literal["passed", "refused", "not-judged", "uncompared"]
    sentence: str
    score: str = ""
    windows: int = 0
    old: float | None = None
    new: float | None = None


@dataclass
class Gate:
    """Judges candidates of one device.

    Attributes:
        state_dir: of the agent.
        identity_dir: of the device.
        rules: `[serving]` of agent.toml; a reload replaces them.
        wish: `[inference] runtime`.
        clock: for the time of a verdict.
        limits: of the child.
    """

    state_dir: Path
    identity_dir: Path
    rules: ServingConfig
    wish: Wish
    clock: Clock
    limits: Limits = LIMITS

    async def judge(self, old: ActiveModel, new: ActiveModel, streams: Sequence[str]) -> Verdict:
        """Whether `new` may take the place of `old`.

        Raises:
            TrustError, MalformedError, StoreError: the files of `new` do not hold any more.
            UnavailableError: `runtime-missing`.
        """
        if not self.rules.gate:
            return self.verdict(new, Judged("not-judged", "the gate is switched off in agent.toml"))
        job = GateJob(
            state_dir=str(self.state_dir),
            identity_dir=str(self.identity_dir),
            old=old,
            new=new,
            wish=self.wish,
            streams=tuple(streams),
            margin=self.rules.gate_margin,
            min_windows=self.rules.gate_min_windows,
        )
        golden: list[bytes] = []
        try:
            done = await run_child(CHILD, msgspec.json.encode(job), self.limits, golden.append)
            found = read_outcome(done, Judged)
        except UnavailableError as error:
            if error.code not in _CHILD_CODES:
                raise
            found = Judged("refused", f"the child that tried it came to no end: {error.sentence}")
            if golden:
                found = Judged(
                    "uncompared", f"it answers its golden windows, and comparing it failed: {error.sentence}"
                )
        return self.verdict(new, found)

    def verdict(self, model: ActiveModel, found: Judged) -> Verdict:
        """What was found, about which model and when."""
        at_s = self.clock.now_ns() // _NS_PER_S
        return Verdict(
            model.name, found.outcome, found.sentence, found.score, found.windows, found.old, found.new, at_s
        )
