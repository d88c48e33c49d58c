"""The report's pictures. Every function takes plain numbers and returns one SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from bedside.demo import svg
from bedside.demo.svg import Box, Scale

PHASE_COLOURS: Final = {
    "opening": "#7fb3bf",
    "collecting": svg.TEAL,
    "sealed": svg.AMBER,
    "voted": svg.BLUE,
    "answered": svg.GREEN,
}
_WIDTH: Final = 520.0
_WIDE: Final = 760.0


class Bar(NamedTuple):
    """One bar: its name, its height between 0 and 1, its colour, and single results shown as dots on it."""

    name: str
    value: float
    colour: str
    dots: Sequence[float] = ()


class Line(NamedTuple):
    """One line over the rounds: its name, (round, value between 0 and 1) points, and its colour."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str


class PhaseBar(NamedTuple):
    """One round of the timeline: its number and (phase, seconds) in order."""

    round_number: int
    phases: Sequence[tuple[str, float]]


def accuracy_bars(bars: Sequence[Bar]) -> str:
    """Draw accuracies side by side; dots show the single results behind a mean."""
    box = Box(44, 16, _WIDTH - 52, 232)
    down = Scale(0, 1, box.bottom, box.top)
    parts = _share_axis(box, down)
    slot = box.width / max(1, len(bars))
    for index, bar in enumerate(bars):
        middle = box.left + slot * (index + 0.5)
        width = min(84.0, slot * 0.6)
        top = down(bar.value)
        parts.append(svg.rectangle(middle - width / 2, top, width, box.bottom - top, fill=bar.colour, radius=3))
        parts += [
            svg.circle(middle + width * 0.3 * _spread(at), down(dot), 3.2, fill=svg.INK, title=f"{dot:.3f}")
            for at, dot in enumerate(bar.dots)
        ]
        highest = max([bar.value, *bar.dots])
        parts.append(svg.text(middle, down(highest) - 8, f"{bar.value:.3f}", size=14, anchor="middle", weight=600))
        parts.append(svg.text(middle, box.bottom + 20, bar.name, size=12.5, anchor="middle", fill=svg.MUTED))
    return svg.document(_WIDTH, 284, parts, "accuracy on the held-out wearers")


def accuracy_lines(lines: Sequence[Line], levels: Sequence[Bar], rounds: int) -> str:
    """Draw accuracy over rounds, with constant levels dashed for comparison."""
    box = Box(44, 16, _WIDTH - 176, 232)
    down = Scale(0, 1, box.bottom, box.top)
    across = Scale(0, max(1, rounds), box.left, box.right)
    parts = _share_axis(box, down)
    for step in range(rounds + 1):
        if rounds <= 12 or step % 5 == 0:
            parts.append(svg.text(across(step), box.bottom + 18, str(step), size=11, anchor="middle", fill=svg.MUTED))
    parts.append(
        svg.text(box.left + box.width / 2, box.bottom + 34, "round", size=11.5, anchor="middle", fill=svg.MUTED)
    )
    ends: list[tuple[float, str, str]] = []
    for level in levels:
        y = down(level.value)
        parts.append(svg.line(box.left, y, box.right, y, stroke=level.colour, width=1.5, dash="5 4"))
        ends.append((y, f"{level.name} {level.value:.3f}", level.colour))
    for one in lines:
        points = [(across(x), down(y)) for x, y in one.points]
        parts.append(svg.polyline(points, stroke=one.colour, width=2.5))
        parts += [
            svg.circle(x, y, 3.4, fill=one.colour, title=f"{value:.3f}")
            for (x, y), (_, value) in zip(points, one.points, strict=True)
        ]
        if points:
            ends.append((points[-1][1], f"{one.name} {one.points[-1][1]:.3f}", one.colour))
    parts += [svg.text(box.right + 10, y + 4, words, size=12, fill=colour) for y, words, colour in _apart(ends)]
    return svg.document(_WIDTH, 288, parts, "accuracy after every round")


def histogram(counts: Sequence[int], low: str, high: str, colour: str, label: str) -> str:
    """Draw counts of equal bins; `low` and `high` name the ends of the axis."""
    width, box = 420.0, Box(10, 12, 400, 170)
    peak = max([1, *counts])
    step = box.width / max(1, len(counts))
    parts = [
        svg.rectangle(
            box.left + index * step + 0.5,
            box.bottom - box.height * count / peak,
            step - 1,
            box.height * count / peak,
            fill=colour,
            title=f"{count:,}",
        )
        for index, count in enumerate(counts)
    ]
    parts.append(svg.line(box.left, box.bottom, box.right, box.bottom, stroke=svg.MUTED))
    parts.append(svg.text(box.left, box.bottom + 17, low, size=11.5, fill=svg.MUTED))
    parts.append(svg.text(box.right, box.bottom + 17, high, size=11.5, fill=svg.MUTED, anchor="end"))
    return svg.document(width, 208, parts, label)


def phase_timeline(rounds: Sequence[PhaseBar]) -> str:
    """Draw one bar per round, split into its phases, in seconds."""
    row, left = 24.0, 64.0
    box = Box(left, 30, _WIDE - left - 64, row * len(rounds))
    longest = max([0.001, *(sum(seconds for _, seconds in one.phases) for one in rounds)])
    across = Scale(0, longest, box.left, box.right)
    parts = _legend([name for name in PHASE_COLOURS if any(name == p for one in rounds for p, _ in one.phases)])
    for value in svg.ticks(longest):
        parts.append(svg.line(across(value), box.top, across(value), box.bottom + 4))
        parts.append(svg.text(across(value), box.bottom + 18, f"{value:g} s", size=11, anchor="middle", fill=svg.MUTED))
    for index, one in enumerate(rounds):
        y, at = box.top + index * row, 0.0
        parts.append(svg.text(left - 10, y + 16, f"round {one.round_number}", size=11.5, anchor="end", fill=svg.MUTED))
        for phase, seconds in one.phases:
            x = across(at)
            colour = PHASE_COLOURS.get(phase, svg.SLATE)
            parts.append(
                svg.rectangle(
                    x, y + 4, across(at + seconds) - x, row - 8, fill=colour, title=f"{phase} {seconds:.2f} s"
                )
            )
            at += seconds
        parts.append(svg.text(across(at) + 8, y + 16, f"{at:.1f} s", size=11.5))
    return svg.document(_WIDE, box.bottom + 30, parts, "how long the phases of every round took")


def _legend(names: Sequence[str]) -> list[str]:
    parts, x = [], 64.0
    for name in names:
        parts.append(svg.rectangle(x, 6, 11, 11, fill=PHASE_COLOURS[name], radius=2))
        parts.append(svg.text(x + 16, 16, name, size=11.5, fill=svg.MUTED))
        x += 30 + 7 * len(name)
    return parts


def _share_axis(box: Box, down: Scale) -> list[str]:
    parts = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(svg.line(box.left, down(value), box.right, down(value)))
        parts.append(svg.text(box.left - 8, down(value) + 4, f"{value:g}", size=11, anchor="end", fill=svg.MUTED))
    return parts


def _spread(at: int) -> float:
    """A fixed sideways place between -1 and 1 for the dot of this index, so that dots seldom hide each other."""
    return ((at * 0.618) % 1.0) * 2 - 1


def _apart(ends: Sequence[tuple[float, str, str]], gap: float = 15) -> list[tuple[float, str, str]]:
    """Move labels down so far that they do not overlap."""
    placed: list[tuple[float, str, str]] = []
    for y, words, colour in sorted(ends):
        lowest = placed[-1][0] + gap if placed else y
        placed.append((max(y, lowest), words, colour))
    return placed
