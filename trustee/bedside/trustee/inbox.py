"""What the coordinator asks for, one item after another: decided, said, remembered.

Invariants:
    * No item ends the process. What a rule refuses is said with its code; what nobody foresaw is logged with its type,
      shown as degraded health and refused as `work-failed`.
    * An item is dealt with, and logged, once in the life of the process; only our own trouble brings it back.
    * The coordinator cannot make the trustee spin, nor fill its log: items of one poll, lines of one poll and the pace
      of polls are bounded.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from bedside.core.errors import BedsideError, ProtocolError, StoreError
from bedside.core.signing.envelope import digest
from bedside.proto.v1.trustee_pb2 import WorkItem
from bedside.service.health import Health, Level
from bedside.service.logs import event
from bedside.service.sqlite import read_error
from bedside.trustee.duty import OUR_TROUBLE
from bedside.trustee.store import RoundKey

COMPONENT: Final = "work"

MAX_ITEMS: Final = 64
"""Items of one poll that are dealt with; the coordinator names the others again."""

MAX_LOGGED: Final = 8
"""Refusals of one poll that have a line of their own."""

MAX_KNOWN: Final = 4_096
"""Items that are remembered: twice what a coordinator of a hundred tasks keeps open."""

PAUSE_S: Final = 0.1
"""Seconds after every poll: a coordinator that does not hold the call must not make us spin."""

REFUSED_PAUSE_S: Final = 1.0
"""Seconds after a poll that brought nothing but what was refused."""

_ORDER: Final = {"close": 0, "reveal": 1, "seal": 2, "open": 3, "enrol": 4}
_DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
_LOGGER = logging.getLogger(__name__)

Work = Callable[[WorkItem], Awaitable[None]]
"""Decides an item and says what was decided."""

Refuse = Callable[[WorkItem, BedsideError], Awaitable[None]]
"""Says that an item was refused."""


class Inbox:
    """The items of one process."""

    def __init__(self, health: Health, told: Callable[[], None]) -> None:
        self._health = health
        self._told = told
        self._known: dict[bytes, None] = {}
        health.set(COMPONENT, Level.OK, "nothing went wrong")

    @property
    def known(self) -> list[bytes]:
        """Ids of the items that were dealt with, for the next poll."""
        return list(self._known)

    async def take(self, items: Sequence[WorkItem], work: Work, refuse: Refuse) -> float:
        """Deal with the items of one poll; returns the seconds to wait before the next.

        Raises:
            StoreError, ConfigError, UnavailableError: our own trouble; the coordinator asks again.
        """
        fresh = [item for item in items if work_id(item) not in self._known]
        fresh.sort(key=lambda item: _ORDER.get(str(item.WhichOneof("item")), len(_ORDER)))
        refused = 0
        for item in fresh[:MAX_ITEMS]:
            error = await _attempt(item, work)
            if error is not None:
                refused += 1
                self._note(item, error, quiet=refused > MAX_LOGGED)
                await refuse(item, error)
            self._remember(item)
        if refused > MAX_LOGGED:
            event(_LOGGER, "refused-more", level=logging.WARNING, items=refused - MAX_LOGGED)
        return REFUSED_PAUSE_S if refused and refused == len(fresh[:MAX_ITEMS]) else PAUSE_S

    def _note(self, item: WorkItem, error: BedsideError, *, quiet: bool) -> None:
        kind, cause = str(item.WhichOneof("item")), error.__cause__
        if isinstance(error, _UnforeseenError) and cause is not None:
            sentence = f"a request to {kind} could not be judged: {type(cause).__name__}"
            self._health.set(COMPONENT, Level.DEGRADED, sentence)
            self._told()
            event(_LOGGER, "work-failed", level=logging.ERROR, work=kind, item=work_id(item), error=cause)
        elif not quiet:
            event(_LOGGER, "refused", level=logging.WARNING, work=kind, error=error)

    def _remember(self, item: WorkItem) -> None:
        self._known[work_id(item)] = None
        while len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]


class _UnforeseenError(ProtocolError):
    """A defect of ours, which the item met; its cause is the exception."""


async def _attempt(item: WorkItem, work: Work) -> BedsideError | None:
    """Work on an item; why it is refused, or None."""
    try:
        await work(item)
    except OUR_TROUBLE:
        raise
    except BedsideError as error:
        return error
    except sqlite3.Error as error:
        raise read_error(error) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise StoreError(
                "file-write",
                f"a file was not written: {error.strerror}",
                remedy="check the disk of the site's directory",
            ) from error
        refusal = _UnforeseenError("work-failed", "this trustee could not judge the request; its log says more")
        refusal.__cause__ = error
        return refusal
    return None


def work_id(item: WorkItem) -> bytes:
    """How an item is named in a poll."""
    return digest(item.SerializeToString(deterministic=True))[:16]


def round_of(item: WorkItem) -> RoundKey:
    """The round that an item is about."""
    match item.WhichOneof("item"):
        case "open":
            return RoundKey(digest(item.open.plan.payload), item.open.cohort)
        case "seal":
            return RoundKey(item.seal.plan_digest, item.seal.cohort)
        case "reveal":
            return RoundKey(item.reveal.plan_digest, item.reveal.cohort)
        case _:
            return RoundKey(item.close.plan_digest, item.close.cohort)
