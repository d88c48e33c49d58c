"""Real parts on loopback: a coordinator with TLS ports and SQLite, sites with keys, scripted devices and trustees."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import msgspec
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nacl.signing import SigningKey

from bedside.coordinator.config import CoordinatorConfig, InitAddresses
from bedside.coordinator.founding import SitePublic, found_federation, read_federation, read_json, sign_federation
from bedside.coordinator.home import CoordinatorPublic, Home, create_home
from bedside.coordinator.server import Running, running
from bedside.core.bundle.archive import pack_bundle
from bedside.core.bundle.layers import Dense, Flatten, walk
from bedside.core.bundle.manifest import (
    GOLDEN,
    MANIFEST,
    PARAMETERS,
    SIGNATURE,
    FileEntry,
    Golden,
    Manifest,
    WindowSpec,
    committed_files,
    encode_manifest,
    quantisation_of,
)
from bedside.core.bundle.parameters import layer_tensors
from bedside.core.bundle.tensors import encode_tensors
from bedside.core.bundle.training import Cost, Training, TrainingGraph
from bedside.core.bundle.verify import file_digest
from bedside.core.codec.encoder import encode
from bedside.core.securesum.device import contribute, rounding_key
from bedside.core.securesum.keys import RoundSecret
from bedside.core.securesum.messages import CheckedOpening, open_opening, open_openings, openings_digest
from bedside.core.securesum.plans import CheckedPlan, open_plan, rotation_seed
from bedside.core.securesum.trustee import AnswerNoise, CheckedSet, judge_set, mask_sum, open_votes
from bedside.core.signing import Trust, VerifiedCredential, digest, open_roster, sign_message
from bedside.core.signing.envelope import SUITE, signature_of
from bedside.core.signing.tokens import mint_token, read_token, use_token
from bedside.core.signing.trust import open_credential, subject_of
from bedside.proto.v1 import plan_pb2, round_pb2
from bedside.proto.v1.common_pb2 import BlobRequest, Chunk, Signed
from bedside.proto.v1.device_pb2 import Heartbeat, Offer, OfferRequest, UploadChunk, UploadState
from bedside.proto.v1.device_pb2_grpc import DeviceServiceStub
from bedside.proto.v1.enrolment_pb2 import EnrolRequest, RequestState
from bedside.proto.v1.enrolment_pb2_grpc import EnrolmentServiceStub
from bedside.proto.v1.identity_pb2 import (
    CertificateRequest,
    Credential,
    CredentialRequest,
    Federation,
    Role,
    Roster,
    Token,
)
from bedside.proto.v1.operator_pb2 import RoundDetail, RoundQuery, StartTaskRequest
from bedside.proto.v1.operator_pb2_grpc import OperatorServiceStub
from bedside.proto.v1.trustee_pb2 import AnswerChunk, HeaderSet, WorkItem, WorkRequest
from bedside.proto.v1.trustee_pb2_grpc import TrusteeServiceStub
from bedside.service.link.address import parse_address
from bedside.service.link.channel import ClientTls, open_channel
from bedside.service.link.errors import remote_errors
from bedside.service.platform import SystemClock, SystemEntropy
from bedside.service.tls import create_csr, create_tls_key
from streams import sent

ENTROPY = SystemEntropy()
CLOCK = SystemClock()
CAP = 100


def now_s() -> int:
    return CLOCK.now_ns() // 1_000_000_000


@dataclass
class Member:
    """A device or trustee with its keys, and after enrolment its certificate."""

    site: str
    role: Role.ValueType
    key: SigningKey
    tls_key_pem: bytes
    credential: VerifiedCredential | None = None
    certificate_pem: bytes = b""
    sequence: int = 0
    secret: bytes = field(default_factory=lambda: ENTROPY.token_bytes(32))

    def next_sequence(self) -> int:
        self.sequence += 1
        return self.sequence

    @property
    def own(self) -> VerifiedCredential:
        assert self.credential is not None
        return self.credential

    @property
    def tls_key_digest(self) -> bytes:
        csr = x509.load_pem_x509_csr(create_csr(self.tls_key_pem, "x"))
        return hashlib.sha256(csr.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


class Site:
    """A hospital's authority, with all that it has signed."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.key = SigningKey.generate()
        self.members: list[Member] = []
        self.version = 0
        self.directory = directory

    @property
    def authority_pk(self) -> bytes:
        return bytes(self.key.verify_key)

    def new_member(self, role: Role.ValueType) -> Member:
        path = self.directory / f"{self.name}-{len(self.members)}-{ENTROPY.token_bytes(4).hex()}.key"
        return Member(self.name, role, SigningKey.generate(), create_tls_key(path))

    def grant(self, member: Member, federation: str) -> VerifiedCredential:
        pk = bytes(member.key.verify_key)
        credential = Credential(
            suite=SUITE,
            federation=federation,
            site=self.name,
            role=member.role,
            subject=subject_of(member.role, pk),
            label=f"{self.name}-{len(self.members)}",
            sign_pk=pk,
            tls_key_digest=member.tls_key_digest,
            issued_at_s=now_s(),
            not_after_s=now_s() + 86_400,
        )
        member.credential = open_credential(sign_message("credential", credential, self.key), self.authority_pk)
        self.members.append(member)
        return member.credential

    def roster(self, federation: str, *, without: Member | None = None) -> Signed:
        self.version += 1
        listed = sorted(member.own.digest for member in self.members if member is not without)
        roster = Roster(
            suite=SUITE,
            federation=federation,
            site=self.name,
            version=self.version,
            issued_at_s=now_s(),
            not_after_s=now_s() + 86_400,
            credential_digests=listed,
        )
        return sign_message("roster", roster, self.key)

    def token(self, federation: str, public: CoordinatorPublic, *, uses: int = 1, hours: float = 1) -> str:
        token = Token(
            federation=federation,
            site=self.name,
            role=Role.ROLE_DEVICE,
            uses=uses,
            issued_at_s=now_s(),
            not_after_s=now_s() + int(hours * 3600),
            root_pk=b"r" * 32,
            ca_digest=bytes.fromhex(public.ca_digest),
            enrolment_address="localhost:1",
            authority_pk=self.authority_pk,
        )
        return mint_token(token, ENTROPY.token_bytes(32), self.key).text()


