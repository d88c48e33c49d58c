"""Membership inference against released models: can somebody who has the model tell who was trained on?

Many models of a recipe are trained federatedly, each on a random half of the whole set (of every hospital or unit, and
outcome), in complementary pairs. Each is the target once; its shadows are all others but its complement, with which the
attack would look better than it is. An attacker knows all patients, the recipe, and the halves of the shadows.

loss        members are fitted better: rank by the margin. Yeom et al. 2018.
calibrated  the margin, less the mean margin of shadows that did not see the patient. Watson et al. 2022.
lira        likelihood ratio of the margin between shadows that saw the patient and that did not: normal distributions,
            one variance for each of the two. Carlini et al. 2022, "Membership inference attacks from first principles".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.authoring.simulation.settings import Settings
from bedside.core.bundle.verify import Bundle
from bedside.ondevice.refresh import float_runtime
from bedside.ondevice.training.examples import Windows

from .metrics import auroc
from .study import Held, Study, federate

Bools = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
ATTACKS: Final = ("loss", "calibrated", "lira")
_FALSE_ALARMS: Final = 0.01


@dataclass(frozen=True)
class Subjects:
    """Everybody in a set.

    Attributes:
        windows: their examples, one each.
        strata: number of each one's hospital or unit.
    """

    windows: Windows
    strata: Int64

    @property
    def outcome(self) -> Bools:
        """Whether each one has it."""
        return self.windows.y.reshape(-1) > 0

    def groups(self) -> list[Int64]:
        """Numbers of those of the same stratum and outcome."""
        key = 2 * self.strata + self.outcome
        return [np.flatnonzero(key == one) for one in np.unique(key)]


@dataclass(frozen=True)
class Release:
    """How the models that are attacked come about.

    Attributes:
        name: of the row.
        bundle: the model.
        settings: of the federation.
        first: of the round before it that brings the moments together.
        of_a_stratum: devices of each hospital or unit.
        models: an even number.
    """

    name: str
    bundle: Bundle
    settings: Settings
    first: Settings
    of_a_stratum: int
    models: int


def attacked(subjects: Subjects, release: Release, quality: Callable[[Float64, Bools], float]) -> dict[str, float]:
    """Train all models and attack each.

    Args:
        subjects: everybody.
        release: how.
        quality: of margins and outcomes of those whom a model has not seen.

    Returns:
        For each attack the mean over targets of its AUC, the deviation (`_deviation`), and the part of members that it
        finds where 1 % of the others are taken for members (`_found`); `quality`, and `null`: the AUC of `lira` where
        members are made up.
    """
    random = np.random.default_rng(7)
    seen = halves(subjects, release.models, random)
    device = _dealt(subjects, release.of_a_stratum, random)
    margins = np.array([_margins(subjects, release, one, device, seed) for seed, one in enumerate(seen)])
    found: dict[str, float] = {}
    rows = [attacks(margins, seen, target) for target in range(release.models)]
    for attack in ATTACKS:
        areas = [auroc(row[attack], seen[target]) for target, row in enumerate(rows)]
        found[attack] = float(np.mean(areas))
        found[f"{attack}_deviation"] = float(np.std(areas, ddof=1))
        found[f"{attack}_found"] = float(
            np.mean([_share_found(row[attack], seen[target]) for target, row in enumerate(rows)])
        )
    made_up = halves(subjects, release.models, random)
    null = [auroc(attacks(margins, made_up, target)["lira"], made_up[target]) for target in range(release.models)]
    strange = [quality(margin[~one], subjects.outcome[~one]) for margin, one in zip(margins, seen, strict=True)]
    return found | {"null": float(np.mean(null)), "quality": float(np.mean(strange))}


def halves(subjects: Subjects, models: int, random: np.random.Generator) -> Bools:
    """Who is in which model (models, subjects): half of every group; number 2 k + 1 is the complement of 2 k."""
    seen = np.zeros((models, len(subjects.strata)), bool)
    for first in range(0, models, 2):
        for group in subjects.groups():
            half = (len(group) + random.integers(2)) // 2
            seen[first, random.permutation(group)[:half]] = True
        seen[first + 1] = ~seen[first]
    return seen


def attacks(margins: Float64, seen: Bools, target: int) -> Mapping[str, Float64]:
    """What each attack thinks of everybody's being a member of one model; higher is likelier.

    Args:
        margins: (models, subjects): the logit of the true outcome less that of the other.
        seen: (models, subjects).
        target: number of the model.
    """
    shadows = np.arange(len(margins)) // 2 != target // 2
    rest, inside = margins[shadows], seen[shadows]
    mean_in, spread_in = _moments(rest, inside)
    mean_out, spread_out = _moments(rest, ~inside)
    own = margins[target]
    likelihood = np.square(own - mean_out) / (2 * spread_out) - np.square(own - mean_in) / (2 * spread_in)
    return {"loss": own, "calibrated": own - mean_out, "lira": likelihood}


def _moments(margins: Float64, some: Bools) -> tuple[Float64, float]:
    """Mean of some models' margins by subject, and one variance about them."""
    mean = (margins * some).sum(axis=0) / some.sum(axis=0)
    return mean, float((np.square(margins - mean) * some).sum() / some.sum())


