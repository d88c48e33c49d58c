"""Every kind of statement, in both dialects: what is kept, what is replaced, in which order, and how large."""

from __future__ import annotations

import pytest

from bedside.coordinator.store import contributions, log, members, tasks, tenure
from bedside.coordinator.store.contributions import RefusalRow, UploadRow
from bedside.coordinator.store.log import CosignatureRow, VerdictRow
from bedside.coordinator.store.members import CredentialRow, DeviceRow, RequestRow, RosterRow
from bedside.coordinator.store.tasks import RoundRow, TaskRow
from bedside.core.errors import ConfigError, StoreError
from bedside.core.securesum.aggregator import CohortPhase
from bedside.core.signing import digest
from bedside.proto.v1.common_pb2 import Signed

LARGE = (1 << 63) - 1
PLAN = digest(b"plan")


def upload(number, header=b"header"):
    name = digest(header + b"%d" % number)
    return UploadRow(name, PLAN, 0, digest(b"device %d" % number), header, b"b" * 32, LARGE, LARGE, False, False)


def test_rosters_and_heartbeats_are_replaced_and_credentials_stay(store):
    def fill(tx):
        for version in (1, LARGE):
            members.put_roster(tx, RosterRow("alder", version, b"roster %d" % version))
            members.put_credential(tx, CredentialRow(b"c" * 32, "alder", "device", b"signed %d" % version))
        members.put_heartbeats(tx, {})
        for sequence in (1, LARGE):
            beats = [DeviceRow(bytes([n]) * 32, sequence, n, b"\0\xff") for n in (3, 1, 2)]
            members.put_heartbeats(tx, {row.credential_digest: row for row in beats})

    store.run_tx("fill", fill)

    def check(tx):
        assert members.rosters(tx) == [RosterRow("alder", LARGE, b"roster %d" % LARGE)]
        assert members.credentials(tx) == [CredentialRow(b"c" * 32, "alder", "device", b"signed 1")]
        assert members.devices(tx) == [DeviceRow(bytes([n]) * 32, LARGE, n, b"\0\xff") for n in (1, 2, 3)]

    store.run_tx("check", check)


def test_a_request_is_decided_once_and_its_token_counted(store):
    def fill(tx):
        for number, at_s in ((2, 5), (1, 5), (3, 4)):
            row = RequestRow(bytes([number]) * 32, "alder", b"e", True, members.PENDING, None, "", "", at_s)
            members.put_request(tx, row, b"t" * 32)
        assert [row.digest[0] for row in members.pending_requests(tx, "alder")] == [3, 1, 2]
        members.decide_request(tx, b"\x01" * 32, members.ACTIVE, b"c" * 32, "", "")
        members.decide_request(tx, b"\x01" * 32, members.REFUSED, None, "late", "too late")
        return members.request(tx, b"\x01" * 32), members.token_use_count(tx, b"t" * 32)

    row, uses = store.run_tx("fill", fill)
    assert (row.phase, row.credential_digest, row.needs_approval, row.sentence) == (members.ACTIVE, b"c" * 32, True, "")
    assert uses == 3


def test_the_first_upload_of_a_device_stays_and_flags_are_flags(store):
    def work(tx):
        first = contributions.put_upload(tx, upload(1))
        assert contributions.put_upload(tx, upload(1, b"another")) == first
        contributions.put_upload(tx, upload(2))
        contributions.accept_upload(tx, first.header_digest)
        contributions.put_cohort(tx, PLAN, 0, CohortPhase.OPENING.value, LARGE)
        (row,) = contributions.cohorts(tx, PLAN)
        contributions.set_sealed(tx, row, b"h" * 32, LARGE, b"r" * 32, [first.credential_digest])
        return [one.credential_digest for one in contributions.uploads(tx, PLAN)]

    order = store.run_tx("work", work)
    assert order == sorted(order)
    assert len(order) == 2
    found = store.run_tx("read", lambda tx: contributions.upload(tx, upload(1).header_digest))
    assert (found.accepted, found.counted, found.upload_bytes) == (True, True, LARGE)
    (cohort,) = store.run_tx("read", lambda tx: contributions.cohorts(tx, PLAN))
    assert (cohort.phase_since_ms, cohort.set_size, cohort.headers_bytes) == (LARGE, 1, LARGE)


