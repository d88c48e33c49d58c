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
_MAX_NAME: Final = 24
"""Characters of a channel's or a field's name, which stand before the map."""


def print_heat(found: Explanation, prediction: Prediction | None, out: TextIO | None = None) -> None:
    """Print it: in colour on a terminal, as shades with signs elsewhere."""
    stream = sys.stdout if out is None else out
    if stream.isatty():
        Console(file=stream, highlight=False).print(heat(found, prediction, shutil.get_terminal_size().columns))
    else:
        click.echo(plain_heat(found, prediction), file=stream)


def heat(found: Explanation, prediction: Prediction | None, width: int) -> Text:
    """The map in colour: a row per channel, warm for what speaks for the class, cold for what speaks against it."""
    names = _names(found)
    room = width - len(names[0])
    effects = _fitted(found.effects, room)
    segments = len(effects)
    cell = max(1, min(4, room // segments))
    top = float(np.abs(effects).max()) or 1.0
    text = Text(_title(found, prediction) + "\n", "bold")
    for channel, name in enumerate(names):
        text.append(name, "dim")
        for effect in effects[:, channel]:
            text.append(" " * cell, Style(bgcolor=Color.from_rgb(*_shade(float(effect) / top))))
        text.append(_number(found, channel) + "\n")
    if not found.fields:
        text.append(_axis(prediction, len(names[0]), cell * segments) + "\n", "dim")
    text.append(f"{_strongest(found)} ", "dim")
    text.append("   ", Style(bgcolor=Color.from_rgb(*_WARM)))
    text.append(" speaks for it   ", "dim")
    text.append("   ", Style(bgcolor=Color.from_rgb(*_COLD)))
    text.append(" against it" + _left_out(found), "dim")
    return text


def plain_heat(found: Explanation, prediction: Prediction | None) -> str:
    """The map without colour: two characters per piece, a sign and a shade of its strength."""
    names = _names(found)
    top = float(np.abs(found.effects).max()) or 1.0
    lines = [_title(found, prediction)]
    for channel, name in enumerate(names):
        cells = [float(effect) / top for effect in found.effects[:, channel]]
        lines.append(name + "".join(_mark(share) for share in cells) + _number(found, channel))
    if not found.fields:
        lines.append(_axis(prediction, len(names[0]), 2 * len(found.effects)))
    lines.append(f"{_strongest(found)}; + speaks for it, - against it{_left_out(found)}")
    return "\n".join(lines)


def _names(found: Explanation) -> list[str]:
    """What stands before each row that is shown, all of one length."""
    channels = min(found.effects.shape[1], _MAX_ROWS)
    if not found.fields:
        return [f"channel {channel:<2}" for channel in range(channels)]
    names = [bounded(name, _MAX_NAME) for name in found.fields[:channels]]
    return [name.ljust(max(map(len, names)) + 1) for name in names]


def _number(found: Explanation, channel: int) -> str:
    """Of a record, where each row is one figure, that figure."""
    return f" {found.effects[0, channel]:+.3f}" if found.fields else ""


def _strongest(found: Explanation) -> str:
    """The piece that matters most, with its sign and unit."""
    effect = float(found.effects.ravel()[np.abs(found.effects).argmax()])
    return f"strongest {effect:+.3f}{f' {bounded(found.unit)}' if found.unit else ''}"


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


def _axis(prediction: Prediction | None, margin: int, width: int) -> str:
    seconds = f"{(prediction.end_ns - prediction.start_ns) / 1e9:.2f} s" if prediction is not None else "end"
    return " " * margin + "0" + seconds.rjust(max(len(seconds) + 1, width - 1))


def _left_out(found: Explanation) -> str:
    more = found.effects.shape[1] - _MAX_ROWS
    return f"; {more} more {'fields' if found.fields else 'channels'} with --json" if more > 0 else ""


def _shade(share: float) -> tuple[int, int, int]:
    """A colour between neutral and warm or cold; the square root keeps weak pieces visible."""
    end, strength = (_WARM if share > 0 else _COLD), abs(share) ** 0.5
    red, green, blue = (round(a + (b - a) * strength) for a, b in zip(_NEUTRAL, end, strict=True))
    return red, green, blue


def _mark(share: float) -> str:
    level = round(abs(share) ** 0.5 * 4)
    return ("+" if share > 0 else "-") + _SHADES[level] if level else "  "
