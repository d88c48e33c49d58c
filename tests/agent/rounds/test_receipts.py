"""How a round ended: the own trustee's word, believed with its proof only."""

import pytest

from bedside.agent.rounds.memory import ChainPoint, Seen
from bedside.agent.rounds.receipts import check_receipt
from bedside.core.securesum.device import ContributionInput
from bedside.core.securesum.merkle import prove_membership, set_root
from bedside.core.securesum.ring import packed_bytes
from bedside.core.securesum.trustee import leaves_of
from bedside.core.signing.envelope import digest, sign_message
from bedside.proto.v1 import round_pb2

CHAIN = round_pb2.Chain(boot_id=b"b" * 16, index=2, previous_digest=b"o" * 32)


class Ended:
    """A round in which the devices but the last of each site are in the answered set."""

    def __init__(self, offering) -> None:
        self.offering, self.world = offering, offering.world
        self.plan, openings, _ = offering.open()
        self.offer = offering.offer(self.plan, openings)
        self.device = self.world.sites["alder"].devices[0]
        self.absent = self.world.sites["alder"].devices[2]
        members = [device for site in self.world.sites.values() for device in site.devices[:2]]
        words = self.world.random_words(self.plan, 1)
        entries = {id(d): self.world.contribute(self.plan, openings, d, words)[0] for d in members}
        self.header_digest = digest(entries[id(self.device)].header.payload)
        self.leaves = leaves_of(self.world.header_set(entries.values()))
        self.trustee = self.world.sites["alder"].trustee

    def receipt(self, device=None, root=b"", key=None) -> round_pb2.Receipt:
        answer = round_pb2.Answer(
            suite=1,
            plan_digest=self.plan.digest,
            credential_digest=self.trustee.credential.digest,
            set_root=root or set_root(self.leaves),
            votes_digest=b"v" * 32,
            mask_sum_digest=b"s" * 32,
            mask_sum_bytes=packed_bytes(self.plan.vector_words, 16),
            chain=CHAIN,
        )
        proof = prove_membership(self.leaves, (device or self.device).credential.digest)
        signed = sign_message("answer", answer, key or self.trustee.key)
        return round_pb2.Receipt(plan_digest=self.plan.digest, answer=signed, membership=proof)

    def closed(self, reason, chain=CHAIN) -> round_pb2.Receipt:
        word = round_pb2.Closed(
            suite=1,
            plan_digest=self.plan.digest,
            credential_digest=self.trustee.credential.digest,
            reason=reason,
            chain=chain,
        )
        return round_pb2.Receipt(plan_digest=self.plan.digest, closed=sign_message("closed", word, self.trustee.key))

    def check(self, receipt, *, standing=None, seen=None, header_digest=None):
        standing = standing or self.offering.standing()
        wanted = header_digest or self.header_digest
        return check_receipt(receipt, self.offer, standing, seen or Seen(), header_digest=wanted)


@pytest.fixture
def ended(offering) -> Ended:
    return Ended(offering)


def test_a_device_in_the_set_is_counted_and_the_chain_steps(ended) -> None:
    receipt = ended.receipt()
    outcome = ended.check(receipt)
    assert (outcome.event, outcome.code) == (ContributionInput.RECEIPT_IN, "")
    subject = ended.trustee.credential.credential.subject
    assert outcome.seen.chains[subject] == ChainPoint(2, digest(receipt.answer.payload))


def test_a_device_that_is_proven_absent_was_left_out(ended) -> None:
    from dataclasses import replace

    standing = replace(ended.offering.standing(), credential=ended.absent.credential)
    outcome = ended.check(ended.receipt(ended.absent), standing=standing)
    assert (outcome.event, outcome.code) == (ContributionInput.RECEIPT_OUT, "not-in-set")


@pytest.mark.parametrize("forge", ["root", "path", "excluded", "other-device", "none"])
def test_a_forged_proof_is_refused(ended, refusal, forge) -> None:
    receipt = ended.receipt(root=b"r" * 32 if forge == "root" else b"")
    if forge == "path":
        receipt.membership.neighbours[0].path[0] = b"p" * 32
    elif forge == "excluded":
        receipt.membership.included = False
    elif forge == "other-device":
        receipt = ended.receipt(ended.world.sites["birch"].devices[0])
    elif forge == "none":
        receipt.ClearField("membership")
    assert refusal(lambda: ended.check(receipt)) == "bad-membership-proof"


def test_a_set_with_a_header_that_was_never_committed_is_refused(ended, refusal) -> None:
    assert refusal(lambda: ended.check(ended.receipt(), header_digest=b"x" * 32)) == "other-header"


def test_only_the_own_trustee_is_believed(ended, refusal) -> None:
    receipt = ended.receipt(key=ended.world.sites["birch"].trustee.key)
    assert refusal(lambda: ended.check(receipt)) == "bad-signature"


@pytest.mark.parametrize(
    ("reason", "event", "code"),
    [
        (round_pb2.CLOSE_REASON_BURNED, ContributionInput.BURNED, "closed-burned"),
        (round_pb2.CLOSE_REASON_LOST, ContributionInput.CLOSED, "closed-lost"),
        (round_pb2.CLOSE_REASON_RETIRED, ContributionInput.CLOSED, "closed-retired"),
    ],
)
def test_a_closed_round_ends_with_its_reason_and_only_burned_frees_the_delta(ended, reason, event, code) -> None:
    outcome = ended.check(ended.closed(reason))
    assert (outcome.event, outcome.code) == (event, code)


def test_burned_under_another_boot_than_the_openings_frees_nothing(ended) -> None:
    """A trustee that was restored together with its RAM has not held the key without a break."""
    chain = round_pb2.Chain(boot_id=b"another boot id!", index=9, previous_digest=b"o" * 32)
    outcome = ended.check(ended.closed(round_pb2.CLOSE_REASON_BURNED, chain))
    assert outcome.event is ContributionInput.CLOSED


def test_an_older_link_is_fine_and_another_word_at_the_same_link_is_a_fork(ended, refusal) -> None:
    subject = ended.trustee.credential.credential.subject
    newer = Seen(chains={subject: ChainPoint(7, b"n" * 32)})
    assert ended.check(ended.receipt(), seen=newer).seen == newer
    same = Seen(chains={subject: ChainPoint(2, b"n" * 32)})
    assert refusal(lambda: ended.check(ended.receipt(), seen=same)) == "chain-fork"
