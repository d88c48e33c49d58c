"""Lines out of bytes that come in pieces; what has no end yet waits, up to a bound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_LINE_BYTES: Final = 64 << 10
"""Longer than 256 columns of a name each."""


class Line(NamedTuple):
    """One line.

    Attributes:
        data: without its end; None for one that was too long.
        end: offset of the first byte after it.
    """

    data: bytes | None
    end: int


class Lines:
    r"""Cuts at `\n` and removes a `\r` before it.

    Attributes:
        offset: of the first byte that belongs to no complete line yet.
    """

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self._rest = b""
        self._too_long = 0

    def feed(self, data: bytes) -> Iterator[Line]:
        """Yield the lines that `data` completes."""
        *complete, rest = data.split(b"\n")
        for piece in complete:
            yield self._line(piece, 1)
        if self._too_long or len(self._rest) + len(rest) > MAX_LINE_BYTES:
            self._too_long += len(self._rest) + len(rest)
            self._rest = b""
        else:
            self._rest += rest

    def finish(self) -> Iterator[Line]:
        """Yield what is left as a line: nothing more is coming."""
        if self._rest or self._too_long:
            yield self._line(b"", 0)

    def _line(self, piece: bytes, end_bytes: int) -> Line:
        size_bytes = self._too_long + len(self._rest) + len(piece)
        whole = None if self._too_long or size_bytes > MAX_LINE_BYTES else (self._rest + piece).removesuffix(b"\r")
        self.offset += size_bytes + end_bytes
        self._rest, self._too_long = b"", 0
        return Line(whole, self.offset)
