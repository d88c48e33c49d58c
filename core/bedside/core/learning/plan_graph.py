"""From the numbers of a plan to the training graph of a bundle."""

from __future__ import annotations

from typing import Final

from bedside.core.bundle.manifest import Manifest
from bedside.core.bundle.training import ALL, Level, Optimiser, TrainingGraph
from bedside.proto.v1 import plan_pb2

LEVELS: Final[dict[int, Level]] = {plan_pb2.LEVEL_Q0: "Q0", plan_pb2.LEVEL_Q1: "Q1", plan_pb2.LEVEL_Q2: "Q2"}
"""The quantisation levels that devices of this version train at."""

OPTIMISERS: Final[dict[int, Optimiser]] = {
    plan_pb2.OPTIMISER_UNSPECIFIED: "sgd",
    plan_pb2.OPTIMISER_SGD: "sgd",
    plan_pb2.OPTIMISER_ADAM: "adam",
}


def plan_graph(training: plan_pb2.Training, manifest: Manifest) -> TrainingGraph | None:
    """The graph that a plan names; None when this version does not know its terms, or the bundle has no such graph."""
    level, optimiser = LEVELS.get(training.level), OPTIMISERS.get(training.optimiser)
    if level is None or optimiser is None:
        return None
    return manifest.graph(level, training.suffix or ALL, optimiser)


def name_graph(training: plan_pb2.Training, graph: TrainingGraph) -> None:
    """Write a graph into a plan."""
    training.level = plan_pb2.Level.Value(f"LEVEL_{graph.level}")
    training.optimiser = plan_pb2.OPTIMISER_ADAM if graph.optimiser == "adam" else plan_pb2.OPTIMISER_SGD
    training.suffix = "" if graph.suffix == ALL else graph.suffix