class Federation3:
    """Directories of a federation with its coordinator; nothing runs yet."""

    def __init__(self, directory: Path, sites: tuple[str, ...]) -> None:
        self.name = "test"
        self.directory = directory
        self.sites = {name: Site(name, directory) for name in sites}
        found_federation(directory / "root", self.name, ENTROPY)
        addresses = InitAddresses("127.0.0.1:0", "127.0.0.1:0")
        self.home = create_home(directory / "coordinator", CLOCK, ENTROPY, addresses=addresses)
        self.public = read_json(directory / "coordinator" / "coordinator.public.json", CoordinatorPublic)
        named = [SitePublic(site=site.name, authority_pk=site.authority_pk.hex()) for site in self.sites.values()]
        out = directory / "federation.bin"
        sign_federation(directory / "root", self.public, named, CLOCK, out)
        root_pk = bytes.fromhex(msgspec.json.decode(out.with_suffix(".public.json").read_bytes())["root_pk"])
        self.home.install(read_federation(out), root_pk)
        self.config = CoordinatorConfig(
            service_address="127.0.0.1:0",
            enrolment_address="127.0.0.1:0",
            heartbeat_s=5.0,
            opening_s=20.0,
            answer_s=20.0,
            flush_s=0.05,
        )

    @asynccontextmanager
    async def coordinator(self, **changes: object) -> AsyncIterator[Desk]:
        config = msgspec.structs.replace(self.config, **changes)
        async with running(self.home, config, CLOCK, ENTROPY) as alive:
            desk = Desk(self, alive.addresses.service, alive.addresses.enrolment, alive.addresses.socket, alive)
            try:
                yield desk
            finally:
                await desk.close()


