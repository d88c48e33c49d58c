import asyncio
import socket
from contextlib import AsyncExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bedside.core.errors import ConfigError, MalformedError, ProtocolError, RefusedError, TrustError, UnavailableError
from bedside.service.health import Health, Level
from bedside.service.link.address import Address, check_insecure, check_told_address, parse_address
from bedside.service.link.calls import CallLimit, waiting
from bedside.service.link.channel import Backoff, ClientTls, open_channel
from bedside.service.link.connection import Connection
from bedside.service.link.errors import remote_errors
from bedside.service.link.health import HealthPublisher
from bedside.service.link.interceptor import RefusalLog
from bedside.service.link.pinned_ca import fetch_ca, proxy_for
from bedside.service.link.server import LinkServer, ServerTls
from bedside.service.platform import SystemClock, SystemEntropy
from bedside.service.tls import create_ca, create_csr, create_tls_key, issue_certificate

NOW_NS = SystemClock().now_ns()
PEM = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
ANY_PORT = Address("127.0.0.1", 0)


def handlers():
    async def echo(request, _context):
        if request == b"refuse":
            raise RefusedError("cohort-small", "the set is tôo small", remedy="raise min — or wait")
        if request == b"bug":
            raise ValueError("patient Jane")
        return request

    async def count(request, _context):
        for at in range(3):
            yield bytes([at])
        if request == b"refuse":
            raise ProtocolError("round-over", "the round is over")

    return grpc.method_handlers_generic_handler(
        "test.Echo",
        {
            "Echo": grpc.unary_unary_rpc_method_handler(echo),
            "Count": grpc.unary_stream_rpc_method_handler(count),
        },
    )


def serving(address=ANY_PORT, tls=None, **options):
    server = LinkServer(address, tls, insecure_loopback=tls is None, **options)
    server.grpc.add_generic_rpc_handlers((handlers(),))
    return server


def plain_channel(port):
    return open_channel(Address("127.0.0.1", port), None, insecure_loopback=True, max_reconnect_s=0.2)


async def echo(channel, request, timeout_s=10):
    with remote_errors("the peer"):
        return await channel.unary_unary("/test.Echo/Echo")(request, timeout=timeout_s)


class Pki:
    def __init__(self, folder):
        self.folder = folder
        self.authority = create_ca("demo", NOW_NS)

    def issue(self, name, **names):
        key_pem = create_tls_key(self.folder / f"{name}.key")
        uri = f"spiffe://demo/site/north/device/{name}"
        certificate = issue_certificate(self.authority, create_csr(key_pem, name), uri, now_ns=NOW_NS, days=2, **names)
        return certificate, key_pem


@pytest.fixture
def pki(tmp_path):
    return Pki(tmp_path)


@pytest.fixture
def stranger(tmp_path):
    (tmp_path / "stranger").mkdir()
    return Pki(tmp_path / "stranger")


@pytest.fixture
def mutual(pki):
    return ServerTls(*pki.issue("server", ip_addresses=["127.0.0.1"]), client_ca_pem=pki.authority.certificate_pem)


async def test_a_device_with_a_certificate_of_our_ca_is_served(pki, mutual):
    async with serving(tls=mutual) as server:
        tls = ClientTls(pki.authority.certificate_pem, *pki.issue("dev"))
        async with open_channel(Address("127.0.0.1", server.port), tls) as channel:
            assert await echo(channel, b"hello") == b"hello"


async def test_a_device_without_or_with_a_strange_certificate_is_not_served(pki, stranger, mutual):
    async with serving(tls=mutual) as server:
        for tls in (
            ClientTls(pki.authority.certificate_pem),
            ClientTls(pki.authority.certificate_pem, *stranger.issue("dev")),
        ):
            async with open_channel(Address("127.0.0.1", server.port), tls) as channel:
                with pytest.raises(UnavailableError):
                    await echo(channel, b"hello")


async def test_a_server_of_another_ca_is_named_as_a_certificate_problem(pki, stranger):
    server_tls = ServerTls(*stranger.issue("server", ip_addresses=["127.0.0.1"]))
    async with serving(tls=server_tls) as server:
        tls = ClientTls(pki.authority.certificate_pem)
        async with open_channel(Address("127.0.0.1", server.port), tls) as channel:
            with pytest.raises(UnavailableError) as caught:
                await echo(channel, b"hello")
            assert caught.value.code == "tls-handshake"
            assert "fingerprint" in caught.value.remedy


async def test_a_device_may_not_pose_as_a_server(pki):
    server_tls = ServerTls(*pki.issue("dev"))
    async with serving(tls=server_tls) as server:
        tls = ClientTls(pki.authority.certificate_pem)
        async with open_channel(Address("127.0.0.1", server.port), tls) as channel:
            with pytest.raises(UnavailableError):
                await echo(channel, b"hello")


