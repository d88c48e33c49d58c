"""Valid bytes made wrong: what a bad disk, a cut wire, another version or an enemy does to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1)
WORDS = (
    *(b"[" * 4_000, b'{"":' * 4_000, b"9" * 5_000, b"-1", b"0", b"1e999", b"-0.0", b"nan", b"inf", b"NaN", b"null"),
    *(b"9223372036854775808", b"18446744073709551616", b"true", b'""', b"\xff\xfe", b"\xed\xa0\x80", b"\0", b"\n"),
    *(b"\r", b"\x1b[2J", b"\xe2\x80\xae", b"\xd9\xa3", b"../", b"~x/", b"/", b":", b"=", b",", b'"', b"\\", b"#", b"%"),
)
"""Pieces on which parsers of text have stumbled before."""

MAX_GROWN_BYTES = 1 << 16
"""What mutation never lets an input grow beyond, unless a seed is larger."""


def mutate(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """One to four changes of `data`; `others` lend their pieces."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        data = rng.choice(CHANGES)(data, rng, others)
    return data if len(data) <= MAX_GROWN_BYTES else data[: max(MAX_GROWN_BYTES, *map(len, others))]


def _span(data: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 16, 64, 512)))


def flip_bits(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8)) if data else 0):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def set_byte(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.randbytes(1) + data[start + 1 :]


def truncate(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def drop(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def double(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    start, end = _span(data, rng)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 16)) + data[end:]


def swap(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    start, end = _span(data, rng)
    return data[end:] + data[start:end] + data[:start]


def splice(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    start, end = _span(other, rng)
    place, after = _span(data, rng)
    return data[:place] + other[start : end if rng.random() < 0.5 else None] + data[rng.choice((place, after)) :]


def insert_word(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    place, after = _span(data, rng)
    return data[:place] + rng.choice(WORDS) + data[rng.choice((place, after)) :]


def insert_noise(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.choice((1, 4, 32))) + data[place:]


def set_integer(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Lengths, counts and offsets are binary integers of some width at some place."""
    width = rng.choice((1, 2, 4, 8))
    if len(data) < width:
        return data
    place = rng.choice((0, rng.randrange(len(data) - width + 1)))
    number = rng.choice((*INTERESTING, len(data), len(data) - place, rng.getrandbits(16)))
    order = rng.choice(("little", "big"))
    old = int.from_bytes(data[place : place + width], order)
    number = rng.choice((number, old + 1, old - 1, old * 2)) % (1 << (8 * width))
    return data[:place] + number.to_bytes(width, order) + data[place + width :]


def set_number(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """The same for numbers that are written in digits."""
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", data))
    if not found:
        return data
    place = rng.choice(found)
    number = rng.choice((*(b"%d" % one for one in INTERESTING), b"-1", b"1e999", b"0.1", b"1" * 400, b"%d" % len(data)))
    return data[: place.start()] + number + data[place.end() :]


def move_line(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Drop, repeat or displace a line."""
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    line = lines.pop(rng.randrange(len(lines)))
    for _ in range(rng.randrange(3)):
        lines.insert(rng.randrange(len(lines) + 1), line)
    return b"".join(lines)


Change = Callable[[bytes, Random, Sequence[bytes]], bytes]
CHANGES: tuple[Change, ...] = (
    *(flip_bits, set_byte, truncate, drop, double, swap, splice, insert_word, insert_noise, set_integer, set_number),
    move_line,
)


def shrink(data: bytes, fails: Callable[[bytes], bool], tries: int = 3_000) -> bytes:
    """A smaller input that still fails: pieces are left out, large ones first."""
    size = max(1, len(data) // 2)
    while size and tries > 0:
        place = 0
        while place < len(data) and tries > 0:
            tries -= 1
            shorter = data[:place] + data[place + size :]
            if fails(shorter):
                data = shorter
            else:
                place += size
        size //= 2
    return data
