"""What changes a device's store: asked of its agent, or done on the file itself while no agent runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from bedside.agent.api.alarms import AlarmBook, check_by
from bedside.agent.api.sessions import SessionCalls
from bedside.agent.buffer.labels import Added, Labels
from bedside.agent.buffer.rows import Alarm, Label, Quarantined, Session
from bedside.agent.buffer.store import BufferStore


class Changes(Protocol):
    """Every change; `bedside.agent.client.LocalAgent` has the same methods, and says what each of them refuses."""

    async def open_session(
        self, stream: str, *, consent_training: bool | None = None, origin: str = "api", new_stream: bool = False
    ) -> Session:
        """Begin a session on a stream."""

    async def close_session(self, stream: str) -> Session:
        """End the stream's session."""

    async def set_consent(self, session: str, *, training: bool) -> Session:
        """Give or withdraw consent to train on a session."""

    async def forget(self, session: str) -> Mapping[str, int]:
        """Erase everything of a session."""

    async def add_labels(self, labels: Sequence[Label], *, check_only: bool = False) -> Added:
        """Store labels, all or none; or only say what would be refused."""

    async def withdraw_label(self, number: int) -> Label:
        """Mark a label as withdrawn."""

    async def acknowledge_alarm(self, number: int, by: str) -> Alarm:
        """Say that somebody has seen an alarm."""

    async def clear_quarantine(self, source: str = "", reason: str = "") -> list[Quarantined]:
        """Remove what was counted of what sources could not understand."""


class DirectChanges:
    """The changes, done by this process, which is the store's writer."""

    def __init__(self, store: BufferStore, sessions: SessionCalls, labels: Labels, alarms: AlarmBook) -> None:
        self._store = store
        self._sessions = sessions
        self._labels = labels
        self._alarms = alarms

    async def open_session(
        self, stream: str, *, consent_training: bool | None = None, origin: str = "api", new_stream: bool = False
    ) -> Session:
        """Begin a session on a stream."""
        return self._sessions.open(stream, consent_training=consent_training, origin=origin, new_stream=new_stream)

    async def close_session(self, stream: str) -> Session:
        """End the stream's session."""
        return self._sessions.close(stream)

    async def set_consent(self, session: str, *, training: bool) -> Session:
        """Give or withdraw consent to train on a session."""
        return self._sessions.set_consent(session, training=training)

    async def forget(self, session: str) -> Mapping[str, int]:
        """Erase everything of a session."""
        return await self._sessions.forget(session)

    async def add_labels(self, labels: Sequence[Label], *, check_only: bool = False) -> Added:
        """Store labels, all or none; or only say what would be refused."""
        return self._labels.add(labels, check_only=check_only)

    async def withdraw_label(self, number: int) -> Label:
        """Mark a label as withdrawn."""
        return self._labels.withdraw(number)

    async def acknowledge_alarm(self, number: int, by: str) -> Alarm:
        """Say that somebody has seen an alarm."""
        return self._alarms.acknowledge(number, check_by(by))

    async def clear_quarantine(self, source: str = "", reason: str = "") -> list[Quarantined]:
        """Remove what was counted of what sources could not understand."""
        return self._store.clear_quarantine(source, reason)
