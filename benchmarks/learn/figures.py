"""Which measured rows are figures with names that stay, beside what others have reached on the same split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

_FORMS: Final = {"": "8-bit", "_float": "float", "_int8": "int8", "_4bit": "4-bit"}
"""A figure without an ending is of 8-bit updates, which are what devices send unless a plan says otherwise."""


class Wanted(NamedTuple):
    """One figure: where it is found, and what it is to be compared with."""

    name: str
    of: str
    row: str
    metric: str
    unit: str
    peer: str = ""
    peer_value: float | None = None
    goal: float | None = None
    better: str = "higher"


def _each(base: Wanted, around: str = "federated, {}") -> Iterator[Wanted]:
    for ending, form in _FORMS.items():
        yield base._replace(name=base.name + ending, row=base.row + around.format(form))


def _beside(base: Wanted, **rows: str) -> Iterator[Wanted]:
    """What the same metric is without a federation: no goal, and no peer."""
    for ending, row in rows.items():
        yield Wanted(f"{base.name}_{ending}", base.of, row, base.metric, base.unit)


def _wanted() -> Iterator[Wanted]:
    fedyogi, saps = "FLamby's FedYogi, same split", "SAPS-I on the same stays"
    part, windows = "part of patients", "part of windows"
    heart = Wanted("heart_client_average_accuracy", "heart", "", "client_average", part, fedyogi, 0.731, 0.731)
    yield from _each(heart)
    yield from _beside(heart, pooled_training="pooled", alone="alone")
    heart = Wanted("heart_pooled_accuracy", "heart", "", "pooled", part, fedyogi, 0.779, 0.779)
    yield from _each(heart)
    yield from _beside(heart, pooled_training="pooled", alone="alone")
    for devices in ("4", "40"):
        cinc = Wanted(f"cinc_auroc_{devices}", "cinc", f"{devices}: ", "auroc", "AUROC", saps, 0.660)
        yield from _each(cinc)
        yield from _beside(cinc, alone=f"{devices}: alone")
    yield Wanted("cinc_auroc_pooled_training", "cinc", "pooled", "auroc", "AUROC")
    yield Wanted("cinc_auroc_saps", "cinc", "SAPS-I", "auroc", "AUROC")
    central = "central MLP on 126 features, same split"
    har = Wanted("har_subject_disjoint_accuracy", "har", "strangers: ", "pooled", windows, central, 0.938, 0.93)
    yield from _each(har)
    yield from _beside(har, pooled_training="strangers: pooled", alone="strangers: alone")
    own = Wanted("har_personalised_accuracy", "har", "same people: ", "pooled", windows, "each alone", 0.947, 0.947)
    yield from _each(own, "own heads, {}")
    yield from _beside(own, alone="same people: alone", shared_head="same people: federated, 8-bit")
    for metric, goal in (("macro_f1", 0.374), ("v_sensitivity", 0.32), ("s_sensitivity", 0.20)):
        base = Wanted(f"mitdb_{metric}", "mitdb", "", metric, "macro-F1" if metric == "macro_f1" else "sensitivity")
        yield from _each(base._replace(peer="logistic regression, patient-wise", peer_value=goal, goal=goal))
        yield from _beside(base, pooled_training="pooled", alone="alone", bare="bare: federated, 8-bit")
    yield Wanted("mitdb_macro_f1_nsv", "mitdb", "federated, 8-bit", "macro_f1_nsv", "macro-F1")
    watch = Wanted("watch_federated_over_pooled", "watch", "", "over_pooled", "accuracy, federated / pooled", goal=0.97)
    yield from _each(watch)
    watch = Wanted("watch_accuracy", "watch", "", "pooled", windows)
    yield from _each(watch)
    yield from _beside(watch, pooled_training="pooled", alone="alone")
    for name in ("heart", "cinc"):
        attack = Wanted(
            "", "membership", "", "calibrated", "AUC of the calibrated attack", "guessing", 0.5, better="lower"
        )
        yield attack._replace(name=f"{name}_membership_auc", row=name)
        yield attack._replace(name=f"{name}_membership_auc_noise", row=f"{name}, noise")
        yield attack._replace(name=f"{name}_membership_auc_without_that_noise", row=f"{name}, many devices")
        yield attack._replace(name=f"{name}_membership_auc_overfitted", row=f"{name}, overfitted")
    yield Wanted(
        "watch_real_minus_in_process", "real", "difference", "accuracy", "accuracy, real - mean in one process"
    )


FIGURES: Final = tuple(_wanted())
