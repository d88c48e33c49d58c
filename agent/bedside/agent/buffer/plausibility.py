"""What looks wrong about new labels, and is no reason to refuse them: who labels may know better than we."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Final

from bedside.agent.buffer.rows import Label

MAX_WARNINGS: Final = 20
"""Sentences about one batch; the rest is counted."""
_MAX_CLASSES: Final = 12
_LOOKS: Final = 64
"""Labels over the same time that a new one is held against: the latest."""
_START: Final = attrgetter("start_ns")


def implausible(fresh: Sequence[Label], before: Sequence[Label], classes: frozenset[str]) -> list[str]:
    """A sentence for each class that no model knows, and for each label that contradicts one from before.

    Args:
        fresh: labels that were not there yet, of any sessions.
        before: labels that hold in these sessions.
        classes: those that models know; empty where nobody can say.
    """
    found = [*_unknown(fresh, classes), *_contradictions(fresh, before)]
    more = len(found) - MAX_WARNINGS
    return found if more <= 0 else [*found[:MAX_WARNINGS], f"and {more} more like these"]


def when(time_ns: int) -> str:
    """A time for people, to the millisecond."""
    return datetime.fromtimestamp(time_ns // 1_000_000 / 1_000, UTC).isoformat(timespec="milliseconds")


def _unknown(fresh: Sequence[Label], classes: frozenset[str]) -> Iterator[str]:
    names = sorted(classes)
    known = ", ".join(names[:_MAX_CLASSES]) + (", ..." if len(names) > _MAX_CLASSES else "")
    for name in sorted({one.label for one in fresh} - classes) if classes else ():
        yield f"no model of this device knows the class {name!r}: the classes are {known}"


def _contradictions(fresh: Sequence[Label], before: Sequence[Label]) -> Iterator[str]:
    """Sweep over the starts of both, so that what is long over is not looked at again."""
    waiting = sorted(before, key=_START)
    under_way: list[Label] = []
    at = 0
    for one in sorted(fresh, key=_START):
        while at < len(waiting) and waiting[at].start_ns < one.end_ns:
            under_way.append(waiting[at])
            at += 1
        under_way = [old for old in under_way if old.end_ns > one.start_ns][-_LOOKS:]
        for old in under_way:
            overlaps = old.start_ns < one.end_ns and old.session == one.session
            if overlaps and old.value != one.value and old.label == one.label:
                yield (
                    f"label {one.label!r} of {one.value} from {when(one.start_ns)} contradicts label {old.number}, of"
                    f" {old.value}, over the same time"
                )
                break
            if overlaps and old.label != one.label and old.value is None and one.value is None:
                yield (
                    f"label {one.label!r} from {when(one.start_ns)} contradicts label {old.number}, {old.label!r},"
                    " over the same time"
                )
                break
