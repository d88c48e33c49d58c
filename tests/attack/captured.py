"""Messages of every kind, as they were overheard, with what accepts each where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import nacl.signing
from google.protobuf.message import Message

from bedside.core.policy import judge
from bedside.core.securesum import messages
from bedside.core.securesum.keys import RoundSecret
from bedside.core.securesum.plans import CheckedPlan, open_plan
from bedside.core.signing.envelope import SUITE, digest, open_signed, parse_strict, sign
from bedside.core.signing.tokens import mint_token, open_token
from bedside.core.signing.trust import open_federation, open_roster
from bedside.proto.v1 import identity_pb2, plan_pb2, round_pb2
from bedside.proto.v1.common_pb2 import BlobRef, Signed
from bedside.proto.v1.device_pb2 import ComponentHealth, Heartbeat, StreamHealth

NOW_S = 1_800_000_000
CHAIN = round_pb2.Chain(boot_id=b"b" * 16, index=3, previous_digest=b"o" * 32, ledger_head=b"l" * 32)
D = b"d" * 32


@dataclass(frozen=True, slots=True)
class Captured:
    """A signed message.

    Attributes:
        kind: its domain.
        payload: the bytes that were signed.
        message_type: what they are; None for the manifest, which is JSON.
        key: its sender's.
        accept: verifies an envelope as whoever it is meant for does.
    """

    kind: str
    payload: bytes
    message_type: type[Message] | None
    key: nacl.signing.SigningKey
    accept: Callable[[Signed], object]

    @property
    def signed(self) -> Signed:
        return self.signed_as(self.payload)

    def signed_as(self, payload: bytes) -> Signed:
        """Other bytes under the sender's own signature: the sender itself is the adversary."""
        return Signed.FromString(sign(self.kind, payload, self.key))


def one_of_each(world, manifest: Signed, fields: dict[str, object]) -> list[Captured]:
    """One message of each kind, with as many fields set as it can have."""
    plan = world.plan(**fields)
    alder, birch = world.sites["alder"], world.sites["birch"]
    return [
        _of(world, "plan", plan.plan, world.coordinator, lambda s: open_plan(s, bytes(world.coordinator.verify_key))),
        *_round(world, plan),
        _of(
            world,
            "credential",
            alder.devices[0].credential.credential,
            alder.authority,
            lambda s: world.trust().credential(s, identity_pb2.ROLE_DEVICE),
        ),
        _of(world, "roster", world.roster(birch), birch.authority, lambda s: open_roster(s, world.federation)),
        _of(
            world,
            "federation",
            world.federation,
            world.root,
            lambda s: open_federation(s, bytes(world.root.verify_key)),
        ),
        _heartbeat(world),
        _token(world),
        _result(world, plan),
        _manifest(world, plan, manifest),
    ]


def _round(world, plan: CheckedPlan) -> list[Captured]:
    alder, device = world.sites["alder"], world.devices[0]
    openings, _ = world.open_round(plan)
    header, _ = world.contribute(plan, openings, device, world.random_words(plan, 1))
    opening = world.opening_message(plan, alder, RoundSecret.create(world.entropy), noise_multiplier_e6=5)
    opening.chain.CopyFrom(CHAIN)
    opening.roster_versions.add(site="alder", version=3)
    common = {"suite": SUITE, "plan_digest": plan.digest, "credential_digest": alder.trustee.credential.digest}
    told = {
        "opening": (opening, messages.open_opening),
        "vote": (
            round_pb2.Vote(**common, set_root=D, set_size=8, trusted_size=8, chain=CHAIN),
            messages.open_vote,
        ),
        "answer": (
            round_pb2.Answer(
                **common,
                set_root=D,
                votes_digest=D,
                mask_sum_digest=D,
                mask_sum_bytes=2 * plan.vector_words,
                noise_multiplier_e6=7,
                chain=CHAIN,
            ),
            messages.open_answer,
        ),
        "closed": (
            round_pb2.Closed(**common, reason=round_pb2.CLOSE_REASON_BURNED, acknowledgements=[D], chain=CHAIN),
            messages.open_closed,
        ),
        "refusal": (
            round_pb2.Refusal(**common, code="min-trusted", sentence="too few", sequence=4),
            messages.open_refusal,
        ),
    }
    credential = alder.trustee.credential
    found = [
        _of(world, kind, message, alder.trustee.key, lambda s, opener=opener: opener(s, credential, plan, 0))
        for kind, (message, opener) in told.items()
    ]
    digest_of_openings = messages.openings_digest(openings)
    told_header = round_pb2.Header.FromString(header.header.payload)
    found.append(
        _of(
            world,
            "header",
            told_header,
            device.key,
            lambda s: messages.open_header(s, device.credential, plan, 0, digest_of_openings),
        )
    )
    return found


def _of(_world, kind: str, message: Message, key, accept: Callable[[Signed], object]) -> Captured:
    return Captured(kind, message.SerializeToString(deterministic=True), type(message), key, accept)


def _heartbeat(world) -> Captured:
    device = world.devices[0]
    told = Heartbeat(
        suite=SUITE,
        credential_digest=device.credential.digest,
        sequence=9,
        sent_at_s=NOW_S,
        agent_version="1",
        components=[ComponentHealth(component="ingest", state=1, sentence="fine")],
        streams=[StreamHealth(stream="ecg", last_seen_age_ms=5)],
        temperature_mc=-3,
        throttled=False,
        clock_offset_ms=-12,
        last_task="watch",
    )

    def accept(signed: Signed) -> object:
        return parse_strict(Heartbeat, open_signed("heartbeat", signed, device.credential.sign_pk))

    return _of(world, "heartbeat", told, device.key, accept)


