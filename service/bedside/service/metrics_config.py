"""The table `[metrics]`: where a Prometheus may ask (`scrape`).

Reading a configuration must not load asyncio: an agent decides by it whether Python's OpenSSL is left out.
"""

from __future__ import annotations

import ipaddress

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
        try:
            everywhere = ipaddress.ip_address(address.host).is_unspecified
        except ValueError:
            everywhere = False
        if address.path or everywhere:
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
