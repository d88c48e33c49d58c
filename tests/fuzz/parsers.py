"""Every parser of bytes that come from outside: what it reads, valid inputs, and the errors that it may raise.

To add one: an `add(...)` here, and its row in README.md (the test says which is missing).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import forms
import msgspec
import numpy as np
import seeds
from forms import Form, either, json, plain
from google.protobuf.message import Message
from seeds import AUTHOR, CAPTURED, SCRATCH, WORLD, on_file, text, under

from bedside.core.errors import (
    BedsideError,
    ConfigError,
    MalformedError,
    ProtocolError,
    RefusedError,
    StoreError,
    TrustError,
    UnavailableError,
)
from bedside.core.unreadable import UNREADABLE

NOW_S: Final = 1_800_000_000


@dataclass(frozen=True, kw_only=True)
class Parser:
    """One parser.

    Attributes:
        name: stable; `make fuzz PARSER=name`.
        reads: dotted names of the functions that take the bytes.
        parse: takes the bytes.
        seeds: inputs that it accepts.
        form: how inputs are changed so that what is inside gets reached.
        allowed: errors that it may raise.
        base_bytes: memory that it may take whatever the input.
        times: memory that it may take per byte of input.
    """

    name: str
    reads: tuple[str, ...]
    parse: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    form: Form = plain
    allowed: tuple[type[BedsideError], ...] = (MalformedError,)
    base_bytes: int = 1 << 20
    times: int = 64


PARSERS: Final[dict[str, Parser]] = {}


def add(
    name: str,
    reads: str,
    parse: Callable[[bytes], object],
    valid: Sequence[bytes],
    form: Form = plain,
    *allowed: type[BedsideError],
    **limits: int,
) -> None:
    """Register a parser; `reads` names functions below `bedside`; `MalformedError` is always allowed."""
    functions = tuple(f"bedside.{one}" for one in reads.split())
    assert name not in PARSERS, name
    PARSERS[name] = Parser(
        name=name,
        reads=functions,
        parse=parse,
        seeds=tuple(valid),
        form=form,
        allowed=(MalformedError, *allowed),
        **limits,
    )


def _wire(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def _signing() -> None:
    from bedside.core.signing.envelope import open_signed, parse_strict, sign_message
    from bedside.core.signing.tokens import mint_token, open_request, read_token, use_token
    from bedside.proto.v1 import identity_pb2
    from bedside.proto.v1.common_pb2 import Signed
    from bedside.proto.v1.enrolment_pb2 import EnrolRequest

    pk = bytes(WORLD.root.verify_key)
    signed = _wire(sign_message("federation", WORLD.federation, WORLD.root))
    add("envelope", "core.signing.envelope.open_signed core.signing.envelope.parse_strict",
        lambda data: open_signed("federation", data, pk), [signed], forms.message(Signed), TrustError)  # fmt: skip
    told = identity_pb2.Token(
        federation="test", site="alder", role=identity_pb2.ROLE_DEVICE, uses=1, not_after_s=2 * NOW_S, label="bed",
        root_pk=pk, ca_digest=pk, enrolment_address="gw:1", authority_pk=pk,
    )  # fmt: skip
    bearer = mint_token(told, b"s" * 32, WORLD.sites["alder"].authority)
    add("token-text", "core.signing.tokens.read_token", lambda data: read_token(text(data)), [bearer.text().encode()])
    key = WORLD.new_key()
    request = identity_pb2.CredentialRequest(
        suite=1, federation="test", site="alder", role=identity_pb2.ROLE_DEVICE, sign_pk=bytes(key.verify_key),
        tls_key_digest=pk, token=_wire(bearer.signed), nonce=b"n" * 16, label="bed 4",
    )  # fmt: skip

    def requested(data: bytes) -> object:
        try:
            claimed = identity_pb2.CredentialRequest.FromString(data)
            claimed.sign_pk = claimed.sign_pk and bytes(key.verify_key)
        except Exception:  # noqa: BLE001  # bytes that are no request at all
            return open_request(EnrolRequest(request=Signed(suite=1, kind="credential-request", payload=data)))
        return open_request(use_token(bearer, claimed, key))

    add("credential-request", "core.signing.tokens.open_request", requested, [_wire(request)],
        forms.message(identity_pb2.CredentialRequest), TrustError)  # fmt: skip
    add("enrol-request", "core.signing.tokens.open_request service.identity.Identity.request",
        lambda data: open_request(parse_strict(EnrolRequest, data)), [_wire(use_token(bearer, request, key))],
        forms.message(EnrolRequest), TrustError)  # fmt: skip


_OPENERS: Final = {
    "plan": "core.securesum.plans.open_plan core.codec.layout.Layout core.securesum.ring.word_dtype"
    " core.learning.combiners.combiner_of core.ids.check_id",
    "opening": "core.securesum.messages.open_opening",
    "header": "core.securesum.messages.open_header",
    "vote": "core.securesum.messages.open_vote",
    "answer": "core.securesum.messages.open_answer",
    "closed": "core.securesum.messages.open_closed",
    "refusal": "core.securesum.messages.open_refusal",
    "credential": "core.signing.trust.open_credential",
    "roster": "core.signing.trust.open_roster",
    "federation": "core.signing.trust.open_federation",
    "token": "core.signing.tokens.open_token",
    "heartbeat": "coordinator.fleet.roll.Roll.take",
    "result": "core.policy.lineage.open_previous",
}


def _signed() -> None:
    """Every signed message, under its sender's own key."""
    from bedside.core.log import messages as log
    from bedside.core.signing.envelope import digest
    from bedside.proto.v1 import audit_pb2
    from bedside.proto.v1.common_pb2 import BlobRef, Signed

    manifest = Signed(suite=1, kind="bundle", payload=seeds.BUNDLE_FILES["manifest.json"])
    named = BlobRef(digest=digest(manifest.payload), size_bytes=9)
    for one in CAPTURED.one_of_each(WORLD, manifest, {"bundle": named}):
        if one.kind in _OPENERS:
            parse = under(one.kind, one.key, one.accept)
            add(one.kind, _OPENERS[one.kind], parse, [one.payload], forms.message(one.message_type), TrustError,
                ProtocolError)  # fmt: skip
    alder, pk = WORLD.sites["alder"].trustee, bytes(WORLD.coordinator.verify_key)
    made = audit_pb2.LogCheckpoint(suite=1, federation="test", size=9, root=b"r" * 32, signed_at_s=NOW_S)
    add("log-checkpoint", "core.log.messages.open_checkpoint",
        under(log.CHECKPOINT, WORLD.coordinator, lambda s: log.open_checkpoint(s, pk, "test")), [_wire(made)],
        forms.message(audit_pb2.LogCheckpoint), TrustError)  # fmt: skip
    cosigned = log.sign_cosignature(made, alder.credential, NOW_S, alder.key)
    add("log-cosignature", "core.log.messages.open_cosignature",
        under(log.COSIGNATURE, alder.key, lambda s: log.open_cosignature(s, alder.credential, "test")),
        [cosigned.payload], forms.message(audit_pb2.LogCosignature), TrustError)  # fmt: skip
    verdict = audit_pb2.Verdict(
        suite=1, federation="test", plan_digest=b"p" * 32, result_digest=b"r" * 32, holds=False, code="sum",
        sentence="it differs", checked_at_s=NOW_S, credential_digest=alder.credential.digest,
    )  # fmt: skip
    add("verdict", "core.log.messages.open_verdict",
        under(log.VERDICT, alder.key, lambda s: log.open_verdict(s, alder.credential, "test")), [_wire(verdict)],
        forms.message(audit_pb2.Verdict), TrustError)  # fmt: skip


