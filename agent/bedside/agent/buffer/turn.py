"""One thread at a time on the writer's connection: the agent's loop, or the thread that commits beside it.

A turn lasts for a whole transaction, or for a whole read. Who waits for it waits for a disk, and a disk may hang for
ever: then it refuses, as a full one does, and the loop goes on without it.
"""

from __future__ import annotations

import threading
from typing import Final

from bedside.core.errors import StoreError

PATIENCE_S: Final = 30.0
"""Seconds after which a disk that does not answer counts as one that never will."""


class Turn:
    """A lock that its holder may take again; enter it with `with`.

    Raises:
        StoreError: `store-write`, on entering, when the holder does not come back: after `PATIENCE_S`, and at once
            from then on until it does.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._lock = threading.RLock()
        self._patience_s = patience_s
        self._hangs = False

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=0 if self._hangs else self._patience_s):
            self._hangs = True
            raise disk_hangs()

    def __exit__(self, *_: object) -> None:
        self._hangs = False
        self._lock.release()

    def give_up(self) -> None:
        """Whoever waits has waited long enough: until the holder comes back, nobody waits."""
        self._hangs = True


def disk_hangs() -> StoreError:
    """What a disk has failed with that does not answer."""
    return StoreError(
        "store-write",
        f"a commit has not returned for {PATIENCE_S:g} s: the disk hangs",
        remedy="look at the kernel's log (dmesg), replace the card or disk, and restart the device",
    )
