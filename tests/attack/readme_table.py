"""The catalogue's table in README.md. `python tests/attack/readme_table.py` prints it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import disks_cases
import plans_cases
import rounds_cases
import sets_cases
import vectors_cases
from attack_cases import CASES, Case
from guard_switch import Guard

FILES = (disks_cases, plans_cases, rounds_cases, sets_cases, vectors_cases)


def row(case: Case) -> str:
    """One attack's row."""
    guards = ", ".join(f"`{_name(guard)}`" for guard in case.guards) or "no single one"
    return f"| {case.name.replace('_', ' ')} | {case.rule} | `{case.code}` | {guards} |"


def _name(guard: object) -> str:
    if isinstance(guard, Guard):
        return f"{guard.function.__qualname__}: {guard.token}"
    owner = getattr(guard.owner, "__qualname__", guard.owner.__name__.rpartition(".")[2])
    return f"{owner}.{guard.name}"


if __name__ == "__main__":
    print("\n".join(row(case) for case in CASES))
