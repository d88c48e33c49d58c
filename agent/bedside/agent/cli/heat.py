"""An explanation as a small heat map in a terminal, or as signed digits where there is no colour."""

from __future__ import annotations

import shutil
import sys
from typing import Final, TextIO

import click
import numpy as np
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from bedside.agent.buffer.rows import Prediction
from bedside.agent.client_rows import Explanation, Float32
from bedside.service.text import bounded

_WARM: Final = (214, 69, 65)
_COLD: Final = (58, 110, 165)
_NEUTRAL: Final = (48, 52, 58)
_SHADES: Final = " ░▒▓█"
_MAX_ROWS: Final = 24
_MARGIN: Final = 10
"""Characters before the map: the channel's number."""


def print_heat(found: Explanation, prediction: Prediction | None, out: TextIO | None = None) -> None:
    """Print it: in colour on a terminal, as shades with signs elsewhere."""
    stream = sys.stdout if out is None else out
    if stream.isatty():
        Console(file=stream, highlight=False).print(heat(found, prediction, shutil.get_terminal_size().columns))
    else:
        click.echo(plain_heat(found, prediction), file=stream)


def heat(found: Explanation, prediction: Prediction | None, width: int) -> Text:
    """The map in colour: a row per channel, warm for what speaks for the class, cold for what speaks against it."""
    effects = _fitted(found.effects, width - _MARGIN)
    segments, channels = effects.shape
    cell = max(1, min(4, (width - _MARGIN) // segments))
    top = float(np.abs(effects).max()) or 1.0
    text = Text(_title(found, prediction) + "\n", "bold")
    for channel in range(min(channels, _MAX_ROWS)):
        text.append(f"channel {channel:<2}", "dim")
        for effect in effects[:, channel]:
            text.append(" " * cell, Style(bgcolor=Color.from_rgb(*_shade(float(effect) / top))))
        text.append("\n")
    text.append(_axis(prediction, cell * segments) + "\n", "dim")
    text.append(f"   +{top:.3f} ", "dim")
    text.append("   ", Style(bgcolor=Color.from_rgb(*_WARM)))
    text.append(" speaks for it   ", "dim")
    text.append("   ", Style(bgcolor=Color.from_rgb(*_COLD)))
    text.append(" against it" + _left_out(channels), "dim")
    return text


def plain_heat(found: Explanation, prediction: Prediction | None) -> str:
    """The map without colour: two characters per piece, a sign and a shade of its strength."""
    segments, channels = found.effects.shape
    top = float(np.abs(found.effects).max()) or 1.0
    lines = [_title(found, prediction)]
    for channel in range(min(channels, _MAX_ROWS)):
        cells = [float(effect) / top for effect in found.effects[:, channel]]
        lines.append(f"channel {channel:<2}" + "".join(_mark(share) for share in cells))
    lines.append(_axis(prediction, 2 * segments))
    lines.append(f"strongest {top:.3f}; + speaks for it, - against it{_left_out(channels)}")
    return "\n".join(lines)


def _fitted(effects: Float32, room: int) -> Float32:
    """At most `room` pieces of time: of those that share one, the strongest."""
    pieces = np.array_split(effects, max(1, min(len(effects), room)))
    strongest = [np.take_along_axis(piece, np.abs(piece).argmax(axis=0)[None], axis=0)[0] for piece in pieces]
    return np.array(strongest, np.float32)


def _title(found: Explanation, prediction: Prediction | None) -> str:
    if prediction is None:
        return f"prediction {found.prediction} ({found.method})"
    sure = f", {prediction.sureness} sure" if prediction.sureness else ""
    words = f"{bounded(prediction.words)}{sure}, on {prediction.stream}"
    if found.output and found.output != prediction.words:
        words = f"{bounded(found.output)} of {words}"
    return f"prediction {found.prediction}: {words} ({found.method})"


def _axis(prediction: Prediction | None, width: int) -> str:
    seconds = f"{(prediction.end_ns - prediction.start_ns) / 1e9:.2f} s" if prediction is not None else "end"
    return " " * _MARGIN + "0" + seconds.rjust(max(len(seconds) + 1, width - 1))


def _left_out(channels: int) -> str:
    return f"; {channels - _MAX_ROWS} more channels with --json" if channels > _MAX_ROWS else ""


def _shade(share: float) -> tuple[int, int, int]:
    """A colour between neutral and warm or cold; the square root keeps weak pieces visible."""
    end, strength = (_WARM if share > 0 else _COLD), abs(share) ** 0.5
    red, green, blue = (round(a + (b - a) * strength) for a, b in zip(_NEUTRAL, end, strict=True))
    return red, green, blue


def _mark(share: float) -> str:
    level = round(abs(share) ** 0.5 * 4)
    return ("+" if share > 0 else "-") + _SHADES[level] if level else "  "
