"""The rules of `[[alarms]]`, checked before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from bedside.agent.config import CONFIG_NAME, AlarmRule
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.ids import check_id

MAX_RULES: Final = 256
"""Every prediction and every record is held against all rules of its stream."""


def check_rules(rules: Sequence[AlarmRule]) -> None:
    """Refuse rules that could not be meant.

    Raises:
        ConfigError: `alarm-rule`, naming every such rule and what is wrong with it.
    """
    if len(rules) > MAX_RULES:
        raise _bad(f"{len(rules)} alarms are more than {MAX_RULES}")
    wrong = list(_wrong(rules))
    if wrong:
        raise _bad("; ".join(wrong))


def _wrong(rules: Sequence[AlarmRule]) -> Iterator[str]:
    """The first that is wrong with each rule."""
    names: set[str] = set()
    for rule in rules:
        try:
            check_id(rule.name, "alarm")
            if rule.stream:
                check_id(rule.stream, "stream")
        except MalformedError as error:
            yield f"alarm {rule.name[:40]!r}: {error.sentence}"
            continue
        if rule.name in names:
            yield f"two alarms are called {rule.name}"
        names.add(rule.name)
        broken = [sentence for holds, sentence in _demands(rule) if not holds]
        if broken:
            yield f"alarm {rule.name}: {broken[0]}"


def _demands(rule: AlarmRule) -> list[tuple[bool, str]]:
    numbers = (rule.above, rule.below, rule.clear, rule.hold_off_s, rule.escalate_s)
    finite = all(number is None or math.isfinite(number) for number in numbers)
    one_limit = (rule.above is None) != (rule.below is None)
    return [
        (sum(map(bool, (rule.label, rule.output, rule.field))) == 1, "it needs one of label, output and field"),
        (one_limit, "it needs either above or below"),
        (finite, "its numbers must be finite"),
        (rule.hold_off_s >= 0 and rule.escalate_s >= 0, "hold_off_s and escalate_s must not be negative"),
        (
            not (one_limit and finite) or _clears_on_the_right_side(rule),
            "clear must lie on the quiet side of the limit",
        ),
        (not rule.label or not one_limit or _reachable(rule), "the probability of a label lies between 0 and 1"),
    ]


def _clears_on_the_right_side(rule: AlarmRule) -> bool:
    if rule.clear is None:
        return True
    return rule.clear <= rule.above if rule.above is not None else rule.clear >= (rule.below or 0.0)


def _reachable(rule: AlarmRule) -> bool:
    return (rule.above is not None and 0 < rule.above <= 1) or (rule.below is not None and 0 <= rule.below < 1)


def _bad(sentence: str) -> ConfigError:
    return ConfigError("alarm-rule", f"{CONFIG_NAME}: {sentence}", remedy=f"correct [[alarms]] in {CONFIG_NAME}")
