"""Sums that grow while uploads arrive, so that a sealed cohort has nothing left to read.

Invariants:
    * A cache of what stored bytes say, and nothing else: after a restart, or where memory is short, the same sum is
      made from the blobs. Nothing is decided by it.
    * One vector per cohort that collects, whatever the number of devices; above `MAX_RUNNING_BYTES` in all, none.
    * What `take` returns is the sum of exactly the set it was asked for, each upload once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from bedside.coordinator.blobs import BlobStore
from bedside.core.errors import StoreError
from bedside.core.securesum.aggregator import Aggregate
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.securesum.ring import word_dtype

MAX_RUNNING_BYTES: Final = 256 << 20
"""Bytes of all running sums together: a dozen cohorts of 10M words."""
_READERS: Final = min(4, os.cpu_count() or 1)
"""Uploads that are read and hashed at the same time; both happen outside the interpreter's lock."""


@dataclass(slots=True)
class _Running:
    aggregate: Aggregate
    added: dict[bytes, bytes] = field(default_factory=dict)
    """By header digest: two headers may name the same bytes, and then both count."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class RunningSums:
    """The sums of all cohorts that collect. May be used from any thread."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._sums: dict[tuple[bytes, int], _Running] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, plan: CheckedPlan, cohort: int, header_digest: bytes, upload_blake3: bytes) -> None:
        """Add an accepted upload, once, if there is room for this cohort's sum.

        What cannot be read now is read again when the sum is opened, and fails there.
        """
        running = self._running(plan, cohort)
        if running is None:
            return
        with running.lock:
            if header_digest in running.added:
                return
            try:
                running.aggregate.add_upload(self._blobs.read(upload_blake3, "blake3"))
            except StoreError:
                return
            running.added[header_digest] = upload_blake3

    def take(self, plan: CheckedPlan, cohort: int, uploads: Mapping[bytes, bytes]) -> Aggregate:
        """The sum of exactly these uploads; the running one is used up by it.

        Args:
            plan: of the round.
            cohort: of the plan.
            uploads: BLAKE3 digests of the vectors by header digest.

        Raises:
            StoreError: `no-blob` or `blob-damaged`.
        """
        running = self.forget(plan, cohort) or _Running(Aggregate(plan.layout, plan.plan.word_bits))
        with running.lock:
            added = running.added
            for data in self._read([added[header] for header in added if header not in uploads]):
                running.aggregate.drop_upload(data)  # accepted, and not in the set that was sealed
            for data in self._read([uploads[header] for header in uploads if header not in added]):
                running.aggregate.add_upload(data)
            return running.aggregate

    def forget(self, plan: CheckedPlan, cohort: int) -> _Running | None:
        """Give a cohort's memory back."""
        with self._lock:
            running = self._sums.pop((plan.digest, cohort), None)
            if running is not None:
                self._bytes -= _vector_bytes(plan)
            return running

    def _running(self, plan: CheckedPlan, cohort: int) -> _Running | None:
        with self._lock:
            running = self._sums.get((plan.digest, cohort))
            if running is None and self._bytes + _vector_bytes(plan) <= MAX_RUNNING_BYTES:
                running = _Running(Aggregate(plan.layout, plan.plan.word_bits))
                self._sums[plan.digest, cohort] = running
                self._bytes += _vector_bytes(plan)
            return running

    def _read(self, names: Sequence[bytes]) -> Iterator[bytes]:
        """Their bytes, verified, a few at a time in parallel."""
        with ThreadPoolExecutor(_READERS) as readers:
            for start in range(0, len(names), _READERS):
                yield from readers.map(lambda name: self._blobs.read(name, "blake3"), names[start : start + _READERS])


def _vector_bytes(plan: CheckedPlan) -> int:
    return plan.vector_words * word_dtype(plan.plan.word_bits).itemsize
