"""From gradients to the next parameters, with the optimiser's state. `lr`, `momentum`, `mu` and `clip` are inputs.

    gradient += mu (parameter - start)                      FedProx; mu = 0 is FedAvg
    gradient *= min(1, clip / (|all gradients| + 1e-6))     as torch.nn.utils.clip_grad_norm_; clip = inf is none

    sgd   velocity = momentum velocity + gradient           as torch.optim.SGD without dampening
          parameter -= lr velocity
    adam  first = momentum first + (1 - momentum) gradient  as torch.optim.Adam with betas (momentum, .999)
          second = .999 second + .001 gradient^2
          parameter -= lr first / (1 - momentum^t) / (sqrt(second / (1 - .999^t)) + 1e-8)

Source: Li et al. 2020, "Federated Optimization in Heterogeneous Networks", equation 2; Kingma and Ba 2015, "Adam".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from bedside.authoring.graph import Graph
from bedside.core.bundle.training import NEXT, Optimiser

_CLIP_EPSILON: Final = 1e-6
_SECOND_DECAY: Final = 0.999
_ADAM_EPSILON: Final = 1e-8
_COUNT: Final = "steps"
_DOUBLE: Final = 11
_SINGLE: Final = 1


def emit_pull(graph: Graph, gradient: str, away: str) -> str:
    """Add the FedProx term to a gradient; `away` is how far the parameter is from where the round began."""
    return graph.op("Add", gradient, graph.op("Mul", "mu", away))


def emit_clip(graph: Graph, gradients: Mapping[str, str]) -> dict[str, str]:
    """Scale all gradients together so that their L2 norm is at most `clip`."""
    squares = [graph.op("ReduceSumSquare", gradient, keepdims=0) for gradient in gradients.values()]
    norm = graph.op("Sqrt", graph.op("Sum", *squares))
    share = graph.op("Div", "clip", graph.op("Add", norm, graph.number(_CLIP_EPSILON)))
    share = graph.op("Min", share, graph.number(1))
    return {name: graph.op("Mul", gradient, share) for name, gradient in gradients.items()}


def emit_moves(
    graph: Graph, optimiser: Optimiser, gradients: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    """Add the optimiser's state as inputs and outputs; returns what each parameter has to lose, by its name."""
    if optimiser == "sgd":
        return {name: _emit_velocity(graph, name, value, shapes[name]) for name, value in gradients.items()}
    first, second = _emit_corrections(graph)
    return {name: _emit_adam(graph, name, value, shapes[name], first, second) for name, value in gradients.items()}


def _emit_velocity(graph: Graph, name: str, gradient: str, shape: tuple[int, ...]) -> str:
    velocity = _state(graph, f"velocity.{name}", shape)
    moved = graph.op("Add", graph.op("Mul", "momentum", velocity), gradient, output=velocity + NEXT)
    return graph.op("Mul", "lr", moved)


def _emit_corrections(graph: Graph) -> tuple[str, str]:
    """Count the step; returns the rate over the first moment's correction, and the root of the second's."""
    count = graph.op("Add", _state(graph, _COUNT, ()), graph.number(1), output=_COUNT + NEXT)
    exact = graph.op("Cast", count, to=_DOUBLE)  # 1 - .999^t of float32 would be wrong in its fifth digit
    one = graph.constant(np.array(1.0))
    decay = graph.op("Cast", "momentum", to=_DOUBLE)
    first = graph.op("Cast", graph.op("Sub", one, graph.op("Pow", decay, exact)), to=_SINGLE)
    rest = graph.op("Sub", one, graph.op("Pow", graph.constant(np.array(_SECOND_DECAY)), exact))
    return graph.op("Div", "lr", first), graph.op("Cast", graph.op("Sqrt", rest), to=_SINGLE)


def _emit_adam(graph: Graph, name: str, gradient: str, shape: tuple[int, ...], rate: str, root: str) -> str:
    old_first, old_second = _state(graph, f"first.{name}", shape), _state(graph, f"second.{name}", shape)
    fresh = graph.op("Sub", graph.number(1), "momentum")
    first = graph.op(
        "Add", graph.op("Mul", "momentum", old_first), graph.op("Mul", fresh, gradient), output=old_first + NEXT
    )
    square = graph.op("Mul", graph.op("Mul", gradient, gradient), graph.number(1 - _SECOND_DECAY))
    second = graph.op("Add", graph.op("Mul", old_second, graph.number(_SECOND_DECAY)), square, output=old_second + NEXT)
    deviation = graph.op("Add", graph.op("Div", graph.op("Sqrt", second), root), graph.number(_ADAM_EPSILON))
    return graph.op("Mul", rate, graph.op("Div", first, deviation))


def _state(graph: Graph, name: str, shape: tuple[int, ...]) -> str:
    graph.output(name + NEXT, shape)
    return graph.input(name, shape)
