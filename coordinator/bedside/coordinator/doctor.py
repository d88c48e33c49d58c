"""What `bedside doctor` looks at on a coordinator's machine."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from bedside.coordinator.config import CoordinatorConfig
from bedside.coordinator.database_url import DatabaseUrl
from bedside.coordinator.home import PUBLIC_FILE, Home
from bedside.coordinator.store.postgres import open_session, require_driver
from bedside.service.config import load_config
from bedside.service.doctor.check import Check, Finding, Part, Place, bad, doubtful, good
from bedside.service.doctor.storage import DISK, OWNER, WRITING
from bedside.service.doctor.unit import SERVICE, how_to_start
from bedside.service.link.address import Address, parse_address
from bedside.service.link.pinned_ca import fetch_ca
from bedside.service.output import human_duration
from bedside.service.tls import certificate_expiry_ns, certificate_fingerprint

LATE_S: Final = 90 * 86_400
"""The server's certificate is made for decades; one that ends within three months needs hands."""
_NS_PER_S: Final = 1_000_000_000
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_SERVER: Final = """\
SELECT current_setting('server_version'), current_setting('fsync') = 'on',
  coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)"""
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is bound is dialled here


def _configuration(place: Place) -> Iterator[Finding]:
    config = load_config(Home(place.directory).config_path, CoordinatorConfig)
    for address in (config.service_address, config.enrolment_address):
        parse_address(address)
    if config.public_service_address:
        yield good(f"devices are told to call {config.public_service_address}")
    else:
        yield doubtful(
            "devices are told to call the address that is bound, which is right on one machine only",
            "set public_service_address and public_enrolment_address in coordinator.toml",
        )


def _keys(place: Place) -> Iterator[Finding]:
    home = Home(place.directory)
    if home.public.ca_digest == certificate_fingerprint(home.authority.certificate_pem) and home.server_key_pem:
        yield good("keys and authority are whole")


def _federation(place: Place) -> Iterator[Finding]:
    told = Home(place.directory).federation
    if told.not_after_s and told.not_after_s * _NS_PER_S < place.clock.now_ns():
        yield bad(f"the document of federation {told.federation} has expired", "have the root holder sign a new one")
    else:
        yield good(f"federation {told.federation}, version {told.version}, {len(told.sites)} sites")


def _certificate(place: Place) -> Iterator[Finding]:
    left_s = (certificate_expiry_ns(Home(place.directory).server_certificate_pem) - place.clock.now_ns()) // _NS_PER_S
    words = f"the server's certificate ends in {human_duration(left_s)}"
    yield (
        bad("the server's certificate has ended")
        if left_s < 0
        else (doubtful(words) if left_s < LATE_S else good(words))
    )


def _store(place: Place) -> Iterator[Finding]:
    home = Home(place.directory)
    config = load_config(home.config_path, CoordinatorConfig)
    if config.database_url is not None:
        yield from _postgres(home, config, config.database_url, place)
    else:
        yield from _sqlite(home)


def _postgres(home: Home, config: CoordinatorConfig, url: DatabaseUrl, place: Place) -> Iterator[Finding]:
    require_driver()
    with open_session(url, home.password(config, place.environ)()) as session:
        row = session.execute(_SERVER).fetchone()
    version, durable, encrypted = row if row is not None else ("", False, False)
    yield good(f"{url} answers: PostgreSQL {version}")
    if not durable:
        yield bad("the server runs with fsync = off: a power cut loses what it has promised to keep", "turn fsync on")
    if not encrypted and url.host and not url.host.startswith("/") and url.host not in _LOOPBACK:
        yield doubtful(
            f"the way to {url.host} is not encrypted",
            "add ?sslmode=verify-full&sslrootcert=FILE to database; in a network of its own, nobody else may listen",
        )


def _sqlite(home: Home) -> Iterator[Finding]:
    path = home.database_path
    if not path.exists():
        return
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as database:
        try:
            found = [row[0] for row in database.execute("PRAGMA quick_check(1)")]
        except sqlite3.Error as error:
            found = [str(error)]
    yield good("coordinator.db is whole") if found == ["ok"] else bad(f"coordinator.db is damaged: {found[0]}")


def _ports(place: Place) -> Iterator[Finding]:
    home = Home(place.directory)
    if not home.is_running:
        yield bad("no coordinator runs here", how_to_start(place, f"bedside coordinator serve {place.directory}"))
        return
    config = load_config(home.config_path, CoordinatorConfig)
    for told in (config.enrolment_address, config.service_address):
        bound = parse_address(told)
        if bound.port:  # port 0 was chosen by the kernel, and only the process knows
            here = Address(_WILDCARDS.get(bound.host, bound.host), bound.port)
            asyncio.run(fetch_ca(str(here), bytes.fromhex(home.public.ca_digest), proxy=""))
            yield good(f"{told} answers with our authority")


_REINSTATE: Final = "restore the directory from its backup"

PART: Final = Part(
    name="coordinator",
    directory=Path("/var/lib/bedside/coordinator"),
    marker=PUBLIC_FILE,
    unit="bedside-coordinator",
    early=(DISK, WRITING),
    checks=(
        Check("configuration", "coordinator.toml", "correct coordinator.toml, then start it again", _configuration),
        Check("keys", "that they are there, whole, and nobody else's", _REINSTATE, _keys),
        Check(
            "federation",
            "that a document is installed, holds, and is not too old",
            "bedside coordinator install",
            _federation,
        ),
        Check("certificate", "when the server's certificate ends", "found the coordinator anew", _certificate),
        OWNER,
        Check(
            "store",
            "that the database is whole, or its server is there",
            f"stop it, keep coordinator.db as evidence, and {_REINSTATE}",
            _store,
        ),
        SERVICE,
        Check(
            "ports",
            "that it runs, and both ports answer with its own authority",
            "journalctl -u bedside-coordinator",
            _ports,
        ),
    ),
)
