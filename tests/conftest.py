"""A whole federation in memory: real keys, credentials, rosters, plans and openings, no process and no disk."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import nacl.signing
import numpy as np
import pytest

from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.securesum import device as device_part
from bedside.core.securesum.keys import RoundSecret
from bedside.core.securesum.messages import CheckedOpening, open_opening
from bedside.core.securesum.plans import CheckedPlan, layout_message, open_plan
from bedside.core.securesum.ring import Words, word_dtype
from bedside.core.signing.envelope import SUITE, digest, sign_message
from bedside.core.signing.trust import Trust, VerifiedCredential, open_credential, subject_of
from bedside.proto.v1 import identity_pb2, plan_pb2, round_pb2
from bedside.proto.v1.common_pb2 import BlobRef, Signed
from bedside.proto.v1.trustee_pb2 import HeaderEntry, HeaderSet

sys.path.insert(0, str(Path(__file__).parent))  # the modules beside it

NOW_S = 1_800_000_000
BOOT = b"b" * 16


class SeededEntropy:
    """Deterministic bytes for tests."""

    def __init__(self, seed: str) -> None:
        self._seed, self._count = seed, 0

    def token_bytes(self, count: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(f"{self._seed}/{self._count}".encode()).digest(count)


@dataclass
class Party:
    key: nacl.signing.SigningKey
    credential: VerifiedCredential
    secret: bytes = b""
    sequence: int = 0


@dataclass
class Site:
    name: str
    authority: nacl.signing.SigningKey
    trustee: Party
    devices: list[Party] = field(default_factory=list)


class World:
    """Three sites with three devices each, unless told otherwise."""

    def __init__(self, devices: Mapping[str, int]) -> None:
        self.entropy = SeededEntropy("world")
        self.root = self.new_key()
        self.coordinator = self.new_key()
        self.author = self.new_key()
        self.results: dict[bytes, Signed] = {}
        self.planned: dict[tuple[str, int], bytes] = {}
        self.sites = {name: self._make_site(name, count) for name, count in devices.items()}
        self.federation = identity_pb2.Federation(
            suite=SUITE,
            federation="test",
            version=1,
            not_after_s=NOW_S * 2,
            sites=[
                identity_pb2.SiteAuthority(site=s.name, authority_pk=bytes(s.authority.verify_key))
                for s in self.sites.values()
            ],
            coordinator=identity_pb2.CoordinatorIdentity(
                sign_pk=bytes(self.coordinator.verify_key), ca_digest=b"c" * 32
            ),
        )

    def new_key(self) -> nacl.signing.SigningKey:
        return nacl.signing.SigningKey(self.entropy.token_bytes(32))

    def _make_site(self, name: str, count: int) -> Site:
        authority = self.new_key()
        trustee = self.enrol(name, authority, identity_pb2.ROLE_TRUSTEE)
        return Site(name, authority, trustee, [self.enrol(name, authority) for _ in range(count)])

    def enrol(
        self,
        site: str,
        authority: nacl.signing.SigningKey,
        role: identity_pb2.Role.ValueType = identity_pb2.ROLE_DEVICE,
    ) -> Party:
        key = self.new_key()
        pk = bytes(key.verify_key)
        message = identity_pb2.Credential(
            suite=SUITE,
            federation="test",
            site=site,
            role=role,
            subject=subject_of(role, pk),
            sign_pk=pk,
            tls_key_digest=digest(pk),
            issued_at_s=NOW_S,
            not_after_s=NOW_S * 2,
        )
        signed = sign_message("credential", message, authority)
        return Party(key, open_credential(signed, bytes(authority.verify_key)), self.entropy.token_bytes(32))

    def roster(self, site: Site, *, without: Iterable[Party] = (), version: int = 1) -> identity_pb2.Roster:
        gone = {party.credential.digest for party in without}
        listed = {party.credential.digest for party in (site.trustee, *site.devices)} - gone
        return identity_pb2.Roster(
            suite=SUITE,
            federation="test",
            site=site.name,
            version=version,
            issued_at_s=NOW_S,
            not_after_s=NOW_S * 2,
            credential_digests=sorted(listed),
        )

    def trust(self, *, without: Iterable[Party] = ()) -> Trust:
        return Trust(self.federation, [self.roster(site, without=without) for site in self.sites.values()])

    @property
    def devices(self) -> list[Party]:
        return [device for site in self.sites.values() for device in site.devices]

    def layout(self, length: int = 96) -> Layout:
        return Layout(
            (
                Segment(
                    "parameters",
                    SegmentKind.VALUE,
                    (TensorSlot("w0", (length,)),),
                    clip_e6=1_000_000,
                    bits=8,
                    rotation_block=64,
                ),
                Segment("examples", SegmentKind.COUNT, cap=400),
            )
        )

    def plan_message(self, **changes: object) -> plan_pb2.Plan:
        message = plan_pb2.Plan(
            suite=SUITE,
            min_reader_version=1,
            federation="test",
            task="watch",
            round_number=1,
            log_root=b"l" * 32,
            purpose=plan_pb2.PURPOSE_TRAIN,
            bundle=BlobRef(digest=b"m" * 32, size_bytes=10),
            bundle_tar_digest=b"t" * 32,
            checkpoint=BlobRef(digest=b"k" * 32, size_bytes=10),
            training=plan_pb2.Training(
                level=plan_pb2.LEVEL_Q1,
                epochs=2,
                batch_size=32,
                learning_rate_e9=50_000_000,
                momentum_e6=900_000,
                weighting=plan_pb2.WEIGHTING_UNIFORM,
                min_examples=64,
                max_examples=400,
                min_local_steps=4,
                min_sessions=1,
            ),
            layout=layout_message(self.layout()),
            word_bits=16,
            cohorts=[
                plan_pb2.Cohort(
                    index=0,
                    sites=list(self.sites),
                    trustees=[
                        plan_pb2.CohortTrustee(
                            site=s.name,
                            trustee=s.trustee.credential.credential.subject,
                            credential_digest=s.trustee.credential.digest,
                        )
                        for s in self.sites.values()
                    ],
                )
            ],
            min_contributors=3,
            max_contributors=100,
            issued_at_s=NOW_S,
            close_at_s=NOW_S + 600,
        )
        for name, value in changes.items():
            current = getattr(message, name)
            if hasattr(current, "CopyFrom"):
                current.CopyFrom(value)
            elif isinstance(value, list):
                message.ClearField(name)  # type: ignore[arg-type]  # any field's name
                getattr(message, name).extend(value)
            else:
                setattr(message, name, value)
        if len(message.previous_result_digest) == 32 and message.previous_result_digest not in self.results:
            # A stand-in such as b"r" * 32: another one names another result.
            at_s = NOW_S + message.previous_result_digest[0]
            message.previous_result_digest = digest(self.result_before(message, finished_at_s=at_s).payload)
        return message

    def result_before(self, plan: plan_pb2.Plan, **changes: object) -> Signed:
        """The signed result that `plan` goes on from, unless told otherwise; kept under its digest."""
        told = {
            "suite": SUITE,
            "plan_digest": self.planned.get((plan.task, plan.round_number - 1), b"h" * 32),
            "task": plan.task,
            "round_number": plan.round_number - 1,
            "checkpoint": plan.checkpoint,
            "bundle_digest": plan.bundle.digest,
            "cohorts": [round_pb2.CohortResult(outcome=round_pb2.COHORT_OUTCOME_OPENED)],
            "finished_at_s": NOW_S,
        }
        signed = sign_message("result", round_pb2.Result(**(told | changes)), self.coordinator)
        self.results[digest(signed.payload)] = signed
        return signed

    def plan(self, **changes: object) -> CheckedPlan:
        return self.sign_plan(self.plan_message(**changes))

    def sign_plan(self, message: plan_pb2.Plan) -> CheckedPlan:
        signed = sign_message("plan", message, self.coordinator)
        plan = open_plan(signed, bytes(self.coordinator.verify_key))
        self.planned.setdefault((plan.plan.task, plan.plan.round_number), plan.digest)
        return plan

    def opening_message(
        self, plan: CheckedPlan, site: Site, secret: RoundSecret, **changes: object
    ) -> round_pb2.Opening:
        public = secret.public
        message = round_pb2.Opening(
            suite=SUITE,
            plan_digest=plan.digest,
            cohort=0,
            site=site.name,
            trustee=site.trustee.credential.credential.subject,
            credential_digest=site.trustee.credential.digest,
            x25519_pk=public.x25519_pk,
            mlkem_pk=public.mlkem_pk,
            min_trusted=3,
            trusted_sites=list(self.sites),
            issued_at_s=NOW_S,
            not_after_s=NOW_S + 700,
            policy_digest=b"p" * 32,
            chain=round_pb2.Chain(boot_id=BOOT, index=1),
        )
        for name, value in changes.items():
            if isinstance(value, list):
                message.ClearField(name)  # type: ignore[arg-type]  # any field's name
                getattr(message, name).extend(value)
            else:
                setattr(message, name, value)
        return message

    def open_round(self, plan: CheckedPlan, **changes: object) -> tuple[list[CheckedOpening], dict[str, RoundSecret]]:
        openings, secrets = [], {}
        for trustee in plan.cohort(0).trustees:
            site = self.sites[trustee.site]
            secrets[site.name] = RoundSecret.create(self.entropy)
            message = self.opening_message(plan, site, secrets[site.name], **changes)
            signed = sign_message("opening", message, site.trustee.key)
            openings.append(open_opening(signed, site.trustee.credential, plan, 0))
        return openings, secrets

    def random_words(self, plan: CheckedPlan, seed: int) -> Words:
        generator = np.random.default_rng(seed)
        words = np.empty(plan.vector_words, word_dtype(plan.plan.word_bits))
        for segment, place in plan.layout.placed():
            words[place] = generator.integers(0, segment.largest_word + 1, segment.words)
        return words

    def contribute(
        self, plan: CheckedPlan, openings: list[CheckedOpening], device: Party, words: Words
    ) -> tuple[HeaderEntry, bytes]:
        device.sequence += 1
        made = device_part.contribute(
            plan,
            0,
            openings,
            device.credential,
            words.copy(),
            device_secret=device.secret,
            entropy=self.entropy,
            sequence=device.sequence,
        )
        header = sign_message("header", made.header, device.key)
        return HeaderEntry(header=header, credential=device.credential.signed), made.packed

    def header_set(self, entries: Iterable[HeaderEntry]) -> HeaderSet:
        return HeaderSet(entries=sorted(entries, key=lambda entry: digest(entry.credential.payload)))


LAST: Final = ("fault", "system")
"""Folders whose tests share a federation of processes, which takes a quarter of a core from whatever runs beside it."""


def place(item: pytest.Item) -> tuple[int, str, int, str]:
    """Where a test stands: at random, but for those that share a federation, which keep the order of their files."""
    folder = item.path.parent.name
    if folder not in LAST:
        return -1, "", 0, ""
    return LAST.index(folder), str(item.path), item.location[1] or 0, item.nodeid


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=place)
    if os.environ.get("BEDSIDE_SLOW") != "1":
        skipped = pytest.mark.skip(reason="slow: make slow, or BEDSIDE_SLOW=1")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skipped)


@pytest.fixture
def world() -> World:
    return World({"alder": 3, "birch": 3, "cedar": 2})


@pytest.fixture
def make_world() -> Callable[[Mapping[str, int]], World]:
    return World
