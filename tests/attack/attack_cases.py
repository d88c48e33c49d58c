"""Every attack of the catalogue, once: how it is prepared, the code that refuses it, and the guards that do.

A case prepares the field and returns the attempt. `test_attacks.py` sees each attempt refused with its code and nothing
released; `test_guards.py` switches the guards off, the outermost first, and sees the attempt succeed. To add an attack,
write another function under `@attack` and a row in README.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from attack_field import Field
from guard_switch import Guard, Instead

Attempt = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Case:
    """One attack.

    Attributes:
        name: what the adversary does.
        rule: of DESIGN section 5 that it runs into.
        code: with which it is refused.
        guards: what must be off for it to succeed; more than one where defences lie behind each other.
        prepare: sets the field up and returns the attempt.
    """

    name: str
    rule: str
    code: str
    guards: tuple[Guard | Instead, ...]
    prepare: Callable[[Field], Attempt]


CASES: list[Case] = []


def attack(rule: str, code: str, *guards: Guard | Instead) -> Callable[[Callable[[Field], Attempt]], object]:
    """Put an attack into the catalogue."""

    def enter(prepare: Callable[[Field], Attempt]) -> object:
        CASES.append(Case(prepare.__name__, rule, code, guards, prepare))
        return prepare

    return enter
