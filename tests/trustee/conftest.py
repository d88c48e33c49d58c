"""One site's trustee on a real disk and database, inside a federation whose other parties are in memory."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass

import msgspec
import pytest

from bedside.core.bundle.layers import Dense, Flatten, walk
from bedside.core.bundle.manifest import (
    FileEntry,
    Golden,
    Manifest,
    WindowSpec,
    committed_files,
    encode_manifest,
    quantisation_of,
)
from bedside.core.bundle.parameters import layer_tensors
from bedside.core.bundle.training import Cost, Training, TrainingGraph
from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.errors import BedsideError
from bedside.core.securesum.keys import RoundSecret
from bedside.core.securesum.merkle import set_root
from bedside.core.securesum.messages import open_opening, openings_digest
from bedside.core.securesum.plans import layout_message
from bedside.core.securesum.trustee import judge_set, leaves_of
from bedside.core.signing.envelope import SUITE, digest, sign, sign_message
from bedside.proto.v1 import identity_pb2, round_pb2
from bedside.proto.v1.common_pb2 import BlobRef, Signed
from bedside.proto.v1.device_pb2 import OpeningEntry
from bedside.proto.v1.trustee_pb2 import CloseRequest, OpenRequest, RevealRequest, SealRequest
from bedside.service.files import write_durable
from bedside.service.identity import Pins, create_identity
from bedside.service.platform import SystemEntropy
from bedside.trustee.duty import Duty
from bedside.trustee.keys import open_round_keys
from bedside.trustee.paths import SitePaths
from bedside.trustee.policy_file import PolicyFile
from bedside.trustee.rosters import RosterBook
from bedside.trustee.site.founding import found_site
from bedside.trustee.site.register import Register
from bedside.trustee.store import RoundKey, TrusteeStore

NOW_S = 1_800_000_000
OWN = "alder"
ENTROPY = SystemEntropy()


class SettableClock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def now_ns(self) -> int:
        return self.now_s * 10**9

    def monotonic_s(self) -> float:
        return float(self.now_s)


STEPS = walk((Flatten(), Dense(2)), (4, 1), 2)
GRAPH = TrainingGraph("Q1", "all", "sgd")


def make_manifest() -> Manifest:
    return Manifest(
        name="tiny",
        version="1",
        signer="author",
        task="classification",
        labels=("rest", "move"),
        window=WindowSpec("motion", 1, 50.0, 4, 2, (0.0,), (1.0,)),
        layers=(Flatten(), Dense(2)),
        parameters=(*layer_tensors(STEPS)[:2], msgspec.structs.replace(layer_tensors(STEPS)[2], shared=False)),
        quantisation=quantisation_of(STEPS, 63),
        suffixes=(),
        graphs=(GRAPH,),
        training=Training(0.05, 0.9, 32, 2),
        golden=Golden(1, 0.05, 0.9, 0.0, 0.0, ()),
        costs=(Cost(GRAPH.key, 32, 1.0, 50.0),),
        files=tuple(FileEntry(name, 1, "0" * 64) for name in committed_files((GRAPH,), optional=False)),
        checkpoint=(b"k" * 32).hex(),
    )


@dataclass
class Round:
    """A plan with the openings, headers and votes that it has gathered so far."""

    plan: object
    openings: list
    secrets: dict
    entries: list
    uploads: dict


class Bench:
    """The trustee of site alder under test; birch and cedar are played by the test."""

    def __init__(self, world, directory, *, mounts=None, runtime=None, now_s=NOW_S):
        self.world = world
        self.clock = SettableClock()
        self.clock.now_s = now_s
        self.check_log = lambda plan: None  # what the log says is for test_logbook
        self.paths = SitePaths(directory / "site")
        self.runtime = runtime or directory / "runtime"
        self.mounts = mounts or directory / "mounts"
        if mounts is None:
            self.mounts.write_text(f"tmpfs {directory} tmpfs rw 0 0\n")
        found_site(self.paths, OWN, ENTROPY)
        self.site = world.sites[OWN]
        write_durable(self.paths.authority_key, bytes(self.site.authority))
        manifest = encode_manifest(make_manifest())
        self.manifest = Signed.FromString(sign("bundle", manifest, world.author))
        self.fields = {"bundle": BlobRef(digest=digest(manifest), size_bytes=100), "layout": layout_message(_layout())}
        self.write_policy()
        self._make_identity()
        self._make_register()
        self.start()

    def write_policy(self, **changes):
        rules = {"trusted_sites": '["alder", "birch", "cedar"]', "min_trusted": "3"} | changes
        lines = [f"{name} = {value}" for name, value in rules.items()]
        author = bytes(self.world.author.verify_key).hex()
        write_durable(self.paths.policy, "\n".join([*lines, "[bundle_signers]", f'author = "{author}"']).encode())

    def _make_identity(self):
        self.paths.identity.mkdir(mode=0o700)
        write_durable(self.paths.identity / "sign.key", bytes(self.site.trustee.key))
        self.identity = create_identity(self.paths.identity, identity_pb2.ROLE_TRUSTEE, ENTROPY)
        self.identity.save_pins(
            Pins(
                federation="test",
                root_pk=bytes(self.world.root.verify_key).hex(),
                authority_pk=bytes(self.site.authority.verify_key).hex(),
                ca_digest=self.world.federation.coordinator.ca_digest.hex(),
                site=OWN,
                enrolment_address="127.0.0.1:1",
            )
        )
        self.identity.save_federation(self.federation())
        self.identity.save_credential(self.site.trustee.credential.signed)

    def _make_register(self):
        store = TrusteeStore.open(self.paths.database)
        for party in (self.site.trustee, *self.site.devices):
            Register(store.database).list_member(party.credential, self._sign_own_roster, issued_at_s=NOW_S)
        store.close()

    def _sign_own_roster(self, version, digests):
        told = identity_pb2.Roster(
            suite=SUITE,
            federation="test",
            site=OWN,
            version=version,
            issued_at_s=NOW_S,
            not_after_s=NOW_S * 2,
            credential_digests=digests,
        )
        return sign_message("roster", told, self.site.authority)

    def federation(self):
        return sign_message("federation", self.world.federation, self.world.root)

    def start(self):
        """A fresh process over the same directories."""
        self.store = TrusteeStore.open(self.paths.database)
        self.register = Register(self.store.database)
        self.keys = open_round_keys(self.runtime, ENTROPY, mounts=self.mounts)
        self.policy = PolicyFile(self.paths.policy)
        self.duty = Duty(
            self.paths,
            self.identity,
            self.store,
            self.keys,
            self.policy,
            RosterBook(self.store, self.register, OWN),
            self.check_log,
            clock=self.clock,
            entropy=ENTROPY,
        )
        self.recovered = self.duty.recover()

    def restart(self, *, reboot=False):
        self.store.close()
        if reboot:
            shutil.rmtree(self.runtime)
        self.start()

    def rosters(self, *, versions=None, without=()):
        versions = versions or {}
        return [
            sign_message(
                "roster", self.world.roster(site, version=versions.get(name, 1), without=without), site.authority
            )
            for name, site in self.world.sites.items()
        ]

    def plan(self, **changes):
        return self.world.plan(**{**self.fields, **changes})

    def open_request(self, plan, **changes):
        told = {
            "plan": plan.signed,
            "cohort": 0,
            "federation": self.federation(),
            "rosters": self.rosters(),
            "manifest": self.manifest,
            "previous_result": self.world.results.get(plan.plan.previous_result_digest),
        }
        return OpenRequest(**(told | changes))

    def open(self, plan=None, **changes):
        """Ask for an opening; returns the one word."""
        (word,) = self.duty.open(self.open_request(plan or self.plan(), **changes))
        return word

    def begin(self, plan=None, devices=None):
        """A whole round up to the close: this trustee's opening, the others', and every device's header."""
        plan = plan or self.plan()
        word = self.open(plan)
        assert word.kind == "opening", word.signed.payload
        openings, secrets = [], {}
        for trustee in plan.cohort(0).trustees:
            site = self.world.sites[trustee.site]
            if trustee.site == OWN:
                signed = word.signed
            else:
                secrets[site.name] = RoundSecret.create(ENTROPY)
                message = self.world.opening_message(plan, site, secrets[site.name])
                signed = sign_message("opening", message, site.trustee.key)
            openings.append(open_opening(signed, site.trustee.credential, plan, 0))
        begun = Round(plan, openings, secrets, [], {})
        for place, device in enumerate(self.world.devices if devices is None else devices):
            words = self.world.random_words(plan, place)
            entry, packed = self.world.contribute(plan, openings, device, words)
            begun.entries.append(entry)
            begun.uploads[digest(entry.credential.payload)] = (words, packed)
        return begun

    def seal_request(self, begun, headers, **changes):
        data = headers.SerializeToString(deterministic=True)
        told = {
            "plan_digest": begun.plan.digest,
            "cohort": 0,
            "openings": [OpeningEntry(opening=o.signed, credential=o.credential.signed) for o in begun.openings],
            "headers": BlobRef(digest=digest(data), size_bytes=len(data)),
            "federation": self.federation(),
            "rosters": self.rosters(),
        }
        return SealRequest(**(told | changes))

    def seal(self, begun, entries=None, *, headers=None, **changes):
        headers = headers or self.world.header_set(begun.entries if entries is None else entries)

        async def fetch(ref):
            return headers.SerializeToString(deterministic=True)

        (word,) = asyncio.run(self.duty.seal(self.seal_request(begun, headers, **changes), fetch))
        return word

    def others_vote(self, begun, own_vote, root=None):
        """Votes of all trustees in the plan's order; birch and cedar vote for `root`, or like this one."""
        told = round_pb2.Vote.FromString(own_vote.signed.payload)
        votes = []
        for opening in begun.openings:
            site = self.world.sites[opening.credential.site]
            if site.name == OWN:
                votes.append(own_vote.signed)
                continue
            vote = round_pb2.Vote()
            vote.CopyFrom(told)
            vote.credential_digest = opening.credential.digest
            vote.set_root = root or told.set_root
            votes.append(sign_message("vote", vote, site.trustee.key))
        return votes

    def reveal(self, begun, votes, entries=None):
        headers = self.world.header_set(begun.entries if entries is None else entries)

        async def fetch(ref):
            return headers.SerializeToString(deterministic=True)

        request = RevealRequest(plan_digest=begun.plan.digest, cohort=0, votes=votes)
        (word,) = asyncio.run(self.duty.reveal(request, fetch))
        return word

    def close(self, begun):
        (word,) = self.duty.close(CloseRequest(plan_digest=begun.plan.digest, cohort=0))
        return word

    def key(self, begun):
        return RoundKey(begun.plan.digest, 0)

    def secret(self, begun):
        return self.keys.load(begun.plan.digest, 0)

    @staticmethod
    def code(action, *args, **kwargs):
        """The code with which `action` is refused."""
        with pytest.raises(BedsideError) as caught:
            action(*args, **kwargs)
        return caught.value.code

    @staticmethod
    def said(word):
        """The message inside a word."""
        kinds = {
            "opening": round_pb2.Opening,
            "vote": round_pb2.Vote,
            "answer": round_pb2.Answer,
            "closed": round_pb2.Closed,
            "refusal": round_pb2.Refusal,
        }
        return kinds[word.kind].FromString(word.signed.payload)

    def peers_answer(self, begun, entries=None):
        """Packed mask sums of birch and cedar."""
        from bedside.core.securesum.trustee import mask_sum

        headers = self.world.header_set(begun.entries if entries is None else entries)
        sums = []
        for opening in begun.openings:
            if opening.credential.site == OWN:
                continue
            secret = begun.secrets[opening.credential.site]
            checked = judge_set(begun.plan, 0, begun.openings, headers, self.world.trust(), opening, secret)
            sums.append(mask_sum(begun.plan, checked))
        return sums

    def root(self, entries):
        return set_root(leaves_of(self.world.header_set(entries)))

    def openings_digest(self, begun):
        return openings_digest(begun.openings)


def _layout():
    slots = (TensorSlot("w0", (4, 2)), TensorSlot("b0", (2,)))
    values = Segment("parameters", SegmentKind.VALUE, slots, clip_e6=1_000_000, bits=8, rotation_block=4)
    return Layout((values, *(Segment(name, SegmentKind.COUNT, cap=400) for name in ("examples", "correct"))))


@pytest.fixture
def bench(world, tmp_path):
    made = Bench(world, tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def make_bench():
    return Bench
