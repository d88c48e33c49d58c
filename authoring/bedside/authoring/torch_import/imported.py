"""From a recipe that names a torch module to one with layers, and the module that vouches for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bedside.authoring.golden import FLOAT
from bedside.authoring.torch_import.chain import refuse
from bedside.authoring.torch_import.peer import Peer
from bedside.authoring.torch_import.source import load_module
from bedside.authoring.torch_import.translate import Translated, named_nodes, translate
from bedside.core.bundle.layers import Layer
from bedside.core.errors import ConfigError, MalformedError
from bedside.service.text import bounded

if TYPE_CHECKING:
    from torch import fx, nn

    from bedside.authoring.recipe import Recipe


class Imported(NamedTuple):
    """A recipe with layers, and its module."""

    recipe: Recipe
    peer: Peer


def import_module(recipe: Recipe) -> Imported:
    """Translate the module that a recipe names.

    Raises:
        ConfigError: `torch-module`, `torch-unsupported`.
        UnavailableError: `torch-missing`.
    """
    if recipe.torch is None:
        raise ValueError("the recipe names no torch module")
    module = load_module(recipe.torch, recipe.seed)
    length, channels = recipe.window.length, recipe.window.channels
    traced = _traced(module, (channels,) if length == 1 else (channels, length))
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


def _traced(module: nn.Module, shape: tuple[int, ...]) -> fx.GraphModule:
    """Trace, and follow two examples through to see the shapes."""
    import torch
    from torch import fx
    from torch.fx.passes.shape_prop import ShapeProp

    try:
        traced = fx.symbolic_trace(module.eval())
        traced.graph.eliminate_dead_code()
        with torch.no_grad():
            ShapeProp(traced).propagate(torch.zeros(2, *shape))
    except Exception as error:
        raise ConfigError(
            "torch-unsupported",
            f"the torch module cannot be followed with an input of (N, {', '.join(map(str, shape))}): "
            f"{type(error).__name__}: {bounded(str(error).strip(), 300)}",
            remedy="let forward take windows channels-first (records: a row of features) and not decide by values",
        ) from error
    return traced


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
