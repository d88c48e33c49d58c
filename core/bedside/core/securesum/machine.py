"""A state machine as a table: what is not in the table is a protocol error.

Each role of the round (`device`, `trustee`, `aggregator`) is such a table over two enums; the documentation renders
the same tables, and a test draws every pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

from bedside.core.errors import ProtocolError

State = TypeVar("State", bound=Enum)
Input = TypeVar("Input", bound=Enum)


class Machine(Generic[State, Input]):
    """Transitions of one role.

    Attributes:
        name: of the role, for error sentences and documentation.
        transitions: (state, input) -> next state.
    """

    def __init__(self, name: str, transitions: Mapping[tuple[State, Input], State]) -> None:
        self.name = name
        self.transitions = dict(transitions)

    def advance(self, state: State, event: Input) -> State:
        """Return the next state.

        Raises:
            ProtocolError: `bad-transition`, when the table has no such pair.
        """
        try:
            return self.transitions[state, event]
        except KeyError:
            raise ProtocolError(
                "bad-transition", f"a {self.name} that is {state.value} cannot take {event.value}"
            ) from None

    def accepts(self, state: State, event: Input) -> bool:
        """Whether the table has this pair."""
        return (state, event) in self.transitions

    def is_final(self, state: State) -> bool:
        """Whether no input leads anywhere else."""
        return all(after is before for (before, _), after in self.transitions.items() if before is state)
