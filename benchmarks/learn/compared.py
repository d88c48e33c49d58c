"""A study's federation beside its other forms and beside none: figures of one seed.

A study comes as its folds, of which most have one: every fold is a federation of its own, and figures are those of all
folds' answers together.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from bedside.authoring.simulation.settings import Settings
from bedside.ondevice.training.examples import Windows

from .study import Answers, Study, answers, federate, judged, standardised

Figures = dict[str, float]
Rows = dict[str, Figures]
"""Figures of what was trained in one way or another, by its name."""

ONLY_8_BIT = {"8-bit": 8}
QUICK_ROUNDS = 2
VARIANTS = {"float": 0, "8-bit": 8, "4-bit": 4}
"""Bits of a value on the wire; int8 is the 8-bit run in its deployed form."""


def variants(folds: Sequence[Study], seed: int, kinds: Mapping[str, int] = VARIANTS) -> Rows:
    """Figures of each way to send and to serve; `cpu_s` is that of the run with 8 bits."""
    found: Rows = {}
    for name, bits in kinds.items():
        said: Answers = []
        deployed: Answers = []
        spent = 0.0
        for fold in folds:
            one = sending(fold, bits)
            began = time.process_time()
            federation = federate(one, seed)
            spent += time.process_time() - began
            said += judged(one, federation)
            if bits == VARIANTS["8-bit"]:
                deployed += judged(one, federation, deployed=True)
        found[name] = folds[0].figures(said)
        if deployed:
            found[name]["cpu_s"] = spent
            found["int8"] = folds[0].figures(deployed)
    return found


def federated(folds: Sequence[Study], seed: int, label: str = "", kinds: Mapping[str, int] = VARIANTS) -> Rows:
    """`variants` as rows, with a word in front."""
    return {f"{label}federated, {name}": figures for name, figures in variants(folds, seed, kinds).items()}


def hurried(folds: Sequence[Study], *, quick: bool) -> list[Study]:
    """The first fold with a few rounds, to see whether it runs; or all of them."""
    if not quick:
        return list(folds)
    few = msgspec.structs.replace(folds[0].settings, rounds=QUICK_ROUNDS)
    return [replace(folds[0], settings=few)]


def sending(study: Study, bits: int) -> Study:
    """With so many bits of a value in rounds; moments, which travel once, have as many as they had, or are float."""
    first = study.first and msgspec.structs.replace(study.first, bits=study.first.bits if bits else 0)
    return replace(study, settings=msgspec.structs.replace(study.settings, bits=bits), first=first)


def _by_itself(study: Study) -> Study:
    """Float, and without what a server does to a mean of several: one client's model is taken as it is."""
    plain = sending(study, 0)
    if plain.settings.server != "fedavg":
        return plain
    return replace(plain, settings=msgspec.structs.replace(plain.settings, server_learning_rate=1.0))


def pooled(folds: Sequence[Study], seed: int, *, at_home: bool) -> Figures:
    """All examples in one place, which no hospital would allow, with as many steps as all clients together.

    Args:
        folds: the study.
        seed: of the run.
        at_home: each client's examples are standardised by its own moments before they are pooled, where the model
            does so.
    """
    said: Answers = []
    for fold in folds:
        parts = list(fold.clients.values())
        x = np.concatenate([standardised(fold.bundle, part) if at_home else part.x for part in parts])
        together = Windows(x, np.concatenate([part.y for part in parts]))
        plain = _by_itself(fold)
        settings = msgspec.structs.replace(plain.settings, steps=plain.settings.steps * len(parts))
        one = replace(plain, clients={"all": together}, settings=settings)
        said += judged(one, federate(one, seed))
    return folds[0].figures(said)


def alone(folds: Sequence[Study], seed: int, changed: Callable[[Settings], Settings] = lambda same: same) -> Figures:
    """Each client by itself, with as many steps as it does in the federation, on its own held-out examples."""
    said: Answers = []
    for fold in folds:
        plain = _by_itself(fold)
        for name, windows in fold.clients.items():
            held = [one for one in fold.held if one.owner == name]
            if held:
                one = replace(plain, clients={name: windows}, held=held, settings=changed(plain.settings))
                model = federate(one, seed).parameters(name)
                said += answers(one, lambda _, model=model: model, deployed=False)
    return folds[0].figures(said)


def alone_elsewhere(folds: Sequence[Study], seed: int) -> Figures:
    """Each client by itself, judged on everybody's held-out examples: the mean over clients, then over folds."""
    rows = []
    for fold in folds:
        plain = _by_itself(fold)
        for name, windows in fold.clients.items():
            one = replace(plain, clients={name: windows})
            rows.append(fold.figures(judged(one, federate(one, seed))))
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


def mean_and_deviation(rows: Sequence[Mapping[str, float]], name: str) -> tuple[float, float]:
    """Over seeds."""
    values = [row[name] for row in rows]
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
