"""What looks wrong about new labels, and is no reason to refuse them: who labels may know better than we."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Final, NamedTuple

from bedside.agent.buffer.rows import Label

MAX_WARNINGS: Final = 20
"""Sentences about one batch; the rest is counted."""
_MAX_CLASSES: Final = 12
_LOOKS: Final = 64
"""Labels over the same time that a new one is held against: the latest."""
_START: Final = attrgetter("start_ns")


class Known(NamedTuple):
    """What the models of this device are asked; nothing at all where nobody can say.

    Attributes:
        classes: and labels that may hold together.
        values: that are estimated.
    """

    classes: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()


def known_of(models: Iterable[tuple[bool, Iterable[str]]]) -> Known:
    """What models are asked: of each whether it estimates values, and its outputs."""
    names: dict[bool, set[str]] = {False: set(), True: set()}
    for measures, outputs in models:
        names[measures].update(outputs)
    return Known(frozenset(names[False]), frozenset(names[True]))


def implausible(fresh: Sequence[Label], before: Sequence[Label], known: Known) -> list[str]:
    """A sentence for each name that no model learns so, and for each label that contradicts one from before.

    Args:
        fresh: labels that were not there yet, of any sessions.
        before: labels that hold in these sessions.
        known: what models are asked.
    """
    found = [*_unknown(fresh, known), *_contradictions(fresh, before)]
    more = len(found) - MAX_WARNINGS
    return found if more <= 0 else [*found[:MAX_WARNINGS], f"and {more} more like these"]


def when(time_ns: int) -> str:
    """A time for people, to the millisecond."""
    return datetime.fromtimestamp(time_ns // 1_000_000 / 1_000, UTC).isoformat(timespec="milliseconds")


def _unknown(fresh: Sequence[Label], known: Known) -> Iterator[str]:
    if not any(known):
        return
    for name, measured in sorted({(one.label, one.value is not None) for one in fresh}):
        if name in (known.values if measured else known.classes):
            continue
        if measured:
            told = "it is a class, and learnt from labels without a value" if name in known.classes else ""
            yield f"no model of this device estimates {name!r}: {told or _listed('the values are', known.values)}"
        else:
            told = "it is estimated, and learnt from labels with a value" if name in known.values else ""
            yield (
                f"no model of this device knows the class {name!r}: {told or _listed('the classes are', known.classes)}"
            )


def _listed(what: str, names: frozenset[str]) -> str:
    some = sorted(names)
    return f"{what} {', '.join(some[:_MAX_CLASSES]) or 'none'}" + (", ..." if len(some) > _MAX_CLASSES else "")


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