class Desk:
    """Everybody's calls to one running coordinator."""

    def __init__(
        self, world: Federation3, service: str, enrolment: str, socket: str, alive: Running | None = None
    ) -> None:
        self.world = world
        self.alive = alive
        self.service_address = service
        self._ca_pem = world.home.authority.certificate_pem
        self._channels: list[grpc.aio.Channel] = []
        self.enrolment = EnrolmentServiceStub(self._open(enrolment, ClientTls(self._ca_pem)))
        self.operator = OperatorServiceStub(self._open(f"unix:{socket}", None))

    def _open(self, address: str, tls: ClientTls | None) -> grpc.aio.Channel:
        channel = open_channel(parse_address(address), tls)
        self._channels.append(channel)
        return channel

    def _mtls(self, member: Member) -> grpc.aio.Channel:
        return self._open(self.service_address, ClientTls(self._ca_pem, member.certificate_pem, member.tls_key_pem))

    def device(self, member: Member) -> Device:
        return Device(member, DeviceServiceStub(self._mtls(member)), self.world)

    def trustee(self, member: Member) -> Trustee:
        return Trustee(member, TrusteeServiceStub(self._mtls(member)), self.world)

    async def publish(self, site: Site, **changes: Member) -> None:
        with remote_errors("coordinator"):
            await self.enrolment.PublishRoster(site.roster(self.world.name, **changes))

    async def certify(self, member: Member) -> None:
        csr = x509.load_pem_x509_csr(create_csr(member.tls_key_pem, "x")).public_bytes(Encoding.DER)
        request = CertificateRequest(
            suite=SUITE,
            credential=member.own.signed.SerializeToString(deterministic=True),
            csr=csr,
            requested_at_s=now_s(),
            nonce=b"n" * 16,
        )
        with remote_errors("coordinator"):
            issued = await self.enrolment.IssueCertificate(sign_message("certificate-request", request, member.key))
        member.certificate_pem = issued.certificate_pem

    async def populate(self, devices: int) -> None:
        """Give every site a trustee and so many devices, enrolled and certified."""
        for site in self.world.sites.values():
            for role in (Role.ROLE_TRUSTEE, *[Role.ROLE_DEVICE] * devices):
                site.grant(site.new_member(role), self.world.name)
            await self.publish(site)
            for member in site.members:
                await self.certify(member)

    async def request(self, member: Member, token: str) -> RequestState:
        with remote_errors("coordinator"):
            return await self.enrolment.RequestCredential(self.enrol_request(member, token))

    def enrol_request(self, member: Member, token: str, *, nonce: bytes = b"n" * 16) -> EnrolRequest:
        bearer = read_token(token)
        request = CredentialRequest(
            suite=SUITE,
            federation=self.world.name,
            site=member.site,
            role=member.role,
            label="new",
            sign_pk=bytes(member.key.verify_key),
            tls_key_digest=member.tls_key_digest,
            requested_at_s=now_s(),
            nonce=nonce,
            token=bearer.signed.SerializeToString(deterministic=True),
        )
        return use_token(bearer, request, member.key)

    async def start(self, bundle: bytes, **changes: object) -> int:
        async def chunks() -> AsyncIterator[Chunk]:
            yield Chunk(offset_bytes=0, data=bundle, total_bytes=len(bundle))

        with remote_errors("coordinator"):
            imported = await sent(lambda: self.operator.ImportBundle(chunks()))
            request = task_request(imported.bundle_digest, **changes)
            return (await self.operator.StartTask(request)).first_round

    async def round(self, number: int = 0, task: str = "watch") -> RoundDetail:
        with remote_errors("coordinator"):
            return await self.operator.ShowRound(RoundQuery(task=task, round_number=number))

    async def ended(self, number: int = 1, task: str = "watch") -> RoundDetail:
        """Watch a round to its end."""
        last = None
        with remote_errors("coordinator"):
            async for detail in self.operator.WatchRound(RoundQuery(task=task, round_number=number)):
                last = detail
        assert last is not None
        return last

    async def blob(self, name: bytes) -> bytes:
        data = b""
        with remote_errors("coordinator"):
            async for chunk in self.operator.GetBlob(BlobRequest(digest=name)):
                data += chunk.data
        return data

    def devices(self) -> list[Device]:
        return [self.device(m) for s in self.world.sites.values() for m in s.members if m.role == Role.ROLE_DEVICE]

    def trustees(self) -> list[Trustee]:
        return [self.trustee(m) for s in self.world.sites.values() for m in s.members if m.role == Role.ROLE_TRUSTEE]

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


