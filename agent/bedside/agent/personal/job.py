"""What the children that make something personal are asked, and what they answer. The tensors lie in a sealed file."""

from __future__ import annotations

import msgspec

from bedside.agent.inference.choice import Wish
from bedside.agent.personal.report import Report
from bedside.agent.personal.settings import PersonalRules
from bedside.agent.rounds.slots import ActiveModel
from bedside.agent.serving.gate import MAX_WINDOWS
from bedside.agent.training.budget import Budget

TASK_PREFIX = "personal-"
"""Begins the names of their trainings."""


class PersonalJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tune a suffix, fit a temperature, and judge both.

    Attributes:
        state_dir: models, the buffer with the labelled windows, and what is personal.
        identity_dir: the buffer's keys, and the secret that says which windows are held out.
        model: serves.
        task: names the training, and the file that is left for the parent.
        rules: what to do.
        streams: that the model reads; empty for the one that its manifest names.
        wish: `[inference] runtime`.
        min_judged: validation windows without which nothing is judged, and nothing personal used.
        max_judged: the newest so many are used.
        budget: what training may take of the device.
    """

    state_dir: str
    identity_dir: str
    model: ActiveModel
    task: str
    rules: PersonalRules
    streams: tuple[str, ...]
    wish: Wish
    min_judged: int
    max_judged: int = MAX_WINDOWS
    budget: Budget = Budget()


class StatisticsJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Count what windows without labels tell of a model's local tensors; attributes as of `PersonalJob`."""

    state_dir: str
    identity_dir: str
    model: ActiveModel
    task: str
    streams: tuple[str, ...]
    max_windows: int = MAX_WINDOWS


class Counted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer to a `StatisticsJob`: windows that were counted."""

    windows: int


class Made(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer to a `PersonalJob`."""

    report: Report