async def test_an_error_arrives_with_its_class_code_sentence_and_remedy():
    async with serving() as server, plain_channel(server.port) as channel:
        with pytest.raises(RefusedError) as caught:
            await echo(channel, b"refuse")
        assert caught.value.code == "cohort-small"
        assert caught.value.sentence == "the set is tôo small"
        assert caught.value.remedy == "raise min — or wait"


async def test_an_error_in_a_stream_arrives_after_what_was_sent():
    async with serving() as server, plain_channel(server.port) as channel:
        seen = []

        async def read():
            with remote_errors("the peer"):
                async for item in channel.unary_stream("/test.Echo/Count")(b"refuse"):
                    seen.append(item)

        with pytest.raises(ProtocolError, match="the round is over"):
            await read()
        assert seen == [b"\0", b"\1", b"\2"]


async def test_a_bug_in_a_handler_does_not_tell_its_text():
    async with serving() as server, plain_channel(server.port) as channel:
        with pytest.raises(UnavailableError) as caught:
            await echo(channel, b"bug")
        assert caught.value.code == "internal-error"
        assert "Jane" not in caught.value.sentence


async def test_a_call_that_the_peer_does_not_know_is_a_version_problem():
    async with serving() as server, plain_channel(server.port) as channel:
        with pytest.raises(ProtocolError) as caught, remote_errors("the peer"):
            await channel.unary_unary("/test.Echo/Later")(b"")
        assert caught.value.code == "peer-version"


async def test_a_port_in_use_is_named_with_its_remedy_and_never_shared():
    async with serving() as server:
        with pytest.raises(UnavailableError) as caught:
            await serving(Address("127.0.0.1", server.port)).start()
        assert caught.value.code == "port-in-use"
        assert str(server.port) in caught.value.sentence
        assert caught.value.remedy


async def test_an_address_of_another_machine_is_unusable():
    with pytest.raises(UnavailableError) as caught:
        await LinkServer(Address("192.0.2.1", 50_999), ServerTls(b"", b"")).start()
    assert caught.value.code == "port-unusable"