def test_a_cosignature_only_grows_and_a_verdict_stays(store):
    def work(tx):
        for size in (5, 9, 7):
            log.put_cosignature(tx, CosignatureRow(b"t" * 32, size, b"%d" % size))
        fresh = [log.put_verdict(tx, VerdictRow(PLAN, b"t" * 32, holds, b"v"), digest(b"v")) for holds in (False, True)]
        return log.cosignatures(tx), fresh, log.verdicts(tx, 5)

    cosigned, fresh, verdicts = store.run_tx("work", work)
    assert cosigned == [CosignatureRow(b"t" * 32, 9, b"9")]
    assert fresh == [True, False]
    assert verdicts == [VerdictRow(PLAN, b"t" * 32, False, b"v")]


def test_tasks_are_ordered_by_bytes_and_rounds_by_age(store):
    names = ["b", "B", "ä", "a-b", "a_b", "ab", "Z"]

    def work(tx):
        for name in names:
            tasks.put_task(tx, TaskRow(name, b"1", 1, tasks.RUNNING, "", 1))
            tasks.put_task(tx, TaskRow(name, b"2", LARGE, tasks.RUNNING, "again", LARGE))
        for number, at_s in ((1, 4_000_000_000), (2, 4_000_000_000), (3, 3_999_999_999)):
            tasks.put_round(tx, RoundRow(digest(b"%d" % number), "b", number, b"plan", at_s, 0, None))
        tasks.finish_round(tx, digest(b"1"), Signed(payload=b"result"), 5)
        return tasks.active_tasks(tx), tasks.rounds(tx, "b", 2), tasks.open_rounds(tx)

    active, newest, unfinished = store.run_tx("work", work)
    assert [row.task for row in active] == sorted(names, key=str.encode)
    assert active[0] == TaskRow("B", b"2", LARGE, tasks.RUNNING, "again", LARGE)
    assert [row.number for row in newest] == [2, 1]
    assert [row.number for row in unfinished] == [3, 2]


def test_a_nul_in_somebody_elses_sentence_stops_nothing(store):
    row = RefusalRow(PLAN, b"d" * 32, 0, "cod\0e", "no\0 ever", b"signed\0")

    def work(tx):
        contributions.put_refusal(tx, row)
        contributions.put_refusal(tx, RefusalRow(PLAN, b"d" * 32, 0, "other", "other", b""))
        return contributions.refusals(tx, PLAN)

    (kept,) = store.run_tx("work", work)
    assert (kept.code, kept.sentence, kept.signed) == ("cod�e", "no� ever", b"signed\0")


def test_a_database_belongs_to_one_coordinator_and_counts_its_starts(store):
    assert store.run_tx("none", tenure.number) == 0
    for number in (1, 2):
        store.begin_tenure(b"k" * 32)
        assert store.run_tx("number", tenure.number) == number
    with pytest.raises(ConfigError) as caught:
        store.begin_tenure(b"o" * 32)
    assert caught.value.code == "other-database"
    assert store.run_tx("number", tenure.number) == 2


def test_a_row_that_must_be_new_and_is_not_names_its_transaction_and_no_value(store):
    row = RoundRow(PLAN, "secret-task", 1, b"plan", 1, 0, None)
    store.run_tx("first", lambda tx: tasks.put_round(tx, row))
    with pytest.raises(StoreError) as caught:
        store.run_tx("plan-round", lambda tx: tasks.put_round(tx, row))
    assert caught.value.code == "store-write"
    assert "plan-round" in caught.value.sentence
    assert "secret-task" not in caught.value.diagnostics()
    assert store.run_tx("goes on", log.size) == 1
