"""The files of unfinished uploads: masked words, and the sealed deltas behind them.

A file that no row of the journal names is an orphan of a crash, and goes at start.

Source: DESIGN section 3 (journal rule).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bedside.agent.rounds.journal import Journal, OutboxRow
from bedside.service.files import sync_directory

DIRECTORY_NAME: Final = "outbox"


class Outbox:
    """`<state_dir>/outbox/`, mode 0700."""

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir / DIRECTORY_NAME
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path_of(self, row: OutboxRow) -> Path:
        """Where the words of a row are."""
        return self.directory / row.file

    @staticmethod
    def name_for(plan_digest: bytes) -> str:
        """Name of the one file that a plan may have."""
        return f"{plan_digest.hex()}.words"

    @staticmethod
    def kept_name_for(plan_digest: bytes) -> str:
        """Name of the sealed delta that a plan's training leaves."""
        return f"{plan_digest.hex()}.kept"

    def discard(self, name: str) -> None:
        """Remove a file that is not needed any more, if it is there."""
        (self.directory / name).unlink(missing_ok=True)
        sync_directory(self.directory)

    def remove_orphans(self, journal: Journal) -> list[str]:
        """Remove every file that no unfinished upload names; returns their names."""
        wanted = journal.outbox_files()
        orphans = sorted(path.name for path in self.directory.iterdir() if path.name not in wanted)
        for name in orphans:
            (self.directory / name).unlink()
        if orphans:
            sync_directory(self.directory)
        return orphans
