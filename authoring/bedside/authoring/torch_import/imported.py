"""From a recipe that names a torch module to one with layers, and the module that vouches for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from bedside.authoring.golden import FLOAT
from bedside.authoring.torch_import.chain import check_kinds, refuse
from bedside.authoring.torch_import.peer import Peer
from bedside.authoring.torch_import.source import load_module
from bedside.authoring.torch_import.translate import Translated, named_nodes, translate
from bedside.core.bundle.layers import Layer
from bedside.core.errors import ConfigError, MalformedError
from bedside.service.text import bounded

if TYPE_CHECKING:
    from torch import fx, nn

    from bedside.authoring.recipe import Recipe

_ROWS: Final = 2
"""Axes of an answer: examples, and outputs."""


class Imported(NamedTuple):
    """A recipe with layers, and its module."""

    recipe: Recipe
    peer: Peer


def import_module(recipe: Recipe) -> Imported:
    """Translate the module that a recipe names.

    Raises:
        ConfigError: `torch-module`, `torch-unsupported`; `bad-recipe`: it has other outputs than `labels`.
        UnavailableError: `torch-missing`.
    """
    if recipe.torch is None:
        raise ValueError("the recipe names no torch module")
    module = load_module(recipe.torch, recipe.seed)
    length, channels = recipe.window.length, recipe.window.channels
    shape = (channels,) if length == 1 else (channels, length)
    traced = _traced(module)
    check_kinds(traced)
    _follow(traced, shape)
    _check_outputs(traced, recipe.labels)
    translated = translate(traced, recipe.torch)
    _check_tensors(module, traced, translated)
    layers = tuple(_table(layer) for layer in translated.layers)
    resolved = msgspec.structs.replace(recipe, layers=layers, torch=None)
    try:
        net, graphs = resolved.net(), resolved.graph_list()
    except MalformedError as error:
        raise ConfigError(
            "torch-unsupported", named_nodes(translated.nodes, error.sentence), remedy="change the module there"
        ) from error
    graphs = graphs if FLOAT in graphs else (*graphs, FLOAT)
    return Imported(msgspec.structs.replace(resolved, graphs=graphs), Peer(module, translated.carried, net))


def _traced(module: nn.Module) -> fx.GraphModule:
    """What it calls, in which order."""
    from torch import fx

    with _followable(""):
        traced = fx.symbolic_trace(module.eval())
        traced.graph.eliminate_dead_code()
        return traced


def _follow(traced: fx.GraphModule, shape: tuple[int, ...]) -> None:
    """Follow two examples through to see the shapes."""
    import torch
    from torch.fx.passes.shape_prop import ShapeProp

    with _followable(f" with an input of (N, {', '.join(map(str, shape))})"), torch.no_grad():
        ShapeProp(traced).propagate(torch.zeros(2, *shape))


@contextmanager
def _followable(how: str) -> Iterator[None]:
    """The author's code may raise anything."""
    try:
        yield
    except Exception as error:
        raise ConfigError(
            "torch-unsupported",
            f"the torch module cannot be followed{how}: {type(error).__name__}: {bounded(str(error).strip(), 300)}",
            remedy="let forward take windows channels-first (records: a row of features) and not decide by values",
        ) from error


def _check_outputs(traced: fx.GraphModule, labels: Sequence[str]) -> None:
    """The module answers as many outputs as the recipe names; what is no row of them is refused elsewhere."""
    last = list(traced.graph.nodes)[-1].args[0]
    meta = getattr(last, "meta", {}).get("tensor_meta")
    shape = tuple(getattr(meta, "shape", ()))
    if len(shape) == _ROWS and shape[1] != len(labels):
        raise ConfigError(
            "bad-recipe",
            f"labels has {len(labels)} names ({bounded(', '.join(labels), 120)}), and the torch module has {shape[1]} "
            "outputs",
            remedy="name each output in labels, or change the module's last layer",
        )


def _check_tensors(module: nn.Module, traced: fx.GraphModule, translated: Translated) -> None:
    """Every tensor is float32, learnt, and of one layer alone."""
    start = next(iter(traced.graph.nodes))
    state, learnt = module.state_dict(), dict(module.named_parameters(remove_duplicate=False))
    seen: dict[int, str] = {}
    for key in (one.key for one in translated.carried if one.key):
        if str(state[key].dtype) != "torch.float32":
            refuse(start, f"{key} is {state[key].dtype}, and devices train in float32", "call .float() on the module")
        if key in learnt and not learnt[key].requires_grad:
            refuse(
                start, f"{key} is frozen, and devices would train it", "freeze by [[suffixes]] of the recipe instead"
            )
        if (other := seen.setdefault(state[key].data_ptr(), key)) != key:
            refuse(start, f"{key} and {other} are one tensor", "give each layer tensors of its own")


def _table(layer: Layer) -> dict[str, str | int]:
    """A layer as a recipe has it."""
    table: dict[str, str | int] = msgspec.to_builtins(layer)
    return table
