"""A bundle on the wire: one uncompressed tar of fixed order, owner, mode and time: equal files, equal bytes.

The reader takes what the writer writes and nothing else: names from a fixed list in a fixed order, plain
files, sizes checked against the bytes at hand before anything is copied. No path from it reaches a disk.

Source: POSIX.1-1988 ustar header block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bedside.core.bundle.bounds import MAX_BUNDLE_FILE_BYTES, MAX_MANIFEST_BYTES, SIGNATURE_BYTES
from bedside.core.bundle.manifest import COMMITTED, MANIFEST, SIGNATURE
from bedside.core.errors import MalformedError

MEMBERS: Final = (MANIFEST, SIGNATURE, *COMMITTED)
_LIMITS: Final = {
    MANIFEST: MAX_MANIFEST_BYTES,
    SIGNATURE: SIGNATURE_BYTES,
}
_BLOCK: Final = 512
_END: Final = bytes(2 * _BLOCK)


def pack_bundle(files: Mapping[str, bytes]) -> bytes:
    """Return the tar of `files`, which must be exactly the members of a bundle.

    Raises:
        ValueError: a file is missing or unknown.
    """
    if set(files) != set(MEMBERS):
        raise ValueError(f"a bundle has exactly the files {', '.join(MEMBERS)}")
    parts = []
    for name in MEMBERS:
        parts += [_header(name, len(files[name])), files[name], bytes(-len(files[name]) % _BLOCK)]
    return b"".join([*parts, _END])


def unpack_bundle(data: bytes) -> dict[str, bytes]:
    """Read a tar written by `pack_bundle`.

    Raises:
        MalformedError: `bad-archive`.
    """
    files: dict[str, bytes] = {}
    position = 0
    for name in MEMBERS:
        header = data[position : position + _BLOCK]
        size = _size(header)
        if size > _LIMITS.get(name, MAX_BUNDLE_FILE_BYTES) or header != _header(name, size):
            raise _bad(f"the entry at byte {position} is not {name} as a bundle has it")
        position += _BLOCK
        end = position + size
        padded = end + -size % _BLOCK
        if padded > len(data) or any(data[end:padded]):
            raise _bad(f"{name} does not fit its entry")
        files[name] = data[position:end]
        position = padded
    if data[position:] != _END:
        raise _bad("something follows the last file")
    return files


def _size(header: bytes) -> int:
    digits = header[124:135]
    if len(header) != _BLOCK or not all(48 <= digit < 56 for digit in digits):
        raise _bad("the archive ends early or an entry has no size")
    return int(digits, 8)


def _header(name: str, size: int) -> bytes:
    """One ustar header: mode 0644, owner and time zero; the checksum counts its own field as spaces."""
    zero = b"0000000\0"
    fields = [
        *(
            name.encode("ascii").ljust(100, b"\0"),
            b"0000644\0",
            zero,
            zero,
            b"%011o\0" % size,
            b"0" * 11 + b"\0",
        ),
        *(b" " * 8, b"0", bytes(100), b"ustar\x0000", bytes(247)),
    ]
    header = b"".join(fields)
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def _bad(sentence: str) -> MalformedError:
    return MalformedError("bad-archive", sentence, remedy="fetch the bundle again")
