"""Just enough SVG to draw the report's pictures: elements, text and scales, as strings without any dependency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

INK: Final = "#17242f"
MUTED: Final = "#5d6d7a"
RULE: Final = "#d9e0e5"
TEAL: Final = "#0b7285"
SLATE: Final = "#7d8e9b"
AMBER: Final = "#c2700f"
GREEN: Final = "#4b7f2a"
BLUE: Final = "#2b62a8"
RED: Final = "#b3261e"

_FONT: Final = "system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"


class Box(NamedTuple):
    """A plotting area in pixels: left, top, width, height."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """The bottom edge."""
        return self.top + self.height


class Scale(NamedTuple):
    """A straight line from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of `value`."""
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)


def element(name: str, body: str = "", /, **attributes: str | float) -> str:
    """Return one element; underscores in attribute names become dashes, numbers get two decimals at most."""
    pairs = "".join(f' {key.replace("_", "-")}="{_value(value)}"' for key, value in attributes.items())
    return f"<{name}{pairs}>{body}</{name}>" if body else f"<{name}{pairs}/>"


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: float = 12,
    fill: str = INK,
    anchor: str = "start",
    weight: int = 400,
) -> str:
    """Return a line of text whose baseline is at `y`."""
    return element("text", escape(words), x=x, y=y, font_size=size, fill=fill, text_anchor=anchor, font_weight=weight)


def line(x1: float, y1: float, x2: float, y2: float, *, stroke: str = RULE, width: float = 1, dash: str = "") -> str:
    """Return a straight line."""
    dashes = {"stroke_dasharray": dash} if dash else {}
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke, stroke_width=width, **dashes)


def rectangle(x: float, y: float, width: float, height: float, *, fill: str, radius: float = 0, title: str = "") -> str:
    """Return a filled rectangle; `title` appears when a pointer rests on it."""
    body = element("title", escape(title)) if title else ""
    return element("rect", body, x=x, y=y, width=max(width, 0), height=max(height, 0), rx=radius, fill=fill)


def polyline(points: Sequence[tuple[float, float]], *, stroke: str, width: float = 2) -> str:
    """Return an open line through `points`."""
    path = " ".join(f"{_value(x)},{_value(y)}" for x, y in points)
    return element("polyline", points=path, fill="none", stroke=stroke, stroke_width=width, stroke_linejoin="round")


def circle(x: float, y: float, radius: float, *, fill: str, title: str = "") -> str:
    """Return a disc."""
    body = element("title", escape(title)) if title else ""
    return element("circle", body, cx=x, cy=y, r=radius, fill=fill)


def document(width: float, height: float, parts: Sequence[str], label: str) -> str:
    """Return a whole picture that scales with its column; `label` is what a screen reader says."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_value(width)} {_value(height)}" role="img" '
        f'aria-label="{escape(label, quote=True)}" font-family="{_FONT}">{"".join(parts)}</svg>'
    )


def ticks(high: float, most: int = 5) -> list[float]:
    """Return round values from 0 up to `high`, `most` steps at most."""
    if high <= 0:
        return [0.0]
    raw = high / most
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * (1 - 1e-9))
    return [step * index for index in range(int(high / step + 1e-9) + 1)]


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return escape(value, quote=True)
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"
