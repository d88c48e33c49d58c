"""One header of a deterministic tar: a plain file of mode 0644 with owner and time zero: equal files, equal bytes.

A reader takes what `header` makes and nothing else, by making it again and comparing.

Source: POSIX.1-1988 ustar header block.
"""

from __future__ import annotations

from typing import Final

from bedside.core.errors import MalformedError

BLOCK_BYTES: Final = 512
END: Final = bytes(2 * BLOCK_BYTES)
"""What stands behind the last file."""

NAME_BYTES: Final = 100


def header(name: str, size_bytes: int) -> bytes:
    """The header of a file; the checksum counts its own field as spaces."""
    zero = b"0000000\0"
    fields = [
        *(
            name.encode("ascii").ljust(NAME_BYTES, b"\0"),
            b"0000644\0",
            zero,
            zero,
            b"%011o\0" % size_bytes,
            b"0" * 11 + b"\0",
        ),
        *(b" " * 8, b"0", bytes(100), b"ustar\x0000", bytes(247)),
    ]
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def size_of(block: bytes) -> int:
    """The size that a header states.

    Raises:
        MalformedError: `bad-archive`.
    """
    digits = block[124:135]
    if len(block) != BLOCK_BYTES or not all(48 <= digit < 56 for digit in digits):
        raise MalformedError("bad-archive", "the archive ends early or an entry has no size")
    return int(digits, 8)


def padding(size_bytes: int) -> int:
    """Zero bytes between a file and the next header."""
    return -size_bytes % BLOCK_BYTES
