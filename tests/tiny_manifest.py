"""The manifest of a tiny model, whose first checkpoint is thirty-two times the letter k."""

from __future__ import annotations

import msgspec

from bedside.core.bundle.layers import Dense, Flatten, walk
from bedside.core.bundle.manifest import (
    FileEntry,
    Golden,
    Manifest,
    WindowSpec,
    committed_files,
    quantisation_of,
)
from bedside.core.bundle.parameters import layer_tensors
from bedside.core.bundle.training import Cost, Training, TrainingGraph

STEPS = walk((Flatten(), Dense(2)), (4, 1), 2)
GRAPH = TrainingGraph("Q1", "all", "sgd")
FILES = committed_files((GRAPH,), optional=False)


def tensors(steps):
    """The net's, with ranges that stay on the device."""
    *specs, ranges = layer_tensors(steps)
    return (*specs, msgspec.structs.replace(ranges, shared=False))


def make_manifest() -> Manifest:
    return Manifest(
        name="tiny",
        version="1",
        signer="author",
        task="classification",
        labels=("rest", "move"),
        window=WindowSpec("motion", 1, 50.0, 4, 2, (0.0,), (1.0,)),
        layers=(Flatten(), Dense(2)),
        parameters=tensors(STEPS),
        quantisation=quantisation_of(STEPS, 63),
        suffixes=(),
        graphs=(GRAPH,),
        training=Training(0.05, 0.9, 32, 2),
        golden=Golden(1, 0.05, 0.9, 0.0, 0.0, ()),
        costs=(Cost(GRAPH.key, 32, 1.0, 50.0),),
        files=tuple(FileEntry(name, 1, "0" * 64) for name in FILES),
        checkpoint=(b"k" * 32).hex(),
    )