class Device:
    """A scripted device on the core's own functions."""

    def __init__(self, member: Member, stub: DeviceServiceStub, world: Federation3) -> None:
        self.member = member
        self.stub = stub
        self.world = world
        self.words: np.ndarray | None = None
        self.header: Signed | None = None
        self.packed = b""
        self.known_result = b""

    def heartbeat(self, **changes: object) -> Signed:
        heartbeat = Heartbeat(
            suite=SUITE,
            credential_digest=self.member.own.digest,
            sequence=self.member.next_sequence(),
            sent_at_s=now_s(),
            agent_version="0.1.0",
            **changes,
        )
        return sign_message("heartbeat", heartbeat, self.member.key)

    async def beat(self, **changes: object) -> None:
        with remote_errors("coordinator"):
            await self.stub.Heartbeat(self.heartbeat(**changes))

    async def offer(self, *, known: bytes = b"", open_plans: tuple[bytes, ...] = (), wait_ms: int = 20_000) -> Offer:
        request = OfferRequest(
            known_plan_digest=known,
            wait_ms=wait_ms,
            open_plan_digests=open_plans,
            known_result_digest=self.known_result,
        )
        with remote_errors("coordinator"):
            offer = await self.stub.GetOffer(request)
        if offer.HasField("result"):
            self.known_result = digest(offer.result.payload)
            if not offer.HasField("plan") and not offer.receipts:
                return await self.offer(known=known, open_plans=open_plans, wait_ms=wait_ms)
        return offer

    def make(self, offer: Offer, scale: float = 0.1, everywhere: float | None = None) -> None:
        """Encode and mask a delta that depends on the device, or one that is the same `everywhere`."""
        plan = open_plan(offer.plan, coordinator_pk(offer.federation))
        trust = trust_of(offer.federation, offer.rosters)
        openings = open_openings(offer.openings, plan, offer.cohort, trust)
        generator = np.random.default_rng(int.from_bytes(self.member.own.digest[:4], "big"))
        tensors = {
            slot.name: (generator.normal(size=slot.shape) * scale).astype(np.float32)
            for segment in plan.layout.segments
            for slot in segment.tensors
        }
        if everywhere is not None:
            tensors = {name: np.full_like(tensor, everywhere) for name, tensor in tensors.items()}
        seed = rotation_seed(plan.digest, openings_digest(openings))
        key = rounding_key(self.member.secret, ENTROPY, plan.digest)
        counts = {"examples": int(generator.integers(1, CAP)), "correct": 1}
        words = encode(tensors, counts, plan.layout, seed, key, word_bits=plan.plan.word_bits)
        self.words = words.copy()
        made = contribute(
            plan,
            offer.cohort,
            openings,
            self.member.own,
            words,
            device_secret=self.member.secret,
            entropy=ENTROPY,
            sequence=self.member.next_sequence(),
        )
        self.header = sign_message("header", made.header, self.member.key)
        self.packed = made.packed

    async def begin(self) -> UploadState:
        with remote_errors("coordinator"):
            return await self.stub.BeginUpload(self.header)

    async def send(self, start: int = 0, end: int | None = None, piece: int = 1000) -> UploadState:
        assert self.header is not None
        name = digest(self.header.payload)
        data = self.packed[start:end]

        async def chunks() -> AsyncIterator[UploadChunk]:
            for at in range(0, max(1, len(data)), piece):
                yield UploadChunk(
                    header_digest=b"" if at else name, offset_bytes=start + at, data=data[at : at + piece]
                )

        with remote_errors("coordinator"):
            return await sent(lambda: self.stub.Upload(chunks()))

    async def take_part(self) -> Offer:
        await self.beat()
        offer = await self.offer()
        self.make(offer)
        await self.begin()
        state = await self.send()
        assert state.accepted
        return offer

    async def decline(self, offer: Offer, code: str = "too-few-examples", sentence: str = "it has no data") -> None:
        refusal = round_pb2.Refusal(
            suite=SUITE,
            plan_digest=digest(offer.plan.payload),
            cohort=offer.cohort,
            credential_digest=self.member.own.digest,
            code=code,
            sentence=sentence,
            sequence=self.member.next_sequence(),
        )
        with remote_errors("coordinator"):
            await self.stub.Decline(sign_message("refusal", refusal, self.member.key))


