"""The privacy ledger: what this trustee let be opened, one entry per vote, each bound to all before it.

An entry is charged in the transaction that stores the vote, because the vote is the last word that can be withheld.
What is closed after its vote stays charged. One ledger serves all tasks and purposes. A sum without noise is recorded
as such, and makes what is spent infinite.

Source: DESIGN section 5, rules T4 and T5.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from bedside.core.errors import StoreError
from bedside.core.signing.envelope import digest


@dataclass(frozen=True, slots=True)
class Charge:
    """One sum that may be opened.

    Attributes:
        plan_digest: H.
        cohort: of the plan.
        task: of the plan; not hashed, since H commits to it.
        round_number: as `task`.
        purpose: value of the wire's enum `Purpose`.
        set_root: root of the set that was voted for.
        set_size: devices in it.
        noise_multiplier_e6: z of the noise that this trustee adds, millionths; 0 means none.
        charged_at_s: seconds since 1970.
    """

    plan_digest: bytes
    cohort: int
    task: str
    round_number: int
    purpose: int
    set_root: bytes
    set_size: int
    noise_multiplier_e6: int
    charged_at_s: int

    def link(self, previous: bytes) -> bytes:
        """Digest of this entry after `previous` (32 bytes, or nothing before the first entry)."""
        numbers = (self.cohort, self.purpose, self.set_size, self.noise_multiplier_e6, self.charged_at_s)
        encoded = b"".join(number.to_bytes(8, "big") for number in numbers)
        return digest(b"".join((b"bedside/v1/ledger\0", previous, self.plan_digest, self.set_root, encoded)))


def ledger_head(connection: sqlite3.Connection) -> bytes:
    """Digest of the last entry; empty while nothing was charged."""
    row = connection.execute("SELECT digest FROM ledger ORDER BY entry DESC LIMIT 1").fetchone()
    return bytes(row["digest"]) if row else b""


def charge(transaction: sqlite3.Connection, entry: Charge) -> bytes:
    """Append an entry inside the caller's transaction; returns the new head.

    A second entry for one (plan, cohort) breaks the table's rule and with it the transaction.
    """
    head = entry.link(ledger_head(transaction))
    transaction.execute(
        "INSERT INTO ledger (plan_digest, cohort, task, round_number, purpose, set_root, set_size, noise_multiplier_e6,"
        " charged_at_s, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            entry.plan_digest,
            entry.cohort,
            entry.task,
            entry.round_number,
            entry.purpose,
            entry.set_root,
            entry.set_size,
            entry.noise_multiplier_e6,
            entry.charged_at_s,
            head,
        ),
    )
    return head


def entries(connection: sqlite3.Connection) -> list[tuple[Charge, bytes]]:
    """All entries with their stored digests, oldest first."""
    rows = connection.execute("SELECT * FROM ledger ORDER BY entry").fetchall()
    return [(_charge_of(row), bytes(row["digest"])) for row in rows]


def check_ledger(listed: Iterable[tuple[Charge, bytes]]) -> bytes:
    """Recompute the whole ledger; returns its head.

    Raises:
        StoreError: `ledger-broken`, when an entry was altered or removed.
    """
    head = b""
    for place, (entry, stored) in enumerate(listed, start=1):
        head = entry.link(head)
        if head != stored:
            raise StoreError("ledger-broken", f"entry {place} of the privacy ledger was altered, or one before it")
    return head


def _charge_of(row: sqlite3.Row) -> Charge:
    return Charge(
        plan_digest=bytes(row["plan_digest"]),
        cohort=row["cohort"],
        task=row["task"],
        round_number=row["round_number"],
        purpose=row["purpose"],
        set_root=bytes(row["set_root"]),
        set_size=row["set_size"],
        noise_multiplier_e6=row["noise_multiplier_e6"],
        charged_at_s=row["charged_at_s"],
    )
