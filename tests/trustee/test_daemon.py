"""The trustee as a real process against a scripted coordinator on real TLS ports.

The scripted coordinator keeps what it was sent, and the test plays the other trustees and all devices.
"""

# ruff: noqa: N802  # gRPC names its methods

import asyncio
import hashlib
import json
import os
import shutil
import ssl
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import blake3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from nacl.signing import SigningKey

from bedside.core.errors import StoreError, UnavailableError
from bedside.core.securesum.trustee import judge_set, mask_sum
from bedside.core.signing.envelope import digest, sign_message
from bedside.core.signing.tokens import mint_token, use_token
from bedside.proto.v1 import audit_pb2, identity_pb2, plan_pb2, round_pb2
from bedside.proto.v1 import enrolment_pb2 as enrolment
from bedside.proto.v1.common_pb2 import Chunk, Empty
from bedside.proto.v1.enrolment_pb2_grpc import EnrolmentServiceServicer, add_EnrolmentServiceServicer_to_server
from bedside.proto.v1.trustee_pb2 import CloseRequest, RevealRequest, Work, WorkItem
from bedside.proto.v1.trustee_pb2_grpc import TrusteeServiceServicer, add_TrusteeServiceServicer_to_server
from bedside.service.identity import Pins
from bedside.service.link.address import Address
from bedside.service.link.server import LinkServer, ServerTls
from bedside.service.mounts import RAM_FILE_SYSTEMS, file_system_of
from bedside.service.platform import SystemClock, SystemEntropy
from bedside.service.tls import PeerIdentity, create_ca, create_csr, create_tls_key, issue_certificate, spiffe_uri

sys.path.insert(0, str(Path(__file__).parent))

from coordinator_log import CoordinatorLog

CLOCK, ENTROPY = SystemClock(), SystemEntropy()
DEADLINE_S = 20
RAM = Path("/dev/shm")

pytestmark = pytest.mark.skipif(
    not RAM.is_dir() or file_system_of(RAM) not in RAM_FILE_SYSTEMS, reason="needs RAM-backed /dev/shm"
)


class Coordinator(EnrolmentServiceServicer, TrusteeServiceServicer):
    """Hands out `items` until they are answered; keeps every word in `words` by kind."""

    def __init__(self, world, authority):
        self.world = world
        self.authority = authority
        self.items = []
        self.words = {}
        self.packed = b""
        self.decisions = []
        self.rosters = []
        self.blobs = {}
        self.failing = set()
        self.changed = asyncio.Condition()
        self.service_address = ""
        self.log = CoordinatorLog(world.coordinator)
        self.cosignatures = []
        self.verdicts = []

    async def wait_for(self, condition):
        async with self.changed, asyncio.timeout(DEADLINE_S):
            await self.changed.wait_for(condition)

    async def note(self):
        async with self.changed:
            self.changed.notify_all()

    async def ask(self, **item):
        self.items = [WorkItem(**item)]
        await self.note()

    def federation(self):
        return sign_message("federation", self.world.federation, self.world.root)

    async def GetFederation(self, request, context):
        return enrolment.FederationBundle(
            federation=self.federation(), ca_pem=self.authority.certificate_pem, service_address=self.service_address
        )

    async def PublishRoster(self, request, context):
        self.rosters.append(identity_pb2.Roster.FromString(request.payload))
        await self.note()
        return Empty()

    async def IssueCertificate(self, request, context):
        asked = identity_pb2.CertificateRequest.FromString(request.payload)
        csr = x509.load_der_x509_csr(asked.csr).public_bytes(Encoding.PEM)
        uri = spiffe_uri("test", PeerIdentity("trustee", "alder", "t-1"))
        pem = issue_certificate(self.authority, csr, uri, now_ns=CLOCK.now_ns(), days=365)
        return enrolment.IssuedCertificate(certificate_pem=pem)

    async def GetWork(self, request, context):
        known = set(request.known_work)

        def fresh():
            return [item for item in self.items if digest(item.SerializeToString(deterministic=True))[:16] not in known]

        try:
            async with self.changed, asyncio.timeout(request.wait_ms / 1000):
                await self.changed.wait_for(fresh)
        except TimeoutError:
            pass
        return Work(items=fresh(), next_call_ms=100)

    async def take(self, kind, signed):
        self.words.setdefault(kind, []).append(signed)
        await self.note()
        if kind in self.failing:
            raise UnavailableError("going-down", "the coordinator goes down")
        return Empty()

    async def PutOpening(self, request, context):
        return await self.take("opening", request)

    async def PutVote(self, request, context):
        return await self.take("vote", request)

    async def PutClosed(self, request, context):
        return await self.take("closed", request)

    async def PutRefusal(self, request, context):
        return await self.take("refusal", request)

    async def PutAnswer(self, request_iterator, context):
        chunks = [chunk async for chunk in request_iterator]
        self.packed = b"".join(chunk.data for chunk in chunks)
        return await self.take("answer", chunks[0].answer)

    async def PutDecision(self, request, context):
        self.decisions.append(request)
        await self.note()
        return Empty()

    async def GetLogCheckpoint(self, request, context):
        return await self.log.get_log_checkpoint(request.from_size)

    async def GetLogEntries(self, request, context):
        return audit_pb2.EntryPage(leaves=await self.log.get_log_entries(request.first, request.count))

    async def GetPlanProof(self, request, context):
        return await self.log.get_plan_proof(request.log_size, request.tree_size)

    async def PutCosignature(self, request, context):
        self.cosignatures.append(request)
        await self.note()
        return Empty()

    async def PutVerdict(self, request, context):
        self.verdicts.append(request)
        await self.note()
        return Empty()

    async def GetRoundRecord(self, request, context):
        yield Chunk(data=b"no record", total_bytes=9)

    async def GetBlob(self, request, context):
        data = self.blobs[request.digest]
        yield Chunk(offset_bytes=request.offset_bytes, data=data[request.offset_bytes :], total_bytes=len(data))


