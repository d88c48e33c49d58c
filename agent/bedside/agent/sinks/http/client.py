"""Requests to a hospital's server: TLS, a proxy where the environment names one, no redirect, nothing unbounded.

Invariants:
    * Plaintext leaves this machine only where `plaintext = true` says so. A redirect is not followed: what answers is
      the server that the configuration names.
    * A secret is read when it is needed, and is in no error.
    * What the server answers is read up to `MAX_ANSWER_BYTES`, and an exchange ends after `timeout_s`, however little
      comes at a time.

Source: RFC 9110.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

from bedside.agent.client_tls import CaFile, CertificateFile, KeyFile, Plaintext, client_context, tls_fault, tls_of
from bedside.agent.sinks.http.deadline import Deadline, bounded_pools
from bedside.agent.sinks.kind import AwayError, NotTakenError, SinkOptions, option
from bedside.agent.sinks.rules import MAX_TIMEOUT_S
from bedside.core.errors import ConfigError
from bedside.service.link.address import Address
from bedside.service.secret import read_secret
from bedside.service.text import bounded

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

    from bedside.core.clock import Clock

MAX_ANSWER_BYTES: Final = 64 << 10
MAX_URL_CHARS: Final = 2_000
_PORTS: Final = {"http": 80, "https": 443}

_OBJECT: Final = re.compile(r"^\w+\(host=[^)]*\): ")
"""What urllib3 puts before its words."""

ROWS_FAULT: Final = frozenset({400, 406, 409, 410, 411, 412, 413, 414, 415, 422, 431})
"""What another try of the same bytes will not mend. Of the others, 401, 403, 404 and 405 wait for an administrator."""


class HttpOptions(SinkOptions, frozen=True, kw_only=True):
    """What every sink on HTTP takes beside the common options."""

    url: Annotated[str, option("of the receiver, https://")]
    token: Annotated[str, option("where the bearer token lies: credential:NAME, or a file of mode 0600")] = ""
    ca: CaFile = ""
    client_certificate: CertificateFile = ""
    client_key: KeyFile = ""
    plaintext: Plaintext = False
    timeout_s: Annotated[float, option("seconds that a request and its answer may take")] = 20.0


class HttpClient:
    """Speaks to one server. Blocks; use in one thread. Nothing is opened before the first request."""

    def __init__(
        self,
        options: HttpOptions,
        directory: Path,
        clock: Clock,
        *,
        explain: Callable[[bytes], str] = lambda _body: "",
    ) -> None:
        """Check the options.

        Args:
            options: of the sink.
            directory: relative paths start here.
            clock: for the deadline of an exchange.
            explain: what a body says is wrong, in a sentence; empty where it says nothing.

        Raises:
            ConfigError: `sink-config`.
        """
        self._options = options
        self._directory = directory
        self._explain = explain
        self._address = _address_of(options)
        self._deadline = Deadline(clock)
        self._pool: PoolManager | None = None

    def send(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Make one request; returns when the answer is a 2xx.

        Raises:
            AwayError: `sink-unreachable`, `sink-status`: to be tried again.
            NotTakenError: `sink-refused`.
            ConfigError: a certificate or a secret cannot be read; to be tried again, when it can.
        """
        import urllib3

        token = {}
        if self._options.token:
            token = {"Authorization": f"Bearer {read_secret(self._directory, self._options.token, option='token')}"}
        if self._pool is None:
            self._pool = self._open()
        sent = {"User-Agent": "bedside", **headers, **token}
        self._deadline.begin(self._options.timeout_s)
        try:
            answer = self._pool.request(
                method, url, body=body, headers=sent, redirect=False, retries=False, preload_content=False
            )
            try:
                status, retry_after = answer.status, answer.headers.get("Retry-After", "")
                said = _read(answer)
            finally:
                answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self.close()
            raise AwayError(
                "sink-unreachable",
                f"{self._address} does not answer: {bounded(_reason(error), 200)}",
                remedy="check the url, the firewall, the proxy and the certificate",
            ) from error
        self._judge(status, said, retry_after)

    def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            self._pool.clear()
            self._pool = None

    def _judge(self, status: int, said: bytes, retry_after: str) -> None:
        """Raise what a status means, unless it is a success."""
        if 200 <= status < 300:
            return
        says = self._explain(said)
        sentence = f"{self._address} answers {status}" + (f": {bounded(says, 300)}" if says else "")
        if status in ROWS_FAULT:
            raise NotTakenError("sink-refused", sentence, remedy="look at what is sent: bedside agent sinks preview")
        remedy = _REMEDIES.get(status, "")
        if 300 <= status < 400:
            remedy = "redirects are not followed: write the address that it names into url"
        wait = retry_after.strip()
        wait_s = float(wait) if len(wait) <= 9 and wait.isascii() and wait.isdecimal() else 0.0
        raise AwayError("sink-status", sentence, remedy=remedy, retry_after_s=wait_s)

    def _open(self) -> PoolManager:
        import urllib3

        timeout = urllib3.Timeout(connect=self._options.timeout_s, read=self._options.timeout_s)
        tls, proxy = None, ""
        if self._is_tls:
            from bedside.service.link.pinned_ca import proxy_for

            its = self._options
            files = tls_of(self._directory, its.ca, its.client_certificate, its.client_key)
            tls = client_context(files, "sink-tls")
            proxy = proxy_for(self._address)
        if proxy:
            pool: PoolManager = urllib3.ProxyManager(
                f"http://{proxy}", ssl_context=tls, timeout=timeout, maxsize=1, num_pools=2
            )
        else:
            pool = urllib3.PoolManager(ssl_context=tls, timeout=timeout, maxsize=1, num_pools=2)
        pool.pool_classes_by_scheme = bounded_pools(self._deadline)
        return pool

    @property
    def _is_tls(self) -> bool:
        return urlsplit(self._options.url).scheme == "https"


