"""PostgreSQL: one session, which holds the lock of its database as long as it lives.

Invariants:
    * Whoever writes holds the lock: it belongs to the session that writes, and ends with it.
    * The password is read when a session begins, and is in no error. A server that is not known by its certificate does
      not get it in plaintext.
    * A server that is gone is noticed within seconds, on both ends.

Source: PostgreSQL, 9.28.10 Advisory Lock Functions, 13.2.3 Serializable Isolation Level, 34.1.2 Parameter Key Words.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from bedside.coordinator.database_url import DatabaseUrl
from bedside.core.errors import ConfigError, UnavailableError
from bedside.service.installation import how_to_install
from bedside.service.text import bounded

if TYPE_CHECKING:
    import psycopg

LOCK: Final = int.from_bytes(b"bedside\x01")
"""Key of the advisory lock; other programs' keys in the same database are their own."""
LOCK_WAIT_MS: Final = 2_000
"""A session that has just ended may hold the lock for a moment."""
STATEMENT_TIMEOUT_MS: Final = 15_000
CONNECT_TIMEOUT_S: Final = 5
_CLIENT: Final = {
    "application_name": "bedside-coordinator",
    "connect_timeout": CONNECT_TIMEOUT_S,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "target_session_attrs": "read-write",
}
_SERVER: Final = {
    "statement_timeout": STATEMENT_TIMEOUT_MS,
    "tcp_keepalives_idle": 20,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
}
"""Settings of the session; the last three free the lock of a machine that was switched off."""

_VERIFIED: Final = ("verify-ca", "verify-full")
_HOW_TO_LOG_IN: Final = "!password"
"""Of `require_auth`: whoever answers is shown that we know the password, and never told it."""
_HAS_REQUIRE_AUTH: Final = 160_000
"""Version of libpq."""

_TRY_AGAIN: Final = frozenset({"40001", "40P01"})
"""serialization_failure, deadlock_detected: the same transaction succeeds when it is run again."""
_READ_ONLY: Final = "25006"
_LOCK_NOT_AVAILABLE: Final = "55P03"
_DURABLE: Final = """\
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"""
_HOLDER: Final = """\
SELECT host(client_addr), to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') FROM pg_stat_activity
WHERE pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND database =
  (SELECT oid FROM pg_database WHERE datname = current_database()) AND (classid::bigint << 32) + objid::bigint = %s)"""


def postgres_engine(url: DatabaseUrl, password: Callable[[], str]) -> Engine:
    """The engine of a database; nothing is opened. Its one session holds the lock.

    Args:
        url: where it is.
        password: read at every connection, so that it may change; empty for none, or for libpq's `PGPASSFILE`.

    Raises:
        ConfigError: `extra-missing`.
    """
    require_driver()

    def connect() -> psycopg.Connection:
        return _locked(open_session(url, password()), url)

    return create_engine(
        "postgresql+psycopg://",
        creator=connect,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        isolation_level="SERIALIZABLE",
    )


def require_driver() -> None:
    """Refuse where psycopg is not installed: ConfigError `extra-missing`."""
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigError(
            "extra-missing", "a database of PostgreSQL needs psycopg", remedy=how_to_install("bedside[postgres]")
        )


def open_session(url: DatabaseUrl, password: str) -> psycopg.Connection:
    """Connect, without the lock.

    Raises:
        UnavailableError: `store-unavailable`.
    """
    import psycopg

    settings = " ".join(f"-c {name}={value}" for name, value in _SERVER.items())
    login = {"password": password} if password else {}
    if url.parameters.get("sslmode") not in _VERIFIED and psycopg.pq.version() >= _HAS_REQUIRE_AUTH:
        login["require_auth"] = _HOW_TO_LOG_IN
    try:
        return psycopg.connect(**{**_CLIENT, **login, **url.parameters, "options": settings})  # type: ignore[arg-type]  # libpq checks the values
    except psycopg.Error as error:
        raise unavailable(url, words_of(error)) from None


def _locked(session: psycopg.Connection, url: DatabaseUrl) -> psycopg.Connection:
    import psycopg

    session.autocommit = True
    try:
        session.execute(f"SET lock_timeout = {LOCK_WAIT_MS}")
        session.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        session.execute("RESET lock_timeout")
        session.execute(_DURABLE)
    except psycopg.Error as error:
        holder = _holder(session) if error.sqlstate == _LOCK_NOT_AVAILABLE else None
        session.close()
        if holder is None:
            raise unavailable(url, words_of(error)) from None
        raise UnavailableError(
            "already-running",
            f"another coordinator serves from the database {url.name}{holder}",
            remedy="stop it first, or name another database",
        ) from None
    session.autocommit = False
    return session


def _holder(session: psycopg.Connection) -> str:
    """Who has the lock, as far as the server tells us."""
    found = session.execute(_HOLDER, [LOCK]).fetchone()
    if found is None or found[1] is None:  # another user's session is not shown to us
        return ""
    return f", from {found[0] or 'the machine of the server'} since {found[1]} UTC"


def unavailable(url: DatabaseUrl, why: str) -> UnavailableError:
    """The database cannot be used now."""
    return UnavailableError(
        "store-unavailable",
        f"the database {url.name} cannot be used: {why}",
        remedy="check that PostgreSQL runs and lets this user in; it is tried again by itself",
    )


def may_succeed_again(error: DBAPIError) -> bool:
    """Whether a transaction failed only because of another one at the same time."""
    return getattr(error.orig, "sqlstate", None) in _TRY_AGAIN


def is_lost(error: DBAPIError) -> bool:
    """Whether the session is of no use any more: it has ended, or its server takes no writes now."""
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) == _READ_ONLY


def words_of(error: BaseException) -> str:
    """What a driver's error says, without details that hold values of rows."""
    told = getattr(getattr(error, "diag", None), "message_primary", None) or str(error)
    words = next(iter(str(told).strip().splitlines()), "") or type(error).__name__
    return bounded(words, 300)
