"""HTTP: TLS with named authorities, client certificates, secrets, signatures, proxies, and what is refused."""

from __future__ import annotations

import hashlib
import hmac
import socket
import ssl
import threading
from contextlib import suppress

import pytest

from bedside.agent.config import SinkConfig
from bedside.agent.kinds import options_of
from bedside.agent.sinks.http.client import HttpClient
from bedside.agent.sinks.registry import BUILT_IN, KINDS, find_kind, typed_sink
from bedside.core.errors import ConfigError, MalformedError
from bedside.service.platform import SystemClock
from bedside.service.tls import create_ca, create_csr, create_tls_key, issue_certificate
from ward import Receiver, sink


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory):
    """A CA, a server's certificate and key, and a client's."""
    folder = tmp_path_factory.mktemp("tls")
    now_ns = SystemClock().now_ns()
    authority = create_ca("ward", now_ns)
    for name in ("server", "client"):
        request = create_csr(create_tls_key(folder / f"{name}.key"), name)
        certificate = issue_certificate(
            authority,
            request,
            f"spiffe://x/{name}",
            now_ns=now_ns,
            days=9,
            dns_names=["localhost", "fhir.ward.example"],
        )
        (folder / f"{name}.pem").write_bytes(certificate)
    (folder / "ca.pem").write_bytes(authority.certificate_pem)
    return folder


@pytest.fixture
def secure(files):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "server.pem", files / "server.key")
    context.load_verify_locations(files / "ca.pem")
    made = Receiver(context)
    made.context = context
    yield made
    made.stop()


async def test_results_travel_over_tls_to_a_server_of_a_named_authority(ward, secure, files) -> None:
    ward.begin(sink("webhook", url=secure.url, ca=str(files / "ca.pem")))
    ward.predict()
    await ward.until(secure.items)


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"])
async def test_a_server_that_drips_its_answer_holds_nobody_beyond_the_time_that_is_configured(ward, part) -> None:
    with Dripping(part) as server:
        ward.begin(sink("webhook", url=f"http://localhost:{server.port}/in", timeout_s=0.3))
        ward.predict()
        await ward.until(lambda: ward.facts().errors >= 1)
    assert "does not answer: Read timed out" in ward.facts().last_error
    assert ward.facts().sent == 0


