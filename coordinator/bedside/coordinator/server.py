"""The running coordinator: two ports, the operators' socket, and the driver between them."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from bedside.coordinator.config import CoordinatorConfig
from bedside.coordinator.enrolment.service import EnrolmentService
from bedside.coordinator.home import Home
from bedside.coordinator.metrics.state import StateCollector, render
from bedside.coordinator.operators.service import OperatorService
from bedside.coordinator.parts import STORE, Parts, open_parts
from bedside.coordinator.reload import reload_config
from bedside.coordinator.rounds.device_service import DeviceService
from bedside.coordinator.rounds.driver import Driver
from bedside.coordinator.rounds.trustee_service import TrusteeService
from bedside.core.clock import Clock, Entropy
from bedside.core.errors import BedsideError, StoreError, UnavailableError
from bedside.proto.v1.device_pb2_grpc import add_DeviceServiceServicer_to_server
from bedside.proto.v1.enrolment_pb2_grpc import add_EnrolmentServiceServicer_to_server
from bedside.proto.v1.operator_pb2_grpc import add_OperatorServiceServicer_to_server
from bedside.proto.v1.trustee_pb2_grpc import add_TrusteeServiceServicer_to_server
from bedside.service.health import Level
from bedside.service.link.address import Address, parse_address
from bedside.service.link.health import HealthPublisher
from bedside.service.link.server import LinkServer, ServerTls
from bedside.service.logs import event
from bedside.service.notify import Notifier
from bedside.service.scrape import ScrapeServer
from bedside.service.tls import certificate_expiry_ns

_LOGGER: Final = logging.getLogger(__name__)
SOCKET_NAME: Final = "operator.sock"
_NS_PER_S: Final = 1_000_000_000
STOP_GRACE_S: Final = 1.0
STORE_LOOK_S: Final = 0.5
_WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104  # compared with, not bound to


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running coordinator is reached.

    Attributes:
        service: what devices are told to call (mTLS).
        enrolment: what tokens name.
        socket: path of the operators' socket.
    """

    service: str
    enrolment: str
    socket: str


@dataclass(frozen=True, slots=True)
class Running:
    """A coordinator that listens."""

    parts: Parts
    addresses: Addresses
    workers: tuple[asyncio.Task[None], ...]


@asynccontextmanager
async def running(home: Home, config: CoordinatorConfig, clock: Clock, entropy: Entropy) -> AsyncIterator[Running]:
    """Open the state directory, listen, and drive rounds until the context ends.

    Raises:
        UnavailableError: `port-in-use` or `port-unusable`.
        ConfigError, TrustError, StoreError: as `open_parts`.
    """
    with home.claimed():
        async with _running(home, open_parts(home, config, clock, entropy)) as coordinator:
            yield coordinator


@asynccontextmanager
async def _running(home: Home, parts: Parts) -> AsyncIterator[Running]:
    servers: list[LinkServer | ScrapeServer] = []
    workers: list[asyncio.Task[None]] = []
    try:
        addresses = await _listen(home, parts, servers)
        workers = [asyncio.create_task(work) for work in (Driver(parts).run(), _flush(parts), _watch_store(parts))]
        yield Running(parts, addresses, tuple(workers))
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for server in servers:
            await server.stop(STOP_GRACE_S)
        try:
            parts.roll.flush()
        except BedsideError as error:
            event(_LOGGER, "heartbeats-not-written", level=logging.ERROR, error=error)
        finally:
            parts.store.close()


