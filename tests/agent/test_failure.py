"""Failures in words, whoever raised them."""

import logging

from bedside.agent.failure import FailureLog, describe
from bedside.core.errors import UnavailableError


class MuteError(Exception):
    """Of another package."""

    def __str__(self) -> str:
        raise RuntimeError("it cannot be shown")


def test_a_failure_is_one_line_whatever_was_raised() -> None:
    assert describe(UnavailableError("away", "it is off", remedy="switch it on")) == (
        "away: it is off. Remedy: switch it on"
    )
    assert describe(ValueError("two\nlines")) == "ValueError: two\\nlines"
    assert describe(MuteError()) == "MuteError"


def test_failures_are_logged_when_they_change_and_then_ever_more_rarely(caplog) -> None:
    caplog.set_level(logging.INFO)
    log = FailureLog("source", "ward")
    for _ in range(10):
        log.failed(UnavailableError("away", "it is off"))
    log.failed(ValueError("a patient's name"))
    log.recovered()
    log.recovered()
    said = [(one.message, one.bedside_fields.get("reason"), one.bedside_fields.get("times")) for one in caplog.records]
    away = [("source-failed", "away", times) for times in (1, 2, 4, 8)]
    assert said == [*away, ("source-failed", "ValueError", 1), ("source-recovered", None, None)]
    assert all(one.bedside_fields["source"] == "ward" for one in caplog.records)
