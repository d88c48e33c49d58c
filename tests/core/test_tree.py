"""Trees against RFC 6962's own recursion, proofs against every size, and a follower that keeps log2(n) hashes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.errors import MalformedError
from bedside.core.signing.envelope import digest
from bedside.core.tree import (
    Frontier,
    consistency_at,
    grown,
    inclusion_at,
    inclusion_path,
    root_at,
    tree_root,
    verify_consistency,
    verify_inclusion,
)


def plain_root(leaves):
    """RFC 6962 section 2.1, word by word."""
    if not leaves:
        return digest(b"")
    if len(leaves) == 1:
        return digest(b"\0" + leaves[0])
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return digest(b"\1" + plain_root(leaves[:k]) + plain_root(leaves[k:]))


def grow(leaves):
    nodes = {}
    for size, leaf in enumerate(leaves):
        nodes.update({(lv, ix): value for lv, ix, value in grown(size, leaf, lambda lv, ix: nodes[lv, ix])})
    return lambda level, index: nodes[level, index]


def leaves_of(count):
    return [b"leaf %d" % i for i in range(count)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 33])
def test_every_leaf_is_proven_and_no_other(size):
    data = leaves_of(size)
    root = tree_root(data)
    for index, leaf in enumerate(data):
        path = inclusion_path(data, index)
        assert verify_inclusion(root, leaf, index, size, path)
        assert not verify_inclusion(root, leaf + b"x", index, size, path)
        assert not verify_inclusion(root, leaf, (index + 1) % size, size, path) or size == 1
        assert not verify_inclusion(root, leaf, index, size, [*path, bytes(32)])


def test_a_leaf_cannot_be_passed_off_as_a_node():
    data = [b"a", b"b"]
    inner = digest(b"\0a") + digest(b"\0b")
    assert tree_root([inner]) != tree_root(data)


def test_a_tree_that_grew_leaf_by_leaf_has_the_roots_of_the_recursion_at_every_size():
    data = leaves_of(70)
    node = grow(data)
    for size in range(71):
        assert root_at(size, node) == plain_root(data[:size]) == tree_root(data[:size])


@given(new=st.integers(0, 200), data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_log_that_only_grew_is_proven_and_every_altered_proof_fails(new, data):
    old = data.draw(st.integers(0, new))
    leaves = leaves_of(new)
    path = consistency_at(old, new, grow(leaves))
    before, after = plain_root(leaves[:old]), plain_root(leaves)
    assert verify_consistency(old, before, new, after, path)
    assert not verify_consistency(old, before, new, after, [*path, bytes(32)])
    for place in range(len(path)):
        altered = [*path]
        altered[place] = digest(altered[place])
        assert not verify_consistency(old, before, new, after, altered)
        assert not verify_consistency(old, before, new, after, path[:place] + path[place + 1 :])
    assert not verify_consistency(old, digest(before), new, after, path)
    if old:  # every tree begins with the empty one
        assert not verify_consistency(old, before, new, digest(after), path)


@given(new=st.integers(2, 120), data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_log_that_changed_one_early_leaf_is_never_proven(new, data):
    old = data.draw(st.integers(1, new - 1))
    changed = data.draw(st.integers(0, old - 1))
    leaves = leaves_of(new)
    forked = [*leaves]
    forked[changed] += b"!"
    path = consistency_at(old, new, grow(forked))
    assert not verify_consistency(old, plain_root(leaves[:old]), new, plain_root(forked), path)


@given(size=st.integers(1, 200), data=st.data())
@settings(max_examples=100, deadline=None)
def test_paths_from_kept_nodes_hold_at_sizes_before_the_newest(size, data):
    earlier = data.draw(st.integers(1, size))
    index = data.draw(st.integers(0, earlier - 1))
    leaves = leaves_of(size)
    path = inclusion_at(index, earlier, grow(leaves))
    assert verify_inclusion(plain_root(leaves[:earlier]), leaves[index], index, earlier, path)


@given(old=st.integers(-3, 40), new=st.integers(-3, 40), path=st.lists(st.binary(max_size=40), max_size=8))
def test_garbage_proves_nothing_and_raises_nothing(old, new, path):
    assert not verify_consistency(old, b"a" * 32, new, b"b" * 32, path)
    assert not verify_inclusion(b"a" * 32, b"leaf", old, new, path)


@given(size=st.integers(0, 150), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_follower_that_was_stopped_and_went_on_has_the_root_of_the_whole(size, data):
    stop = data.draw(st.integers(0, size))
    leaves = leaves_of(size)
    follower = Frontier()
    for leaf in leaves[:stop]:
        follower.append(leaf)
    again = Frontier(follower.size, follower.hashes)
    for leaf in leaves[stop:]:
        again.append(leaf)
    assert again.root() == plain_root(leaves)
    assert len(again.hashes) <= size.bit_length()


def test_a_frontier_of_another_size_is_refused():
    with pytest.raises(MalformedError):
        Frontier(3, [b"a" * 32])
    with pytest.raises(MalformedError):
        Frontier(2, [b"short"])