class Dripping:
    """A server that answers every request with a beginning, and then a byte every 50 ms, for ever."""

    def __init__(self, part: bytes) -> None:
        self._part = part
        self._ended = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._listen)]

    def __enter__(self) -> Dripping:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self._threads.append(threading.Thread(target=self._drip, args=(connection,)))
                self._threads[-1].start()

    def _drip(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(65536)
            connection.sendall(self._part)
            while not self._ended.wait(0.05):
                connection.sendall(b"1")


async def test_a_server_of_another_authority_gets_nothing(ward, secure) -> None:
    ward.begin(sink("webhook", url=secure.url))
    ward.predict()
    await ward.until(lambda: ward.facts().errors)
    assert "certificate verify failed" in ward.facts().last_error
    assert secure.requests == []


async def test_a_client_certificate_is_shown_and_its_key_must_be_private(ward, secure, files) -> None:
    secure.context.verify_mode = ssl.CERT_REQUIRED
    key = ward.path / "client.key"
    key.write_bytes((files / "client.key").read_bytes())
    key.chmod(0o644)
    ward.begin(
        sink("webhook", url=secure.url, ca=str(files / "ca.pem"), client_certificate=str(files / "client.pem"),
             client_key="client.key")
    )  # fmt: skip
    ward.predict()
    await ward.until(lambda: "key-mode" in ward.facts().last_error)
    assert secure.requests == []
    key.chmod(0o600)
    await ward.until(secure.items)


async def test_a_token_comes_from_a_private_file_and_is_never_told(ward, receiver) -> None:
    token = ward.path / "token"
    token.write_text("s3cret-token\n")
    token.chmod(0o644)
    receiver.answers = [401]
    ward.begin(sink("fhir", url=receiver.url, token="token"))
    ward.predict()
    await ward.until(lambda: "secret-mode" in ward.facts().last_error)
    assert receiver.requests == []
    token.chmod(0o600)
    await ward.until(lambda: ward.facts().sent == 1)
    assert {headers["Authorization"] for _, _, headers, _ in receiver.requests} == {"Bearer s3cret-token"}
    assert "s3cret" not in ward.facts().last_error


async def test_a_webhook_is_signed_with_its_time_and_its_body(ward, receiver) -> None:
    secret = ward.path / "secret"
    secret.write_text("k")
    secret.chmod(0o600)
    ward.begin(sink("webhook", url=receiver.url, secret="secret"))
    ward.predict()
    await ward.until(lambda: receiver.requests)
    _, _, headers, body = receiver.requests[0]
    parts = dict(part.split("=", 1) for part in headers["Bedside-Signature"].split(","))
    expected = hmac.new(b"k", parts["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(parts["v1"], expected)
    assert abs(int(parts["t"]) - ward.clock.now_ns() // 10**9) < 60
    assert headers["Idempotency-Key"] == receiver.items()[0]["message_id"]


async def test_a_redirect_is_not_followed(ward, receiver) -> None:
    other = Receiver()
    try:
        receiver.headers, receiver.always = {"Location": other.url}, 307
        ward.begin(sink("webhook", url=receiver.url))
        ward.predict()
        await ward.until(lambda: ward.facts().errors >= 2)
        assert "307" in ward.facts().last_error
        assert other.requests == []
    finally:
        other.stop()


class Proxy:
    """An HTTP CONNECT proxy that leads every tunnel to one port of this machine."""

    def __init__(self, port: int) -> None:
        self.asked: list[bytes] = []
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._tunnel, args=(self._listener.accept()[0],), daemon=True).start()

    def _tunnel(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._port)) as server:
            self.asked.append(client.recv(4096))
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
            back.start()
            self._copy(client, server)
            back.join()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()


async def test_the_proxy_of_the_environment_is_asked_and_the_server_behind_it_checked(
    ward, secure, files, monkeypatch
) -> None:
    proxy = Proxy(secure.port)
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
    monkeypatch.delenv("no_proxy", raising=False)
    ward.begin(sink("webhook", url="https://fhir.ward.example/in", ca=str(files / "ca.pem")))
    ward.predict()
    await ward.until(secure.items)
    assert proxy.asked[0].startswith(b"CONNECT fhir.ward.example:443 HTTP/1.")
    await ward.engine.stop()
    proxy.close()


@pytest.mark.parametrize(("excluded", "asks"), [("", True), ("ward.example", False), ("other.example", True)])
def test_no_proxy_is_honoured(tmp_path, monkeypatch, excluded, asks) -> None:
    import urllib3

    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", excluded)
    options = typed_sink(SinkConfig(kind="webhook", name="out", options={"url": "https://fhir.ward.example/in"}))
    pool = HttpClient(options, tmp_path, SystemClock())._open()
    assert isinstance(pool, urllib3.ProxyManager) is asks


URL = {"url": "https://a.example/"}
REFUSED = {
    "plaintext": ("webhook", {"url": "http://10.0.0.9/in"}, "plaintext"),
    "password": ("webhook", {"url": "https://me:word@a.example/"}, "password"),
    "query": ("webhook", {"url": "https://a.example/?token=1"}, "query"),
    "scheme": ("fhir", {"url": "ftp://a.example/"}, "https://"),
    "port": ("fhir", {"url": "https://a.example:99999/"}, "https://"),
    "half a certificate": ("fhir", {**URL, "client_key": "k"}, "belong together"),
    "files of nothing": ("webhook", {"url": "http://127.0.0.1/", "ca": "ca.pem"}, "without TLS"),
    "files of no HL7": ("hl7", {"address": "127.0.0.1:2575", "tls": False, "ca": "ca.pem"}, "without TLS"),
    "timeout": ("fhir", {**URL, "timeout_s": 0}, "timeout_s"),
    "rows": ("fhir", {**URL, "bundle_rows": 0}, "bundle_rows"),
    "batch": ("webhook", {**URL, "batch_rows": 0}, "batch_rows"),
    "nothing": ("webhook", {**URL, "send": []}, "send"),
    "sort": ("webhook", {**URL, "send": ["samples"]}, "send"),
    "strange": ("webhook", {**URL, "urll": "x"}, "did you mean 'url'"),
    "stream": ("webhook", {**URL, "streams": ["Bed 4"]}, "not an id"),
    "no schedule": ("webhook", {**URL, "mode": "scheduled"}, "every_s or at"),
    "two schedules": ("webhook", {**URL, "mode": "scheduled", "every_s": 60, "at": ["06:00"]}, "one of the two"),
    "schedule elsewhere": ("webhook", {**URL, "every_s": 60}, "scheduled"),
    "time": ("webhook", {**URL, "mode": "scheduled", "at": ["25:00"]}, "time of day"),
    "zone": ("webhook", {**URL, "mode": "scheduled", "at": ["06:00"], "time_zone": "Mars/Base"}, "time zone"),
    "confidence": ("webhook", {**URL, "min_confidence": 1.5}, "min_confidence"),
    "cap": ("webhook", {**URL, "max_waiting": 0}, "max_waiting"),
    "often": ("webhook", {**URL, "within_s": 0.0}, "within_s"),
    "subject": ("webhook", {**URL, "subjects": {"a": "x\n"}}, "visible"),
    "hl7 plaintext": ("hl7", {"address": "10.0.0.9:2575", "tls": False}, "plaintext"),
    "hl7 address": ("hl7", {"address": "unix:/tmp/x"}, "host:port"),
    "csv size": ("csv", {"directory": "d", "max_mib": 0}, "MiB"),
    "kind": ("fihr", {}, "did you mean 'fhir'"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_work_is_refused_before_the_agent_starts(ward, name) -> None:
    kind, options, words = REFUSED[name]
    with pytest.raises((ConfigError, MalformedError), match=words) as refused:
        ward.begin(SinkConfig(kind=kind, name="out", options=options))
    assert isinstance(refused.value, MalformedError) or refused.value.sentence.startswith("sink out: ")
    assert ward.engine is None


def test_every_option_is_described_and_every_kind_loads() -> None:
    for kind in (find_kind(name).options for name in BUILT_IN):
        assert set(options_of(kind)) == set(kind.__struct_fields__) - {"name"}
        assert all(options_of(kind).values())
    assert KINDS.names()[: len(BUILT_IN)] == list(BUILT_IN)


def test_typed_options_have_their_defaults() -> None:
    options = typed_sink(SinkConfig(kind="webhook", name="out", options=URL))
    assert (options.mode, options.send, options.max_waiting) == ("continuous", ("predictions", "alarms"), 100_000)
