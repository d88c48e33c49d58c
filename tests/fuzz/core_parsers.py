"""The parsers of the rules: signed messages, rounds, audits, bundles."""

from __future__ import annotations

from typing import Final

import forms
import seeds
from forms import either, json, plain
from registry import NOW_S, add, wire
from seeds import AUTHOR, CAPTURED, WORLD, on_file, text, under

from bedside.core.errors import (
    ProtocolError,
    RefusedError,
    StoreError,
    TrustError,
)


def _signing() -> None:
    from bedside.core.signing.envelope import open_signed, parse_strict, sign_message
    from bedside.core.signing.tokens import mint_token, open_request, read_token, use_token
    from bedside.proto.v1 import identity_pb2
    from bedside.proto.v1.common_pb2 import Signed
    from bedside.proto.v1.enrolment_pb2 import EnrolRequest

    pk = bytes(WORLD.root.verify_key)
    signed = wire(sign_message("federation", WORLD.federation, WORLD.root))
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
        tls_key_digest=pk, token=wire(bearer.signed), nonce=b"n" * 16, label="bed 4",
    )  # fmt: skip

    def requested(data: bytes) -> object:
        try:
            claimed = identity_pb2.CredentialRequest.FromString(data)
            claimed.sign_pk = claimed.sign_pk and bytes(key.verify_key)
        except Exception:  # noqa: BLE001  # bytes that are no request at all
            return open_request(EnrolRequest(request=Signed(suite=1, kind="credential-request", payload=data)))
        return open_request(use_token(bearer, claimed, key))

    add("credential-request", "core.signing.tokens.open_request", requested, [wire(request)],
        forms.message(identity_pb2.CredentialRequest), TrustError)  # fmt: skip
    add("enrol-request", "core.signing.tokens.open_request service.identity.Identity.request",
        lambda data: open_request(parse_strict(EnrolRequest, data)), [wire(use_token(bearer, request, key))],
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
        under(log.CHECKPOINT, WORLD.coordinator, lambda s: log.open_checkpoint(s, pk, "test")), [wire(made)],
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
        under(log.VERDICT, alder.key, lambda s: log.open_verdict(s, alder.credential, "test")), [wire(verdict)],
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

    add("offer", "agent.rounds.offer.check_plan agent.rounds.offer.check_offer", offered, [wire(offer)],
        forms.message(Offer), TrustError, ProtocolError, RefusedError)  # fmt: skip
    told = WORLD.result_before(
        WORLD.plan_message(round_number=2, previous_result_digest=b"q" * 32), bundle_digest=digest(manifest.payload)
    )
    finished = Offer(manifest=manifest, federation=offer.federation, result=told, bundle_tar_digest=b"t" * 32)
    add("finished-offer", "agent.rounds.results.check_result",
        lambda data: check_result(parse_strict(Offer, data), standing, Seen()), [wire(finished)],
        forms.message(Offer), TrustError, RefusedError)  # fmt: skip
    trust, own = WORLD.trust(), next(one for one in openings if one.credential.site == "alder")

    def judged(data: bytes) -> object:
        return judge_set(plan, 0, openings, parse_strict(HeaderSet, data), trust, own, secrets["alder"], now_s=NOW_S)

    add("header-set", "core.securesum.trustee.judge_set core.securesum.merkle.set_root", judged,
        [wire(WORLD.header_set(entries))], forms.message(HeaderSet), TrustError, ProtocolError,
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
        lambda data: list(blobs_of(read_record(data), missing)), [wire(record)], forms.message(RoundRecord),
        StoreError)  # fmt: skip
    pieces = [*packed(RECORD_NAME, wire(record)), *packed(member_name(BlobName("blake3", b"d" * 32)), b"words"), END]
    add("round-archive", "core.audit.archive.index_archive core.ustar.size_of",
        lambda data: index_archive(lambda at, count: data[at : at + count], len(data)), [b"".join(pieces)])  # fmt: skip


def _bundles() -> None:
    from bedside.core.bundle.archive import manifest_in, unpack_bundle
    from bedside.core.bundle.graphs import graph_rules
    from bedside.core.bundle.manifest import GOLDEN, INFER, MANIFEST, PARAMETERS, decode_manifest
    from bedside.core.bundle.onnx_file import check_self_contained
    from bedside.core.bundle.onnx_graph import check_graph
    from bedside.core.bundle.tensors import decode_tensors, float_tensors
    from bedside.core.bundle.tflite_file import check_tflite
    from bedside.core.bundle.verify import verify_archive
    from bedside.service.bundle_file import read_bundle

    files, pk = seeds.BUNDLE_FILES, bytes(AUTHOR.verify_key)
    add("manifest", "core.bundle.manifest.decode_manifest core.bundle.layers.walk core.bundle.patch.check_patches"
        " core.bundle.preprocessing.check_stages core.bundle.terms.check_golden core.bundle.terms.check_costs",
        decode_manifest, [files[MANIFEST], *seeds.full_manifests()], json)  # fmt: skip
    add("tensors", "core.bundle.tensors.decode_tensors", decode_tensors, [files[PARAMETERS], files[GOLDEN]],
        forms.tensors)  # fmt: skip
    add("onnx", "core.bundle.onnx_file.check_self_contained", check_self_contained, [seeds.ONNX], plain)
    rules = graph_rules(decode_manifest(files[MANIFEST]))
    add("onnx-graph", "core.bundle.onnx_graph.check_graph",
        lambda data: check_graph(data, rules[INFER]), [files[INFER]], plain)  # fmt: skip
    tflite, patches = seeds.tflite()
    add("tflite", "core.bundle.tflite_file.check_tflite", lambda data: check_tflite(data, patches), [tflite], plain)
    add("checkpoint", "core.bundle.tensors.float_tensors", float_tensors, [files[PARAMETERS]], forms.tensors)
    add("bundle-tar", "core.bundle.archive.unpack_bundle service.bundle_file.read_bundle",
        on_file("bundle.tar", lambda path: unpack_bundle(read_bundle(path))), [seeds.BUNDLE], plain)  # fmt: skip
    add("bundle-manifest", "core.bundle.archive.manifest_in", manifest_in, [seeds.BUNDLE[:4_096]], plain)
    add("bundle", "core.bundle.verify.verify_archive core.bundle.graphs.check_graphs"
        " core.bundle.tolerances.check_tolerances",
        lambda data: verify_archive(data, [pk]), [seeds.BUNDLE],
        either(seeds.bundle, plain), TrustError)  # fmt: skip


_signing()
_signed()
_rounds()
_audit()
_bundles()
