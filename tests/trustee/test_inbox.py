"""Work that nobody foresaw, and work that is meant to wear the trustee down."""

from __future__ import annotations

import errno
import logging
import sqlite3

import pytest

from bedside.core.errors import ProtocolError, StoreError, UnavailableError
from bedside.proto.v1.trustee_pb2 import CloseRequest, SealRequest, WorkItem
from bedside.service.health import Health, Level
from bedside.trustee.inbox import MAX_ITEMS, MAX_KNOWN, MAX_LOGGED, PAUSE_S, REFUSED_PAUSE_S, Inbox, work_id
from bedside.trustee.trouble import trouble_of


class StillClock:
    def now_ns(self) -> int:
        return 0

    def monotonic_s(self) -> float:
        return 0.0


class Desk:
    """Does with each item what the test wants; keeps what was worked on and refused."""

    def __init__(self, outcome=None):
        self.health = Health(StillClock(), ("work",))
        self.inbox = Inbox(self.health, lambda: None)
        self.outcome = outcome
        self.worked = []
        self.refused = []

    async def work(self, item):
        self.worked.append(item)
        if self.outcome is not None:
            raise self.outcome

    async def refuse(self, item, error):
        self.refused.append(error.code)

    async def take(self, items):
        return await self.inbox.take(items, self.work, self.refuse)


def closings(count):
    return [WorkItem(close=CloseRequest(plan_digest=b"%032d" % number)) for number in range(count)]


@pytest.mark.parametrize("defect", [ValueError("x"), OverflowError("x"), KeyError("x"), IsADirectoryError(21, "x")])
async def test_an_exception_that_nobody_foresaw_refuses_its_item_and_ends_nothing(defect, caplog):
    desk = Desk(defect)
    caplog.set_level(logging.WARNING)
    await desk.take(closings(2))
    assert desk.refused == ["work-failed"] * 2
    state = desk.health.snapshot()["work"]
    assert (state.level, type(defect).__name__ in state.sentence) == (Level.DEGRADED, True)
    assert [record.message for record in caplog.records] == ["work-failed"] * 2


async def test_a_failed_item_is_not_tried_again_and_is_named_as_known():
    desk, items = Desk(ValueError("x")), closings(1)
    await desk.take(items)
    await desk.take(items)
    assert len(desk.worked) == 1
    assert desk.inbox.known == [work_id(items[0])]


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (UnavailableError("gone", "gone"), "gone"),
        (OSError(errno.ENOSPC, "full"), "file-write"),
        (sqlite3.OperationalError("locked"), "store-read"),
        (sqlite3.DatabaseError("malformed"), "store-damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_our_own_trouble_refuses_nothing_and_brings_the_item_back(trouble, code):
    desk = Desk(trouble)
    with pytest.raises((StoreError, UnavailableError)) as caught:
        await desk.take(closings(1))
    assert caught.value.code == code
    assert (desk.refused, desk.inbox.known) == ([], [])


async def test_polls_that_bring_only_refused_items_come_slowly():
    refusing = Desk(ProtocolError("not-opened", "x"))
    assert await refusing.take(closings(3)) == REFUSED_PAUSE_S
    assert await refusing.take(closings(3)) == PAUSE_S, "known items are no work"
    assert await refusing.take([]) == PAUSE_S
    assert await Desk().take(closings(3)) == PAUSE_S


async def test_one_poll_writes_a_bounded_number_of_lines_and_handles_a_bounded_number_of_items(caplog):
    desk = Desk(ProtocolError("not-opened", "x"))
    caplog.set_level(logging.WARNING)
    await desk.take(closings(MAX_ITEMS + 5))
    assert len(desk.worked) == MAX_ITEMS
    assert [record.message for record in caplog.records] == ["refused"] * MAX_LOGGED + ["refused-more"]
    await desk.take(closings(MAX_ITEMS + 5))
    assert len(desk.worked) == MAX_ITEMS + 5


async def test_closings_come_first():
    desk = Desk()
    await desk.take([WorkItem(seal=SealRequest()), *closings(1)])
    assert [item.WhichOneof("item") for item in desk.worked] == ["close", "seal"]


async def test_what_is_remembered_is_bounded():
    desk = Desk()
    items = closings(MAX_KNOWN + 1)
    for start in range(0, len(items), MAX_ITEMS):
        await desk.take(items[start : start + MAX_ITEMS])
    assert len(desk.inbox.known) == MAX_KNOWN


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([UnavailableError("gone", "gone")], "gone"),
        ([UnavailableError("gone", "gone"), KeyError("x")], "internal-error"),
        ([KeyError("x"), sqlite3.DatabaseError("malformed")], "store-damaged"),
    ],
)
def test_of_several_troubles_the_worst_is_told(errors, code):
    assert trouble_of(ExceptionGroup("tasks", [ExceptionGroup("inner", errors)])).code == code
