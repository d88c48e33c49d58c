"""`bedside coordinator`: set up and run."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from bedside.coordinator.cli.link import ask, socket_option
from bedside.coordinator.config import CoordinatorConfig, InitAddresses
from bedside.coordinator.founding import read_federation, read_json
from bedside.coordinator.home import LOOPBACK_NAMES, Home, RootPin, create_home
from bedside.core.errors import ConfigError
from bedside.core.signing.envelope import DIGEST_BYTES
from bedside.proto.v1.common_pb2 import Empty
from bedside.proto.v1.operator_pb2 import FleetSummary, ListRoundsRequest, MintTokenRequest, RoundList
from bedside.service.config import load_config
from bedside.service.health import Level
from bedside.service.link.address import Address, parse_address
from bedside.service.logs import setup_logging
from bedside.service.output import emit, json_option
from bedside.service.platform import SystemClock, SystemEntropy

if TYPE_CHECKING:
    from bedside.proto.v1.operator_pb2_grpc import OperatorServiceAsyncStub

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*", re.ASCII)
"""A name in DNS (RFC 1123)."""

_FILE = click.Path(path_type=Path, dir_okay=False)
_DIRECTORY = click.Path(path_type=Path, file_okay=False)


@click.group()
def coordinator() -> None:
    """Plan rounds, sum masked updates and publish models."""


@coordinator.command()
@click.argument("directory", type=_DIRECTORY)
@click.option("--host", "hosts", multiple=True, help="Name or address that hospitals call; may be repeated.")
@click.option("--service-address", default="0.0.0.0:7443", show_default=True, help="host:port of the mTLS port.")
@click.option("--enrolment-address", default="0.0.0.0:7444", show_default=True, help="host:port for enrolment.")
@json_option
def init(directory: Path, hosts: tuple[str, ...], service_address: str, enrolment_address: str, as_json: bool) -> None:
    """Make keys, certificates and a commented configuration in DIRECTORY."""
    ports = [_port(address) for address in (service_address, enrolment_address)]
    for host in hosts:
        _check_host(host)
    public = [str(Address(hosts[0], port)) for port in ports] if hosts else []
    addresses = InitAddresses(service_address, enrolment_address, *public)
    names = tuple(dict.fromkeys((*hosts, *LOOPBACK_NAMES)))
    home = create_home(directory, SystemClock(), SystemEntropy(), addresses=addresses, names=names)
    told = home.public
    emit({"directory": directory, "sign_pk": told.sign_pk, "ca_digest": told.ca_digest}, as_json)
    if not as_json:
        click.echo("next: have coordinator.public.json signed into the federation, then bedside coordinator install")


@coordinator.command()
@click.argument("directory", type=_DIRECTORY)
@click.argument("document", type=_FILE)
@click.option("--root-pk", help="The federation's root key, hex; default: the .public.json beside DOCUMENT.")
@json_option
def install(directory: Path, document: Path, root_pk: str | None, as_json: bool) -> None:
    """Install a signed federation DOCUMENT; the first one pins the root key.

    A coordinator that runs reads it when it is started again.
    """
    beside = document.with_suffix(".public.json")
    key = _hex(root_pk) if root_pk else None
    if key is None and beside.exists():
        key = _hex(read_json(beside, RootPin).root_pk)
    home = Home(directory)
    told = home.install(read_federation(document), key)
    sites = [site.site for site in told.sites]
    running = home.is_running
    facts = {"federation": told.federation, "version": told.version, "sites": sites, "restart_needed": running}
    emit(facts, as_json)
    if running and not as_json:
        click.echo("next: restart the coordinator; the one that runs still serves the version before")


@coordinator.command()
@click.argument("directory", type=_DIRECTORY)
@json_option
def check(directory: Path, as_json: bool) -> None:
    """Look at the configuration of DIRECTORY before a restart or a reload.

    Nothing is opened or changed. It ends with 78 where the configuration has a mistake.
    """
    config = load_config(Home(directory).config_path, CoordinatorConfig)
    addresses = {key: str(parse_address(getattr(config, key))) for key in ("service_address", "enrolment_address")}
    emit({"ok": True, **addresses, "database": str(config.database_url or "sqlite")}, as_json)


@coordinator.command()
@click.argument("directory", type=_DIRECTORY)
@click.option("--config", "config_path", type=_FILE, help="Configuration; default: coordinator.toml in DIRECTORY.")
@click.option("--service-address", help="host:port of the mTLS port; port 0 picks a free one.")
@click.option("--enrolment-address", help="host:port for enrolment; port 0 picks a free one.")
def serve(
    directory: Path, config_path: Path | None, service_address: str | None, enrolment_address: str | None
) -> None:
    """Run the coordinator whose state is in DIRECTORY until it is told to stop."""
    from bedside.coordinator.server import Addresses
    from bedside.coordinator.server import serve as run
    from bedside.service.notify import hold_reloads

    hold_reloads()
    home = Home(directory)

    def read() -> CoordinatorConfig:
        config = load_config(config_path or home.config_path, CoordinatorConfig)
        if service_address:
            config = msgspec.structs.replace(config, service_address=service_address, public_service_address="")
        if enrolment_address:
            config = msgspec.structs.replace(config, enrolment_address=enrolment_address, public_enrolment_address="")
        return config

    setup_logging(logging.getLevelNamesMapping()[read().log_level])

    def announce(addresses: Addresses) -> None:
        click.echo(f"devices and trustees (mTLS): {addresses.service}")
        click.echo(f"enrolment (server TLS): {addresses.enrolment}")
        click.echo(f"operators: {addresses.socket}")

    asyncio.run(run(home, read, SystemClock(), SystemEntropy(), announce))


@coordinator.command()
@click.option("--site", required=True, help="Site that the devices belong to.")
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Devices that may use it.")
@click.option("--hours", type=click.IntRange(1, 24 * 365), default=24, show_default=True, help="How long it lasts.")
@click.option("--label", default="", help="A word for lists; never a person's name.")
@socket_option
@json_option
def token(site: str, uses: int, hours: int, label: str, socket: str, as_json: bool) -> None:
    """Mint a token whose bearers wait until their site approves them."""
    request = MintTokenRequest(site=site, uses=uses, hours=hours, label=label)

    async def mint(stub: OperatorServiceAsyncStub) -> str:
        return (await stub.MintToken(request)).token

    text = ask(socket, mint)
    if as_json:
        emit({"token": text, "site": site, "uses": uses, "hours": hours}, as_json=True)
    else:
        click.echo(text)


@coordinator.command()
@socket_option
@json_option
def status(socket: str, as_json: bool) -> None:
    """Say whether the coordinator runs, and what it is doing.

    Ends with 0 when all is well, and with 1 while its database cannot be used.
    """

    async def look(stub: OperatorServiceAsyncStub) -> tuple[FleetSummary, RoundList]:
        fleet = await stub.FleetStatus(Empty())
        return fleet, RoundList() if fleet.store_trouble else await stub.ListRounds(ListRoundsRequest(limit=1))

    fleet, rounds = ask(socket, look)
    row = next(iter(rounds.rounds), None)
    newest = f"{row.task} {row.round_number}: {row.phase}" if row is not None else "none yet"
    data = {
        "running": True,
        "health": "degraded" if fleet.store_trouble else "ok",
        "database": f"{fleet.store}: {fleet.store_trouble}" if fleet.store_trouble else fleet.store,
        "sites": len(fleet.sites),
        "devices": sum(site.devices for site in fleet.sites),
        "devices_online": sum(site.online for site in fleet.sites),
        "trustees_online": sum(site.trustee_online for site in fleet.sites),
        "pending_requests": fleet.pending_requests,
        "newest_round": "not known" if fleet.store_trouble else newest,
        "server_time_s": fleet.server_time_s,
    }
    emit(data, as_json)
    if fleet.store_trouble:
        sys.exit(int(Level.DEGRADED))


def _port(text: str) -> int:
    address = parse_address(text)
    if address.path:
        raise ConfigError("bad-address", f"{text[:200]} is a socket of this machine", remedy="write host:port")
    return address.port


def _check_host(host: str) -> None:
    """What goes into the certificate and, with a port, into every token."""
    if not _HOST.fullmatch(host) and not _is_ip(host):
        raise ConfigError(
            "bad-host",
            f"--host {host[:100]!r} is no name and no address of a machine",
            remedy="a name such as fed.example.org or an IP address, without scheme and port",
        )


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _hex(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != DIGEST_BYTES:
        raise ConfigError("root-unknown", "the root key is not 64 hexadecimal digits", remedy="copy all 64 digits")
    return key
