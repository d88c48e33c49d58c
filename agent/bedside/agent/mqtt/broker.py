"""Which broker, as whom, and how protected; and what its refusals mean.

Source: MQTT 5.0, sections 3.1 and 3.2.2.2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bedside.agent.client_tls import ClientTls, tls_fault, tls_of
from bedside.core.errors import ConfigError, UnavailableError
from bedside.service.link.address import Address, parse_address
from bedside.service.text import bounded

_CLIENT_ID: Final = re.compile(r"[!-~]{1,64}", re.ASCII)
_REMEDIES: Final = {
    0x84: "Bedside speaks MQTT 5: update the broker, or bridge it with one that does",
    0x85: "choose another client_id",
    0x86: "check user and password",
    0x87: "check user, password and client certificate, and what the broker allows them",
    0x8E: "give every device a client_id of its own",
}
"""By reason code of CONNACK and DISCONNECT."""
_OPTIONS: Final = (
    "use tls = true with ca, user and password or client_certificate and client_key; tls = false on this machine; or"
    " plaintext = true where the network itself is protected"
)
_CAUSES: Final = {
    0x82: "one of us breaks the protocol",
    0x84: "it does not speak MQTT 5",
    0x85: "client_id is not valid there",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x8E: "another client has the same client_id",
}


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker and our account there.

    Attributes:
        client_id: names our session there.
        tls: None = not protected.
        user: empty = none.
        password: where it lies, see `read_secret`; empty = none.
        directory: where relative paths start.
    """

    address: Address
    client_id: str
    tls: ClientTls | None
    user: str
    password: str
    directory: Path

    def refused(self, reason: int, words: str) -> UnavailableError:
        """The broker does not let us in, or throws us out, with a reason code and its words."""
        return UnavailableError(
            "mqtt-refused",
            f"the broker {self.address} refuses us: {_CAUSES.get(reason) or bounded(words, 100)}",
            remedy=_REMEDIES.get(reason, "see the log of the broker"),
        )

    def away(self, why: str) -> UnavailableError:
        """The broker cannot be reached, or was lost."""
        words = bounded(why, 160)
        protected = re.search("certificate|SSL|TLS", words, re.IGNORECASE) is not None
        return UnavailableError(
            "mqtt-tls" if protected else "mqtt-away",
            f"there is no connection to the broker {self.address}: {words}",
            remedy="check `ca`, and the name in the broker's certificate" if protected else "see whether it runs",
        )


def broker_of(
    address: str,
    client_id: str,
    directory: Path,
    *,
    tls: bool,
    plaintext: bool,
    ca: str,
    client_certificate: str,
    client_key: str,
    user: str,
    password: str,
) -> Broker:
    """Check the options of a source or sink that say which broker.

    Args:
        address: `host:port`.
        client_id: 1 to 64 visible characters.
        directory: where relative paths start.
        tls: whether the connection is protected.
        plaintext: whether it may be unprotected where it leaves this machine.
        ca: PEM file; empty = authorities of this system.
        client_certificate: PEM file; empty = none.
        client_key: PEM file; empty = none.
        user: empty = none.
        password: where it lies; empty = none.

    Raises:
        ConfigError: `bad-address`, `mqtt-options`.
    """
    where = parse_address(address)
    fault = tls_fault(tls=tls, ca=ca, certificate=client_certificate, key=client_key)
    faults = {
        "a broker is reached at host:port": bool(where.path) or not where.port,
        "client_id is 1 to 64 visible ASCII characters": not _CLIENT_ID.fullmatch(client_id),
        f"messages would cross the network to {where} in plaintext": not (tls or plaintext or where.is_loopback),
        fault: bool(fault),
        "a password needs a user": bool(password) and not user,
    }
    for wrong in (wrong for wrong, there in faults.items() if there):
        raise ConfigError("mqtt-options", wrong, remedy=_OPTIONS)
    protected = tls_of(directory, ca, client_certificate, client_key) if tls else None
    return Broker(where, client_id, protected, user, password, directory)
