"""Fields of the medical device encoding rules: big-endian, lists with a count and a length.

Source: ISO/IEEE 11073-20601 annex F (MDER).
"""

from __future__ import annotations

from collections.abc import Iterator

from bedside.core.errors import MalformedError


class MderCursor:
    """Reads on in bytes; nothing is taken that is not there."""

    def __init__(self, data: bytes) -> None:
        """Start at the first of `data`."""
        self._data = memoryview(data)
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that are not read."""
        return len(self._data) - self._at

    def unsigned(self, size: int) -> int:
        """A whole number of 1, 2 or 4 bytes.

        Raises:
            MalformedError: `bad-apdu`.
        """
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        """The next bytes.

        Raises:
            MalformedError: `bad-apdu`.
        """
        if size > self.left:
            raise MalformedError("bad-apdu", f"an APDU that ends {size - self.left} bytes too early")
        self._at += size
        return bytes(self._data[self._at - size : self._at])

    def octets(self) -> bytes:
        """Bytes behind their length (OCTET STRING, ANY).

        Raises:
            MalformedError: `bad-apdu`.
        """
        return self.take(self.unsigned(2))

    def items(self) -> Iterator[MderCursor]:
        """The cursor of a list's items, once for each: whoever iterates takes the whole item.

        The list's length decides where it ends. Its count says the same, or a device counts wrongly: some do.

        Raises:
            MalformedError: `bad-apdu`, also for an item that is longer than its list.
        """
        self.unsigned(2)  # count
        inside = MderCursor(self.octets())
        while inside.left:
            yield inside

    def end(self) -> None:
        """Say that nothing may follow.

        Raises:
            MalformedError: `bad-apdu`.
        """
        if self.left:
            raise MalformedError("bad-apdu", f"{self.left} bytes too many in an APDU")
