"""From a traced module to the chain of nodes that a layer list can follow: one way from the input to the output.

What leaves the chain and comes back is a residual addition: of what an earlier node gave, as it is or through a
convolution of one tap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from bedside.core.errors import ConfigError
from bedside.service.text import bounded

if TYPE_CHECKING:
    from torch import fx, nn

_ADDITIONS: Final = ("add", "iadd", "add_")
SUPPORTED: Final = (
    "Conv1d (odd kernel, same padding), Linear, ReLU, MaxPool1d(2), AdaptiveAvgPool1d(1), a mean over time, Flatten, "
    "BatchNorm1d behind a Conv1d or Linear, GroupNorm, additions, Identity, Dropout(0)"
)

KINDS: Final = frozenset(
    [
        "Conv1d",
        "Linear",
        "BatchNorm1d",
        "GroupNorm",
        "ReLU",
        "relu",
        "relu_",
        "MaxPool1d",
        "max_pool1d",
        "AdaptiveAvgPool1d",
        "adaptive_avg_pool1d",
        "mean",
        "Flatten",
        "flatten",
        "squeeze",
        "Identity",
        "Dropout",
        "Dropout1d",
        "dropout",
    ]
)
"""Modules, functions and methods that may have a form on devices."""
_KNOWN: Final = KINDS.union(_ADDITIONS, ("getitem", "getattr", "size"))
"""With what takes something out of what others give, and says nothing about why it is there."""
_MAX_NAMED: Final = 12


class Link(NamedTuple):
    """One node of the chain.

    Attributes:
        node: of the trace.
        main: what it follows; of an addition, what the earlier one is added to.
        skip: of an addition: the earlier node that is added.
        through: and the convolution of one tap that it comes through, if any.
    """

    node: fx.Node
    main: fx.Node
    skip: fx.Node | None = None
    through: fx.Node | None = None


def operation(traced: fx.GraphModule, node: fx.Node) -> tuple[str, nn.Module | None]:
    """What a node does: the class of its module, and that; or the name of its function."""
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        return type(module).__qualname__, module
    if node.op == "call_function":
        return str(getattr(node.target, "__name__", node.target)), None
    return (str(node.target) if node.op == "call_method" else node.op), None


def check_kinds(traced: fx.GraphModule) -> None:
    """Refuse a module for all of its submodules and calls at once that no layer computes, whatever their arguments.

    Raises:
        ConfigError: `torch-unsupported`.
    """
    unknown: list[str] = []
    for node in traced.graph.nodes:
        name, _ = operation(traced, node)
        if node.op in {"call_module", "call_function", "call_method"} and name not in _KNOWN:
            place = f" ({node.target})" if node.op == "call_module" else ""
            unknown.append(f"{name}{bounded(place, 64)}")
    if unknown:
        more = f" and {len(unknown) - _MAX_NAMED} more" if len(unknown) > _MAX_NAMED else ""
        raise ConfigError(
            "torch-unsupported",
            f"the torch module cannot be trained on devices: {', '.join(unknown[:_MAX_NAMED])}{more} "
            f"{'has' if len(unknown) == 1 else 'have'} no exact form there",
            remedy=f"use what is supported: {SUPPORTED}",
        )


def chain_of(traced: fx.GraphModule) -> tuple[Link, ...]:
    """The nodes from the input to the output, without these two.

    Raises:
        ConfigError: `torch-unsupported`.
    """
    from torch import fx

    nodes = list(traced.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        refuse(nodes[0], f"the module takes {len(inputs)} inputs", "let forward take one tensor of windows")
    given = nodes[-1].args[0]
    if not isinstance(given, fx.Node):
        refuse(nodes[-1], "the module gives more than one tensor", "let forward return the last layer's output")
    links: list[Link] = []
    while given.op != "placeholder":
        link = _link(traced, given)
        links.append(link)
        given = link.main
    return tuple(reversed(links))


def refuse(node: fx.Node, why: str, remedy: str) -> NoReturn:
    """Refuse a module for one of its nodes."""
    name = str(node.target) if node.op == "call_module" else node.name
    raise ConfigError(
        "torch-unsupported",
        f"the torch module cannot be trained on devices: {bounded(name, 64)}: {why}",
        remedy=remedy,
    )


def _link(traced: fx.GraphModule, node: fx.Node) -> Link:
    from torch import fx

    name, _ = operation(traced, node)
    given = [one for one in node.args if isinstance(one, fx.Node)]
    if node.op == "call_module" or name not in _ADDITIONS:
        if len(given) != 1 or node.args[0] is not given[0] or len(node.all_input_nodes) != 1:
            refuse(node, f"{name} does not take one tensor", f"use what is supported: {SUPPORTED}")
        return Link(node, given[0])
    if len(given) != 2 or len(node.args) != 2 or node.kwargs:
        refuse(node, "it adds what no layer gave", "add the outputs of two layers, or leave it to a layer's bias")
    left, right = (_behind_identity(traced, one) for one in given)
    for main, skip in ((left, right), (right, left)):
        if main is not skip and skip in _ancestors(main):
            return Link(node, main, skip)
    for main, side in ((left, right), (right, left)):
        _, module = operation(traced, side)
        before = side.args[0] if side.args else None
        one_tap = type(module).__qualname__ == "Conv1d" and tuple(getattr(module, "kernel_size", ())) == (1,)
        if one_tap and isinstance(before, fx.Node) and before in _ancestors(main):
            return Link(node, main, before, side)
    return refuse(
        node,
        "its two branches do not meet in an earlier layer",
        "add what an earlier layer gave, as it is or through one Conv1d of kernel 1 without a norm",
    )


def _behind_identity(traced: fx.GraphModule, node: fx.Node) -> fx.Node:
    """What an `nn.Identity` hands on."""
    while operation(traced, node)[0] == "Identity":
        node = node.all_input_nodes[0]
    return node


def _ancestors(node: fx.Node) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting: list[fx.Node] = [node]
    while waiting:
        for before in waiting.pop().all_input_nodes:
            if before not in found:
                found.add(before)
                waiting.append(before)
    return found
