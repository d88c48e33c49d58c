"""How earlier runs of the agent ended: a small note in the state directory, replaced durably at start and end."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from bedside.core.unreadable import UNREADABLE
from bedside.service.files import read_regular, write_durable

FILE_NAME: Final = "runs.json"
_MAX_BYTES: Final = 4_096


class Runs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The note.

    Attributes:
        starts: of the process since the state directory was made.
        clean: whether the last run ended by itself; false while one is running.
    """

    starts: int = 0
    clean: bool = True


class RunNote:
    """Reads and writes the note of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE_NAME
        self._runs = self._read()
        self.last_exit = "first-start" if not self._runs.starts else "clean" if self._runs.clean else "killed"

    @property
    def restarts(self) -> int:
        """Starts of the process before this one."""
        return max(0, self._runs.starts - 1)

    def begin(self) -> None:
        """Note that a run has begun."""
        self._write(Runs(self._runs.starts + 1, clean=False))

    def end(self) -> None:
        """Note that it ended by itself."""
        self._write(Runs(self._runs.starts, clean=True))

    def _write(self, runs: Runs) -> None:
        self._runs = runs
        write_durable(self._path, msgspec.json.encode(runs))

    def _read(self) -> Runs:
        try:
            return msgspec.json.decode(read_regular(self._path, _MAX_BYTES), type=Runs)
        except (OSError, *UNREADABLE):  # the first start, or a note that tells nothing
            return Runs()
