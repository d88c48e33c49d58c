"""A PostgreSQL server of one test module: its owner, databases, and users with passwords; it can stop and start."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

PASSWORD = "s3cret-of-the-reader"


@dataclass
class Postgres:
    """A server on a socket in `folder`."""

    folder: Path
    command: list[str]
    user: str | None
    server: subprocess.Popen[bytes] | None = None
    databases: int = 0

    def start(self) -> None:
        its = {"user": self.user, "extra_groups": []} if self.user is not None else {}
        self.server = subprocess.Popen(
            self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **its
        )  # type: ignore[call-overload]
        deadline_s = time.monotonic() + 30
        while True:
            try:
                self.write("SELECT 1")
                return
            except psycopg.OperationalError:
                assert self.server.poll() is None
                assert time.monotonic() < deadline_s

    def stop(self) -> None:
        """At once, whoever is connected, as a crash would."""
        if self.server is not None:
            self.server.send_signal(signal.SIGQUIT)
            self.server.wait(30)

    def new_database(self, options: str = "") -> str:
        """URL of an empty database of the owner."""
        self.databases += 1
        name = f"made_{self.databases}"
        self.write(f"CREATE DATABASE {name} {options}")
        return f"postgresql://owner@/{name}?host={self.folder}"

    def sessions(self, url: str) -> list[int]:
        """Process ids of the sessions of that database."""
        name = urlsplit(url).path.removeprefix("/")
        with psycopg.connect(host=str(self.folder), user="owner", dbname="postgres") as connection:
            rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s", [name]).fetchall()
            return [int(row[0]) for row in rows]

    def write(self, *statements: str) -> None:
        with psycopg.connect(host=str(self.folder), user="owner", dbname="postgres", autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[arg-type]  # psycopg wants literals

    def count(self, table: str) -> int:
        with psycopg.connect(host=str(self.folder), user="owner", dbname="postgres") as connection:
            row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[arg-type]
            assert row is not None
            return int(row[0])

    @property
    def url(self) -> str:
        return f"postgresql://reader@/postgres?host={self.folder}"


def program(name: str) -> str:
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), ""
    )
    if not found:
        pytest.skip(f"{name} is not installed: apt-get install postgresql")
    return found


def unprivileged() -> str | None:
    """Whom the server may run as: PostgreSQL refuses root. None is the user of the tests."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    initdb, postgres, user = program("initdb"), program("postgres"), unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="bedside-pg-", dir="/tmp"))
    if user is not None:
        shutil.chown(folder, user)
    data = folder / "data"
    its = {"user": user, "extra_groups": []} if user is not None else {}
    try:
        subprocess.run(
            [initdb, "-D", data, "-U", "owner", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"],
            check=True, capture_output=True, cwd="/", **its,
        )  # fmt: skip
        (data / "pg_hba.conf").write_text("local all owner trust\nlocal all all scram-sha-256\n")
        options = ["-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        made = Postgres(folder, [postgres, "-D", str(data), *options], user)
        try:
            made.start()
            made.write(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
