"""Which rules nothing can raise as this device is set up, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from bedside.agent.config import AlarmRule

_SHOWN: Final = 6
"""Names of a list that a sentence holds."""


@dataclass(frozen=True, slots=True)
class Decider:
    """What one slot decides: classes or labels, or values, and on which streams."""

    labels: Collection[str]
    streams: Collection[str]
    outputs: Collection[str] = ()


def unwatched(
    rules: Iterable[AlarmRule],
    deciders: Mapping[str, Decider],
    fed: Collection[str],
    heard: Collection[str],
    *,
    modelless: bool = False,
) -> list[str]:
    """A sentence for every rule that cannot be raised.

    Args:
        rules: of `[[alarms]]`.
        deciders: what serves, by slot; while nothing does, no rule of a label or output is told of.
        fed: streams that sources deliver.
        heard: rules of a field for which a record has come, or may still come.
        modelless: whether no model will ever serve as the device is set up.
    """
    sentences = (
        f"no model is configured that could decide the {_asked(rule)} of alarm {rule.name}"
        if modelless and not rule.field
        else _why(rule, deciders, fed, heard)
        for rule in rules
    )
    return [sentence for sentence in sentences if sentence]


def some(names: Collection[str]) -> str:
    """Names for a sentence, sorted, not too many of them; `none` for none."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(ordered[:_SHOWN]) + more or "none"


def _why(rule: AlarmRule, deciders: Mapping[str, Decider], fed: Collection[str], heard: Collection[str]) -> str:
    if rule.stream and rule.stream not in fed:
        return f"no source feeds stream {rule.stream} of alarm {rule.name} (streams here: {some(fed)})"
    if rule.field:
        return "" if rule.name in heard else f"no record with the field {rule.field} of alarm {rule.name} has come"
    if not deciders:
        return ""
    if rule.model and rule.model not in deciders:
        return f"no model {rule.model} of alarm {rule.name} serves (models here: {some(deciders)})"
    asked = _asked(rule)
    able = [
        decider
        for name, decider in deciders.items()
        if rule.model in ("", name) and (rule.label in decider.labels or rule.output in decider.outputs)
    ]
    if not able:
        who = f"model {rule.model} does not know" if rule.model else "no model knows"
        return f"{who} the {asked} of alarm {rule.name}"
    if rule.stream and not any(rule.stream in decider.streams for decider in able):
        return f"no model that knows the {asked} of alarm {rule.name} reads its stream {rule.stream}"
    return ""


def _asked(rule: AlarmRule) -> str:
    return "label" if rule.label else "output"
