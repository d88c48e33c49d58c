"""Whose database this is, and which start of a coordinator serves from it.

Invariants:
    * A database serves one coordinator for ever: another one's plans and log in it would be nobody's.
    * Every start has a number of its own, so that a process that was cut off from the database finds out whether
      another one has served from it meanwhile; what it remembers would then be old.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from bedside.coordinator.store.schema import TENURE
from bedside.core.errors import ConfigError


def begin(tx: Connection, sign_pk: bytes) -> int:
    """Claim the database for the coordinator with that key; returns the number of this start.

    Raises:
        ConfigError: `other-database`: it belongs to another coordinator.
    """
    owner = tx.execute(select(TENURE.c.sign_pk)).scalar_one_or_none()
    if owner is None:
        tx.execute(TENURE.insert().values(sign_pk=sign_pk, number=0))
    elif bytes(owner) != sign_pk:
        raise ConfigError(
            "other-database",
            f"the database belongs to the coordinator with the key {bytes(owner).hex()[:16]}...",
            remedy="name the database of this coordinator, or an empty one",
        )
    tx.execute(update(TENURE).values(number=TENURE.c.number + 1))
    return number(tx)


def number(tx: Connection) -> int:
    """The number of the newest start; 0 before the first."""
    return tx.execute(select(TENURE.c.number)).scalar_one_or_none() or 0
