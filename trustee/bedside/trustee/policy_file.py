"""The site's policy as its file stands now: read again when it changes; a bad one is refused, the old one kept."""

from __future__ import annotations

from pathlib import Path

from bedside.core.errors import BedsideError
from bedside.service.policy_file import LoadedPolicy, read_policy

__all__ = ["LoadedPolicy", "PolicyFile", "read_policy"]

_Stamp = tuple[int, int, int]


class PolicyFile:
    """Follows one policy file.

    Attributes:
        problem: why the file as it stands is not in force; None when it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: BedsideError | None = None
        self._stamp = _stamp(path)
        self._loaded = read_policy(path)

    def current(self) -> LoadedPolicy:
        """The newest policy that is valid. Sets `problem` instead of raising: a typing error must not stop rounds."""
        stamp = _stamp(self.path)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._loaded = read_policy(self.path)
                self.problem = None
            except BedsideError as error:
                self.problem = error
        return self._loaded


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