def _rounds() -> None:
    """What travels and is stored in a round besides."""
    from bedside.agent.rounds.memory import Seen
    from bedside.agent.rounds.offer import Standing, check_offer, check_plan
    from bedside.agent.rounds.results import check_result
    from bedside.core.bundle.manifest import decode_manifest
    from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
    from bedside.core.log.entries import encode_entry, read_entry
    from bedside.core.policy import SitePolicy
    from bedside.core.securesum.keys import RoundSecret
    from bedside.core.securesum.plans import layout_message
    from bedside.core.securesum.ring import unpack
    from bedside.core.securesum.trustee import judge_set
    from bedside.core.signing.envelope import digest, parse_strict, sign, sign_message
    from bedside.proto.v1.audit_pb2 import LogEntry
    from bedside.proto.v1.common_pb2 import BlobRef, Signed
    from bedside.proto.v1.device_pb2 import Offer, OpeningEntry
    from bedside.proto.v1.trustee_pb2 import HeaderSet

    plan = WORLD.plan()
    openings, secrets = WORLD.open_round(plan)
    entries = [WORLD.contribute(plan, openings, one, WORLD.random_words(plan, 1))[0] for one in WORLD.devices[:3]]
    add("log-entry", "core.log.entries.read_entry", read_entry,
        [encode_entry("vote", b"v" * 32, b"p" * 32, cohort=1, credential_digest=b"c" * 32), b"d" * 32],
        forms.message(LogEntry))  # fmt: skip
    add("packed-words", "core.securesum.ring.unpack", lambda data: unpack(data[1:], 30, data[0] if data else 0),
        [bytes([9]) + bytes(34), bytes([16]) + bytes(60)])  # fmt: skip
    add("round-key", "core.securesum.keys.RoundSecret.from_bytes", RoundSecret.from_bytes, [bytes(96)])
    site = WORLD.sites["alder"]
    policy = SitePolicy(
        bundle_signers={"author": bytes(AUTHOR.verify_key).hex()},
        trusted_sites=("birch", "cedar"),
        min_trusted=3,
        min_trustees=1,
    )
    standing = Standing(
        bytes(WORLD.root.verify_key), bytes(site.authority.verify_key), WORLD.devices[0].credential, policy
    )
    manifest = Signed.FromString(sign("bundle", seeds.BUNDLE_FILES["manifest.json"], AUTHOR))
    first = bytes.fromhex(decode_manifest(manifest.payload).checkpoint)
    slots = (TensorSlot("w0", (4, 2)), TensorSlot("b0", (2,)))
    values = Segment("parameters", SegmentKind.VALUE, slots, clip_e6=1_000_000, bits=8, rotation_block=16)
    offered_plan = WORLD.plan(
        bundle=BlobRef(digest=digest(manifest.payload), size_bytes=9),
        checkpoint=BlobRef(digest=first, size_bytes=9),
        layout=layout_message(Layout((values, Segment("examples", SegmentKind.COUNT, cap=400)))),
    )
    opened, _ = WORLD.open_round(offered_plan)
    offer = Offer(
        manifest=manifest,
        plan=offered_plan.signed,
        federation=sign_message("federation", WORLD.federation, WORLD.root),
        rosters=[sign_message("roster", WORLD.roster(one), one.authority) for one in WORLD.sites.values()],
        openings=[OpeningEntry(opening=one.signed, credential=one.credential.signed) for one in opened],
    )

    def offered(data: bytes) -> object:
        told = parse_strict(Offer, data)
        return check_offer(told, check_plan(told, standing, Seen(), now_s=NOW_S), standing, now_s=NOW_S)

    add("offer", "agent.rounds.offer.check_plan agent.rounds.offer.check_offer", offered, [_wire(offer)],
        forms.message(Offer), TrustError, ProtocolError, RefusedError)  # fmt: skip
    told = WORLD.result_before(
        WORLD.plan_message(round_number=2, previous_result_digest=b"q" * 32), bundle_digest=digest(manifest.payload)
    )
    finished = Offer(manifest=manifest, federation=offer.federation, result=told, bundle_tar_digest=b"t" * 32)
    add("finished-offer", "agent.rounds.results.check_result",
        lambda data: check_result(parse_strict(Offer, data), standing, Seen()), [_wire(finished)],
        forms.message(Offer), TrustError, RefusedError)  # fmt: skip
    trust, own = WORLD.trust(), next(one for one in openings if one.credential.site == "alder")

    def judged(data: bytes) -> object:
        return judge_set(plan, 0, openings, parse_strict(HeaderSet, data), trust, own, secrets["alder"], now_s=NOW_S)

    add("header-set", "core.securesum.trustee.judge_set core.securesum.merkle.set_root", judged,
        [_wire(WORLD.header_set(entries))], forms.message(HeaderSet), TrustError, ProtocolError,
        RefusedError)  # fmt: skip