async def test_a_unix_socket_in_use_is_refused_and_a_stale_one_taken_over(tmp_path):
    address = Address("", 0, str(tmp_path / "api.sock"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(address.path)
    async with serving(address), open_channel(address, None) as channel:
        assert await echo(channel, b"hello") == b"hello"
        with pytest.raises(UnavailableError) as caught:
            await serving(address).start()
        assert caught.value.code == "socket-in-use"


async def test_a_channel_recovers_when_its_server_comes_back():
    first = serving()
    port = await first.start()
    async with plain_channel(port) as channel:
        assert await echo(channel, b"1") == b"1"
        await first.stop(0)
        with pytest.raises(UnavailableError):
            await echo(channel, b"2")
        async with serving(Address("127.0.0.1", port)):
            async with asyncio.timeout(20):
                while True:
                    try:
                        assert await echo(channel, b"3") == b"3"
                        break
                    except UnavailableError:
                        await asyncio.sleep(0.05)


async def test_a_session_runs_again_when_the_server_comes_back_and_reports_both():
    first = serving()
    port = await first.start()
    heard, servers = [], []

    async def pause(wait_s):
        assert wait_s > 0
        if not servers:
            servers.append(serving(Address("127.0.0.1", port)))
            await servers[0].start()
        await asyncio.sleep(0)

    async def session(link):
        await echo(link.channel, b"x")
        link.answered()
        if not servers:
            await first.stop(0)
            await echo(link.channel, b"y")

    def report(error, _wait_s):
        heard.append(error.code if error else "recovered")

    backoff = Backoff(SystemEntropy(), first_s=0.01, cap_s=0.1)
    try:
        connection = Connection("the peer", lambda: plain_channel(port), backoff, report, pause)
        await asyncio.wait_for(connection.run(session), 20)
    finally:
        for server in servers:
            await server.stop(0)
    assert heard == ["recovered", "peer-unavailable", "recovered"]


async def test_an_error_that_no_waiting_mends_ends_the_connection():
    async with serving() as server:

        async def session(link):
            await echo(link.channel, b"refuse")

        backoff = Backoff(SystemEntropy())
        connection = Connection("peer", lambda: plain_channel(server.port), backoff, lambda *_: None)
        with pytest.raises(RefusedError):
            await connection.run(session)


async def test_silent_sockets_are_dropped(mutual):
    async with serving(tls=mutual, handshake_timeout_s=0.2) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with asyncio.timeout(10):
            while await reader.read(1000):
                pass
        writer.close()


async def test_grpc_health_follows_the_components():
    components = Health(SystemClock(), ("ingest", "link"))
    components.set("ingest", Level.OK, "")
    server = LinkServer(ANY_PORT, None, insecure_loopback=True)
    HealthPublisher(components).add_to(server.grpc)
    async with server, plain_channel(server.port) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def state(name):
            return (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status

        assert await state("ingest") == health_pb2.HealthCheckResponse.SERVING
        assert await state("") == health_pb2.HealthCheckResponse.NOT_SERVING
        components.set("link", Level.DEGRADED, "coordinator away")
        async with asyncio.timeout(10):
            while await state("") != health_pb2.HealthCheckResponse.SERVING:
                await asyncio.sleep(0)


@pytest.mark.parametrize("host", ["192.0.2.1", "gw.example", "0.0.0.0", "::"])
def test_plaintext_never_leaves_the_machine(host):
    with pytest.raises(ConfigError) as caught:
        LinkServer(Address(host, 1), None, insecure_loopback=True)
    assert caught.value.code == "insecure-address"
    with pytest.raises(ConfigError):
        open_channel(Address(host, 1), None, insecure_loopback=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_plaintext_within_the_machine_must_be_asked_for(host):
    check_insecure(Address(host, 1))
    with pytest.raises(ConfigError) as caught:
        open_channel(Address(host, 1), None)
    assert caught.value.code == "tls-needed"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("gw:8443", Address("gw", 8443)),
        ("[::1]:1", Address("::1", 1)),
        ("unix:/run/x", Address("", 0, "/run/x")),
    ],
)
def test_addresses_are_read_and_written_alike(text, address):
    assert parse_address(text) == address
    assert address.target == text


@pytest.mark.parametrize(
    "text",
    [
        *("gw", "gw:", ":1", "gw:99999", "gw:1x", "::1:1", "unix:x", "unix:/" + "x" * 200, "a/b:1", "gw:٣"),
        *("\udcff:1", "unix:/\udcff", "gw\0:1", "g" * 254 + ":1", "a..b:1", ".gw:1", f"{'a' * 64}.b:1"),
    ],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert caught.value.code == "bad-address"


async def test_a_name_that_no_resolver_takes_is_a_host_that_does_not_answer():
    with pytest.raises(UnavailableError) as caught:
        await fetch_ca("xn--ä:1", bytes(32))
    assert caught.value.code == "coordinator-unreachable"


@pytest.mark.parametrize("text", ["http://[::1", "http://me:s3/cret@proxy:1"])
def test_a_proxy_that_cannot_be_is_refused_without_what_may_be_its_password(text):
    with pytest.raises(ConfigError) as caught:
        proxy_for(Address("gw", 1), {"https_proxy": text})
    assert caught.value.code == "bad-proxy"
    assert "s3" not in str(caught.value)


@pytest.mark.parametrize("text", ["http://proxy:1", "proxy:1", "http://me:secret@proxy:1/"])
def test_a_proxy_is_named_with_and_without_its_scheme(text):
    assert proxy_for(Address("gw", 1), {"https_proxy": text}) == "proxy:1"


def test_a_peer_names_hosts_and_no_socket_of_this_machine():
    assert check_told_address("gw:8443") == "gw:8443"
    for text in ("unix:/run/bedside.sock", "gw", "h:1\nInjected: 1", ""):
        with pytest.raises(MalformedError) as caught:
            check_told_address(text)
        assert caught.value.code == "bad-address"


@pytest.mark.parametrize(
    ("ca_pem", "certificate_pem", "key_pem"),
    [(b"", b"", b""), (PEM, b"", PEM), (PEM, PEM, b""), (PEM, b"\0" * 40, PEM), (PEM[:-9], PEM, PEM)],
)
def test_files_that_are_no_pem_are_refused_before_grpc_meets_them(ca_pem, certificate_pem, key_pem):
    with pytest.raises(ConfigError) as caught:
        open_channel(Address("127.0.0.1", 1), ClientTls(ca_pem, certificate_pem, key_pem))
    assert caught.value.code == "bad-pem"


class FixedEntropy:
    def __init__(self, byte):
        self.byte = byte

    def token_bytes(self, count):
        return bytes([self.byte]) * count


def test_pauses_double_up_to_the_cap_and_start_again_after_an_answer():
    backoff = Backoff(FixedEntropy(0), first_s=2, cap_s=10)
    assert [backoff.next_s() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert backoff.next_s() == 1


def test_pauses_differ_between_devices_but_stay_below_the_cap():
    late = Backoff(FixedEntropy(255), first_s=2, cap_s=10)
    pauses = [late.next_s() for _ in range(20)]
    assert pauses[0] > 1.9
    assert max(pauses) <= 10


def test_trust_errors_keep_their_status_apart_from_refusals():
    from bedside.service.link.errors import status_of

    assert status_of(TrustError("a", "b")) != status_of(RefusedError("a", "b"))


async def test_a_peer_that_is_refused_again_and_again_does_not_fill_the_log(caplog):
    caplog.set_level("INFO")
    async with serving() as server, plain_channel(server.port) as channel:
        for _ in range(50):
            with pytest.raises(RefusedError):
                await echo(channel, b"refuse")
    assert [record.message for record in caplog.records].count("call-refused") == 1


def test_what_was_not_logged_is_counted_in_the_next_line_of_its_kind(caplog):
    caplog.set_level("INFO")
    log = RefusalLog()
    for at_s in (0.0, 1.0, 9.9, 10.0, 20.0):
        log.tell("/Echo", "no", at_s)
        log.tell("/Echo", "other", 0.0)
    told = [record.bedside_fields for record in caplog.records]
    assert told == [
        {"method": "/Echo", "code": "no"},
        {"method": "/Echo", "code": "other"},
        {"method": "/Echo", "code": "no", "before": 2},
        {"method": "/Echo", "code": "no"},
    ]


class Held:
    """Calls that stay until they are let go, with or without a place."""

    def __init__(self):
        self.here = 0
        self.release = asyncio.Event()

    def add_to(self, server):
        async def stay(request, _context):
            self.here += 1
            try:
                if request == b"wait":
                    with waiting():
                        await self.release.wait()
                else:
                    await self.release.wait()
            finally:
                self.here -= 1
            return request

        handler = grpc.unary_unary_rpc_method_handler(stay)
        server.grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Held", {"Stay": handler}),))

    async def calls(self, channel, request, count):
        """Begin so many calls; returns once all are held."""
        wanted = self.here + count
        tasks = [asyncio.ensure_future(channel.unary_unary("/test.Held/Stay")(request)) for _ in range(count)]
        async with asyncio.timeout(10):
            while self.here < wanted:
                await asyncio.sleep(0)
        return tasks


async def test_calls_that_wait_hold_no_place_and_calls_that_work_do():
    held, server = Held(), serving(limit=CallLimit(max_calls=3))
    held.add_to(server)
    async with server, plain_channel(server.port) as channel:
        tasks = await held.calls(channel, b"wait", 50)
        assert await echo(channel, b"a heartbeat") == b"a heartbeat"
        tasks += await held.calls(channel, b"work", 3)
        with pytest.raises(UnavailableError) as caught:
            await echo(channel, b"a heartbeat")
        assert caught.value.code == "peer-busy"
        held.release.set()
        await asyncio.gather(*tasks)
        assert await echo(channel, b"a heartbeat") == b"a heartbeat"


async def test_thousands_of_calls_that_come_at_once_are_all_taken(pki, mutual):
    held, server = Held(), serving(tls=mutual, limit=CallLimit(max_calls=3, max_calls_of_peer=3_000))
    held.add_to(server)
    tls = ClientTls(pki.authority.certificate_pem, *pki.issue("many"))
    async with server, AsyncExitStack() as channels:
        address = Address("127.0.0.1", server.port)
        opened = [await channels.enter_async_context(open_channel(address, tls)) for _ in range(28)]
        for channel in opened:
            assert await echo(channel, b"hello") == b"hello"
        calls = [channel.unary_unary("/test.Held/Stay")(b"wait") for channel in opened for _ in range(90)]
        async with asyncio.timeout(30):
            while held.here < len(calls):
                assert not any(call.done() for call in calls)
                await asyncio.sleep(0.05)
        held.release.set()
        assert set(await asyncio.gather(*calls)) == {b"wait"}


async def test_one_peer_takes_its_own_places_only_on_whatever_connections(pki, mutual):
    held, server = Held(), serving(tls=mutual, limit=CallLimit(max_calls_of_peer=4))
    held.add_to(server)
    greedy, other = (ClientTls(pki.authority.certificate_pem, *pki.issue(name)) for name in ("greedy", "other"))
    async with server:
        address = Address("127.0.0.1", server.port)
        async with open_channel(address, greedy) as first, open_channel(address, greedy) as second:
            tasks = [*await held.calls(first, b"wait", 2), *await held.calls(second, b"work", 2)]
            with pytest.raises(UnavailableError) as caught:
                await echo(first, b"more")
            assert caught.value.code == "peer-busy"
            async with open_channel(address, other) as channel:
                assert await echo(channel, b"a heartbeat") == b"a heartbeat"
            held.release.set()
            await asyncio.gather(*tasks)
            assert await echo(second, b"more") == b"more"