class Trustee:
    """A scripted trustee on the core's own functions; `work` answers one item."""

    def __init__(self, member: Member, stub: TrusteeServiceStub, world: Federation3) -> None:
        self.member = member
        self.stub = stub
        self.world = world
        self.secrets: dict[bytes, RoundSecret] = {}
        self.plans: dict[bytes, CheckedPlan] = {}
        self.openings: dict[bytes, CheckedOpening] = {}
        self.sets: dict[bytes, tuple[CheckedSet, list[CheckedOpening], AnswerNoise]] = {}
        self.roots: list[bytes] = []
        self.said: list[str] = []
        self.noise_multiplier_e6 = 0
        self.claims_e6: int | None = None
        self.chunk_bytes = 1000

    async def items(self, wait_ms: int = 20_000) -> list[WorkItem]:
        with remote_errors("coordinator"):
            return list((await self.stub.GetWork(WorkRequest(wait_ms=wait_ms))).items)

    async def serve(self, *, until: str = "") -> None:
        """Do all work until `until` was said; for ever when empty."""
        while True:
            for item in await self.items():
                await self.work(item)
            if until and until in self.said:
                return

    async def work(self, item: WorkItem) -> None:
        kind = item.WhichOneof("item")
        with remote_errors("coordinator"):
            await getattr(self, f"do_{kind}")(getattr(item, kind))
        self.said.append(str(kind))

    async def do_open(self, request) -> None:  # type: ignore[no-untyped-def]
        plan = open_plan(request.plan, coordinator_pk(request.federation))
        trust_of(request.federation, request.rosters)
        secret = RoundSecret.create(ENTROPY)
        told = round_pb2.Opening(
            suite=SUITE,
            plan_digest=plan.digest,
            cohort=request.cohort,
            site=self.member.site,
            trustee=self.member.own.credential.subject,
            credential_digest=self.member.own.digest,
            x25519_pk=secret.public.x25519_pk,
            mlkem_pk=secret.public.mlkem_pk,
            min_trusted=1,
            trusted_sites=list(self.world.sites),
            noise_multiplier_e6=max(self.noise_multiplier_e6, plan.noise_multiplier_e6),
            policy_digest=b"p" * 32,
            issued_at_s=now_s(),
            not_after_s=now_s() + 600,
            chain=round_pb2.Chain(boot_id=b"b" * 16, index=1),
        )
        signed = sign_message("opening", told, self.member.key)
        self.secrets[plan.digest], self.plans[plan.digest] = secret, plan
        self.openings[plan.digest] = open_opening(signed, self.member.own, plan, request.cohort)
        await self.stub.PutOpening(signed)

    async def do_seal(self, request) -> None:  # type: ignore[no-untyped-def]
        plan = self.plans[request.plan_digest]
        trust = trust_of(request.federation, request.rosters)
        openings = open_openings(request.openings, plan, request.cohort, trust)
        headers = HeaderSet.FromString(await self.blob(request.headers.digest))
        own, secret = self.openings[plan.digest], self.secrets[plan.digest]
        checked = judge_set(plan, request.cohort, openings, headers, trust, own, secret)
        self.sets[plan.digest] = (checked, openings, AnswerNoise.of(own, secret, checked.root))
        self.roots.append(checked.root)
        told = round_pb2.Vote(
            suite=SUITE,
            plan_digest=plan.digest,
            cohort=request.cohort,
            credential_digest=self.member.own.digest,
            set_root=checked.root,
            set_size=len(checked.members),
            trusted_size=checked.trusted_size,
            chain=round_pb2.Chain(boot_id=b"b" * 16, index=1),
        )
        await self.stub.PutVote(sign_message("vote", told, self.member.key))

    async def do_reveal(self, request) -> None:  # type: ignore[no-untyped-def]
        await self.put_answer(*self.answer(request))

    def answer(self, request) -> tuple[Signed, bytes]:  # type: ignore[no-untyped-def]
        """What a reveal request is answered with, and its words."""
        plan = self.plans[request.plan_digest]
        checked, openings, noise = self.sets[plan.digest]
        votes = open_votes(request.votes, plan, request.cohort, openings, checked.root)
        packed = mask_sum(plan, checked, noise)
        from blake3 import blake3

        told = round_pb2.Answer(
            suite=SUITE,
            plan_digest=plan.digest,
            cohort=request.cohort,
            credential_digest=self.member.own.digest,
            set_root=checked.root,
            votes_digest=votes,
            mask_sum_digest=blake3(packed).digest(),
            mask_sum_bytes=len(packed),
            noise_multiplier_e6=noise.multiplier_e6 if self.claims_e6 is None else self.claims_e6,
            chain=round_pb2.Chain(boot_id=b"b" * 16, index=1),
        )
        return sign_message("answer", told, self.member.key), packed

    async def put_answer(self, signed: Signed, packed: bytes) -> None:
        async def chunks() -> AsyncIterator[AnswerChunk]:
            for at in range(0, len(packed), self.chunk_bytes):
                piece = packed[at : at + self.chunk_bytes]
                yield AnswerChunk(answer=None if at else signed, offset_bytes=at, data=piece)

        await sent(lambda: self.stub.PutAnswer(chunks()))

    async def do_close(self, request, reason=round_pb2.CLOSE_REASON_BURNED) -> None:  # type: ignore[no-untyped-def]
        told = round_pb2.Closed(
            suite=SUITE,
            plan_digest=request.plan_digest,
            cohort=request.cohort,
            credential_digest=self.member.own.digest,
            reason=reason,
            chain=round_pb2.Chain(boot_id=b"b" * 16, index=1),
        )
        await self.stub.PutClosed(sign_message("closed", told, self.member.key))

    async def refuse(self, request, code: str, sentence: str) -> None:  # type: ignore[no-untyped-def]
        told = round_pb2.Refusal(
            suite=SUITE,
            plan_digest=digest(request.plan.payload),
            cohort=request.cohort,
            credential_digest=self.member.own.digest,
            code=code,
            sentence=sentence,
            sequence=self.member.next_sequence(),
        )
        with remote_errors("coordinator"):
            await self.stub.PutRefusal(sign_message("refusal", told, self.member.key))

    async def blob(self, name: bytes) -> bytes:
        return b"".join([chunk.data async for chunk in self.stub.GetBlob(BlobRequest(digest=name))])


