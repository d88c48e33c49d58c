"""A traced torch module as a layer list, and where each of its tensors is in torch.

Every kind of node has one rule, and a rule accepts only what the layer computes in just the same way, forwards and
backwards. What has no rule is refused with its name, the reason, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bedside.authoring.norms import RUNNING_SHARE
from bedside.authoring.torch_import.carried import Carried, How
from bedside.authoring.torch_import.chain import SUPPORTED, Link, chain_of, operation, refuse
from bedside.authoring.torch_import.source import TorchSource
from bedside.core.bundle.layers import (
    Add,
    BatchNorm,
    Conv1d,
    Dense,
    DepthwiseConv1d,
    Flatten,
    GlobalAveragePool,
    GroupNorm,
    Layer,
    MaxPool,
    Relu,
    Scope,
    Standardise,
)
from bedside.core.bundle.parameters import NORM_EPSILON

if TYPE_CHECKING:
    from torch import fx

Module = Any
"""An `nn.Module` of a kind that its name told: torch is no dependency that types could come from."""

_FLAT_RANK: Final = 2
_TIME_RANK: Final = 3


@dataclass(frozen=True, slots=True)
class Translated:
    """A module in our terms.

    Attributes:
        layers: the layer list.
        carried: where each of its tensors is in torch, without moments in front and the activations' ranges.
        nodes: which node of the trace each layer comes from.
    """

    layers: tuple[Layer, ...]
    carried: tuple[Carried, ...]
    nodes: tuple[str, ...]


@dataclass(slots=True)
class _Value:
    """What a node gave.

    Attributes:
        place: of the layer that gives it; -1 for the input.
        shape: in torch, with the batch axis.
        flat: (channels, samples) that were flattened into it and not yet multiplied.
        pooled: whether torch keeps a time axis of one sample, which the layer list has dropped.
    """

    place: int
    shape: tuple[int, ...]
    flat: tuple[int, int] | None = None
    pooled: bool = False


@dataclass(slots=True)
class _Translation:
    traced: fx.GraphModule
    scopes: dict[str, Scope]
    layers: list[Layer] = field(default_factory=list)
    carried: list[Carried] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    order: int = 0
    norm: int = 0
    used: set[str] = field(default_factory=set)

    def add(self, node: fx.Node, layer: Layer) -> int:
        self.layers.append(layer)
        self.nodes.append(node.name)
        return len(self.layers) - 1

    def scope(self, node: fx.Node, usual: Scope = "shared") -> Scope:
        """Whether a module's tensors are shared: by its own name, or that of what it is in."""
        target = str(node.target)
        named = [name for name in self.scopes if target == name or target.startswith(f"{name}.")]
        self.used.update(named)
        return self.scopes[max(named, key=len)] if named else usual

    def carry_weights(self, node: fx.Node, module: Module, value: _Value) -> None:
        """The weight and bias of a convolution or a dense layer."""
        how: How = "dense" if not hasattr(module, "groups") else "conv" if module.groups == 1 else "depthwise"
        key = str(node.target)
        self.carried.append(Carried(f"w{self.order}", f"{key}.weight", how, value.flat))
        self.carried.append(Carried(f"b{self.order}", f"{key}.bias" if module.bias is not None else ""))
        self.order += 1

    def carry_norm(self, node: fx.Node, names: dict[str, str]) -> None:
        self.carried += [Carried(f"{ours}{self.norm}", f"{node.target}.{theirs}") for ours, theirs in names.items()]
        self.norm += 1


def translate(traced: fx.GraphModule, source: TorchSource) -> Translated:
    """Follow a module that was traced with shapes (`torch.fx.passes.shape_prop`).

    Args:
        traced: the module.
        source: says what is shared, and whether windows are standardised in front.

    Raises:
        ConfigError: `torch-unsupported`.
    """
    links = chain_of(traced)
    scopes = source.scopes
    state = _Translation(traced, scopes)
    start = next(iter(traced.graph.nodes))
    shape = _shape(start)
    values = {start: _Value(-1, shape)}
    if source.standardise != "none":
        values[start] = _Value(state.add(start, Standardise(source.standardise)), shape)
        state.norm += 1
    if len(shape) == _FLAT_RANK:  # a record: the layer list sees it as a window of one sample
        values[start] = _Value(state.add(start, Flatten()), shape)
    seen: set[str] = set()
    before = start
    for link, later in zip(links, (*links[1:], None), strict=True):
        values[link.node] = _follow(state, link, values, before, later)
        if link.node.op == "call_module":
            _check_once(link.node, seen)
        before = link.node
    if unknown := sorted(scopes.keys() - state.used):
        refuse(start, f"[torch.scopes] names {unknown[0]}, which has no tensors", "name a submodule of the module")
    return Translated(tuple(state.layers), tuple(state.carried), tuple(state.nodes))