def _audit() -> None:
    from bedside.core.audit.archive import RECORD_NAME, index_archive, member_name, packed
    from bedside.core.audit.record import BlobName, blobs_of, read_record
    from bedside.core.ustar import END
    from bedside.proto.v1.audit_pb2 import CohortRecord, RoundRecord

    plan = WORLD.plan()
    result = WORLD.result_before(WORLD.plan_message(round_number=2, previous_result_digest=b"r" * 32))
    record = RoundRecord(plan=plan.signed, result=result, cohorts=[CohortRecord()])

    def missing(name: BlobName) -> bytes:
        raise StoreError("no-blob", name.family)

    add("round-record", "core.audit.record.read_record core.audit.record.blobs_of",
        lambda data: list(blobs_of(read_record(data), missing)), [_wire(record)], forms.message(RoundRecord),
        StoreError)  # fmt: skip
    pieces = [*packed(RECORD_NAME, _wire(record)), *packed(member_name(BlobName("blake3", b"d" * 32)), b"words"), END]
    add("round-archive", "core.audit.archive.index_archive core.ustar.size_of",
        lambda data: index_archive(lambda at, count: data[at : at + count], len(data)), [b"".join(pieces)])  # fmt: skip


def _bundles() -> None:
    from bedside.core.bundle.archive import unpack_bundle
    from bedside.core.bundle.manifest import GOLDEN, MANIFEST, PARAMETERS, decode_manifest
    from bedside.core.bundle.tensors import decode_tensors, float_tensors
    from bedside.core.bundle.verify import verify_archive
    from bedside.service.bundle_file import read_bundle

    files, pk = seeds.BUNDLE_FILES, bytes(AUTHOR.verify_key)
    add("manifest", "core.bundle.manifest.decode_manifest core.bundle.layers.walk core.bundle.patch.check_patches"
        " core.bundle.preprocessing.check_stages", decode_manifest, [files[MANIFEST], *seeds.full_manifests()],
        json)  # fmt: skip
    add("tensors", "core.bundle.tensors.decode_tensors", decode_tensors, [files[PARAMETERS], files[GOLDEN]],
        forms.tensors)  # fmt: skip
    add("checkpoint", "core.bundle.tensors.float_tensors", float_tensors, [files[PARAMETERS]], forms.tensors)
    add("bundle-tar", "core.bundle.archive.unpack_bundle service.bundle_file.read_bundle",
        on_file("bundle.tar", lambda path: unpack_bundle(read_bundle(path))), [seeds.BUNDLE], plain)  # fmt: skip
    add("bundle", "core.bundle.verify.verify_archive", lambda data: verify_archive(data, [pk]), [seeds.BUNDLE],
        either(seeds.bundle, plain), TrustError)  # fmt: skip


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

    policy = SitePolicy(bundle_signers={"author": "0f" * 32}, tasks=("watch",), hours="20:00-06:00")
    add("policy", "service.policy_file.read_policy core.policy.site_policy.SitePolicy service.config.parse_config",
        on_file("policy.toml", read_policy), [seeds.toml(policy).encode()], plain, ConfigError)  # fmt: skip
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
        [_wire(WORLD.devices[0].credential.signed)], plain, ConfigError, TrustError)  # fmt: skip
    add("sequence", "service.identity.SequenceNumbers", on_file("sequence", lambda path: SequenceNumbers(path)._last),
        [b"1234"], plain, ConfigError)  # fmt: skip
    told = PlanFile(
        plan=WORLD.plan().signed,
        federation=sign_message("federation", WORLD.federation, WORLD.root),
        rosters=[sign_message("roster", WORLD.roster(one), one.authority) for one in WORLD.sites.values()],
    )
    add("plan-file", "service.plan_file.check_plan_file",
        on_file("plan.bin", lambda path: check_plan_file(path, SitePolicy(), Home("alder", None))), [_wire(told)],
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


def _config() -> None:
    from bedside.agent import config as agent
    from bedside.agent.daemon import _typed
    from bedside.authoring.recipe import load_recipe
    from bedside.coordinator.config import DEFAULT_TOML, CoordinatorConfig
    from bedside.service.config import load_config

    lines = [
        line.removeprefix("# ").partition("  # ")[0].rstrip()
        for line in agent.TEMPLATE.splitlines()
        if "=" in line or line.startswith(("[", "# ["))
    ]
    sections = ("\n" + "\n".join(lines)).replace("\n[sources.", "\n.[sources.").split("\n[")
    examples = [sections[0].encode(), *(("[" + one.replace("\n.", "\n")).encode() for one in sections[1:])]
    add("agent-toml", "agent.config.load_agent_config service.config.load_config",
        on_file("agent/agent.toml", lambda path: agent.load_agent_config(path.parent)),
        examples, plain, ConfigError)  # fmt: skip
    options = [
        b'{"kind":"replay","name":"a","options":{"data":"x.npz","loop":true,"speed":1.5,"stream":"wrist"}}',
        b'{"kind":"serial","name":"a","options":{"channels":[1,2],"port":"/dev/ttyACM0","stream":"wrist"}}',
    ]
    add("source-options", "agent.daemon._typed",
        lambda data: _typed(_json(data, agent.SourceConfig)), options, json, ConfigError)  # fmt: skip
    filled = DEFAULT_TOML.format(
        service_address='service_address = "0.0.0.0:1"', enrolment_address='enrolment_address = "0.0.0.0:2"',
        public_service_address="", public_enrolment_address="",
    )  # fmt: skip
    add("coordinator-toml", "coordinator.config.CoordinatorConfig",
        on_file("coordinator/coordinator.toml", lambda path: load_config(path, CoordinatorConfig)), [_bare(filled)],
        plain, ConfigError)  # fmt: skip
    recipe = _bare((seeds.TESTS / "recipes" / "tiny.toml").read_text())
    add("recipe", "authoring.recipe.load_recipe",
        on_file("recipes/recipe.toml", lambda path: load_recipe(str(path)).steps()), [recipe], plain,
        ConfigError)  # fmt: skip


def _bare(told: str) -> bytes:
    """A configuration without its comments, which take most of the time."""
    return "\n".join(line for line in told.splitlines() if line and not line.startswith("#")).encode()


def _json(data: bytes, kind: Any) -> Any:
    """A value that another parser has made of these bytes; what it would refuse is not the matter here."""
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise MalformedError("no-value", "not what is tried here") from error


def _agent() -> None:
    from itertools import islice

    from nacl.secret import SecretBox

    from bedside.agent.api.predictions import window_values
    from bedside.agent.buffer.codec import decode_samples, encode_samples
    from bedside.agent.buffer.derived import open_summary, seal_summary, summary_place
    from bedside.agent.buffer.part import Part
    from bedside.agent.buffer.records import decode_record, encode_record
    from bedside.agent.buffer.rows import Moments, Summary
    from bedside.agent.buffer.seal import Sealer
    from bedside.agent.cli.label_file import parse_labels
    from bedside.agent.cli.window_file import read_window
    from bedside.agent.health.runs import RunNote
    from bedside.agent.inference.choice import Choice, Measured, read_choice
    from bedside.agent.inference.confinement import decode_job
    from bedside.agent.rounds.contribution import ContributionJob
    from bedside.agent.rounds.slots import ActiveModel, Origin, Slot, SlotNote
    from bedside.agent.sources.marks import read_track
    from bedside.agent.training.job import Job
    from bedside.agent.training.train import Schedule
    from bedside.core.ids import SessionId, StreamId
    from bedside.core.samples import Quality, Record
    from bedside.service.platform import SystemEntropy

    values = np.arange(40, dtype=np.int16).reshape(20, 2)
    add("signal", "agent.buffer.codec.decode_samples", lambda data: decode_samples(data, 20, 2, "int16"),
        [encode_samples(values)])  # fmt: skip
    box, entropy = SecretBox(b"k" * 32), SystemEntropy()
    sealed = Sealer(b"k" * 32, entropy).seal(
        Part(StreamId("ecg"), SessionId("s"), 7, 7 * 10**9, 20.0, values, "mV", "", 0.5, Quality.GOOD)
    )
    add("sealed-part", "agent.buffer.seal.Sealer.open",
        lambda data: Sealer(b"k" * 32).open(box.encrypt(data, bytes(24)), "ecg", "s", 7), [box.decrypt(sealed)],
        plain, StoreError, base_bytes=34 << 20)  # fmt: skip
    add("sealed-bytes", "agent.buffer.seal.Sealer.open", lambda data: Sealer(b"k" * 32).open(data, "ecg", "s", 7),
        [sealed], plain, StoreError)  # fmt: skip
    vitals = Record(StreamId("bed"), 7, {"spo2": 97.0, "hr": math.nan}, {"spo2": "%"})
    add("record-row", "agent.buffer.records.decode_record", lambda data: decode_record(data, StreamId("bed"), 7),
        [encode_record(vitals)])  # fmt: skip
    summary = Summary(StreamId("s"), SessionId("x"), 1, (Moments("0", "mV", 9, 0.5, 0.0, 1.0, 0.1),), 0, Quality.GOOD)
    sealer, place = Sealer(b"k" * 32, entropy), summary_place("s", "x", 1)
    add("summary-row", "agent.buffer.derived.open_summary",
        lambda data: open_summary(sealer, sealer.seal_row(place, data), summary.stream, summary.session, 1),
        [sealer.open_row(seal_summary(sealer, summary), place)], plain, StoreError)  # fmt: skip
    add("run-note", "agent.health.runs.RunNote", on_file("runs/runs.json", lambda path: RunNote(path.parent).restarts),
        [b'{"starts":3,"clean":false}'], json)  # fmt: skip
    active = ActiveModel("0a" * 32, "0b" * 32, ("0c" * 32,))

    def served(path: Path) -> object:
        models = [slot.model for slot in SlotNote(path).read().values()]
        return [(one.digest, [bytes.fromhex(key) for key in one.signer_pks]) for one in models]

    slots = {"slots": {"har": Slot(active, Origin("har.tar", "0d" * 32))}}
    add("active-model", "agent.rounds.slots.SlotNote.read", on_file("active.json", served),
        [msgspec.json.encode(active), msgspec.json.encode(slots)], json, StoreError)  # fmt: skip
    measured = (Measured("litert", 7.5, 9.0), Measured("onnx", 22.0, 30.5))
    add("runtime-choice", "agent.inference.choice.read_choice", on_file("choice.json", read_choice),
        [msgspec.json.encode(Choice("litert", "auto 1 2", measured))], json)  # fmt: skip
    add("labels-csv", "agent.sources.marks.read_track",
        on_file("labels.csv", lambda path: list(islice(read_track(path, loop=False).timeline(), 99))),
        [b"start_s,end_s,label\n0.5,2,rest\n2,3.25,walk\n", b'label,start_s,end_s\n"a, b",1e3,2e3\n'], plain,
        ConfigError)  # fmt: skip
    add("label-file", "agent.cli.label_file.parse_labels", lambda data: parse_labels(data, "beats.csv", stream="ecg"),
        [b"start_s,end_s,label\n0.5,2,rest\n1e1,11.25,walk\n", b"start_ns,end_ns,label,session\n5,6,x,0a\n",
         b'label,start,end,stream\n"a, b",2026-03-01T08:00:00Z,2026-03-01 09:00+00:30,ecg\n'])  # fmt: skip
    window, array = np.arange(6, dtype=np.float32).reshape(3, 2), io.BytesIO()
    np.save(array, window)
    add("window-values", "agent.api.predictions.window_values", window_values, [window.tobytes()])
    add("window-array", "agent.cli.window_file.read_window", on_file("window.npy", read_window), [array.getvalue()],
        plain, ConfigError)  # fmt: skip
    add("window-lines", "agent.cli.window_file.read_window", on_file("window.csv", read_window),
        [b"0.5,1\n-2e3,nan\n"], plain, ConfigError)  # fmt: skip
    job = Job("b.tar", ("0a" * 32,), Schedule(0.1, 0.9, 0.0, 32, 2, 64, 4, 7))
    add("training-job", "agent.inference.confinement.decode_job", lambda data: decode_job(data, Job),
        [msgspec.json.encode(job)], json)  # fmt: skip
    kept = ContributionJob(b"offer", "identity", "state", active, "words", "kept", "", 7)
    add("contribution-job", "agent.inference.confinement.decode_job", lambda data: decode_job(data, ContributionJob),
        [msgspec.json.encode(kept)], json)  # fmt: skip


def _local() -> None:
    """What people type."""
    from bedside.agent.cli.label_file import parse_moment

    add("moment", "agent.cli.label_file.parse_moment", lambda data: parse_moment(text(data)),
        [b"2026-03-01T08:00:00Z", b"1700000000.25"])  # fmt: skip


def _children() -> None:
    """What a parent and its child say to each other."""
    from bedside.agent.inference.confinement import read_line

    add("child-line", "agent.inference.confinement.read_line", read_line,
        [b'{"progress":{"epoch":1}}\n', b'{"result":{"counts":{}}}\n',
         b'{"error":{"kind":"TrustError","code":"bad","sentence":"it is bad","remedy":""}}\n'], json,
        UnavailableError)  # fmt: skip


def _streams() -> None:
    """What comes in pieces, and what any call may bring."""
    import grpc

    from bedside.agent.rounds.kept import KeptUpdate, _box, _Frames, write_kept
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

    chunks = [_wire(common_pb2.Chunk(offset_bytes=at, data=bytes(40), total_bytes=80)) for at in (0, 40)]
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
    size = int.from_bytes(whole[:4], "little")
    facts = _box(key).decrypt(whole[4 : 4 + size])[24:]

    def resumed(path: Path) -> object:
        update = KeptUpdate(path, key, plan.layout)
        return update.serves(plan), update.norm(0), update.counts(1), list(update.pieces(0))

    def resealed(data: bytes) -> object:
        path = SCRATCH / "facts.kept"
        with path.open("wb") as file:
            _Frames(file, _box(key), SystemEntropy()).write(data)
        return KeptUpdate(path, key, plan.layout).serves(plan)

    add("kept-delta", "agent.rounds.kept.KeptUpdate", on_file("kept", resumed), [whole], plain, StoreError)
    add("kept-facts", "agent.rounds.kept.KeptUpdate", resealed, [facts], plain, StoreError)


def _boards() -> None:

    from bedside.firmware_bridge.frames import FrameParser, write_frame
    from bedside.firmware_bridge.messages import (
        Hello,
        HelloRequest,
        Samples,
        SampleType,
        StreamInfo,
        decode_message,
        encode_message,
    )
    from bedside.firmware_bridge.recording import read_recording

    info = StreamInfo("ecg", 2, 250_000, SampleType.INT16, "mV", "MDC_ECG_ELEC_POTL", 0.25)
    hello = Hello(7, "board-1", "1.0", (info,))
    samples = Samples(0, 3, 8_000, np.array([[1, -1], [0, 5]], np.int16))
    wire = [encode_message(one) for one in (hello, samples, HelloRequest())]
    add("board-message", "firmware_bridge.messages.decode_message", lambda data: decode_message(data, (info,)), wire)
    stream = write_frame(hello) + write_frame(samples) + write_frame(Samples(0, 9, 9_000, samples.values))
    add("frames", "firmware_bridge.frames.FrameParser.feed", lambda data: FrameParser().feed(data), [stream],
        forms.frames)  # fmt: skip
    add("recording", "firmware_bridge.recording.read_recording core.arrays.announced_bytes",
        on_file("recording.npz", read_recording), [seeds.recording()], forms.arrays, ConfigError,
        base_bytes=4 << 20)  # fmt: skip


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
    document = _wire(sign_message("federation", WORLD.federation, WORLD.root))
    add("federation-file", "coordinator.founding.read_federation coordinator.founding.claimed_federation",
        on_file("federation.bin", claimed_federation), [document], plain, ConfigError)  # fmt: skip
    add("round-name", "coordinator.cli.audit_source.round_request", lambda data: round_request(text(data)),
        [b"watch/3", b"watch", b"0a" * 32], plain, ConfigError)  # fmt: skip
    request = x509.load_pem_x509_csr(tls.create_csr(tls.create_tls_key(SCRATCH / "seed2.key"), "device"))
    add("signing-request-der", "coordinator.enrolment.desk._read_csr", _read_csr,
        [request.public_bytes(Encoding.DER)])  # fmt: skip


for _register in (_signing, _signed, _rounds, _audit, _bundles, _service, _config, _agent, _local, _children, _streams,
                  _boards, _public_files):  # fmt: skip
    _register()