def coordinator_pk(signed: Signed) -> bytes:
    return Federation.FromString(signed.payload).coordinator.sign_pk


def trust_of(signed: Signed, rosters: list[Signed]) -> Trust:
    federation = Federation.FromString(signed.payload)
    return Trust(federation, [open_roster(roster, federation) for roster in rosters])


def task_request(bundle_digest: bytes, **changes: object) -> StartTaskRequest:
    request = StartTaskRequest(
        task="watch",
        bundle_digest=bundle_digest,
        rounds=1,
        training=plan_pb2.Training(
            level=plan_pb2.LEVEL_Q1,
            epochs=2,
            batch_size=32,
            learning_rate_e9=50_000_000,
            weighting=plan_pb2.WEIGHTING_EXAMPLES,
            min_examples=1,
            max_examples=CAP,
            min_local_steps=4,
            min_sessions=1,
        ),
        server=plan_pb2.ServerStep(optimiser=plan_pb2.SERVER_OPTIMISER_FEDAVG, learning_rate_e6=1_000_000),
        clip_e6=10_000_000,
        value_bits=8,
        min_contributors=3,
        collect_s=60,
    )
    for name, value in changes.items():
        if hasattr(getattr(request, name), "CopyFrom"):
            getattr(request, name).CopyFrom(value)
        elif isinstance(value, list):
            getattr(request, name).extend(value)
        else:
            setattr(request, name, value)
    return request


