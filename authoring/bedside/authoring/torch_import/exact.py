"""Whether a layer list computes what its torch module does; if not, nothing is built of it.

Compared are the logits of predictions, the gradients of one step, and losses and parameters after 50 steps of SGD with
momentum in float (level Q0), batch norms in training; a difference counts against the largest value of its tensor where
that is above one.

    float64   1e-6    our graph and torch, both in double precision: what is left is that of constants of ours, which
                      are float32. This says that the rules are the same
    float32   1e-5    of logits
              1e-3    of what devices train, as rounding grows from step to step; 2e-7 is usual, and 3e-5 was seen where
                      a batch norm divides by a small deviation

Where a rectifier's input is within a rounding of zero, any two programs go different ways. That is an accident of the
batch, while a wrong rule is wrong on every one: five small batches are tried, and one has to agree in all of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.authoring.golden import FLOAT, synthetic_batch
from bedside.authoring.inference_graph import build_float_graph
from bedside.authoring.net import Net
from bedside.authoring.torch_import.double import train_in_double
from bedside.authoring.torch_import.peer import Peer
from bedside.authoring.training_graph import build_training_graph
from bedside.core.bundle.parameters import AMAX
from bedside.core.bundle.training import LOSS, optimiser_tensors
from bedside.core.errors import TrustError
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.runtimes.onnx import OnnxRuntime
from bedside.ondevice.training.step import Rates, TrainingStep

STEPS: Final = 50
TOLERANCE: Final = 1e-6
_SINGLE_LOGITS: Final = 1e-5
_SINGLE_TRAINED: Final = 1e-3
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
    found = {"logits": _compare(predicted, {"logits": peer.predict(parameters, x)}, _SINGLE_LOGITS, "in predictions")}
    graph, optimiser = build_training_graph(net, FLOAT), optimiser_tensors(FLOAT, net.parameters)
    learnt = {LOSS} | {spec.name for spec in net.parameters if spec.trained}
    for name, rates, steps in (("gradients", _ONE_STEP, 1), ("parameters", _MANY, STEPS)):
        losses, after = peer.train(parameters, x, y, rates, steps)
        theirs = {LOSS: losses} | {key: array for key, array in after.items() if steps > 1 or key in learnt}
        when = f"after {steps} steps" if steps > 1 else "in its gradient"
        double = train_in_double(graph, parameters, optimiser, (x, y), rates, steps)
        found[name] = _compare(double, theirs, TOLERANCE, f"{when}, both in double precision")
        step = TrainingStep(graph, parameters, optimiser, rates)
        single = {LOSS: np.array([step(x, y) for _ in range(steps)], np.float32), **step.parameters()}
        found[f"{name}_float32"] = _compare(single, theirs, _SINGLE_TRAINED, when)
    return found


def _compare(
    ours: Mapping[str, npt.NDArray[np.floating]], theirs: Mapping[str, Float32], tolerance: float, when: str
) -> float:
    """The largest difference, or a refusal."""
    largest = 0.0
    for name, array in theirs.items():
        off = float(np.abs(ours[name].astype(np.float64) - array).max(initial=0.0))
        allowed = tolerance * max(1.0, float(np.abs(array).max(initial=0.0)))
        if not off <= allowed:
            raise TrustError(
                "import-not-exact",
                f"{name} is {off:.3g} away from torch's {when}, and {allowed:.3g} is allowed: the layer list does not "
                "train as the module does",
                remedy="write the layers in the recipe instead, and report the module with this line",
            )
        largest = max(largest, off)
    return largest
