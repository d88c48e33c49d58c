"""Guards that can be switched off: a function without one of its `raise` statements, or with nothing at all in it.

The function keeps its identity: only its code is replaced, so that every module that imported it is without the guard.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType

from bedside.core.policy import judge


@dataclass(frozen=True, slots=True)
class Guard:
    """A guard to switch off.

    Attributes:
        function: where it stands.
        token: the code that its `raise` carries, or the name of the function that makes the error.
    """

    function: Callable[..., object]
    token: str


@dataclass(frozen=True, slots=True)
class Instead:
    """A guard that is a whole function, or a table: something else stands in its place."""

    owner: object
    name: str
    value: object


def switch_off(guards: Iterable[Guard | Instead], patch: Callable[..., None]) -> None:
    """Replace each guarded function's code by its code without its guards."""
    tokens: dict[FunctionType, set[str]] = {}
    for guard in guards:
        if isinstance(guard, Instead):
            patch(guard.owner, guard.name, guard.value, raising=False)
            continue
        function = inspect.unwrap(guard.function)
        assert isinstance(function, FunctionType)
        tokens.setdefault(function, set()).add(guard.token)
    for function, wanted in tokens.items():
        patch(function, "__code__", _without_raises(function, wanted))


def _without_raises(function: FunctionType, tokens: set[str]) -> CodeType:
    remover = _Remover(tokens)
    tree = ast.fix_missing_locations(remover.visit(ast.parse(textwrap.dedent(inspect.getsource(function)))))
    assert remover.removed == tokens, f"{function.__qualname__} has no guard {tokens - remover.removed}"
    ast.increment_lineno(tree, function.__code__.co_firstlineno - 1)
    flags = __future__.annotations.compiler_flag
    compiled = compile(tree, inspect.getfile(function), "exec", flags=flags, dont_inherit=True)
    return next(code for code in compiled.co_consts if getattr(code, "co_name", "") == function.__name__)


class _Remover(ast.NodeTransformer):
    def __init__(self, tokens: set[str]) -> None:
        self._tokens = tokens
        self.removed: set[str] = set()

    def visit_Raise(self, node: ast.Raise) -> ast.stmt:  # the base class names it
        found = self._tokens & set(_names_of(node.exc))
        self.removed |= found
        return ast.Pass() if found else node


def _names_of(error: ast.expr | None) -> Iterator[str]:
    """By what a guard may ask for this `raise`: its code, the fixed end of its code, or the function that makes it."""
    if not isinstance(error, ast.Call):
        return
    if isinstance(error.func, ast.Name):
        yield error.func.id
    first = error.args[0] if error.args else None
    if isinstance(first, ast.Constant):
        yield str(first.value)
    elif isinstance(first, ast.JoinedStr):
        yield "".join(str(part.value) for part in first.values if isinstance(part, ast.Constant))


def without(*codes: str) -> Instead:
    """`judge_plan` without these rules."""
    kept = tuple(rule for rule in judge.RULES if rule.code not in codes)
    assert len(kept) == len(judge.RULES) - len(codes), codes
    return Instead(judge, "RULES", kept)