def make_bundle(classes: int = 20, seed: int = 1) -> bytes:
    """A bundle whose graphs are opaque bytes: the coordinator never runs them."""
    generator = np.random.default_rng(seed)
    shapes = {"w0": (128, classes), "b0": (classes,), "amax": (1,)}
    parameters = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    steps = walk((Flatten(), Dense(classes)), (64, 2), classes)
    graph = TrainingGraph("Q1", "all", "sgd")
    w0, b0, amax = layer_tensors(steps)
    files = {name: name.encode() for name in committed_files((graph,), optional=False)}
    files[PARAMETERS] = encode_tensors(parameters)
    files[GOLDEN] = encode_tensors({"x": np.zeros(2, np.float32)})
    manifest = Manifest(
        name="tiny",
        version="1",
        signer="author",
        task="classification",
        labels=tuple(f"label-{index}" for index in range(classes)),
        window=WindowSpec("motion", 2, 50.0, 64, 32, (0.0, 0.0), (1.0, 1.0)),
        layers=(Flatten(), Dense(classes)),
        parameters=(w0, b0, msgspec.structs.replace(amax, shared=False)),
        quantisation=quantisation_of(steps, 63),
        suffixes=(),
        graphs=(graph,),
        training=Training(0.05, 0.9, 32, 2),
        golden=Golden(1, 0.05, 0.9, 0.0, 0.0, ()),
        costs=(Cost(graph.key, 32, 1.0, 50.0),),
        files=tuple(FileEntry(name, len(data), file_digest(data)) for name, data in files.items()),
        checkpoint=file_digest(encode_tensors({name: parameters[name] for name in ("w0", "b0")})),
    )
    encoded = encode_manifest(manifest)
    signature = signature_of("bundle", encoded, SigningKey.generate())
    return pack_bundle({MANIFEST: encoded, SIGNATURE: signature, **files})


async def until(condition: Callable[[], object], deadline_s: float = 10.0) -> None:
    """Wait for a condition; fails at the deadline."""
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def federation(tmp_path: Path) -> Federation3:
    return Federation3(tmp_path, ("alder", "birch"))


@pytest.fixture
def new_federation(tmp_path: Path) -> Callable[..., Federation3]:
    return lambda *sites: Federation3(tmp_path, sites)


@pytest.fixture
def bundle() -> bytes:
    return make_bundle()


@pytest.fixture
def new_bundle() -> Callable[..., bytes]:
    return make_bundle


@pytest.fixture
def open_desk() -> Callable[..., Desk]:
    """A desk for a coordinator that runs in another process."""
    return Desk


@pytest.fixture
def home_of() -> Callable[[Path], Home]:
    return Home
