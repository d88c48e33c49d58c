"""Failures in words, whoever raised them."""

from bedside.agent.failure import describe
from bedside.core.errors import UnavailableError


class MuteError(Exception):
    """Of another package."""

    def __str__(self) -> str:
        raise RuntimeError("it cannot be shown")


def test_a_failure_is_one_line_whatever_was_raised() -> None:
    assert describe(UnavailableError("away", "it is off", remedy="switch it on")).startswith("away: it is off")
    assert describe(ValueError("two\nlines")) == "ValueError: two\\nlines"
    assert describe(MuteError()) == "MuteError"