def _check_once(node: fx.Node, seen: set[str]) -> None:
    if str(node.target) in seen:
        refuse(node, "the same module is used twice", "give each use a module of its own")
    seen.add(str(node.target))


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["tensor_meta"].shape)


def _follow(
    state: _Translation, link: Link, values: dict[fx.Node, _Value], before: fx.Node, later: Link | None
) -> _Value:
    node, value = link.node, values[before]
    if link.skip is not None:
        return _add(state, link, value, values)
    name, module = operation(state.traced, node)
    if value.pooled and name not in {"Flatten", "flatten", "squeeze", "Identity"}:
        refuse(node, "it follows a pool over all of time, which leaves one sample", "put nn.Flatten() behind the pool")
    match name:
        case "Conv1d" | "Linear":
            return _weighted(state, node, module, value, later)
        case "BatchNorm1d" | "GroupNorm":
            return _norm(state, node, module, value)
        case "ReLU" | "relu" | "relu_":
            return _Value(state.add(node, Relu()), value.shape, value.flat)
        case "MaxPool1d" | "max_pool1d":
            return _pool(state, node, module)
        case "AdaptiveAvgPool1d" | "adaptive_avg_pool1d" | "mean":
            return _average(state, node, module, value)
        case "Flatten" | "flatten" | "squeeze":
            return _flatten(state, node, name, module, value)
        case _:
            return _nothing(node, name, module, value)


def _nothing(node: fx.Node, name: str, module: Module | None, value: _Value) -> _Value:
    """What computes nothing."""
    p = 0.0
    if name in {"Dropout", "Dropout1d", "dropout"}:
        p = module.p if module is not None else _argument(node, 1, "p", 0.5)
    elif name != "Identity":
        refuse(node, f"{name} has no exact form on devices", f"use what is supported: {SUPPORTED}")
    if p:
        refuse(node, f"dropout of {p:g} draws at random in every step", "set p=0")
    return value


def _argument(node: fx.Node, at: int, name: str, usual: object) -> Any:
    """One argument of a call."""
    return node.args[at] if len(node.args) > at else node.kwargs.get(name, usual)


def _single(value: object) -> object:
    """A number that torch also takes as a tuple of one."""
    return value[0] if isinstance(value, tuple | list) and len(value) == 1 else value


def _weighted(state: _Translation, node: fx.Node, module: Module, value: _Value, later: Link | None) -> _Value:
    normed = later is not None and operation(state.traced, later.node)[0] == "BatchNorm1d"
    if module.bias is None and not normed:
        refuse(
            node, "it has no bias, and on devices every layer learns one", "say bias=True, or put a BatchNorm1d on it"
        )
    scope = state.scope(node)
    if hasattr(module, "kernel_size"):
        place = state.add(node, _convolution(node, module, scope))
    elif len(value.shape) != _FLAT_RANK:
        refuse(
            node, "a Linear over each sample in time is none on devices", "use a Conv1d of kernel 1, or flatten first"
        )
    else:
        place = state.add(node, Dense(module.out_features, scope))
    state.carry_weights(node, module, value)
    return _Value(place, _shape(node))


def _convolution(node: fx.Node, module: Module, scope: Scope) -> Conv1d | DepthwiseConv1d:
    (taps,), (stride,), (dilation,) = module.kernel_size, module.stride, module.dilation
    padding = taps // 2 if module.padding == "same" else _single(module.padding)
    if taps % 2 == 0 or padding != taps // 2 or dilation != 1 or module.padding_mode != "zeros":
        refuse(
            node,
            f"kernel {taps}, padding {module.padding}, dilation {dilation}, {module.padding_mode} does not keep "
            "the window's middle",
            "use an odd kernel_size, padding=kernel_size//2, dilation=1 and padding_mode='zeros'",
        )
    if _shape(node.all_input_nodes[0])[-1] % stride:
        refuse(node, f"the stride {stride} does not divide its length", "use a length that is a multiple of the stride")
    if module.groups == 1:
        return Conv1d(module.out_channels, taps, stride, scope)
    if not module.groups == module.in_channels == module.out_channels:
        refuse(
            node, f"{module.groups} groups are neither one nor one per channel", "use groups=1 or groups=in_channels"
        )
    return DepthwiseConv1d(taps, stride, scope)


def _norm(state: _Translation, node: fx.Node, module: Module, value: _Value) -> _Value:
    if module.eps != NORM_EPSILON or not module.affine:
        refuse(node, f"eps is {module.eps:g} and affine {module.affine}", f"say eps={NORM_EPSILON:g}, affine=True")
    names = {"gamma": "weight", "beta": "bias"}
    if hasattr(module, "num_groups"):
        place = state.add(node, GroupNorm(module.num_groups, state.scope(node)))
    else:
        if module.momentum != RUNNING_SHARE or not module.track_running_stats:
            refuse(node, f"momentum is {module.momentum}", f"say momentum={RUNNING_SHARE:g}, track_running_stats=True")
        if not state.layers or not isinstance(state.layers[-1], Conv1d | DepthwiseConv1d | Dense):
            refuse(node, "a batch norm is folded into the layer before it", "put it right behind a Conv1d or Linear")
        place = state.add(node, BatchNorm(state.scope(node, "local")))
        names |= {"mean": "running_mean", "variance": "running_var"}
    state.carry_norm(node, names)
    return _Value(place, value.shape)


