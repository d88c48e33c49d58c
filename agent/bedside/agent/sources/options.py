"""Options that several kinds of sources take, each in the same words, and what is read off them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from bedside.agent.sources.kind import option
from bedside.core.vocabulary.normaliser import FieldRule

Fields = Annotated[dict[str, FieldRule], option("by name: code, system, channel, unit, sent_unit, low, high, missing")]
TimeZone = Annotated[str, option("IANA name, of times without an offset")]
WhoseClock = Annotated[
    Literal["sender", "arrival"], option("whose time counts: sender, or arrival where senders' clocks are wrong")
]


def codes_of(fields: Mapping[str, FieldRule]) -> list[str]:
    """The code that each field takes, in their order: its own name where the rule says none."""
    return [rule.code or name for name, rule in fields.items()]
