"""The table `[metrics]`: where a Prometheus may ask (`scrape`).

Reading a configuration must not load asyncio: an agent decides by it whether Python's OpenSSL is left out.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress

import msgspec

from bedside.core.errors import ConfigError
from bedside.service.link.address import Address, parse_address


class MetricsConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The table `[metrics]`.

    Attributes:
        listen: host:port where Prometheus may ask; empty: nowhere.
    """

    listen: str = ""

    def __post_init__(self) -> None:
        if self.listen:
            self.check(parse_address(self.listen))

    def check(self, address: Address) -> None:
        """Refuse an address that names no interface: ConfigError `metrics-address`."""
        if address.path or _is_everywhere(address.host):
            raise ConfigError(
                "metrics-address",
                f"metrics.listen is {address}, which is not one address of this machine",
                remedy='name it, for instance "127.0.0.1:9464"; without encryption nobody else should be able to ask',
            )


class LocalMetricsConfig(MetricsConfig, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The table `[metrics]` where nothing may listen for other machines."""

    def check(self, address: Address) -> None:
        """Refuse what is not of this machine alone: ConfigError `metrics-address`."""
        super().check(address)
        if not address.is_loopback:
            raise ConfigError(
                "metrics-address",
                f"metrics.listen is {address}: other machines could ask there",
                remedy='write "127.0.0.1:9464", and let a scraper on this machine ask',
            )


def _is_everywhere(host: str) -> bool:
    """Whether a server that binds it listens on all interfaces; `0` does, too (inet_aton(3))."""
    with suppress(ValueError):
        literal = ipaddress.ip_address(host)
        mapped = literal.ipv4_mapped if isinstance(literal, ipaddress.IPv6Address) else None
        return (mapped or literal).is_unspecified
    with suppress(OSError):
        return not any(socket.inet_aton(host))
    return False
