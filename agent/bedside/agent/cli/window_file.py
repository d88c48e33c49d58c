"""One window in a file: a NumPy array, or numbers with commas."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from tokenize import TokenError
from typing import Final

import numpy as np

from bedside.core.errors import ConfigError, MalformedError
from bedside.ondevice.runtimes import Float32
from bedside.service.text import bounded

MAX_FILE_BYTES: Final = 8 << 20
_NO_NUMBERS: Final = (ValueError, TypeError, EOFError, OverflowError, MemoryError, SyntaxError, TokenError, Warning)
"""What NumPy raises on the way to finding out that a file is not its own."""


def read_window(file: Path) -> Float32:
    """Read a window of any shape, float32.

    Raises:
        ConfigError: `window-missing`.
        MalformedError: `bad-window-file`.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise _bad(file, f"it is larger than {MAX_FILE_BYTES >> 20} MiB")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what NumPy would rather not read, such as complex numbers
            return _read_array(file) if file.suffix == ".npy" else _read_lines(file)
    except OSError as error:
        raise ConfigError("window-missing", f"{file} cannot be read: {error.strerror}", remedy="check it") from error
    except _NO_NUMBERS as error:
        raise _bad(file, str(error)) from error


def _read_array(file: Path) -> Float32:
    """Map it: a header that promises more than there is allocates nothing."""
    return np.array(np.lib.format.open_memmap(file, mode="r"), np.float32)


def _read_lines(file: Path) -> Float32:
    text = file.read_text("utf-8")
    if not text.strip():
        raise ValueError("it is empty")
    return np.loadtxt(io.StringIO(text), np.float32, delimiter=",", ndmin=2, comments=None)


def _bad(file: Path, why: str) -> MalformedError:
    return MalformedError(
        "bad-window-file",
        f"{file.name} holds no window: {bounded(why, 120)}",
        remedy="give a .npy array, or a .csv of numbers with a row per sample and no heading",
    )
