"""The root of an answered set, and proofs that a header is in it, or is not.

A set's leaves are (credential digest, header digest), ordered by credential digest without repeats; two neighbouring
leaves with the wanted credential digest between them prove absence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bedside.core.errors import MalformedError, TrustError
from bedside.core.limits import MAX_CONTRIBUTORS
from bedside.core.signing.envelope import DIGEST_BYTES
from bedside.core.tree import inclusion_path, tree_root, verify_inclusion
from bedside.proto.v1.round_pb2 import InclusionProof, MembershipProof


@dataclass(frozen=True, slots=True, order=True)
class Leaf:
    """One member of a set."""

    credential_digest: bytes
    header_digest: bytes

    def encode(self) -> bytes:
        """The 64 bytes that are hashed."""
        return self.credential_digest + self.header_digest


def set_root(leaves: Sequence[Leaf]) -> bytes:
    """The root of a set.

    Raises:
        MalformedError: `set-order`, when the leaves are not ascending or a device stands twice.
    """
    _check_order(leaves)
    return tree_root([leaf.encode() for leaf in leaves])


def prove_membership(leaves: Sequence[Leaf], credential_digest: bytes) -> MembershipProof:
    """Prove that the device is in the set, or that it is not."""
    _check_order(leaves)
    encoded = [leaf.encode() for leaf in leaves]
    place = next((i for i, leaf in enumerate(leaves) if leaf.credential_digest >= credential_digest), len(leaves))
    included = place < len(leaves) and leaves[place].credential_digest == credential_digest
    shown = [place] if included else [i for i in (place - 1, place) if 0 <= i < len(leaves)]
    neighbours = [
        InclusionProof(
            leaf_index=i,
            credential_digest=leaves[i].credential_digest,
            header_digest=leaves[i].header_digest,
            path=inclusion_path(encoded, i),
        )
        for i in shown
    ]
    return MembershipProof(included=included, set_size=len(leaves), neighbours=neighbours)


def check_membership(root: bytes, proof: MembershipProof, credential_digest: bytes) -> bytes | None:
    """Verify a proof; the header digest of the device in the set, or None when it is proven absent.

    Raises:
        TrustError: `bad-membership-proof`.
    """
    size = proof.set_size
    if not 0 < size <= MAX_CONTRIBUTORS or not 0 < len(proof.neighbours) <= 2:
        raise _bad_proof()
    for shown in proof.neighbours:
        leaf = Leaf(shown.credential_digest, shown.header_digest).encode()
        if len(leaf) != 2 * DIGEST_BYTES or not verify_inclusion(root, leaf, shown.leaf_index, size, shown.path):
            raise _bad_proof()
    if proof.included:
        if len(proof.neighbours) != 1 or proof.neighbours[0].credential_digest != credential_digest:
            raise _bad_proof()
        return proof.neighbours[0].header_digest
    if not _brackets(proof, credential_digest):
        raise _bad_proof()
    return None


def _brackets(proof: MembershipProof, credential_digest: bytes) -> bool:
    """Whether the shown neighbours leave no room for the device."""
    first, last = proof.neighbours[0], proof.neighbours[-1]
    if len(proof.neighbours) == 2:
        between = first.credential_digest < credential_digest < last.credential_digest
        return last.leaf_index == first.leaf_index + 1 and between
    before_all = first.leaf_index == 0 and credential_digest < first.credential_digest
    after_all = first.leaf_index == proof.set_size - 1 and first.credential_digest < credential_digest
    return before_all or after_all


def _check_order(leaves: Sequence[Leaf]) -> None:
    digests = [leaf.credential_digest for leaf in leaves]
    if any(first >= second for first, second in pairwise(digests)):
        raise MalformedError("set-order", "a set's headers are not in order, or a device stands in it twice")


def _bad_proof() -> TrustError:
    return TrustError("bad-membership-proof", "the proof of membership does not lead to the answered set")
