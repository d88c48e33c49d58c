"""What devices bring: headers, masked words, and reasons for not taking part.

Invariants:
    * One contribution per device and plan: the first header that was begun is the only one, whatever comes later.
    * `accepted` is true only when all bytes are durable and match the header, while the cohort still collects.
    * Doing anything again gives the same answer and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final
from weakref import WeakValueDictionary

from sqlalchemy import Connection

from bedside.coordinator.parts import Parts
from bedside.coordinator.rounds.claim import claim
from bedside.coordinator.rounds.state import RoundState, find_round, phase_of
from bedside.coordinator.store import contributions
from bedside.coordinator.store.contributions import RefusalRow, UploadRow
from bedside.core.errors import ProtocolError, RefusedError
from bedside.core.securesum.aggregator import CohortPhase
from bedside.core.securesum.messages import open_header, open_refusal
from bedside.core.signing import VerifiedCredential
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.device_pb2 import UploadState
from bedside.proto.v1.round_pb2 import Header, Refusal

_MAX_SEQUENCE: Final = 1 << 63


class Uploads:
    """The contributions of devices."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._turns: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    async def begin(self, signed: Signed, device: VerifiedCredential) -> UploadState:
        """Take a header and say how many of its bytes are here; all of them at once where nothing is missing.

        Raises:
            ProtocolError: `unknown-plan`, `round-closed`, `round-full`, `other-openings` or `already-contributed`.
            TrustError, MalformedError: as `open_header`.
        """
        claimed = claim(Header, signed)
        state = self._round(claimed.plan_digest)
        cohort = state.plan.cohort_of(device.site)
        known = state.upload(device.digest)
        self._check_collecting(state, cohort, known)
        checked = open_header(signed, device, state.plan, cohort, state.openings_digest(cohort))
        if checked.header.sequence >= _MAX_SEQUENCE:
            raise ProtocolError("bad-sequence", "a header's sequence is out of range")
        row = UploadRow(
            header_digest=checked.digest,
            plan_digest=state.plan.digest,
            cohort=cohort,
            credential_digest=device.digest,
            header=signed.SerializeToString(deterministic=True),
            upload_blake3=checked.header.upload_digest,
            upload_bytes=checked.header.upload_bytes,
            sequence=checked.header.sequence,
            accepted=False,
            counted=False,
        )
        kept = self._parts.store.run_tx("begin-upload", lambda tx: contributions.put_upload(tx, row))
        if kept.header_digest != row.header_digest:
            raise ProtocolError(
                "already-contributed",
                "this device has begun another upload for this plan",
                remedy="send the header and the bytes that were stored first",
            )
        self._parts.signals.rounds.bump()
        return await self.finish(kept)

    def expect(self, header_digest: bytes, device: VerifiedCredential) -> UploadRow:
        """The upload that a device goes on with.

        Raises:
            ProtocolError: `unknown-upload`, or `round-closed`.
            RefusedError: `other-device`.
        """
        row = self._parts.store.run_tx("find-upload", lambda tx: contributions.upload(tx, header_digest))
        if row is None:
            raise ProtocolError("unknown-upload", "no upload with this header was begun", remedy="begin it again")
        if row.credential_digest != device.digest:
            raise RefusedError("other-device", "this upload belongs to another device")
        self._check_collecting(self._round(row.plan_digest), row.cohort, row)
        return row

    async def append(self, row: UploadRow, offset_bytes: int, data: bytes) -> int:
        """Store a piece durably; returns how many bytes are here.

        Raises:
            ProtocolError: `round-closed`, when the round ended while the bytes came, or as `Staging.append`.
            MalformedError, StoreError: as `Staging.append`.
        """
        if row.accepted:
            return row.upload_bytes
        async with self._turn(row):
            try:
                received_bytes = await asyncio.to_thread(
                    self._parts.staging.append, row.header_digest, offset_bytes, data, row.upload_bytes
                )
            except ProtocolError:
                self._check_collecting(self._round(row.plan_digest), row.cohort, row)
                raise
        self._parts.meters.upload_bytes.inc(len(data))
        return received_bytes

    async def finish(self, row: UploadRow) -> UploadState:
        """Accept the upload when all its bytes are here and match.

        Raises:
            MalformedError: `upload-digest`.
            ProtocolError: `round-closed`.
        """
        async with self._turn(row):
            if not row.accepted and self._received(row) >= row.upload_bytes:
                await asyncio.to_thread(self._parts.staging.finish, row.header_digest, row.upload_blake3)
                self._parts.store.run_tx("accept-upload", _accept(row))
                plan = self._round(row.plan_digest).plan
                add = self._parts.running.add
                await asyncio.to_thread(add, plan, row.cohort, row.header_digest, row.upload_blake3)
                self._parts.signals.rounds.bump()
        current = self._parts.store.run_tx("find-upload", lambda tx: contributions.upload(tx, row.header_digest))
        return self._state(current or row)

    def decline(self, signed: Signed, device: VerifiedCredential) -> Refusal:
        """Take a device's reason for not taking part; a device that uploaded everything stays in.

        Raises:
            ProtocolError: `unknown-plan`.
            TrustError, MalformedError: as `open_refusal`.
        """
        claimed = claim(Refusal, signed)
        state = self._round(claimed.plan_digest)
        cohort = state.plan.cohort_of(device.site)
        refusal = open_refusal(signed, device, state.plan, cohort)
        row = RefusalRow(
            plan_digest=state.plan.digest,
            credential_digest=device.digest,
            cohort=cohort,
            code=refusal.code,
            sentence=refusal.sentence,
            signed=signed.SerializeToString(deterministic=True),
        )
        if self._parts.store.run_tx("decline", lambda tx: contributions.put_refusal(tx, row)):
            self._parts.meters.refused("device", refusal.code)
        self._parts.signals.rounds.bump()
        return refusal

    def _round(self, plan_digest: bytes) -> RoundState:
        return self._parts.store.run_tx("find-round", find_round(plan_digest, self._parts.sign_pk))

    def _state(self, row: UploadRow) -> UploadState:
        have = row.upload_bytes if row.accepted else self._received(row)
        return UploadState(received_bytes=have, accepted=row.accepted)

    def _received(self, row: UploadRow) -> int:
        """Durable bytes; all of them when a crash came between the blob and the commit that accepts it."""
        if self._parts.blobs.has(row.upload_blake3, "blake3"):
            return row.upload_bytes
        return self._parts.staging.received_bytes(row.header_digest)

    def _turn(self, row: UploadRow) -> asyncio.Lock:
        """One writer at a time: a device that reconnects may meet its own old call."""
        return self._turns.setdefault(row.header_digest, asyncio.Lock())

    @staticmethod
    def _check_collecting(state: RoundState, cohort: int, known: UploadRow | None) -> None:
        if known is not None and known.accepted:
            return
        if phase_of(state.cohort(cohort)) is not CohortPhase.COLLECTING:
            raise ProtocolError(
                "round-closed",
                "this round takes no more uploads",
                remedy="wait for the receipt; the next round comes by itself",
            )
        accepted = sum(upload.accepted and upload.cohort == cohort for upload in state.uploads)
        if accepted >= state.plan.plan.max_contributors:
            raise ProtocolError("round-full", "this round has all the devices that it can take")


def _accept(row: UploadRow) -> Callable[[Connection], None]:
    def work(tx: Connection) -> None:
        cohort = next(one for one in contributions.cohorts(tx, row.plan_digest) if one.cohort == row.cohort)
        if phase_of(cohort) is not CohortPhase.COLLECTING:
            raise ProtocolError("round-closed", "the round was sealed while the last bytes arrived")
        contributions.accept_upload(tx, row.header_digest)

    return work