_REMEDIES: Final = {
    401: "check the token or the client certificate",
    403: "have the receiver's administrator allow this device to write",
    404: "check the url",
    405: "check the url; the receiver may not allow this kind of request",
    407: "the proxy wants a password, which is not supported: have it allow this device",
}


def as_json(found: object) -> bytes:
    """Compact JSON in UTF-8.

    Raises:
        NotTakenError: `sink-unsendable`: a number that JSON has not, which no other try will change.
    """
    try:
        return json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except ValueError as error:
        raise NotTakenError("sink-unsendable", "a row holds a number that JSON does not have") from error


def _address_of(options: HttpOptions) -> Address:
    try:
        parts = urlsplit(options.url)
        address = Address(parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0))
    except ValueError:
        parts, address = urlsplit(""), Address("", 0)
    tls = parts.scheme == "https"
    fault = tls_fault(tls=tls, ca=options.ca, certificate=options.client_certificate, key=options.client_key)
    rules = (
        (
            parts.scheme in _PORTS
            and address.host
            and options.url.isascii()
            and options.url.isprintable()
            and " " not in options.url
            and len(options.url) <= MAX_URL_CHARS,
            "its url is no https:// address",
            "write for instance https://fhir.hospital.example/r4",
        ),
        (not (parts.username or parts.password), "its url holds a password", "use token, or a client certificate"),
        (not (parts.query or parts.fragment), "its url has a query or a fragment", "give the path alone"),
        (
            tls or address.is_loopback or options.plaintext,
            f"{options.url} would send results in plaintext over the network",
            "use https://, or plaintext = true where the network itself is protected",
        ),
        (not fault, fault, "correct them, or use https://"),
        (0 < options.timeout_s <= MAX_TIMEOUT_S, f"timeout_s must be above 0, {MAX_TIMEOUT_S:g} at most", ""),
    )
    for holds, sentence, remedy in rules:
        if not holds:
            raise ConfigError("sink-config", f"sink {options.name}: {sentence}", remedy=remedy)
    return address


def _read(answer: BaseHTTPResponse) -> bytes:
    """The beginning of the body; a connection with more than that in it is not used again."""
    body = answer.read(MAX_ANSWER_BYTES)
    if answer.read(1):
        answer.close()
    return body


def _reason(error: Exception) -> str:
    """The innermost words: those around it name objects."""
    inner = getattr(error, "reason", None) or (error.args[-1] if error.args else error)
    while isinstance(inner, BaseException) and inner.args and isinstance(inner.args[-1], BaseException):
        inner = inner.args[-1]
    return _OBJECT.sub("", str(inner)) or type(error).__name__
