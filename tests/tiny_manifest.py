"""The manifest of a tiny model, whose first checkpoint is thirty-two times the letter k."""

from __future__ import annotations

from bedside.core.bundle.layers import Dense, Flatten
from bedside.core.bundle.manifest import (
    COMMITTED,
    Cost,
    FileEntry,
    Golden,
    Manifest,
    Quantisation,
    QuantisedLayer,
    TensorSpec,
    Training,
    WindowSpec,
)


def make_manifest() -> Manifest:
    return Manifest(
        name="tiny",
        version="1",
        signer="author",
        labels=("rest", "move"),
        window=WindowSpec("motion", 1, 50.0, 4, 2, (0.0,), (1.0,)),
        layers=(Flatten(), Dense(2)),
        parameters=(
            TensorSpec("w0", (4, 2)),
            TensorSpec("b0", (2,)),
            TensorSpec("amax", (1,), shared=False),
        ),
        optimiser=(),
        quantisation=Quantisation("Q1", "amax", 63, (QuantisedLayer("w0", "b0", 0, True),)),
        training=Training(0.05, 0.9, 32, 2),
        golden=Golden(1, 0.05, 0.9, 0.0, ()),
        cost=Cost(32, 1.0, 50.0),
        files=tuple(FileEntry(name, 1, "0" * 64) for name in COMMITTED),
        checkpoint=(b"k" * 32).hex(),
    )
