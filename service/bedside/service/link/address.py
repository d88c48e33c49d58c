"""Where a peer is reached: a host and port, or a unix socket."""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

from bedside.core.errors import ConfigError, MalformedError

_UNIX: Final = "unix:"
_MAX_PORT: Final = 65_535
_MAX_HOST_CHARS: Final = 253
"""Characters of a host's name (RFC 1035, section 2.3.4, as text)."""
_MAX_LABEL_CHARS: Final = 63
"""Of a part of it (likewise). Python's resolver raises a UnicodeError at others, and at empty ones."""
_MAX_UNIX_CHARS: Final = 107
"""Characters of a unix socket's path (unix(7))."""


class Address(NamedTuple):
    """A parsed address.

    Attributes:
        host: name or IP literal without brackets; empty for a unix socket.
        port: 0 to 65535; 0 lets a server choose; 0 for a unix socket.
        path: of a unix socket; empty otherwise.
    """

    host: str
    port: int
    path: str = ""

    @property
    def target(self) -> str:
        """The address as gRPC wants it."""
        if self.path:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it cannot leave this machine. A name other than `localhost` may, whatever it resolves to now."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return self.target


def parse_address(text: str) -> Address:
    """Read `host:port`, `[ipv6]:port` or `unix:/path`.

    Raises:
        ConfigError: `bad-address`.
    """
    refusal = ConfigError(
        "bad-address", f"{text[:200]!r} is no address", remedy="write host:port, [ipv6]:port or unix:/path"
    )
    if not text.isprintable():  # surrogates neither
        raise refusal
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        if not path.startswith("/") or len(path.encode()) > _MAX_UNIX_CHARS:
            raise refusal
        return Address("", 0, path)
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    plain = 0 < len(host) <= _MAX_HOST_CHARS and not any(
        character.isspace() or character in "/[]" for character in host
    )
    if not (colon and plain and bracketed == (":" in host) and port.isascii() and port.isdecimal()):
        raise refusal
    labels = [] if bracketed else host.removesuffix(".").split(".")
    if not all(0 < len(label) <= _MAX_LABEL_CHARS for label in labels):
        raise refusal
    if len(port) > len(str(_MAX_PORT)) or int(port) > _MAX_PORT:
        raise refusal
    return Address(host, int(port))


def check_told_address(text: str) -> str:
    """Return an address that a peer told us, when it leads to a host: no peer names a socket of this machine.

    Raises:
        MalformedError: `bad-address`.
    """
    try:
        if not parse_address(text).path:
            return text
    except ConfigError:
        pass
    raise MalformedError(
        "bad-address",
        f"a peer says that it is called at {text[:200]!r}, which is no host and port",
        remedy="set `public_service_address` in coordinator.toml",
    )


def check_insecure(address: Address) -> None:
    """Refuse plaintext to or from another machine.

    Raises:
        ConfigError: `insecure-address`.
    """
    if not address.is_loopback:
        raise ConfigError(
            "insecure-address",
            f"--insecure-loopback would send plaintext over the network to {address}",
            remedy="use TLS, or an address of this machine such as 127.0.0.1",
        )
