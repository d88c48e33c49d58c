"""The newest result of a task: how a device learns which model to serve after the last round.

A result only names a checkpoint; the bundle around it is still the one that the site's signer signed, and its golden
vectors are replayed before it serves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bedside.agent.rounds.memory import Seen
from bedside.agent.rounds.offer import Standing
from bedside.core.bundle.manifest import decode_manifest
from bedside.core.errors import MalformedError, RefusedError, TrustError
from bedside.core.ids import check_id
from bedside.core.limits import MAX_BLOB_BYTES
from bedside.core.policy.judge import check_signers, signer_of
from bedside.core.signing import digest, open_federation, open_signed, parse_strict
from bedside.core.signing.envelope import DIGEST_BYTES
from bedside.core.signing.trust import authority_of
from bedside.proto.v1.device_pb2 import Offer
from bedside.proto.v1.round_pb2 import Result


@dataclass(frozen=True, slots=True)
class CheckedResult:
    """A result that this device may serve the checkpoint of.

    Attributes:
        digest: of the result's payload.
        result: its fields.
        bundle: BLAKE2b-256 of the manifest.
        tar: BLAKE2b-256 of the bundle's tar.
        seen: what is remembered from now on.
    """

    digest: bytes
    result: Result
    bundle: bytes
    tar: bytes
    seen: Seen


def _never(manifest: bytes) -> bool:
    del manifest
    return False


def check_result(
    offer: Offer, standing: Standing, seen: Seen, *, lost: Callable[[bytes], bool] = _never
) -> CheckedResult | None:
    """Verify the result of an offer; None when this device knows it, or knows a newer round of the task.

    `lost` is asked with the manifest whether the checkpoint of the result that is known is here no more: then it is
    news again.

    Raises:
        TrustError: `bad-signature`, `federation-rollback`, `other-authority`, `unknown-signer`, `other-bundle` or
            `coordinator-signs-models`.
        RefusedError: `task-not-allowed`.
        MalformedError: the result or the manifest is not well-formed.
    """
    federation = open_federation(offer.federation, standing.root_pk, min_version=seen.federation_version)
    if authority_of(federation, standing.site) != standing.authority_pk:
        raise TrustError("other-authority", f"the federation names another authority for site {standing.site}")
    result = parse_strict(Result, open_signed("result", offer.result, federation.coordinator.sign_pk))
    check_id(result.task, "task")
    checkpoint = result.checkpoint
    if len(checkpoint.digest) != DIGEST_BYTES or not 0 < checkpoint.size_bytes <= MAX_BLOB_BYTES:
        raise MalformedError("bad-result", "a result does not name a checkpoint")
    if len(offer.bundle_tar_digest) != DIGEST_BYTES:
        raise MalformedError("bad-result", "a result comes without the digest of its bundle's tar")
    served = seen.results.get(result.task, 0)
    round_seen = seen.rounds[result.task].round_number if result.task in seen.rounds else 0
    if result.round_number < max(served, round_seen) or (
        result.round_number == served and not lost(offer.manifest.payload)
    ):
        return None
    if standing.policy.tasks and result.task not in standing.policy.tasks:
        raise RefusedError("task-not-allowed", f"a result is of task {result.task}, in which this site takes no part")
    check_signers(standing.policy, federation.coordinator.sign_pk)
    signer_of(standing.policy, offer.manifest)
    if digest(offer.manifest.payload) != result.bundle_digest:
        raise TrustError("other-bundle", "the manifest is not that of the result's bundle")
    decode_manifest(offer.manifest.payload)
    return CheckedResult(
        digest(offer.result.payload),
        result,
        digest(offer.manifest.payload),
        offer.bundle_tar_digest,
        seen.with_federation(federation.version).with_result(result.task, result.round_number),
    )