def _share_found(score: Float64, member: Bools) -> float:
    others = np.sort(score[~member])[::-1]
    return float((score[member] > others[int(_FALSE_ALARMS * len(others))]).mean())


def _dealt(subjects: Subjects, of_a_stratum: int, random: np.random.Generator) -> Int64:
    """Number of everybody's device."""
    device = np.zeros(len(subjects.strata), np.int64)
    for group in subjects.groups():
        device[random.permutation(group)] = subjects.strata[group] * of_a_stratum + np.arange(len(group)) % of_a_stratum
    return device


def _margins(subjects: Subjects, release: Release, seen: Bools, device: Int64, seed: int) -> Float64:
    """Everybody's margin under one model."""
    windows = subjects.windows
    picked = {f"device-{one}": np.flatnonzero(seen & (device == one)) for one in np.unique(device)}
    clients = {name: Windows(windows.x[some], windows.y[some]) for name, some in picked.items() if len(some)}
    study = Study(release.bundle, clients, [], release.settings, lambda _: {}, release.first)
    logits = float_runtime(release.bundle, federate(study, seed).parameters()).predict(windows.x)
    return margin(logits, subjects.outcome)


def margin(logits: npt.NDArray[np.float32], outcome: Bools) -> Float64:
    """The logit of the true outcome less that of the other; a single output is the logit of there being one."""
    wide = logits.astype(np.float64)
    odds = wide[:, 0] if wide.shape[1] == 1 else wide[:, 1] - wide[:, 0]
    return np.where(outcome, odds, -odds)


def released(study: Study, parameters: Mapping[str, npt.NDArray[np.float32]]) -> float:
    """AUC of the `loss` attack on one released model: those it was trained on against the held-out ones."""
    runtime = float_runtime(study.bundle, parameters)

    def of(parts: Sequence[Windows]) -> Float64:
        return np.concatenate([margin(runtime.predict(one.x), one.y.reshape(-1) > 0) for one in parts])

    member, stranger = of(list(study.clients.values())), of([held.windows for held in study.held])
    return auroc(np.concatenate([member, stranger]), np.arange(len(member) + len(stranger)) < len(member))


def everybody(study: Study, strata: Callable[[str], int]) -> Subjects:
    """All examples of a study, held-out ones too, by the stratum of their owners."""
    parts = [Held(name, windows) for name, windows in study.clients.items()] + list(study.held)
    together = Windows(
        np.concatenate([one.windows.x for one in parts]), np.concatenate([one.windows.y for one in parts])
    )
    return Subjects(together, np.repeat([strata(one.owner) for one in parts], [len(one.windows) for one in parts]))
