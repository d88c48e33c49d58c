"""What is asked of any machine: processor, Python, C library, memory, clock, randomness, SQLite."""

from __future__ import annotations

import ctypes
import os
import platform
import sqlite3
import struct
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from bedside.service.doctor.check import Check, Finding, Place, bad, doubtful, good
from bedside.service.output import human_bytes

FULL: Final = frozenset({"x86_64", "aarch64"})
"""Processors for which every library has a wheel."""
OLDEST_PYTHON: Final = (3, 11)
NEWEST_PYTHON: Final = (3, 13)
"""What the tests are run with; a later one most likely works."""
OLDEST_GLIBC: Final = (2, 28)
"""Of the wheels (manylinux_2_28)."""
OLDEST_SQLITE: Final = (3, 35, 0)
"""That knows RETURNING."""
LEAST_FREE_BYTES: Final = 64 << 20
"""Memory without which not even inference starts: an idle agent has about 75 MiB, of which half is shared."""
FEW_FREE_BYTES: Final = 192 << 20
"""Memory that an agent and the child that trains a small model take together."""
UNSET_S: Final = 1_672_531_200
"""A clock before 2023 has not been set since the board has power."""

_KIB: Final = 1024
_NS_PER_S: Final = 1_000_000_000
_TIME_ERROR: Final = 5
"""What adjtimex(2) returns while nobody keeps the clock in time."""
_TIMEX_BYTES: Final = 512
"""More than `struct timex` has anywhere; with no mode set, the call only reads."""


def _architecture(place: Place, machine: str | None = None, pointer_bytes: int | None = None) -> Iterator[Finding]:
    name = machine if machine is not None else platform.machine()
    bits = 8 * (pointer_bytes if pointer_bytes is not None else struct.calcsize("P"))
    if name in FULL and bits == 64:
        yield good(f"{name}, {bits} bits")
    elif bits == 32 and name in {"armv7l", "armv6l", "aarch64"}:
        yield doubtful(f"{name} with a system of 32 bits: it can infer with tflite-runtime, and cannot train")
    else:
        yield bad(f"{name} with {bits} bits is no processor that the libraries are built for")


def _python(place: Place, version: tuple[int, int] | None = None) -> Iterator[Finding]:
    found = version if version is not None else sys.version_info[:2]
    words = f"Python {found[0]}.{found[1]}"
    if found < OLDEST_PYTHON:
        yield bad(f"{words} is too old")
    elif found > NEWEST_PYTHON:
        yield doubtful(f"{words} is newer than any that this version was tested with")
    else:
        yield good(words)


def _libc(place: Place, told: tuple[str, str] | None = None) -> Iterator[Finding]:
    name, version = told if told is not None else platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".") if part.isdecimal())
    if name != "glibc":
        yield bad(f"the C library is {name or 'not glibc'}; the libraries are built for glibc")
    elif numbers < OLDEST_GLIBC:
        yield bad(f"glibc {version} is older than {'.'.join(map(str, OLDEST_GLIBC))}")
    else:
        yield good(f"glibc {version}")


def _memory(place: Place) -> Iterator[Finding]:
    told: dict[str, int] = {}
    for line in (place.root / "proc/meminfo").read_text("ascii").splitlines():  # not every package has psutil
        name, _, value = line.partition(":")
        told[name] = int(value.split()[0]) * _KIB
    free_bytes, total_bytes = told["MemAvailable"], told["MemTotal"]
    words = f"{human_bytes(free_bytes)} of {human_bytes(total_bytes)} free"
    if free_bytes < LEAST_FREE_BYTES:
        yield bad(words)
    elif free_bytes < FEW_FREE_BYTES:
        yield doubtful(f"{words}: enough to infer, most likely not to train")
    else:
        yield good(words)


def _clock(place: Place, kept: bool | None = None) -> Iterator[Finding]:
    now_s = place.clock.now_ns() // _NS_PER_S
    words = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if now_s < UNSET_S:
        yield bad(f"it is {words}: the clock has not been set since this machine has power")
    elif not (kept if kept is not None else _is_kept()):
        yield doubtful(f"it is {words}, and nobody keeps the clock in time")
    else:
        yield good(f"{words}, kept by a time service")


def _is_kept() -> bool:
    """Whether the kernel believes its clock, as time services tell it; true where it may not be asked."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    return bool(ctypes.CDLL(None, use_errno=True).adjtimex(timex) != _TIME_ERROR)


def _entropy(place: Place) -> Iterator[Finding]:
    try:
        os.getrandom(1, os.GRND_NONBLOCK)
    except BlockingIOError:
        yield bad("the kernel has no randomness yet: keys that are made now would wait")
    else:
        yield good("the kernel's generator is ready")


def _sqlite(place: Place, version: tuple[int, ...] | None = None) -> Iterator[Finding]:
    found = version if version is not None else sqlite3.sqlite_version_info
    words = f"SQLite {'.'.join(map(str, found))}"
    if found < OLDEST_SQLITE:
        yield bad(f"{words} is older than {'.'.join(map(str, OLDEST_SQLITE))}")
        return
    with closing(sqlite3.connect(":memory:")) as connection:
        (threads,) = connection.execute(
            "SELECT count(*) FROM pragma_compile_options WHERE compile_options = 'THREADSAFE=0'"
        ).fetchone()
    yield bad(f"{words} is built for one thread alone") if threads else good(words)


MACHINE: Final = (
    Check(
        "architecture",
        "the processor, and whether the system has 64 bits",
        "use a machine with a 64-bit system on x86-64 or ARM; 32-bit boards need the extra bedside[tflite]",
        _architecture,
    ),
    Check("python", "its version", "install the package that is built for this release of the system", _python),
    Check("libc", "that the C library is glibc, 2.28 or later", "use Debian 12, or later, or its like", _libc),
    Check(
        "memory",
        "memory that a process could take now",
        "end what else runs here, or set [training] enabled = false in agent.toml; add swap or memory",
        _memory,
    ),
    Check(
        "clock",
        "that it is set, and that a time service keeps it (adjtimex)",
        "timedatectl set-ntp true; name the hospital's time server in /etc/systemd/timesyncd.conf",
        _clock,
    ),
    Check("entropy", "that the kernel can make keys", "wait a minute after the start, or fit a hardware RNG", _entropy),
    Check("sqlite", "its version, and that threads may use it", "upgrade the system's libsqlite3 (3.35)", _sqlite),
)
"""Of the machine alone."""
