"""Merkle trees of RFC 6962 over BLAKE2b-256: roots, inclusion proofs, and proofs that a log only grew.

A growing tree is never hashed as a whole: its complete subtrees are kept as nodes (level, index), where node (l, i)
covers the leaves i 2^l .. (i + 1) 2^l - 1, and a root, path or proof of any size reads O(log^2 n) of them. Whoever
keeps no nodes follows a log with a `Frontier` of at most log2(n) hashes.

Source: RFC 6962 section 2.1; RFC 9162 sections 2.1.3 and 2.1.4 (the checks).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from bedside.core.errors import MalformedError
from bedside.core.signing.envelope import DIGEST_BYTES, digest

Node = Callable[[int, int], bytes]
"""Looks up the hash of the complete subtree (level, index); called for subtrees that lie in the tree only."""

MAX_PATH_NODES: Final = 64
"""Hashes of one path or proof: trees of more than 2^63 leaves are not read."""


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf."""
    return digest(b"\0" + leaf)


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return digest(b"\1" + left + right)


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1: the root over `leaves` in their order; of no leaves, the hash of nothing."""
    return root_at(len(leaves), _nodes_of(leaves))


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """RFC 6962 section 2.1.1: the audit path of leaf `index`, from the leaf upwards."""
    return inclusion_at(index, len(leaves), _nodes_of(leaves))


def grown(size: int, leaf: bytes, node: Node) -> Iterator[tuple[int, int, bytes]]:
    """The nodes (level, index, hash) that become complete when `leaf` is appended to a tree of `size` leaves."""
    level, index, value = 0, size, leaf_hash(leaf)
    yield level, index, value
    while index & 1:
        value = node_hash(node(level, index - 1), value)
        level, index = level + 1, index >> 1
        yield level, index, value


def root_at(size: int, node: Node) -> bytes:
    """The root that the tree had when it had `size` leaves."""
    return _hash(0, size, node) if size else digest(b"")


def inclusion_at(index: int, size: int, node: Node) -> list[bytes]:
    """The audit path of leaf `index` in the tree of `size` leaves, from the leaf upwards."""
    begin, end, path = 0, size, list[bytes]()
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(_hash(middle, end, node))
            end = middle
        else:
            path.append(_hash(begin, middle, node))
            begin = middle
    return path[::-1]


def consistency_at(old: int, new: int, node: Node) -> list[bytes]:
    """RFC 6962 section 2.1.2: proof that the tree of `new` leaves begins with the tree of `old` leaves.

    Empty for equal sizes and for an empty old tree.
    """
    if not 0 < old < new:
        return []
    begin, end, path, whole = 0, new, list[bytes](), True
    while end != old:
        middle = begin + _split(end - begin)
        if old <= middle:
            path.append(_hash(middle, end, node))
            end = middle
        else:
            path.append(_hash(begin, middle, node))
            begin, whole = middle, False
    if not whole:
        path.append(_hash(begin, end, node))
    return path[::-1]


def verify_inclusion(root: bytes, leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bool:
    """Whether `path` leads from `leaf` at `index` of `size` leaves to `root` (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size or not _well_formed(path):
        return False
    node, last, at = leaf_hash(leaf), size - 1, index
    for sibling in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            node = node_hash(sibling, node)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and node == root


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` proves that the tree with `new_root` begins with the one of `old_root` (RFC 9162, 2.1.4.2)."""
    if not 0 <= old <= new or not _well_formed(path):
        return False
    if old in (0, new):
        return not path and (old_root == digest(b"") if old == 0 else old_root == new_root)
    nodes = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not nodes:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = nodes[0]
    for sibling in nodes[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


class Frontier:
    """What a follower must keep to go on hashing a log: the roots of its complete subtrees, largest first."""

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """Go on where `hashes` left off.

        Raises:
            MalformedError: `bad-frontier`, when they are not those of a tree of `size` leaves.
        """
        if size < 0 or len(hashes) != size.bit_count() or not _well_formed(hashes):
            raise MalformedError("bad-frontier", f"{len(hashes)} hashes are not the frontier of {size} leaves")
        self.size = size
        self.hashes = list(hashes)

    def append(self, leaf: bytes) -> None:
        """Take the next leaf."""
        value, size = leaf_hash(leaf), self.size
        while size & 1:
            value, size = node_hash(self.hashes.pop(), value), size >> 1
        self.hashes.append(value)
        self.size += 1

    def root(self) -> bytes:
        """The root over all leaves that were taken."""
        if not self.hashes:
            return digest(b"")
        value = self.hashes[-1]
        for left in self.hashes[-2::-1]:
            value = node_hash(left, value)
        return value

    def copy(self) -> Frontier:
        """An independent one."""
        return Frontier(self.size, self.hashes)


def _hash(begin: int, end: int, node: Node) -> bytes:
    """The hash over leaves begin..end - 1, where `begin` is where RFC 6962's recursion splits."""
    count = end - begin
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return node(level, begin >> level)
    middle = begin + _split(count)
    return node_hash(_hash(begin, middle, node), _hash(middle, end, node))


def _nodes_of(leaves: Sequence[bytes]) -> Node:
    nodes: dict[tuple[int, int], bytes] = {}

    def look_up(level: int, index: int) -> bytes:
        return nodes[level, index]

    for size, leaf in enumerate(leaves):
        nodes.update({(level, index): value for level, index, value in grown(size, leaf, look_up)})
    return look_up


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def _well_formed(path: Sequence[bytes]) -> bool:
    return len(path) <= MAX_PATH_NODES and all(len(node) == DIGEST_BYTES for node in path)
