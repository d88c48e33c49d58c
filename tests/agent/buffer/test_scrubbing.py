"""What deleted rows leave behind in a file although their bytes are overwritten, and that it goes."""

from __future__ import annotations

import secrets
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer.erasure import Scrubber, checkpoint
from bedside.agent.buffer.schema import MIGRATIONS
from bedside.service.sqlite import Database, open_database

SESSIONS = 20


def churn(database: Database, seed: int) -> dict[str, list[bytes]]:
    """Insert and delete all over the file; returns what was sealed by session."""
    rng = np.random.default_rng(seed)
    sealed: dict[str, list[bytes]] = {secrets.token_hex(8): [] for _ in range(SESSIONS)}
    for _ in range(200):
        rows = []
        for session in sealed:
            content = rng.bytes(int(rng.choice([100, 200, 300, 900])))
            sealed[session].append(content)
            rows.append((int(rng.integers(1, 1_000_000)), session, content))
        gone = (int(rng.integers(1, 1_000_000)),)

        def work(tx, rows=rows, gone=gone) -> None:
            tx.executemany(
                "INSERT OR IGNORE INTO records (id, session, time_ns, key_id, sealed) VALUES (?, ?, 0, 0, ?)", rows
            )
            tx.execute("DELETE FROM records WHERE id IN (SELECT id FROM records WHERE id > ? LIMIT 15)", gone)

        database.run_tx("churn", work)
    return sealed


def traces(path: Path, session: str, sealed: list[bytes]) -> int:
    data = path.read_bytes() + path.with_name(f"{path.name}-wal").read_bytes()
    return data.count(session.encode()) + sum(one[-16:] in data for one in sealed)


@pytest.mark.parametrize("scrubs", [True, False])
def test_moved_rows_leave_images_in_gaps_of_pages_until_these_are_filled(tmp_path, scrubs) -> None:
    path, found = tmp_path / "b.db", 0
    with closing(open_database(path, MIGRATIONS, secure_delete=True)) as database:
        database.connection.execute("PRAGMA synchronous=OFF")
        sealed = churn(database, 3)
        scrubber = Scrubber(database)
        for session in list(sealed)[:10]:
            database.run_tx("erase", lambda tx, s=session: tx.execute("DELETE FROM records WHERE session = ?", (s,)))
            assert scrubber.finish(session) if scrubs else checkpoint(database)
            found += traces(path, session, sealed[session])
        assert database.row("PRAGMA integrity_check")[0] == "ok"
        left = {row["session"] for row in database.rows("SELECT DISTINCT session FROM records")}
        assert left == set(list(sealed)[10:])
        scrubber.close()
    assert bool(found) != scrubs
