"""The parsers of what every process shares: identities, certificates, files, streams; and of what sites hand out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import forms
import msgspec
import numpy as np
import seeds
from forms import json, plain
from registry import NOW_S, add, wire
from seeds import SCRATCH, WORLD, on_file, text

from bedside.core.errors import (
    ConfigError,
    ProtocolError,
    StoreError,
    TrustError,
    UnavailableError,
)


def _service() -> None:
    from bedside.core.policy import SitePolicy
    from bedside.core.signing.envelope import sign_message
    from bedside.proto.v1.identity_pb2 import Role
    from bedside.proto.v1.operator_pb2 import PlanFile
    from bedside.service import tls
    from bedside.service.identity import Pins, SequenceNumbers, create_identity, find_identity
    from bedside.service.keys import load_signing_key
    from bedside.service.link.address import check_told_address, parse_address
    from bedside.service.plan_file import Home, check_plan_file, home_of
    from bedside.service.platform import SystemEntropy
    from bedside.service.policy_file import read_policy
    from bedside.service.scrape import read_request

    policy = SitePolicy(bundle_signers={"author": "0f" * 32}, tasks=("watch",), hours="20:00-06:00")
    add("policy", "service.policy_file.read_policy core.policy.site_policy.SitePolicy service.config.parse_config",
        on_file("policy.toml", read_policy), [seeds.toml(policy).encode()], plain, ConfigError)  # fmt: skip
    asked = [b"GET /metrics HTTP/1.1\r\nHost: a:9464\r\nAccept: text/plain\r\n\r\n", b"HEAD /m?x=1 HTTP/1.0\r\n\r\n"]
    add("scrape-request", "service.scrape.read_request", read_request, asked, plain)
    addresses = [b"gw.example.org:8443", b"[fe80::1]:7", b"unix:/run/agent.sock"]
    add("address", "service.link.address.parse_address", lambda data: parse_address(text(data)).is_loopback, addresses,
        plain, ConfigError)  # fmt: skip
    add("told-address", "service.link.address.check_told_address", lambda data: check_told_address(text(data)),
        addresses[:2])  # fmt: skip
    key = SCRATCH / "seed.key"
    key_pem = tls.create_tls_key(key)
    ca = tls.create_ca("test", NOW_S * 10**9)
    csr = tls.create_csr(key_pem, "device")
    name = tls.spiffe_uri("test", tls.PeerIdentity("device", "alder", "d-1"))
    leaf = tls.issue_certificate(ca, csr, name, now_ns=NOW_S * 10**9, days=3)
    add("certificate", "service.tls.load_certificate service.tls.peer_identity service.tls.certificate_expiry_ns",
        lambda data: (tls.peer_identity(data, "test"), tls.certificate_expiry_ns(data)), [leaf], der,
        TrustError)  # fmt: skip
    add("signing-request", "service.tls.issue_certificate",
        lambda data: tls.issue_certificate(ca, data, name, now_ns=NOW_S * 10**9, days=3), [csr], der)  # fmt: skip
    add("tls-key", "service.tls.load_tls_key", on_file("tls.key", tls.load_tls_key), [key_pem], der, ConfigError)
    add("signing-key", "service.keys.load_signing_key", on_file("sign.key", load_signing_key), [bytes(32)], plain,
        ConfigError)  # fmt: skip
    create_identity(SCRATCH / "identity", Role.ROLE_DEVICE, SystemEntropy())
    pins = Pins(
        federation="test", root_pk="0a" * 32, authority_pk="0b" * 32, ca_digest="0c" * 32, site="alder",
        enrolment_address="gw:1", service_address="gw:2",
    )  # fmt: skip
    add("pins", "service.identity.Identity.pins service.plan_file.home_of",
        on_file("identity/pins.json", lambda path: (
            home_of(path.parents[1] / "policy.toml", "", ""), find_identity(path.parent, Role.ROLE_DEVICE).pins)),
        [msgspec.json.encode(pins)], json, ConfigError)  # fmt: skip
    add("credential-file", "service.identity.Identity.credential",
        on_file("identity2/credential.bin", lambda path: _identity_of(path, pins).credential),
        [wire(WORLD.devices[0].credential.signed)], plain, ConfigError, TrustError)  # fmt: skip
    add("sequence", "service.identity.SequenceNumbers", on_file("sequence", lambda path: SequenceNumbers(path)._last),
        [b"1234"], plain, ConfigError)  # fmt: skip
    told = PlanFile(
        plan=WORLD.plan().signed,
        federation=sign_message("federation", WORLD.federation, WORLD.root),
        rosters=[sign_message("roster", WORLD.roster(one), one.authority) for one in WORLD.sites.values()],
    )
    add("plan-file", "service.plan_file.check_plan_file",
        on_file("plan.bin", lambda path: check_plan_file(path, SitePolicy(), Home("alder", None))), [wire(told)],
        forms.message(PlanFile), ConfigError, TrustError, ProtocolError)  # fmt: skip


def _identity_of(path: Any, pins: Any) -> Any:
    from bedside.proto.v1.identity_pb2 import Role
    from bedside.service.identity import Identity

    identity = Identity(path.parent, Role.ROLE_DEVICE)
    if not identity.is_pinned:
        from bedside.service.files import write_durable

        authority = WORLD.sites["alder"].authority
        identity.save_pins(msgspec.structs.replace(pins, authority_pk=bytes(authority.verify_key).hex()))
        write_durable(path.parent / "sign.key", bytes(WORLD.devices[0].key))
    return identity


def der(data: bytes, rng: Any, others: Sequence[bytes]) -> bytes:
    """A form: what a PEM block holds is changed, and the block stays one."""
    import base64
    import re

    from mutation import mutate

    found = re.search(rb"-----BEGIN ([A-Z ]+)-----\n(.*?)-----END", data, re.DOTALL)
    if found is None or rng.random() < 0.2:
        return mutate(data, rng, others)
    try:
        body = mutate(base64.b64decode(found[2]), rng, [base64.b64decode(found[2])])
    except ValueError:
        return mutate(data, rng, others)
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (found[1], base64.encodebytes(body), found[1])


def _streams() -> None:
    """What comes in pieces, and what any call may bring."""
    import grpc

    from bedside.agent.frames import FrameReader, FrameWriter
    from bedside.agent.rounds.kept import _PURPOSE, KeptUpdate, write_kept
    from bedside.core import tree
    from bedside.core.codec import TensorUpdate
    from bedside.core.signing.envelope import parse_strict
    from bedside.proto.v1 import (
        audit_pb2,
        common_pb2,
        device_pb2,
        enrolment_pb2,
        identity_pb2,
        local_pb2,
        operator_pb2,
        plan_pb2,
        round_pb2,
        trustee_pb2,
    )
    from bedside.service.link.blobs import _Partial
    from bedside.service.link.errors import from_rpc_error
    from bedside.service.platform import SystemEntropy

    files = (audit_pb2, common_pb2, device_pb2, enrolment_pb2, identity_pb2, local_pb2, operator_pb2, plan_pb2)
    kinds = [
        getattr(file, name)
        for file in (*files, round_pb2, trustee_pb2)
        for name in file.DESCRIPTOR.message_types_by_name
    ]

    def any_message(data: bytes) -> object:
        return parse_strict(kinds[data[0] % len(kinds)] if data else kinds[0], data[1:])

    def changed(data: bytes, rng: Any, others: Sequence[bytes]) -> bytes:
        number = rng.randrange(len(kinds))
        made = forms.message(kinds[number])(b"", rng, others)
        for _ in range(rng.randrange(6)):
            made = forms.message(kinds[number])(made, rng, others)
        return bytes([number]) + made

    add("any-message", "core.signing.envelope.parse_strict core.signing.envelope.check_numbers", any_message,
        [bytes([number]) for number in range(len(kinds))], changed)  # fmt: skip

    def pieces(data: bytes) -> object:
        path = SCRATCH / ".blob.part"
        path.unlink(missing_ok=True)
        with _Partial(path) as part:
            while len(data) > 2:
                size = int.from_bytes(data[:2], "little")
                part.append(parse_strict(common_pb2.Chunk, data[2 : 2 + size]), 4_096)
                data = data[2 + size :]
            return part.finish()

    chunks = [wire(common_pb2.Chunk(offset_bytes=at, data=bytes(40), total_bytes=80)) for at in (0, 40)]
    add("chunks", "service.link.blobs._Partial.append", pieces,
        [b"".join(len(chunk).to_bytes(2, "little") + chunk for chunk in chunks)], plain, UnavailableError)  # fmt: skip

    def failed(data: bytes) -> object:
        kind, code, remedy, details, *_ = *data.split(b"\n"), b"", b"", b"", b""
        trailers = grpc.aio.Metadata(
            ("bedside-error", text(kind)), ("bedside-code", text(code)), ("bedside-remedy-bin", remedy)
        )
        empty = grpc.aio.Metadata()
        error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, empty, trailers, text(details))
        return from_rpc_error(error, "the coordinator").diagnostics()

    add("rpc-error", "service.link.errors.from_rpc_error", failed, [b"TrustError\nbad-signature\ntry again\nit is bad"])

    def proven(data: bytes) -> object:
        hashes = [data[at : at + 32] for at in range(18, len(data), 32)]
        first, second = int.from_bytes(data[:8], "little"), int.from_bytes(data[8:16], "little")
        tree.verify_inclusion(bytes(32), b"leaf", first, second, hashes)
        tree.verify_consistency(first, bytes(32), second, bytes(32), hashes)
        return tree.Frontier(first, hashes).root()

    add("log-proof", "core.tree.Frontier core.tree.verify_inclusion core.tree.verify_consistency", proven,
        [(3).to_bytes(8, "little") + (7).to_bytes(8, "little") + bytes(2 + 64)])  # fmt: skip
    plan, key = WORLD.plan(), b"k" * 32
    update = TensorUpdate({"w0": np.ones(96, np.float32)}, {"examples": 100}, plan.layout)
    write_kept(SCRATCH / "seed.kept", key, SystemEntropy(), plan, update, examples=100)
    whole = (SCRATCH / "seed.kept").read_bytes()
    with (SCRATCH / "seed.kept").open("rb") as file:
        facts = FrameReader(key, _PURPOSE).read(file, 0, 1 << 20)

    def resumed(path: Path) -> object:
        update = KeptUpdate(path, key, plan.layout)
        return update.serves(plan), update.norm(0), update.counts(1), list(update.pieces(0))

    def resealed(data: bytes) -> object:
        path = SCRATCH / "facts.kept"
        with path.open("wb") as file:
            FrameWriter(file, key, _PURPOSE, SystemEntropy()).write(data)
        return KeptUpdate(path, key, plan.layout).serves(plan)

    add("kept-delta", "agent.rounds.kept.KeptUpdate", on_file("kept", resumed), [whole], plain, StoreError)
    add("kept-facts", "agent.rounds.kept.KeptUpdate", resealed, [facts], plain, StoreError)


def _public_files() -> None:
    """What sites, trustees and the coordinator hand each other as files or words."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from bedside.coordinator.cli.audit_source import round_request
    from bedside.coordinator.enrolment.desk import _read_csr
    from bedside.coordinator.founding import CoordinatorPublic, claimed_federation, read_json
    from bedside.coordinator.home import Home, RootPin
    from bedside.core.signing.envelope import sign_message
    from bedside.service import tls
    from bedside.trustee.paths import SitePaths, SitePublic
    from bedside.trustee.status import DaemonReport, _read_daemon

    site = msgspec.json.encode(SitePublic(site="alder", authority_pk="0a" * 32))
    add("site-public", "trustee.paths.SitePaths.read_public coordinator.founding.read_json",
        on_file("site/site.public.json",
                lambda path: (read_json(path, SitePublic), SitePaths(path.parent).read_public())),
        [site], json, ConfigError)  # fmt: skip
    public = msgspec.json.encode(CoordinatorPublic(sign_pk="0a" * 32, ca_digest="0b" * 32))
    add("coordinator-public", "coordinator.founding.read_json",
        on_file("coordinator.public.json", lambda path: read_json(path, CoordinatorPublic)), [public], json,
        ConfigError)  # fmt: skip
    pin = msgspec.json.encode(RootPin(federation="test", root_pk="0a" * 32))
    add("coordinator-pins", "coordinator.home.Home.pin",
        on_file("coordinator/identity/pins.json", lambda path: Home(path.parents[1]).pin), [pin], json,
        ConfigError)  # fmt: skip
    report = msgspec.json.encode(DaemonReport(pid=3, exit_status=0, components=[]))
    add("daemon-report", "trustee.status._read_daemon", on_file("status.json", _read_daemon), [report], json)
    document = wire(sign_message("federation", WORLD.federation, WORLD.root))
    add("federation-file", "coordinator.founding.read_federation coordinator.founding.claimed_federation",
        on_file("federation.bin", claimed_federation), [document], plain, ConfigError)  # fmt: skip
    add("round-name", "coordinator.cli.audit_source.round_request", lambda data: round_request(text(data)),
        [b"watch/3", b"watch", b"0a" * 32], plain, ConfigError)  # fmt: skip
    request = x509.load_pem_x509_csr(tls.create_csr(tls.create_tls_key(SCRATCH / "seed2.key"), "device"))
    add("signing-request-der", "coordinator.enrolment.desk._read_csr", _read_csr,
        [request.public_bytes(Encoding.DER)])  # fmt: skip


_service()
_streams()
_public_files()
