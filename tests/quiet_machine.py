"""A machine on which nothing keeps a device from training."""

from __future__ import annotations

from pathlib import Path

from bedside.agent.training.gates import MachineState
from bedside.agent.training.settings import TrainingConfig
from bedside.agent.training.trainer import Reading, Trainer
from bedside.service.platform import SystemClock

QUIET = MachineState(
    temperature_c=50.0,
    throttled=False,
    undervoltage=False,
    on_mains=True,
    battery_share=None,
    load_per_core=0.2,
    local_minute=12 * 60,
    open_streams=frozenset(),
    alarms=0,
)


def quiet_trainer(state_dir: Path, config: TrainingConfig | None = None, **options) -> Trainer:
    """A trainer whose gates stay open."""
    return Trainer(
        config or TrainingConfig(nice=0), state_dir, SystemClock(), lambda: Reading(QUIET, 8 << 30), **options
    )