@asynccontextmanager
async def serving(coordinator, directory, ports=(0, 0)):
    key_file = directory / "server.key"
    key = key_file.read_bytes() if key_file.exists() else create_tls_key(key_file)
    certificate = issue_certificate(
        coordinator.authority,
        create_csr(key, "coordinator"),
        "spiffe://test/coordinator",
        now_ns=CLOCK.now_ns(),
        days=1,
        ip_addresses=["127.0.0.1"],
    )
    ca = coordinator.authority.certificate_pem
    enrol = LinkServer(Address("127.0.0.1", ports[0]), ServerTls(certificate + ca, key))
    mutual = LinkServer(Address("127.0.0.1", ports[1]), ServerTls(certificate + ca, key, ca))
    add_EnrolmentServiceServicer_to_server(coordinator, enrol.grpc)
    add_TrusteeServiceServicer_to_server(coordinator, mutual.grpc)
    await enrol.start()
    await mutual.start()
    coordinator.service_address = f"127.0.0.1:{mutual.port}"
    try:
        yield enrol.port, mutual.port
    finally:
        await enrol.stop(0)
        await mutual.stop(0)


def bedside(*arguments):
    return (sys.executable, "-c", "from bedside.service.cli import main; main()", *map(str, arguments))


async def command(*arguments):
    process = await asyncio.create_subprocess_exec(*bedside(*arguments), stdin=-3, stdout=-1, stderr=-1)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def running(bench):
    process = await asyncio.create_subprocess_exec(
        *bedside("trustee", "run", bench.paths.directory, "--runtime-dir", bench.runtime)
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(DEADLINE_S):
                await process.wait()


@pytest.fixture
def coordinator(world):
    authority = create_ca("test", CLOCK.now_ns())
    der = ssl.PEM_cert_to_DER_cert(authority.certificate_pem.decode())
    world.federation.coordinator.ca_digest = hashlib.sha256(der).digest()
    return Coordinator(world, authority)


@pytest.fixture
def bench(world, coordinator, make_bench, tmp_path):
    runtime = Path(tempfile.mkdtemp(dir=RAM, prefix="bedside-test-"))
    made = make_bench(world, tmp_path, mounts=Path("/proc/self/mounts"), runtime=runtime)
    plain = SimpleNamespace(plan=made.plan)
    now_s = CLOCK.now_ns() // 10**9  # the daemon's clock is this machine's
    times = {"issued_at_s": now_s, "close_at_s": now_s + 600}
    made.plan = lambda **changes: coordinator.log.plan(plain, **times, **changes)
    yield made
    made.store.close()
    shutil.rmtree(runtime)


def point(bench, ports):
    old = bench.identity.pins
    bench.identity.save_pins(
        Pins(
            federation=old.federation,
            root_pk=old.root_pk,
            authority_pk=old.authority_pk,
            ca_digest=old.ca_digest,
            site=old.site,
            enrolment_address=f"127.0.0.1:{ports[0]}",
        )
    )


async def begin(bench, coordinator, plan):
    """Ask for the opening and gather everybody else's part; the set's blob stands ready."""
    await coordinator.ask(open=bench.open_request(plan))
    await coordinator.wait_for(lambda: coordinator.words.get("opening"))
    bench.open = lambda *_args, **_kwargs: type("Said", (), {"kind": "opening", "signed": opening})
    opening = coordinator.words["opening"][0]
    begun = bench.begin(plan)
    headers = bench.world.header_set(begun.entries)
    coordinator.blobs[digest(headers.SerializeToString(deterministic=True))] = headers.SerializeToString(
        deterministic=True
    )
    return begun, headers


async def vote(bench, coordinator, begun, headers):
    await coordinator.ask(seal=bench.seal_request(begun, headers))
    await coordinator.wait_for(lambda: coordinator.words.get("vote"))
    said = type("Said", (), {"signed": coordinator.words["vote"][0]})
    votes = bench.others_vote(begun, said)
    return RevealRequest(plan_digest=begun.plan.digest, cohort=0, votes=votes)


def expected_masks(bench, begun, headers):
    """What the trustee must answer, from the key in its RAM directory."""
    secret = bench.secret(begun)
    own = begun.openings[0]
    trust = bench.world.trust()
    return mask_sum(begun.plan, judge_set(begun.plan, 0, begun.openings, headers, trust, own, secret))


async def test_killed_between_vote_and_answer_it_gives_the_one_answer_after_a_restart(bench, coordinator, tmp_path):
    async with serving(coordinator, tmp_path) as ports:
        point(bench, ports)
        async with running(bench) as process:
            begun, headers = await begin(bench, coordinator, bench.plan())
            reveal = await vote(bench, coordinator, begun, headers)
            masks = expected_masks(bench, begun, headers)
            process.kill()
            await process.wait()
        coordinator.failing = {"answer"}
        async with running(bench) as process:
            await coordinator.ask(reveal=reveal)
            await coordinator.wait_for(lambda: coordinator.words.get("answer"))
            process.kill()
            await process.wait()
        assert bench.secret(begun) is None
        coordinator.failing = set()
        async with running(bench):
            await coordinator.wait_for(lambda: len(coordinator.words["answer"]) > 1)
        answers = {signed.SerializeToString() for signed in coordinator.words["answer"]}
        votes = {signed.SerializeToString() for signed in coordinator.words["vote"]}
    assert len(answers) == len(votes) == 1
    assert coordinator.packed == masks
    told = round_pb2.Answer.FromString(coordinator.words["answer"][0].payload)
    assert told.mask_sum_digest == blake3.blake3(masks).digest()


async def test_after_a_reboot_it_says_lost_by_itself_and_opens_the_next_round(bench, coordinator, tmp_path):
    async with serving(coordinator, tmp_path) as ports:
        point(bench, ports)
        async with running(bench):
            begun, headers = await begin(bench, coordinator, bench.plan())
            reveal = await vote(bench, coordinator, begun, headers)
        for file in bench.runtime.iterdir():
            file.unlink()
        coordinator.items = [WorkItem(reveal=reveal)]
        async with running(bench):
            await coordinator.wait_for(lambda: coordinator.words.get("closed"))
            coordinator.words.pop("opening")
            await coordinator.ask(open=bench.open_request(bench.plan(round_number=2, previous_result_digest=b"r" * 32)))
            await coordinator.wait_for(lambda: coordinator.words.get("opening"))
    (closed,) = {signed.payload for signed in coordinator.words["closed"]}
    assert round_pb2.Closed.FromString(closed).reason == round_pb2.CLOSE_REASON_LOST
    assert "answer" not in coordinator.words


async def test_a_stolen_key_is_found_by_the_running_trustee_and_shown_until_a_person_has_acted(
    bench, coordinator, tmp_path
):
    async with serving(coordinator, tmp_path) as ports:
        point(bench, ports)
        async with running(bench):
            await coordinator.ask(open=bench.open_request(bench.plan()))
            await coordinator.wait_for(lambda: coordinator.words.get("opening"))
            await coordinator.wait_for(lambda: coordinator.cosignatures)
            coordinator.log.word("opening", bench, digest(b"a plan that it never saw"))
            await coordinator.ask(open=bench.open_request(bench.plan(task="second")))
            await coordinator.wait_for(lambda: coordinator.words.get("refusal"))
            status, out, _ = await command("trustee", "status", bench.paths.directory)
            assert status == 2
            assert "ALARM foreign-word: opening at position 1" in out
            status, out, _ = await command("trustee", "clear-alarm", bench.paths.directory, "--json")
            assert (status, json.loads(out)["cleared"]) == (0, 1)
            await coordinator.ask(open=bench.open_request(bench.plan(task="third")))
            await coordinator.wait_for(lambda: len(coordinator.words["opening"]) > 1)
            status, out, _ = await command("trustee", "status", bench.paths.directory, "--json")
    (refusal,) = coordinator.words["refusal"]
    assert round_pb2.Refusal.FromString(refusal.payload).code == "foreign-word"
    log = next(entry for entry in json.loads(out)["components"] if entry["component"] == "log")
    assert log["level"] == "ok"


async def test_a_forked_log_stops_openings_with_its_code(bench, coordinator, tmp_path):
    async with serving(coordinator, tmp_path) as ports:
        point(bench, ports)
        async with running(bench):
            await coordinator.ask(open=bench.open_request(bench.plan()))
            await coordinator.wait_for(lambda: coordinator.words.get("opening"))
            coordinator.log.leaves[0] = coordinator.log.leaves[0][:-1] + b"!"
            await coordinator.ask(open=bench.open_request(bench.plan(task="second")))
            await coordinator.wait_for(lambda: coordinator.words.get("refusal"))
    (refusal,) = coordinator.words["refusal"]
    assert round_pb2.Refusal.FromString(refusal.payload).code == "log-fork"


async def test_refusals_reach_the_coordinator_with_code_and_sentence(bench, coordinator, world, tmp_path):
    async with serving(coordinator, tmp_path) as ports:
        point(bench, ports)
        async with running(bench):
            request = bench.open_request(bench.plan())
            request.plan.signature = bytes(64)
            await coordinator.ask(open=request)
            await coordinator.wait_for(lambda: coordinator.words.get("refusal"))
            await coordinator.ask(close=CloseRequest(plan_digest=b"u" * 32))
            await coordinator.wait_for(lambda: len(coordinator.words["refusal"]) > 1)
    first, second = [round_pb2.Refusal.FromString(signed.payload) for signed in coordinator.words["refusal"]]
    assert (first.code, second.code) == ("stranger-plan", "not-opened")
    assert first.sentence
    assert second.sequence > first.sequence


async def test_requests_that_no_database_or_disk_can_hold_are_refused_and_the_trustee_goes_on(
    bench, coordinator, world, tmp_path
):
    async with serving(coordinator, tmp_path) as ports:
        point(bench, ports)
        async with running(bench) as process:
            begun, headers = await begin(bench, coordinator, bench.plan())
            far = bench.open_request(begun.plan)
            message = plan_pb2.Plan.FromString(far.plan.payload)
            message.round_number = 1 << 63
            far.plan.CopyFrom(sign_message("plan", message, world.coordinator))
            nameless = bench.seal_request(begun, headers)
            nameless.headers.digest = b"x" * 200
            coordinator.items = [WorkItem(open=far), WorkItem(seal=nameless)]
            await coordinator.note()
            await coordinator.wait_for(lambda: len(coordinator.words.get("refusal", [])) > 1)
            await vote(bench, coordinator, begun, headers)
            assert process.returncode is None
    codes = {round_pb2.Refusal.FromString(signed.payload).code for signed in coordinator.words["refusal"]}
    assert codes == {"bad-message", "bad-headers"}


async def test_the_headers_of_a_refused_set_do_not_stay_on_the_disk(bench, coordinator, tmp_path):
    async with serving(coordinator, tmp_path) as ports:
        point(bench, ports)
        async with running(bench):
            begun, headers = await begin(bench, coordinator, bench.plan())
            junk = bench.seal_request(begun, headers)
            junk.headers.digest = digest(b"no headers")
            coordinator.blobs[junk.headers.digest] = b"no headers"
            await coordinator.ask(seal=junk)
            await coordinator.wait_for(lambda: coordinator.words.get("refusal"))
            await wait_until(lambda: not list(bench.paths.headers.iterdir()))
            await vote(bench, coordinator, begun, headers)
            assert [file.name for file in bench.paths.headers.iterdir()] == [
                bench.seal_request(begun, headers).headers.digest.hex()
            ]


async def test_a_damaged_database_ends_the_trustee_with_one_line(bench):
    query = "SELECT rootpage FROM sqlite_master WHERE rootpage > 0 AND tbl_name != 'migrations'"
    pages = [row[0] for row in bench.store.database.connection.execute(query)]
    bench.store.close()
    data = bytearray(bench.paths.database.read_bytes())
    for page in pages:
        data[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    bench.paths.database.write_bytes(data)
    for arguments in (("trustee", "run"), ("trustee", "status"), ("site", "requests")):
        options = ("--runtime-dir", bench.runtime) if arguments[1] == "run" else ()
        status, _, err = await command(*arguments, bench.paths.directory, *options)
        assert status == StoreError.exit_status
        assert "Traceback" not in err
        assert err.splitlines()[-1].startswith("error: ")
        assert "store-damaged" in err


async def test_a_status_that_cannot_be_written_stops_nothing(bench, coordinator, tmp_path):
    bench.paths.status.with_name(".status.json.new").mkdir()
    async with serving(coordinator, tmp_path) as ports:
        point(bench, ports)
        async with running(bench) as process:
            await coordinator.ask(open=bench.open_request(bench.plan()))
            await coordinator.wait_for(lambda: coordinator.words.get("opening"))
            assert process.returncode is None


async def test_nothing_that_it_writes_is_open_to_others(bench, coordinator, tmp_path):
    bench.paths.headers.chmod(0o755)
    wide = os.umask(0)
    try:
        async with serving(coordinator, tmp_path) as ports:
            point(bench, ports)
            async with running(bench):
                begun, headers = await begin(bench, coordinator, bench.plan())
                await vote(bench, coordinator, begun, headers)
                written = {path: path.stat().st_mode for path in (*bench.paths.directory.rglob("*"), bench.runtime)}
    finally:
        os.umask(wide)
    assert {bench.paths.headers, bench.paths.status, bench.paths.lock} < set(written)
    assert any(path.parent == bench.paths.headers for path in written)
    open_to_others = {path.name for path, mode in written.items() if mode & 0o077}
    assert open_to_others <= {bench.paths.public.name}


async def test_a_changed_policy_holds_for_the_next_plan_and_a_bad_one_changes_nothing(bench, coordinator, tmp_path):
    async with serving(coordinator, tmp_path) as ports:
        point(bench, ports)
        async with running(bench):
            bench.write_policy(min_contributors="4")
            await coordinator.ask(open=bench.open_request(bench.plan()))
            await coordinator.wait_for(lambda: coordinator.words.get("refusal"))
            bench.write_policy(min_contributors="4", min_trustd="3")
            await coordinator.ask(open=bench.open_request(bench.plan(task="second")))
            await coordinator.wait_for(lambda: len(coordinator.words["refusal"]) > 1)
            status, out, _ = await command("trustee", "status", bench.paths.directory, "--json")
    codes = {round_pb2.Refusal.FromString(signed.payload).code for signed in coordinator.words["refusal"]}
    assert codes == {"too-few-contributors"}
    report = json.loads(out)
    policy = next(entry for entry in report["components"] if entry["component"] == "policy")
    assert (status, policy["level"], report["running"]) == (1, "degraded", True)
    assert "min_trustd" in policy["sentence"]


async def test_it_comes_back_by_itself_when_the_coordinator_does(bench, coordinator, tmp_path):
    async with serving(coordinator, tmp_path) as ports:
        point(bench, ports)
    async with running(bench) as process:
        await wait_until(lambda: json_of(bench.paths.status).get("pid") == process.pid)
        async with serving(coordinator, tmp_path, ports):
            await coordinator.ask(open=bench.open_request(bench.plan()))
            await coordinator.wait_for(lambda: coordinator.words.get("opening"))
        async with serving(coordinator, tmp_path, ports):
            await coordinator.ask(open=bench.open_request(bench.plan(task="second")))
            await coordinator.wait_for(lambda: len(coordinator.words["opening"]) > 1)
    assert process.returncode == 0, "SIGTERM ends it cleanly"


async def test_a_site_token_is_answered_at_once_and_only_as_often_as_it_says(bench, coordinator, tmp_path):
    async with serving(coordinator, tmp_path) as ports:
        point(bench, ports)
        async with running(bench):
            status, out, err = await command("site", "token", bench.paths.directory, "--uses", 1, "--json")
            assert status == 0, err
            token = json.loads(out)["token"]
            await coordinator.ask(enrol=request_with(token, b"1"))
            await coordinator.wait_for(lambda: coordinator.decisions)
            await coordinator.ask(enrol=request_with(token, b"2"))
            await coordinator.wait_for(lambda: len(coordinator.decisions) > 1)
    granted, refused = coordinator.decisions
    versions = [roster.version for roster in coordinator.rosters]
    assert versions == sorted(versions), "an older roster never arrives after a newer one"
    assert digest(granted.credential.payload) in coordinator.rosters[-1].credential_digests
    assert (refused.code, refused.HasField("credential")) == ("token-used", False)


async def test_a_coordinators_token_waits_until_a_person_has_compared_the_fingerprint(
    bench, coordinator, world, tmp_path
):
    token = mint_token(
        identity_pb2.Token(
            federation="test",
            site="alder",
            role=identity_pb2.ROLE_DEVICE,
            uses=1,
            not_after_s=CLOCK.now_ns() // 10**9 + 600,
            root_pk=b"r" * 32,
            ca_digest=b"c" * 32,
            authority_pk=b"a" * 32,
        ),
        ENTROPY.token_bytes(32),
        world.coordinator,
    )
    async with serving(coordinator, tmp_path) as ports:
        point(bench, ports)
        async with running(bench):
            await coordinator.ask(enrol=request_with(token.text(), b"1"))
            await wait_until(lambda: bench.register.requests("pending"))
            assert coordinator.decisions == []
            _, out, _ = await command("site", "requests", bench.paths.directory, "--json")
            (waiting,) = json.loads(out)
            status, _, err = await command("site", "approve", bench.paths.directory, "0" * 32)
            assert status != 0
            assert "no-such-request" in err
            assert waiting["role"] == "device"
            approve = ("site", "approve", bench.paths.directory, waiting["fingerprint"])
            status, _, err = await command(*approve)
            assert status != 0, "nobody answered the question"
            assert waiting["subject"] in err
            status, _, err = await command(*approve, "--yes")
            assert status == 0, err
            await coordinator.wait_for(lambda: coordinator.decisions)
            listed = coordinator.rosters[-1].credential_digests
            assert digest(coordinator.decisions[0].credential.payload) in listed
            await command("site", "revoke", bench.paths.directory, waiting["subject"])
            await coordinator.wait_for(lambda: len(coordinator.rosters[-1].credential_digests) == len(listed) - 1)


async def test_two_daemons_never_share_a_directory(bench):
    with bench.paths.hold():
        status, _, err = await command("trustee", "run", bench.paths.directory, "--runtime-dir", bench.runtime)
    assert status == UnavailableError.exit_status
    assert "trustee-running" in err


async def test_a_runtime_directory_on_a_disk_is_refused_with_the_remedy(bench, tmp_path):
    if file_system_of(tmp_path) in RAM_FILE_SYSTEMS:
        pytest.skip("the temporary directory is itself in RAM")
    status, _, err = await command("trustee", "run", bench.paths.directory, "--runtime-dir", tmp_path / "disk")
    assert status != 0
    assert "runtime-not-ram" in err
    assert "--runtime-dir" in err


def request_with(text, seed):
    from bedside.core.signing.tokens import read_token

    bearer = read_token(text)
    key = SigningKey(hashlib.sha256(seed).digest())
    asked = identity_pb2.CredentialRequest(
        suite=1,
        federation="test",
        site="alder",
        role=identity_pb2.ROLE_DEVICE,
        sign_pk=bytes(key.verify_key),
        tls_key_digest=b"t" * 32,
        nonce=seed,
        token=bearer.signed.SerializeToString(deterministic=True),
    )
    return use_token(bearer, asked, key)


def json_of(path):
    return json.loads(path.read_bytes()) if path.exists() else {}


async def wait_until(condition):
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)