async def serve(
    home: Home,
    read: Callable[[], CoordinatorConfig],
    clock: Clock,
    entropy: Entropy,
    announce: Callable[[Addresses], None],
) -> None:
    """Run until SIGTERM or SIGINT.

    Args:
        home: the state directory.
        read: the configuration as it stands; asked now, and again at SIGHUP.
        clock: of the process.
        entropy: of the process.
        announce: told the addresses once both ports listen.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    notifier = Notifier(clock)
    async with running(home, read(), clock, entropy) as coordinator:
        announce(coordinator.addresses)
        event(_LOGGER, "coordinator-ready", service=coordinator.addresses.service,
              enrolment=coordinator.addresses.enrolment)  # fmt: skip

        def reload() -> None:
            notifier.reloading()
            notifier.ready(reload_config(coordinator.parts, read))

        loop.add_signal_handler(signal.SIGHUP, reload)
        serving = f"serving on {coordinator.addresses.service}"
        notifier.ready(serving)
        health = coordinator.parts.health
        health.subscribe(lambda _component, level: notifier.status(health.worst().sentence if level else serving))
        await _until_stopped(stop, coordinator, notifier)
        notifier.stopping()


async def _until_stopped(stop: asyncio.Event, coordinator: Running, notifier: Notifier) -> None:
    """Wait for the end; a worker that fails ends the process, so that the service manager starts it afresh."""
    stopping = asyncio.create_task(stop.wait())
    waited = {stopping, *coordinator.workers}
    try:
        while True:
            done, _ = await asyncio.wait(
                waited, timeout=notifier.watchdog_interval_s, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done - {stopping}:
                task.result()
            if done:
                return
            notifier.watchdog()
    finally:
        stopping.cancel()


async def _listen(home: Home, parts: Parts, servers: list[LinkServer | ScrapeServer]) -> Addresses:
    config = parts.config
    authority = home.authority
    certificate_pem, key_pem = home.server_certificate_pem, home.server_key_pem
    service_at, enrolment_at = parse_address(config.service_address), parse_address(config.enrolment_address)
    socket_path = config.operator_socket or str(home.directory.absolute() / SOCKET_NAME)
    refused = parts.meters.refused_call
    mutual = ServerTls(certificate_pem, key_pem, client_ca_pem=authority.certificate_pem)
    service = LinkServer(service_at, mutual, refused=refused)
    enrolment = LinkServer(enrolment_at, ServerTls(certificate_pem, key_pem), refused=refused)
    operators = LinkServer(parse_address(f"unix:{socket_path}"), None, refused=refused)

    def service_address() -> str:
        return parts.config.public_service_address or _reachable(service_at, service.port)

    def enrolment_address() -> str:
        return parts.config.public_enrolment_address or _reachable(enrolment_at, enrolment.port)

    add_DeviceServiceServicer_to_server(DeviceService(parts), service.grpc)
    add_TrusteeServiceServicer_to_server(TrusteeService(parts), service.grpc)
    enrolling = EnrolmentService(
        parts.desk, parts.registry, parts.signals, authority.certificate_pem, service_address, parts.clock
    )
    add_EnrolmentServiceServicer_to_server(enrolling, enrolment.grpc)
    operating = OperatorService(parts, bytes.fromhex(home.pin.root_pk), enrolment_address)
    add_OperatorServiceServicer_to_server(operating, operators.grpc)
    HealthPublisher(parts.health).add_to(operators.grpc)
    scrape = ScrapeServer(config.metrics, lambda: render(parts))
    parts.meters.registry.register(StateCollector(parts, _expiries(home)))
    for server in (service, enrolment, operators, scrape):
        await server.start()
        servers.append(server)
    return Addresses(service_address(), enrolment_address(), socket_path)


def _expiries(home: Home) -> dict[str, float]:
    """Seconds since 1970 at which what was loaded ends."""
    federation = home.federation
    certificate_s = certificate_expiry_ns(home.server_certificate_pem) / _NS_PER_S
    documents = {"federation_document": float(federation.not_after_s)} if federation.not_after_s else {}
    return {"server_certificate": certificate_s, **documents}


def _reachable(address: Address, port: int) -> str:
    """The bound address as somebody on this machine can call it."""
    host = "localhost" if address.host in _WILDCARDS else address.host
    return str(Address(host, port))


async def _flush(parts: Parts) -> None:
    """Write gathered heartbeats now and then; a full disk is waited out."""
    while True:
        await asyncio.sleep(parts.config.flush_s)
        try:
            parts.roll.flush()
        except (StoreError, UnavailableError) as error:
            event(_LOGGER, "heartbeats-not-written", level=logging.ERROR, error=error)


async def _watch_store(parts: Parts) -> None:
    """Tell how the database is; one that another coordinator has served from ends this process."""
    while True:
        store = parts.store
        if store.is_replaced:
            raise UnavailableError(
                "already-running",
                f"{store.trouble}: what this process remembers is old",
                remedy="nothing, where the service manager starts it again; stop one of the two",
            )
        level = Level.DEGRADED if store.trouble else Level.OK
        parts.health.set(STORE, level, f"the database cannot be used: {store.trouble}" if store.trouble else "")
        await asyncio.sleep(STORE_LOOK_S)
