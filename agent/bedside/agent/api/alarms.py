"""The calls about alarms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

from bedside.agent.api.follow import AlarmFollowers
from bedside.agent.api.messages import alarm_message, check_number
from bedside.agent.buffer.rows import Alarm
from bedside.core.errors import MalformedError
from bedside.proto.v1 import local_pb2
from bedside.service.text import bounded

DEFAULT_ALARMS: Final = 1_000
MAX_ALARMS: Final = 10_000
"""Alarms of one answer: some 150 bytes each."""

MAX_BY_CHARS: Final = 64


class AlarmBook(Protocol):
    """The alarms of a device, and the one place that changes them."""

    def newest(self, limit: int, *, open_only: bool) -> Sequence[Alarm]:
        """The newest alarms, as they were raised; `open_only` leaves out what has cleared and has been seen."""

    def acknowledge(self, number: int, by: str) -> Alarm:
        """Note durably that somebody has seen it.

        Raises:
            ProtocolError: `no-such-alarm`.
        """


class AlarmCalls:
    """Answers beside the store's one writer."""

    def __init__(self, book: AlarmBook, followers: AlarmFollowers) -> None:
        self._book = book
        self._followers = followers

    def newest(self, request: local_pb2.ListAlarmsRequest) -> local_pb2.AlarmList:
        """The newest alarms."""
        limit = min(request.limit or DEFAULT_ALARMS, MAX_ALARMS)
        return local_pb2.AlarmList(alarms=map(alarm_message, self._book.newest(limit, open_only=request.open_only)))

    def acknowledge(self, request: local_pb2.AcknowledgeAlarmRequest) -> local_pb2.Alarm:
        """Note that somebody has seen an alarm."""
        number = check_number(request.id, "alarm")
        return alarm_message(self._book.acknowledge(number, check_by(request.by)))

    async def follow(self) -> AsyncIterator[local_pb2.Alarm]:
        """Every open alarm, and then each change once it is durable."""
        with self._followers.subscribe() as changes:
            for alarm in self._book.newest(MAX_ALARMS, open_only=True):
                yield alarm_message(alarm)
            async for change in changes:
                yield change


def check_by(by: str) -> str:
    """Return who acknowledges.

    Raises:
        MalformedError: `bad-name`.
    """
    if not by.strip() or len(by) > MAX_BY_CHARS or bounded(by) != by:
        raise MalformedError(
            "bad-name", "say who acknowledges", remedy=f"a role or a place, 1 to {MAX_BY_CHARS} visible characters"
        )
    return by
