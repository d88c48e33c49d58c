"""Topic filters: which topics they take, what their wildcards stand for, and whether two take the same.

Source: MQTT 5.0, section 4.7.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from bedside.core.errors import ConfigError

MAX_TOPIC_CHARS: Final = 1_024
"""Characters of a topic: beyond them, it is nobody's."""
MAX_LEVELS: Final = 32

_PLACE: Final = re.compile(r"\{([1-9][0-9]?)\}", re.ASCII)


class TopicFilter:
    """A topic filter without `$`: neither the broker's own topics (`$SYS`), nor subscriptions that agents share.

    Attributes:
        text: as it was written.
        wildcards: how many it has.
    """

    def __init__(self, text: str) -> None:
        """Read it.

        Raises:
            ConfigError: `topic-filter`.
        """
        levels = text.split("/", MAX_LEVELS)
        sound = 0 < len(text) <= MAX_TOPIC_CHARS and len(levels) <= MAX_LEVELS and text.isprintable()
        sound = sound and not text.startswith("$") and "#" not in "/".join(levels[:-1])
        if not sound or any(("+" in level or "#" in level) and len(level) > 1 for level in levels):
            raise ConfigError(
                "topic-filter",
                f"{text[:40]!r} is no topic filter",
                remedy="write levels between slashes, + for one of any name and # at the end for all below; no $",
            )
        self.text = text
        self.wildcards = sum(level in "+#" for level in levels if level)
        self._levels = levels

    def match(self, topic: str) -> tuple[str, ...] | None:
        """What the wildcards stand for, `#` for the rest of the levels; None when it is not taken."""
        if len(topic) > MAX_TOPIC_CHARS or topic.startswith("$"):
            return None
        found: list[str] = []
        levels = topic.split("/")
        for at, wanted in enumerate(self._levels):
            if wanted == "#":
                return (*found, "/".join(levels[at:]))
            if at == len(levels) or wanted not in ("+", levels[at]):
                return None
            if wanted == "+":
                found.append(levels[at])
        return tuple(found) if len(levels) == len(self._levels) else None

    def overlaps(self, other: TopicFilter) -> bool:
        """Whether some topic is taken by both: a broker may then deliver its messages twice."""
        for mine, its in zip(self._levels, other._levels, strict=False):
            if "#" in (mine, its):
                return True
            if mine != its and "+" not in (mine, its):
                return False
        longer, shorter = sorted((self._levels, other._levels), key=len, reverse=True)
        return len(longer) == len(shorter) or longer[len(shorter) :] == ["#"]


def check_filters(filters: Iterable[TopicFilter]) -> None:
    """Refuse two that take the same topic.

    Raises:
        ConfigError: `topic-filter`.
    """
    known: list[TopicFilter] = []
    for one in filters:
        for other in known:
            if one.overlaps(other):
                raise ConfigError(
                    "topic-filter",
                    f"the topic filters {other.text[:80]} and {one.text[:80]} take the same topics",
                    remedy="narrow one: a broker may deliver their messages twice",
                )
        known.append(one)


def numbers_in(template: str) -> frozenset[int]:
    """Wildcards that a template names: `bed-{1}` names the first."""
    return frozenset(int(found[1]) for found in _PLACE.finditer(template))


def fill(template: str, found: tuple[str, ...]) -> str:
    """The template with what the wildcards stand for; every number that it names is one of them."""
    return _PLACE.sub(lambda number: found[int(number[1]) - 1], template)


def fill_all(template: str, place: str) -> str:
    """The template with `place` for its wildcard, whichever it is."""
    return _PLACE.sub(lambda _: place, template)
