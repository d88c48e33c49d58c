"""Whether a layer list computes what its torch module does; if not, nothing is built of it.

Compared are the logits of predictions, the gradients of one step, and losses and parameters after 50 steps of SGD with
momentum in float (level Q0), batch norms in training. We compute in float32. A value may be 1e-5 away from torch's, of
the largest of its tensor where that is above one: from float32's, or from float64's, which says what is right where
float32 is not good enough for torch either.

Where a rectifier's input is within a rounding of zero, any two programs go different ways, and what comes of it grows
with every step. That is an accident of the batch, while a wrong rule is wrong on every one: five small batches are
tried, and one has to agree in all of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import numpy as np

from bedside.authoring.golden import FLOAT, synthetic_batch
from bedside.authoring.inference_graph import build_float_graph
from bedside.authoring.net import Net
from bedside.authoring.torch_import.peer import Peer
from bedside.authoring.training_graph import build_training_graph
from bedside.core.bundle.parameters import AMAX
from bedside.core.bundle.training import optimiser_tensors
from bedside.core.errors import TrustError
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.runtimes.onnx import OnnxRuntime
from bedside.ondevice.training.step import Rates, TrainingStep

STEPS: Final = 50
TOLERANCE: Final = 1e-5
_BATCHES: Final = 5
_BATCH: Final = 4
_ONE_STEP: Final = Rates(learning_rate=1.0)
_MANY: Final = Rates(learning_rate=0.01, momentum=0.9)


def check_exact(net: Net, peer: Peer, parameters: Mapping[str, Float32], seed: int) -> dict[str, float]:
    """Compare, and return the largest difference of logits, gradients, losses and parameters.

    Args:
        net: what the module was translated to.
        peer: the module.
        parameters: of the net, ranges among them.
        seed: of the synthetic windows.

    Raises:
        TrustError: `import-not-exact`.
    """
    for number in range(1, _BATCHES):
        with suppress(TrustError):
            return _differences(net, peer, parameters, seed + 100 * number)
    return _differences(net, peer, parameters, seed)


def _differences(net: Net, peer: Peer, parameters: Mapping[str, Float32], seed: int) -> dict[str, float]:
    """The largest differences on one batch."""
    x, y = synthetic_batch(net, _BATCH, seed)
    weights = {name: array for name, array in parameters.items() if name != AMAX}
    predicted = {"logits": OnnxRuntime(build_float_graph(net, weights), {}).predict(x)}
    single, exact = ({"logits": peer.predict(parameters, x, double=double)} for double in (False, True))
    found = {"logits": _compare(predicted, single, exact, "in predictions")}
    graph = build_training_graph(net, FLOAT)
    learnt = {"loss"} | {spec.name for spec in net.parameters if spec.trained}
    for name, rates, steps in (("gradients", _ONE_STEP, 1), ("parameters", _MANY, STEPS)):
        step = TrainingStep(graph, parameters, optimiser_tensors(FLOAT, net.parameters), rates)
        ours: dict[str, Float32] = {"loss": np.array([step(x, y) for _ in range(steps)], np.float32)}
        ours |= step.parameters()
        single, exact = (
            _trained(peer.train(parameters, x, y, rates, steps, double=double)) for double in (False, True)
        )
        if steps == 1:
            ours = {tensor: array for tensor, array in ours.items() if tensor in learnt}
        found[name] = _compare(ours, single, exact, f"after {steps} steps" if steps > 1 else "in its gradient")
    return found


def _trained(told: tuple[Float32, dict[str, Float32]]) -> dict[str, Float32]:
    losses, parameters = told
    return {"loss": losses, **parameters}


def _compare(
    ours: Mapping[str, Float32], single: Mapping[str, Float32], double: Mapping[str, Float32], when: str
) -> float:
    """The largest difference, or a refusal."""
    largest = 0.0
    for name in single.keys() & ours.keys():
        off = min(_distance(ours[name], single[name]), _distance(ours[name], double[name]))
        allowed = TOLERANCE * max(1.0, float(np.abs(double[name]).max(initial=0.0)))
        if not off <= allowed:
            raise TrustError(
                "import-not-exact",
                f"{name} is {off:.3g} away from torch's {when}, and {allowed:.3g} is allowed: the layer list does not "
                "train as the module does",
                remedy="write the layers in the recipe instead, and report the module with this line",
            )
        largest = max(largest, off)
    return largest


def _distance(one: Float32, other: Float32) -> float:
    return float(np.abs(one.astype(np.float64) - other).max(initial=0.0))
