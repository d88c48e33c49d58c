"""Where attacks happen: three real trustees on disks, devices that judge offers, and an adversary who holds all else.

The adversary is the coordinator, and any site it likes. Alder is the honest site.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bedside.agent.rounds.memory import Seen
from bedside.agent.rounds.offer import CheckedOffer, Standing, check_offer, check_plan
from bedside.core.errors import BedsideError, RefusedError
from bedside.core.policy import SitePolicy
from bedside.core.securesum.messages import open_opening
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.signing.envelope import SUITE, digest, sign_message
from bedside.core.signing.trust import open_credential, subject_of
from bedside.proto.v1 import identity_pb2, round_pb2
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.device_pb2 import Offer, OpeningEntry
from bedside.proto.v1.trustee_pb2 import HeaderEntry
from bedside.service.platform import SystemEntropy

TESTS = Path(__file__).parents[1]
NOW_S = 1_800_000_000
SITES = ("alder", "birch", "cedar")


def _bench_module(site: str):
    """The bench of the trustee's own tests, for the trustee of `site`."""
    spec = importlib.util.spec_from_file_location(f"bench_of_{site}", TESTS / "trustee" / "conftest.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.OWN = site
    return module


class Refused(RefusedError):  # noqa: N818  # short, because cases read it often
    """A refusal that came as a signed word instead of an error."""


class Field:
    """A federation under attack."""

    def __init__(self, world, directory: Path) -> None:
        self.world = world
        self.directory = directory
        self._modules = {site: _bench_module(site) for site in SITES}
        self._benches: dict[str, object] = {}
        self.policy: dict[str, str] = {}
        self.accepted: list[CheckedOffer] = []

    def bench(self, site: str = "alder"):
        """The real trustee of a site; made at its first use."""
        if site not in self._benches:
            home = self.directory / site
            home.mkdir()
            self._benches[site] = self._modules[site].Bench(self.world, home)
            if self.policy and site == "alder":
                self._benches[site].write_policy(**self.policy)
                self._benches[site].policy.current()
                assert self._benches[site].policy.problem is None, "the field's policy is not in force"
        return self._benches[site]

    def close(self) -> None:
        for bench in self._benches.values():
            bench.store.close()

    # A round, as far as the adversary lets it go.

    def plan(self, **changes: object) -> CheckedPlan:
        return self.bench().plan(**changes)

    def next_plan(self, **changes: object) -> CheckedPlan:
        return self.plan(**{"round_number": 2, "previous_result_digest": b"r" * 32} | changes)

    def open(self, plan: CheckedPlan, site: str = "alder", **changes: object):
        """An opening, or its refusal as an error."""
        return unless_refused(self.bench(site).open(plan, **changes))

    def begin(self, plan: CheckedPlan | None = None, devices: Iterable[object] | None = None, *, real: bool = False):
        """A round up to the close. The other two trustees are the adversary's, unless they shall be `real`."""
        plan = plan or self.plan()
        if not real:
            return self.bench().begin(plan, None if devices is None else list(devices))
        words = {site: self.open(plan, site) for site in SITES}
        openings = [
            open_opening(words[t.site].signed, self.world.sites[t.site].trustee.credential, plan, 0)
            for t in plan.cohort(0).trustees
        ]
        begun = self._modules["alder"].Round(plan, openings, {}, [], {})
        for place, device in enumerate(self.world.devices if devices is None else devices):
            words_of = self.world.random_words(plan, place)
            begun.entries.append(self.world.contribute(plan, openings, device, words_of)[0])
        return begun

    def entry(self, plan: CheckedPlan, openings, device) -> HeaderEntry:
        return self.world.contribute(plan, openings, device, self.world.random_words(plan, 9))[0]

    def resigned(self, entry: HeaderEntry, device, **changes: object) -> HeaderEntry:
        """A header with other fields, signed by `device`."""
        header = round_pb2.Header.FromString(entry.header.payload)
        for name, value in changes.items():
            if isinstance(value, list):
                header.ClearField(name)
                getattr(header, name).extend(value)
            else:
                setattr(header, name, value)
        return HeaderEntry(header=sign_message("header", header, device.key), credential=device.credential.signed)

    def seal(self, begun, entries: Sequence[HeaderEntry] | None = None, *, site: str = "alder", **changes: object):
        """A vote, or why there is none."""
        return unless_refused(self.bench(site).seal(begun, entries, **changes))

    def reveal(self, begun, votes: Sequence[Signed], entries=None, *, site: str = "alder"):
        return unless_refused(self.bench(site).reveal(begun, votes, entries))

    def burned(self, begun, site: str = "alder"):
        """The trustee's word that it never answered; what claims less is a refusal of that."""
        word = unless_refused(self.bench(site).close(begun))
        if word.kind == "answer":
            raise Refused("answered", "it has answered, and says so")
        return word

    def snapshot(self, site: str = "alder", *, ram: bool = False) -> Callable[[], None]:
        """Copy a trustee's disk, and its RAM when told; returns what copies it back into a fresh process."""
        bench = self.bench(site)
        bench.store.close()
        saved = self.directory / f"saved-{site}"
        shutil.copytree(bench.paths.directory, saved / "disk", dirs_exist_ok=True)
        shutil.copytree(bench.runtime, saved / "ram", dirs_exist_ok=True)
        bench.start()

        def restore(*, reboot: bool = False) -> None:
            bench.store.close()
            shutil.rmtree(bench.paths.directory)
            shutil.copytree(saved / "disk", bench.paths.directory)
            if ram or reboot:
                shutil.rmtree(bench.runtime)
            if ram:
                shutil.copytree(saved / "ram", bench.runtime)
            bench.start()

        return restore

    # The device's side.

    def offer(self, plan: CheckedPlan, openings, **changes: object) -> Offer:
        offer = Offer(
            plan=plan.signed,
            cohort=0,
            openings=[OpeningEntry(opening=o.signed, credential=o.credential.signed) for o in openings],
            rosters=self.bench().rosters(),
            federation=self.bench().federation(),
            manifest=self.bench().manifest,
            previous_result=self.world.results.get(plan.plan.previous_result_digest),
        )
        for name, value in changes.items():
            if isinstance(value, list):
                offer.ClearField(name)
                getattr(offer, name).extend(value)
            elif isinstance(value, int):
                setattr(offer, name, value)
            else:
                getattr(offer, name).CopyFrom(value)
        return offer

    def take(self, offer: Offer, seen: Seen | None = None, *, now_s: int = NOW_S + 100) -> CheckedOffer:
        """A device of alder judges an offer."""
        standing = self.standing()
        signed_plan = check_plan(offer, standing, seen or Seen(), now_s=now_s)
        checked = check_offer(offer, signed_plan, standing, now_s=now_s)
        self.accepted.append(checked)
        return checked

    def standing(self) -> Standing:
        home = self.world.sites["alder"]
        author = bytes(self.world.author.verify_key).hex()
        policy = SitePolicy(bundle_signers={"author": author}, trusted_sites=("birch", "cedar"), min_trusted=3)
        root, authority = bytes(self.world.root.verify_key), bytes(home.authority.verify_key)
        return Standing(root, authority, home.devices[0].credential, policy)

    # People and papers.

    def enrol(self, site: str, *, authority=None, role=identity_pb2.ROLE_DEVICE, not_after_s: int = NOW_S * 2):
        """A new member of `site`, countersigned by its authority or by whom one likes."""
        key, home = self.world.new_key(), self.world.sites[site]
        pk = bytes(key.verify_key)
        signer = authority or home.authority
        told = identity_pb2.Credential(
            suite=SUITE,
            federation="test",
            site=site,
            role=role,
            subject=subject_of(role, pk),
            sign_pk=pk,
            tls_key_digest=digest(pk),
            issued_at_s=NOW_S,
            not_after_s=not_after_s,
        )
        credential = open_credential(sign_message("credential", told, signer), bytes(signer.verify_key))
        return type(home.trustee)(key, credential, SystemEntropy().token_bytes(32))

    def rosters(self, **changes: object) -> list[Signed]:
        return self.bench().rosters(**changes)

    def released(self) -> dict[str, tuple]:
        """Everything that has come out: words of trustees, sums of masks, offers that a device took."""
        out: dict[str, tuple] = {"offers": tuple(len(o.plan.digest) for o in self.accepted)}
        for site, bench in self._benches.items():
            rows = bench.store.database.connection.execute("SELECT kind, signed FROM words ORDER BY rowid").fetchall()
            words = tuple((row["kind"], bytes(row["signed"])) for row in rows if row["kind"] != "refusal")
            out[site] = (words, tuple(sorted(path.name for path in bench.paths.answers.glob("*"))))
        return out


def unless_refused(word):
    """The word itself; a signed refusal, or a closing that says `lost`, as an error."""
    if word.kind == "refusal":
        told = round_pb2.Refusal.FromString(word.signed.payload)
        raise Refused(told.code, told.sentence)
    if word.kind == "closed" and round_pb2.Closed.FromString(word.signed.payload).reason == round_pb2.CLOSE_REASON_LOST:
        raise Refused("closed-lost", "the key is gone")
    return word


def code_of(attempt: Callable[[], object]) -> str:
    """The code with which an attempt is refused; empty when it succeeds."""
    try:
        attempt()
    except BedsideError as error:
        return error.code
    return ""
