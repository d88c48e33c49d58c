"""Standard output and error where they cannot show every character: shapes become ASCII, letters become escapes."""

from __future__ import annotations

import codecs
import io
from typing import Final, TextIO

_HANDLER: Final = "bedside-shapes"
_SHAPES: Final = str.maketrans(
    "▁▂▃▄▅▆▇█▏▎▍▌▋▊▉░▒▓●◐○▲△╭╮╰╯─│—\N{EN DASH}…·±\N{MULTIPLICATION SIGN}≤≥✓✗",
    "_.,-~=*#   ||##.+#*~o^^++++-|--~.+x<>+x",
)


def degrade(*streams: TextIO) -> None:
    """Let these streams print whatever they are given, as far as their encoding goes."""
    codecs.register_error(_HANDLER, _replace)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _replace(error: UnicodeError) -> tuple[str, int]:
    """One ASCII character for a shape; for a letter its escape in JSON, so that what a program reads is right."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    shape = character.translate(_SHAPES)
    if shape.isascii():
        return shape
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))
