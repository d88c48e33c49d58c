"""What the rounds loop needs to know about its device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from bedside.agent.training.settings import TrainingConfig


@dataclass
class RoundSettings:
    """What the loop needs to know about its device; asked at each plan, for a reload changes it.

    Attributes:
        state_dir: journal, outbox, models and buffer.
        policy_path: this device's copy of the site's policy; read again for every plan.
        training: limits of the child.
        poll_wait_ms: how long one question for an offer may wait on the other side.
        hold_out: whether windows are held out of every training, for the accuracy gate.
    """

    state_dir: Path
    policy_path: Path
    training: TrainingConfig
    poll_wait_ms: int
    hold_out: bool = False
