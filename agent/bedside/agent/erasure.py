"""Erasing a session from a device: its rows, and what was trained while they were there; or the latter alone.

A kept delta (`rounds/kept.py`) does not tell which sessions it was trained on, and neither does an unfinished training
(`training/saved.py`). So every one goes, and training that is under way is thrown away and done again on what is left.
What the device keeps for itself of a model (`personal/files.py`) does tell, and goes
where the session is in it. The same holds where consent, or a label, is withdrawn (`unlearn`); the rows stay then.
An upload that is committed stays: it is masked, and one contribution per plan is a promise to others. Models that were
learnt from sums before are not changed.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bedside.agent.buffer.store import BufferStore
from bedside.agent.personal.files import PersonalFiles
from bedside.agent.rounds.journal import JOURNAL_NAME, Journal
from bedside.agent.rounds.outbox import Outbox
from bedside.agent.training.saved import discard_trainings
from bedside.core.clock import Clock
from bedside.core.ids import SessionId

KEPT_DELTAS: Final = "kept_deltas"
PERSONAL: Final = "personal_models"
"""Under which names erased deltas, and files of what is personal, are counted beside the tables."""


def erase_session(
    store: BufferStore,
    state_dir: Path,
    session: SessionId,
    clock: Clock,
    journal: Journal | None = None,
    *,
    personal: PersonalFiles,
    scrub: bool = True,
) -> dict[str, int]:
    """Erase everything of a session, and return the number of rows by table, and of files that went.

    Args:
        store: the buffer; also what waits in it goes.
        state_dir: of the device.
        session: whose rows.
        clock: for the journal.
        journal: the running agent's; None opens it for this, where the device has one.
        personal: what the device keeps for itself of its models.
        scrub: overwrite what rows leave behind, too, which reads the whole file; False leaves it to who calls.

    Raises:
        StoreError: `erase-pending`, see `BufferStore.forget`; `store-open`, `store-write`: call again.
    """
    gone = unlearn(state_dir, session, clock, journal, personal=personal)
    return {**(store.forget if scrub else store.delete)(session), **gone}


def unlearn(
    state_dir: Path, session: SessionId, clock: Clock, journal: Journal | None = None, *, personal: PersonalFiles
) -> dict[str, int]:
    """Take back what was learnt from a session and has not been sent; return the number of files that went.

    A running agent tells its trainer first.

    Args:
        state_dir: of the device.
        session: erased, or not to be trained on any more as it was.
        clock: for the journal.
        journal: as for `erase_session`.
        personal: likewise.

    Raises:
        StoreError: `store-open`, `store-write`: call again.
    """
    with ExitStack() as closing:
        if journal is None and (state_dir / JOURNAL_NAME).exists():
            journal = Journal.open(state_dir)
            closing.callback(journal.close)
        dropped = journal.drop_kept(now_ns=clock.now_ns()) if journal is not None else []
    if dropped:
        outbox = Outbox(state_dir)
        for name in dropped:
            outbox.discard(name)
    discard_trainings(state_dir)
    return {KEPT_DELTAS: len(dropped), PERSONAL: personal.forget(session)}