def _token(world) -> Captured:
    alder = world.sites["alder"]
    told = identity_pb2.Token(
        federation="test",
        site="alder",
        role=identity_pb2.ROLE_DEVICE,
        uses=1,
        issued_at_s=NOW_S,
        not_after_s=NOW_S * 2,
        label="bed 4",
        root_pk=D,
        ca_digest=D,
        enrolment_address="coordinator:1",
        authority_pk=bytes(alder.authority.verify_key),
    )
    filled = mint_token(told, b"s" * 32, alder.authority).token
    pk = bytes(alder.authority.verify_key)
    return _of(world, "token", filled, alder.authority, lambda s: open_token(s, pk, now_s=NOW_S))


def _result(world, plan: CheckedPlan) -> Captured:
    told = round_pb2.Result(
        suite=SUITE,
        plan_digest=plan.digest,
        task="watch",
        round_number=1,
        previous_result_digest=D,
        cohorts=[round_pb2.CohortResult(cohort=0, outcome=1, set_root=D, set_size=8, sum_digest=D, sum_bytes=5)],
        checkpoint=BlobRef(digest=D, size_bytes=3),
        counts=[round_pb2.CountSum(name="examples", sum=70)],
        finished_at_s=NOW_S,
    )
    pk = bytes(world.coordinator.verify_key)

    def accept(signed: Signed) -> object:
        return parse_strict(round_pb2.Result, open_signed("result", signed, pk))

    return _of(world, "result", told, world.coordinator, accept)


def _manifest(world, plan: CheckedPlan, manifest: Signed) -> Captured:
    from bedside.core.policy import SitePolicy

    policy = SitePolicy(bundle_signers={"author": bytes(world.author.verify_key).hex()})
    assert digest(manifest.payload) == plan.plan.bundle.digest
    return Captured("bundle", manifest.payload, None, world.author, lambda s: judge._open_manifest(plan, policy, s))


# Many of them: rounds, cohorts and senders, for replays.


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message belongs."""

    kind: str
    plan: CheckedPlan
    cohort: int
    sender: object


OPENERS = {
    "opening": messages.open_opening,
    "vote": messages.open_vote,
    "answer": messages.open_answer,
    "closed": messages.open_closed,
    "refusal": messages.open_refusal,
    "header": lambda s, credential, plan, cohort: messages.open_header(s, credential, plan, cohort, D),
}


def traffic(world, rounds: int) -> list[tuple[Place, Signed]]:
    """All that was said in so many rounds of two cohorts."""
    heard = []
    for number in range(rounds):
        plan = _two_cohorts(world, number)
        for index, sites in enumerate((("alder", "birch"), ("cedar",))):
            for name in sites:
                site = world.sites[name]
                heard += [_say(Place(kind, plan, index, site.trustee), name) for kind in OPENERS if kind != "header"]
                for device in site.devices:
                    heard += [_say(Place(kind, plan, index, device), name) for kind in ("header", "refusal")]
    return heard


def _two_cohorts(world, number: int) -> CheckedPlan:
    whole = world.plan_message().cohorts[0]
    cohorts = [
        plan_pb2.Cohort(index=index, sites=sites, trustees=[t for t in whole.trustees if t.site in sites])
        for index, sites in enumerate((("alder", "birch"), ("cedar",)))
    ]
    previous = b"" if number == 0 else bytes([number]) * 32
    return world.plan(round_number=number + 1, previous_result_digest=previous, cohorts=cohorts)


def _say(place: Place, site: str) -> tuple[Place, Signed]:
    credential, plan = place.sender.credential, place.plan
    told: dict[str, object] = {
        "suite": SUITE,
        "plan_digest": plan.digest,
        "cohort": place.cohort,
        "credential_digest": credential.digest,
    }
    trustees = len(plan.cohort(place.cohort).trustees)
    size = 2 * plan.vector_words
    made = {
        "opening": lambda: round_pb2.Opening(
            **told, site=site, trustee=credential.credential.subject, x25519_pk=D, mlkem_pk=b"m" * 1_184,
            min_trusted=3, chain=CHAIN,
        ),
        "vote": lambda: round_pb2.Vote(**told, set_root=D, set_size=5, chain=CHAIN),
        "answer": lambda: round_pb2.Answer(
            **told, set_root=D, votes_digest=D, mask_sum_digest=D, mask_sum_bytes=size, chain=CHAIN
        ),
        "closed": lambda: round_pb2.Closed(**told, reason=round_pb2.CLOSE_REASON_LOST, chain=CHAIN),
        "refusal": lambda: round_pb2.Refusal(**told, code="busy", sentence="it is busy"),
        "header": lambda: round_pb2.Header(
            **told, site=site, openings_digest=D, x25519_pk=D, mlkem_ciphertexts=[b"c" * 1_088] * trustees,
            tags=[b"t" * 16] * trustees, upload_digest=D, upload_bytes=size, sequence=1,
        ),
    }[place.kind]()  # fmt: skip
    return place, Signed.FromString(sign(place.kind, made.SerializeToString(deterministic=True), place.sender.key))
