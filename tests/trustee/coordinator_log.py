"""A coordinator's log in memory: honest, forked, shrunk or lying, as a test wants it."""

from __future__ import annotations

from bedside.core.errors import MalformedError
from bedside.core.log.entries import encode_entry
from bedside.core.log.messages import sign_checkpoint
from bedside.core.signing.envelope import digest
from bedside.core.tree import consistency_at, grown, inclusion_path, root_at, tree_root
from bedside.proto.v1.audit_pb2 import CheckpointView, PlanProof


class CoordinatorLog:
    def __init__(self, key, federation="test", leaves=()):
        self.key = key
        self.federation = federation
        self.leaves = list(leaves)
        self.calls = []

    def fork(self):
        """Another log that begins alike."""
        return CoordinatorLog(self.key, self.federation, self.leaves)

    def add(self, kind, payload_digest, plan_digest, **who):
        self.leaves.append(encode_entry(kind, payload_digest, plan_digest, **who))

    def plan(self, world_or_bench, **changes):
        """A plan that names this log as it is; its own entry is the next."""
        plan = world_or_bench.plan(log_size=len(self.leaves), log_root=tree_root(self.leaves), **changes)
        self.add("plan", plan.digest, plan.digest)
        return plan

    def word(self, kind, bench, plan_digest, payload_digest=None, party=None):
        credential = (party or bench.site.trustee).credential
        said = payload_digest or digest(b"never said %d" % len(self.leaves))
        self.add(kind, said, plan_digest, credential_digest=credential.digest)

    async def get_log_checkpoint(self, from_size):
        self.calls.append(("checkpoint", from_size))
        size = len(self.leaves)
        signed = sign_checkpoint(self.federation, size, tree_root(self.leaves), 1, self.key)
        return CheckpointView(checkpoint=signed, consistency=consistency_at(from_size, size, self._node()))

    async def get_log_entries(self, first, count):
        self.calls.append(("entries", first, count))
        return self.leaves[first : first + count]

    async def get_plan_proof(self, log_size, tree_size):
        if not log_size < tree_size <= len(self.leaves):
            raise MalformedError("no-such-log", "the log never had so many entries")
        return PlanProof(
            consistency=consistency_at(log_size, tree_size, self._node()),
            leaf=self.leaves[log_size],
            inclusion=inclusion_path(self.leaves[:tree_size], log_size),
        )

    def root(self):
        return root_at(len(self.leaves), self._node())

    def _node(self):
        nodes = {}
        for size, leaf in enumerate(self.leaves):
            nodes.update({(lv, ix): value for lv, ix, value in grown(size, leaf, lambda lv, ix: nodes[lv, ix])})
        return lambda level, index: nodes[level, index]
