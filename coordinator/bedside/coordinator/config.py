"""The coordinator's configuration: what `coordinator.toml` may say, and the file that `init` writes."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from bedside.coordinator.database_url import DatabaseUrl, parse_database_url
from bedside.core.errors import ConfigError
from bedside.service.metrics_config import MetricsConfig

FILE_NAME: Final = "coordinator.toml"


class CoordinatorConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Everything that can be configured; `DEFAULT_TOML` explains each key.

    Attributes:
        service_address: host:port of the mTLS port.
        enrolment_address: host:port of the enrolment port.
        public_service_address: what devices are told to call; empty for `service_address` as bound.
        public_enrolment_address: what tokens name; empty for `enrolment_address` as bound.
        operator_socket: path of the operators' unix socket; empty for `operator.sock` in the state directory.
        heartbeat_s: seconds between two heartbeats of a device.
        opening_s: seconds that trustees have to open a round.
        answer_s: seconds that trustees have to vote, and again to answer.
        flush_s: seconds that heartbeats are gathered before one write.
        poll_s: longest that a waiting call is held.
        database: URL of a PostgreSQL database; empty for the SQLite file `coordinator.db` in the state directory.
        database_password: where its password lies, see `bedside.service.secret.read_secret`; empty for none.
        log_level: DEBUG, INFO, WARNING or ERROR.
        metrics: where Prometheus may ask.
    """

    service_address: str = "0.0.0.0:7443"  # both TLS ports are dialled from outside
    enrolment_address: str = "0.0.0.0:7444"  # see above
    public_service_address: str = ""
    public_enrolment_address: str = ""
    operator_socket: str = ""
    heartbeat_s: float = 30.0
    opening_s: float = 120.0
    answer_s: float = 300.0
    flush_s: float = 1.0
    poll_s: float = 60.0
    database: str = ""
    database_password: str = ""
    log_level: str = "INFO"
    metrics: MetricsConfig = MetricsConfig()

    def __post_init__(self) -> None:
        for name in ("heartbeat_s", "opening_s", "answer_s", "flush_s", "poll_s"):
            if not 0 < getattr(self, name) <= 86_400:
                raise ConfigError("config-range", f"{name} must be above 0 and at most a day", remedy=f"correct {name}")
        if self.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            sentence = "log_level is not one of DEBUG, INFO, WARNING, ERROR"
            raise ConfigError("config-range", sentence, remedy="correct log_level")
        if self.database_url is None and self.database_password:
            sentence = "database_password is set, and database is not"
            raise ConfigError("config-range", sentence, remedy="set database, or leave both out")

    @property
    def database_url(self) -> DatabaseUrl | None:
        """The PostgreSQL database; None for SQLite. Raises ConfigError `database-url`."""
        return parse_database_url(self.database) if self.database else None


_DEFAULTS: Final = CoordinatorConfig()

DEFAULT_TOML: Final = """\
# Configuration of a Bedside coordinator. Every key is optional; the values here are the defaults.
# A misspelt key is an error. Drop-ins in conf.d/*.toml beside this file are merged in the order of their names.

# Where devices and trustees call (mutual TLS), and where new ones enrol (server TLS only). Both are dialled from
# outside; nothing listens in a hospital.
{service_address}
{enrolment_address}

# What devices and tokens are told to call, when that differs from the above (a name in DNS, a forwarded port).
{public_service_address}
{public_enrolment_address}

# Unix socket of `bedside round` and `bedside fleet`; empty means operator.sock in this directory.
operator_socket = ""

# Seconds between two heartbeats of a device; a device is late after two and a half of them, silent after ten.
heartbeat_s = 30.0

# Seconds that the trustees of a cohort have to open a round, then to vote, then to answer.
opening_s = 120.0
answer_s = 300.0

# Heartbeats are gathered for so long before one write.
flush_s = 1.0

# Longest time that a call which waits for news is held.
poll_s = 60.0

# Where all is kept but blobs. Empty is SQLite: coordinator.db in this directory. PostgreSQL (docs/coordinator.md) is
# postgresql://USER@HOST/NAME?sslmode=verify-full, with its password never in it but at database_password: a file
# of mode 0600, or credential:NAME of the unit. With neither, libpq asks PGPASSFILE.
database = ""
database_password = ""

log_level = "INFO"

[metrics]
# host:port where Prometheus may ask for /metrics, over plain HTTP: 127.0.0.1:9464, or one named address of a network
# that nobody else is in. Empty: nowhere.
listen = ""
"""


class InitAddresses(NamedTuple):
    """What `bedside coordinator init` is told of addresses; named as the keys."""

    service_address: str = _DEFAULTS.service_address
    enrolment_address: str = _DEFAULTS.enrolment_address
    public_service_address: str = ""
    public_enrolment_address: str = ""

    def lines(self) -> dict[str, str]:
        """Each as a line of TOML, by its key."""
        return {key: f'{key} = "{value}"' for key, value in self._asdict().items()}


def default_toml(
    service_address: str = _DEFAULTS.service_address,
    enrolment_address: str = _DEFAULTS.enrolment_address,
    public_service_address: str = "",
    public_enrolment_address: str = "",
) -> str:
    """The commented file of `bedside coordinator init`, with these addresses."""
    addresses = InitAddresses(service_address, enrolment_address, public_service_address, public_enrolment_address)
    return DEFAULT_TOML.format(**addresses.lines())


def addresses_toml(addresses: InitAddresses) -> str:
    """The drop-in of `bedside coordinator init` where there is a file already, which stays as it is."""
    head = "# Made by `bedside coordinator init`; what stands here counts, and not the same key in coordinator.toml.\n"
    return head + "".join(f"{line}\n" for line in addresses.lines().values())
