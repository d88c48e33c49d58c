"""The coordinator from here: both ports, through the proxy where there is one, and its clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final

from bedside.core.errors import BedsideError
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.doctor.check import Check, Finding, Place, bad, doubtful, good
from bedside.service.doctor.membership import Locate, identity_of
from bedside.service.identity import Identity
from bedside.service.link.address import parse_address
from bedside.service.link.channel import ClientTls, open_channel
from bedside.service.link.enrolment import connect_enrolment
from bedside.service.link.pinned_ca import fetch_ca, proxy_for
from bedside.service.output import human_duration

READY_S: Final = 10.0
"""Seconds in which a server answers who shows it a certificate."""
SKEW_S: Final = 30
"""A clock that is off by more is worth a look; plans bear 300."""
FAR_S: Final = 300

_NS_PER_S: Final = 1_000_000_000


def reach_checks(locate: Locate, role: Role.ValueType) -> tuple[Check, ...]:
    """Checks of the way to the coordinator of an identity that is pinned to one."""

    def proxy(place: Place) -> Iterator[Finding]:
        return _proxy(place.environ)

    def enrolment_port(place: Place) -> Iterator[Finding]:
        identity = identity_of(locate, role, place)
        if identity is None:
            return
        address, seconds = identity.pins.enrolment_address, asyncio.run(_ask(identity))
        yield good(f"{way(address, place.environ)} answers with the authority that was pinned")
        if seconds:
            yield _offset(place.clock.now_ns() // _NS_PER_S - seconds)

    def service_port(place: Place) -> Iterator[Finding]:
        identity = identity_of(locate, role, place)
        address = identity.pins.service_address if identity is not None else ""
        if identity is None or not address:
            return
        asyncio.run(fetch_ca(address, bytes.fromhex(identity.pins.ca_digest)))
        if identity.certificate_pem is None:
            yield good(f"{way(address, place.environ)} answers")
        elif asyncio.run(_takes_us(identity, address)):
            yield good(f"{way(address, place.environ)} takes this machine's certificate")
        else:
            yield bad(f"{way(address, place.environ)} answers, and does not take this machine's certificate")

    return (
        Check(
            "proxy",
            "that the variables of the proxy are those that are read, and that it has no password",
            "set https_proxy and no_proxy, in small letters, and without a password",
            proxy,
        ),
        Check(
            "enrolment-port",
            "that the coordinator's enrolment port (7444) answers, that nobody inspects TLS on the way, and that its "
            "clock and this one agree",
            "let this address out, or through the proxy unopened (docs/hospital-it.md, Ports)",
            enrolment_port,
        ),
        Check(
            "service-port",
            "that its other port (7443) answers and takes the certificate",
            "let this address out, or through the proxy unopened; a revoked machine needs a new token",
            service_port,
        ),
    )


def _proxy(environ: Mapping[str, str]) -> Iterator[Finding]:
    named = environ.get("https_proxy", "")
    if environ.get("HTTPS_PROXY") and not named:
        yield bad("HTTPS_PROXY is set and https_proxy is not: half of the programs on this machine heed it")
    elif "@" in named:
        yield bad("https_proxy names a user or a password, which are not sent")
    elif named:
        yield good(named)


def way(address: str, environ: Mapping[str, str]) -> str:
    """An address, and the proxy through which it is reached."""
    proxy = proxy_for(parse_address(address), environ)
    return f"{address} (through {proxy})" if proxy else address


def _offset(off_s: int) -> Finding:
    words = f"this clock is {human_duration(abs(off_s))} {'ahead of' if off_s > 0 else 'behind'} the coordinator's"
    remedy = "timedatectl set-ntp true, here or there"
    if abs(off_s) > FAR_S:
        return bad(f"{words}: plans are refused", remedy)
    return doubtful(words, remedy) if abs(off_s) > SKEW_S else good("the clocks agree")


async def _ask(identity: Identity) -> int:
    """The coordinator's clock, seconds since the epoch; 0 where it does not tell."""
    pins = identity.pins
    async with await connect_enrolment(pins.enrolment_address, bytes.fromhex(pins.ca_digest)) as client:
        return (await client.get_federation(bytes.fromhex(pins.root_pk))).server_time_s


async def _takes_us(identity: Identity, address: str) -> bool:
    """Whether the server goes on after it has seen our certificate."""
    tls = ClientTls(identity.ca_pem, identity.certificate_pem or b"", identity.tls_key_pem)
    channel = open_channel(parse_address(address), tls)
    try:
        with suppress(TimeoutError, BedsideError):
            await asyncio.wait_for(channel.channel_ready(), READY_S)
            return True
        return False
    finally:
        await channel.close()