def _pool(state: _Translation, node: fx.Node, module: Module | None) -> _Value:
    usual = {"kernel_size": None, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}
    read = {name: _single(_argument(node, 1 + at, name, value)) for at, (name, value) in enumerate(usual.items())}
    if module is not None:
        read = {name: _single(getattr(module, name)) for name in usual}
    plain = (read["kernel_size"], read["padding"], read["dilation"], read["ceil_mode"]) == (2, 0, 1, False)
    if not plain or read["stride"] not in (None, 2) or _shape(node.all_input_nodes[0])[-1] % 2:
        refuse(node, "it is not a maximum over pairs of an even length", "use MaxPool1d(2), without padding")
    return _Value(state.add(node, MaxPool()), _shape(node))


def _average(state: _Translation, node: fx.Node, module: Module | None, value: _Value) -> _Value:
    name, _ = operation(state.traced, node)
    if name == "mean":
        axis, keeps = _single(_argument(node, 1, "dim", None)), bool(_argument(node, 2, "keepdim", False))
        over_time = axis in (-1, _TIME_RANK - 1)
    else:
        size = module.output_size if module is not None else _argument(node, 1, "output_size", None)
        over_time, keeps = _single(size) == 1, True
    if not over_time or len(value.shape) != _TIME_RANK:
        refuse(node, "it is not a mean over all of time", "use AdaptiveAvgPool1d(1), or mean(dim=2)")
    return _Value(state.add(node, GlobalAveragePool()), _shape(node), pooled=keeps)


def _flatten(state: _Translation, node: fx.Node, name: str, module: Module | None, value: _Value) -> _Value:
    shape = _shape(node)
    if name == "squeeze":
        kept = _argument(node, 1, "dim", None) not in (-1, _TIME_RANK - 1) or not value.pooled
    else:
        first, last = (
            (module.start_dim, module.end_dim)
            if module is not None
            else (_argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1))
        )
        kept = first != 1 or last not in (-1, len(value.shape) - 1)
    if kept:
        refuse(node, "it does more than to make one row of each example", "use nn.Flatten(), or torch.flatten(x, 1)")
    if value.pooled or len(value.shape) == _FLAT_RANK:
        return _Value(value.place, shape, value.flat)
    return _Value(state.add(node, Flatten()), shape, (value.shape[1], value.shape[2]))


def _add(state: _Translation, link: Link, value: _Value, values: dict[fx.Node, _Value]) -> _Value:
    node, skip, through = link.node, link.skip, link.through
    given = values.get(skip) if skip is not None else None
    if given is None or given.place < 0:
        refuse(node, "it adds the module's input, or what is beside the chain", "begin the block behind a first Conv1d")
    if through is None:
        if (given.shape, given.flat, given.pooled) != (value.shape, value.flat, value.pooled):
            refuse(node, f"{given.shape} and {value.shape} are spread over each other", "add tensors of one shape")
        place = state.add(node, Add(_back(state, node, given)))
        return _Value(place, value.shape, value.flat, value.pooled)
    module = state.traced.get_submodule(str(through.target))
    (stride,), fits = module.stride, given.shape[1:] != value.shape[1:]
    if not fits or module.bias is None or module.groups != 1 or len(value.shape) != _TIME_RANK:
        refuse(
            through,
            "a shortcut is a convolution where shapes differ, with a bias",
            "add the earlier output as it is, or through Conv1d(inputs, outputs, 1, stride) with bias=True",
        )
    _convolution(through, module, "shared")
    if given.shape[2] // value.shape[2] != stride:
        refuse(
            through, f"the stride {stride} does not bring it to {value.shape[2]} samples", "use the stride of the block"
        )
    place = state.add(node, Add(_back(state, node, given), state.scope(through)))
    state.carry_weights(through, module, given)
    return _Value(place, value.shape)


def _back(state: _Translation, node: fx.Node, given: _Value) -> int:
    back = len(state.layers) - given.place
    if back <= 1:
        refuse(node, "it adds a tensor to itself", "add what an earlier layer gave")
    return back


def named_nodes(nodes: Sequence[str], sentence: str) -> str:
    """An error about `layer 3 (conv1d)`, with the node that it comes from."""
    for at, name in enumerate(nodes):
        sentence = sentence.replace(f"layer {at} (", f"{name}, layer {at} (")
    return sentence
