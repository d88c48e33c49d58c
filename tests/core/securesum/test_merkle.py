from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.errors import MalformedError, TrustError
from bedside.core.securesum.merkle import (
    Leaf,
    check_membership,
    prove_membership,
    set_root,
)
from bedside.core.signing.envelope import digest


def leaves(count):
    return sorted(Leaf(digest(b"c%d" % i), digest(b"h%d" % i)) for i in range(count))


@given(size=st.integers(1, 40), wanted=st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_membership_and_absence_are_proven(size, wanted):
    members = leaves(size)
    device = digest(b"c%d" % wanted)
    header = check_membership(set_root(members), prove_membership(members, device), device)
    assert header == (digest(b"h%d" % wanted) if wanted < size else None)


def test_a_member_cannot_be_proven_absent():
    members = leaves(9)
    victim = members[4]
    without = [leaf for leaf in members if leaf != victim]
    with pytest.raises(TrustError):
        check_membership(
            set_root(members), prove_membership(without, victim.credential_digest), victim.credential_digest
        )
    proof = prove_membership(members, members[3].credential_digest)
    proof.included = False
    with pytest.raises(TrustError):
        check_membership(set_root(members), proof, victim.credential_digest)


def test_neighbours_that_do_not_touch_prove_nothing():
    members = leaves(9)
    proof = prove_membership(members, members[2].credential_digest)
    far = prove_membership(members, members[6].credential_digest)
    proof.included = False
    proof.neighbours.extend(far.neighbours)
    with pytest.raises(TrustError):
        check_membership(set_root(members), proof, members[4].credential_digest)


def test_a_set_that_is_out_of_order_has_no_root():
    members = leaves(3)
    with pytest.raises(MalformedError):
        set_root([members[1], members[0]])
    with pytest.raises(MalformedError):
        set_root([members[0], members[0]])
