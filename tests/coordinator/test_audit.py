"""Rounds are recomputed from stored bytes; whatever byte is altered is named; an export needs no coordinator."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from types import SimpleNamespace

import pytest
from nacl.signing import SigningKey
from sqlalchemy import select, update

from bedside.coordinator.audit.records import Records
from bedside.coordinator.store import contributions, log, tasks
from bedside.coordinator.store.schema import COHORTS, LOG_ENTRIES, ROUNDS, TRUSTEE_WORDS
from bedside.core.audit.record import blobs_of
from bedside.core.audit.round import audit_round
from bedside.core.signing import digest, parse_strict, sign_message
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.audit_pb2 import RoundRecordRequest
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.plan_pb2 import Plan
from bedside.proto.v1.round_pb2 import Answer, Closed, Opening, Result, Vote
from bedside.proto.v1.trustee_pb2 import HeaderSet

FEDADAM = plan_pb2.ServerStep(
    optimiser=plan_pb2.SERVER_OPTIMISER_FEDADAM,
    learning_rate_e6=10_000,
    beta1_e6=900_000,
    beta2_e6=990_000,
    tau_e9=1_000_000,
)


async def play(desk, bundle, rounds=1, **changes):
    """Whole rounds with scripted devices and trustees; the plan digests."""
    await desk.populate(devices=2)
    await desk.start(bundle, rounds=rounds, **changes)
    serving = [asyncio.create_task(trustee.serve()) for trustee in desk.trustees()]
    devices, known, plans = desk.devices(), b"", []
    for device in devices:
        await device.beat()
    for number in range(1, rounds + 1):
        for device in devices:
            await device.beat()
            offer = await device.offer(known=known)
            device.make(offer)
            await device.begin()
            await device.send()
        known = digest(offer.plan.payload)
        plans.append(known)
        await desk.ended(number)
    for task in serving:
        task.cancel()
    return plans


class Auditor:
    """An audit over everything that a coordinator has stored, as it stands."""

    def __init__(self, desk, plan_digest):
        self.parts = desk.alive.parts
        self.root_pk = bytes.fromhex(desk.world.home.pin.root_pk)
        self.plan_digest = plan_digest

    def record(self):
        return Records(self.parts).record(RoundRecordRequest(plan_digest=self.plan_digest))

    def read(self, name):
        return self.parts.blobs.read(name.digest, name.family)

    def report(self, **changes):
        return audit_round(self.record(), self.read, changes.get("root_pk", self.root_pk))

    def code(self):
        failure = self.report().failure
        return failure.code if failure else ""

    def path(self, name, family):
        return self.parts.blobs._path(name, family)

    def write(self, statement):
        self.parts.store.run_tx("alter", lambda tx: tx.execute(statement))

    def row(self):
        return self.parts.store.run_tx("row", lambda tx: tasks.round_by_plan(tx, self.plan_digest))

    def result(self):
        return parse_strict(Result, parse_strict(Signed, self.row().result).payload)

    def word(self, kind):
        words = self.parts.store.run_tx("words", lambda tx: contributions.words(tx, self.plan_digest, kind=kind))
        return words[0]


def flip(data, at=-1):
    altered = bytearray(data)
    altered[at] ^= 1
    return bytes(altered)


def alter_payload(envelope):
    """The same envelope whose payload differs in its last byte."""
    signed = Signed.FromString(envelope)
    signed.payload = flip(signed.payload)
    return signed.SerializeToString(deterministic=True)


def altering_column(table, column, where, alter):
    def undo_after(auditor):
        place = where(auditor)
        old = auditor.parts.store.run_tx("old", lambda tx: tx.execute(select(column).where(*place)).scalar())
        auditor.write(update(table).where(*place).values({column.name: alter(old)}))
        return lambda: auditor.write(update(table).where(*place).values({column.name: old}))

    return undo_after


def altering_file(find):
    def undo_after(auditor):
        path = auditor.path(*find(auditor))
        old = path.read_bytes()
        path.write_bytes(flip(old, len(old) // 2))
        return lambda: path.write_bytes(old)

    return undo_after


def _word_is(kind):
    def where(auditor):
        word = auditor.word(kind)
        return (
            TRUSTEE_WORDS.c.plan_digest == auditor.plan_digest,
            TRUSTEE_WORDS.c.kind == kind,
            TRUSTEE_WORDS.c.credential_digest == word.credential_digest,
        )

    return where


def _upload(auditor):
    state = auditor.parts.store.run_tx("uploads", lambda tx: contributions.uploads(tx, auditor.plan_digest))
    return state[0].upload_blake3, "blake3"


def _answer_words(auditor):
    told = parse_strict(Answer, parse_strict(Signed, auditor.word("answer").signed).payload)
    return told.mask_sum_digest, "blake3"


def _cohort(auditor):
    return auditor.parts.store.run_tx("cohorts", lambda tx: contributions.cohorts(tx, auditor.plan_digest))[0]


def _round_is(auditor):
    return (ROUNDS.c.plan_digest == auditor.plan_digest,)


def _entry_is(kind):
    return lambda auditor: (LOG_ENTRIES.c.plan_digest == auditor.plan_digest, LOG_ENTRIES.c.kind == kind)


ALTERATIONS = {
    "plan": ("plan", altering_column(ROUNDS, ROUNDS.c.plan, _round_is, alter_payload)),
    "result": ("result", altering_column(ROUNDS, ROUNDS.c.result, _round_is, alter_payload)),
    "result's signature": ("result", altering_column(ROUNDS, ROUNDS.c.result, _round_is, flip)),
    "log entry of the plan": ("log", altering_column(LOG_ENTRIES, LOG_ENTRIES.c.leaf, _entry_is("plan"), flip)),
    "log entry of the set": ("log", altering_column(LOG_ENTRIES, LOG_ENTRIES.c.leaf, _entry_is("header-set"), flip)),
    "log entry of the result": ("log", altering_column(LOG_ENTRIES, LOG_ENTRIES.c.leaf, _entry_is("result"), flip)),
    "rosters": ("rosters", altering_file(lambda a: (_cohort(a).rosters_digest, "blake2b"))),
    # Words are named by their digests in the log, which is asked before what they say is looked at.
    "opening": ("log", altering_column(TRUSTEE_WORDS, TRUSTEE_WORDS.c.signed, _word_is("opening"), alter_payload)),
    "vote": ("log", altering_column(TRUSTEE_WORDS, TRUSTEE_WORDS.c.signed, _word_is("vote"), alter_payload)),
    "answer": ("log", altering_column(TRUSTEE_WORDS, TRUSTEE_WORDS.c.signed, _word_is("answer"), alter_payload)),
    "opening's signature": (
        "openings",
        altering_column(TRUSTEE_WORDS, TRUSTEE_WORDS.c.signed, _word_is("opening"), flip),
    ),
    "vote's signature": ("votes", altering_column(TRUSTEE_WORDS, TRUSTEE_WORDS.c.signed, _word_is("vote"), flip)),
    "answer's signature": ("answers", altering_column(TRUSTEE_WORDS, TRUSTEE_WORDS.c.signed, _word_is("answer"), flip)),
    "headers": ("headers", altering_file(lambda a: (_cohort(a).headers_digest, "blake2b"))),
    "upload": ("uploads", altering_file(_upload)),
    "answer's words": ("answer-words", altering_file(_answer_words)),
    "sum": ("sum", altering_file(lambda a: (_cohort(a).sum_digest, "blake3"))),
    "checkpoint": ("checkpoint", altering_file(lambda a: (a.result().checkpoint.digest, "blake2b"))),
    "optimiser's state": ("checkpoint", altering_file(lambda a: (a.result().optimiser_state.digest, "blake2b"))),
}


async def test_a_round_holds_and_every_altered_byte_is_named_as_what_it_is(federation, bundle):
    async with federation.coordinator() as desk:
        _, second = await play(desk, bundle, rounds=2, server=FEDADAM)
        auditor = Auditor(desk, second)
        report = auditor.report()
        assert report.holds, report.failure
        assert [line.code for line in report.lines][:5] == ["federation", "plan", "result", "log", "lineage"]
        found = {}
        for what, (_, alter) in ALTERATIONS.items():
            undo = alter(auditor)
            found[what] = auditor.code()
            undo()
        assert found == {what: code for what, (code, _) in ALTERATIONS.items()}
        assert auditor.report().holds
        assert auditor.report(root_pk=bytes(32)).failure.code == "federation"


async def test_a_round_with_noise_is_recomputed_bit_for_bit_too(federation, bundle):
    async with federation.coordinator() as desk:
        (plan,) = await play(desk, bundle, noise_multiplier_e6=500_000)
        report = Auditor(desk, plan).report()
        assert report.holds, report.failure
        assert "bounds" in [line.code for line in report.lines]


async def test_a_median_over_cohorts_with_one_left_out_is_recomputed_bit_for_bit_too(new_federation, bundle):
    sites = ("alder", "birch", "cedar", "dogwood")
    async with new_federation(*sites).coordinator() as desk:
        await desk.populate(devices=2)
        cohorts = [plan_pb2.Cohort(index=index, sites=[site]) for index, site in enumerate(sites)]
        server = plan_pb2.ServerStep(
            optimiser=plan_pb2.SERVER_OPTIMISER_FEDAVG, learning_rate_e6=1_000_000, combiner=plan_pb2.COMBINER_MEDIAN
        )
        await desk.start(bundle, cohorts=cohorts, server=server, min_contributors=2)
        *honest, last = desk.trustees()
        (item,) = await last.items()
        await last.refuse(item.open, "min-trusted", "the set is too small")
        serving = [asyncio.create_task(trustee.serve()) for trustee in honest]
        devices = [device for device in desk.devices() if device.member.site != last.member.site]
        for device in devices:
            await device.beat()
        for device in devices:
            await device.take_part()
        detail = await desk.ended()
        for task in serving:
            task.cancel()
        report = Auditor(desk, detail.summary.plan_digest).report()
        assert report.holds, report.failure
        assert [line.cohort for line in report.lines if line.code == "bounds"] == [0, 1, 2]


def resigned(auditor, change):
    """A result that the coordinator signed anew after changing it, with a log entry for it: its own lie."""
    result = auditor.result()
    change(result)
    signed = sign_message("result", result, auditor.parts.sign_key)
    record = auditor.record()
    record.result.CopyFrom(signed)
    return record


def _other_bundle(result):
    result.bundle_digest = bytes(32)


def _other_size(result):
    result.cohorts[0].set_size -= 1


def _other_sum(result):
    result.cohorts[0].sum_digest = bytes(32)


def _other_checkpoint(result):
    result.checkpoint.digest = bytes(32)


def _other_count(result):
    result.counts[0].sum += 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_other_bundle, "result"),
        (_other_size, "outcome"),
        (_other_sum, "sum"),
        (_other_checkpoint, "checkpoint"),
        (_other_count, "checkpoint"),
    ],
)
async def test_a_coordinator_that_signs_another_result_is_found_out(federation, bundle, change, code, monkeypatch):
    monkeypatch.setattr("bedside.core.audit.round.check_log", lambda *_: None)  # it would name the result first
    async with federation.coordinator() as desk:
        (plan,) = await play(desk, bundle)
        auditor = Auditor(desk, plan)
        report = audit_round(resigned(auditor, change), auditor.read, auditor.root_pk)
        assert report.failure.code == code


async def test_a_checkpoint_that_is_well_stored_but_another_is_found_out(federation, bundle, monkeypatch):
    monkeypatch.setattr("bedside.core.audit.round.check_log", lambda *_: None)
    async with federation.coordinator() as desk:
        (plan,) = await play(desk, bundle)
        auditor = Auditor(desk, plan)
        before = Plan.FromString(auditor.record().plan.payload).checkpoint
        record = resigned(auditor, lambda result: result.checkpoint.CopyFrom(before))
        assert audit_round(record, auditor.read, auditor.root_pk).failure.sentence.startswith(
            "the step leads to another"
        )


def _bent(path):
    path[0] = flip(path[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda log: _bent(log.consistency),
        lambda log: _bent(log.entries[0].inclusion),
        lambda log: setattr(log.entries[0], "index", 3),
        lambda log: setattr(log.checkpoint, "signature", flip(log.checkpoint.signature)),
        lambda log: log.entries.add().CopyFrom(log.entries[0]) or setattr(log.entries[-1], "leaf", b"d" * 32),
    ],
)
async def test_evidence_that_does_not_lead_to_the_signed_log_is_named(federation, bundle, change):
    async with federation.coordinator() as desk:
        _, plan = await play(desk, bundle, rounds=2)
        auditor = Auditor(desk, plan)
        record = auditor.record()
        change(record.log)
        assert audit_round(record, auditor.read, auditor.root_pk).failure.code == "log"


@pytest.mark.parametrize(
    ("kind", "message", "change"),
    [
        ("vote", Vote, {"set_root": bytes(32)}),
        ("vote", Vote, {"set_size": 3}),
        ("vote", Vote, {"trusted_size": 1}),
        ("answer", Answer, {"set_root": bytes(32)}),
        ("answer", Answer, {"votes_digest": bytes(32)}),
        ("answer", Answer, {"noise_multiplier_e6": 1}),
    ],
)
async def test_a_trustee_that_spoke_of_another_set_is_named(federation, bundle, monkeypatch, kind, message, change):
    monkeypatch.setattr("bedside.core.audit.round.check_log", lambda *_: None)
    async with federation.coordinator() as desk:
        (plan,) = await play(desk, bundle)
        auditor = Auditor(desk, plan)
        record = auditor.record()
        words = record.cohorts[0].votes if kind == "vote" else record.cohorts[0].answers
        told = message.FromString(words[0].payload)
        for name, value in change.items():
            setattr(told, name, value)
        words[0].CopyFrom(sign_message(kind, told, desk.trustees()[0].member.key))
        assert audit_round(record, auditor.read, auditor.root_pk).failure.code == f"{kind}s"


async def test_a_trustee_that_broke_its_promise_is_named(federation, bundle, monkeypatch):
    """Its opening promised nine trusted devices; it voted for a set of four all the same."""
    async with federation.coordinator() as desk:
        scope = type(desk).device.__globals__["Trustee"].do_open.__globals__
        broken = dict(vars(scope["round_pb2"]))
        broken["Opening"] = lambda **fields: Opening(**{**fields, "min_trusted": 9})
        monkeypatch.setitem(scope, "round_pb2", SimpleNamespace(**broken))
        honest = scope["judge_set"]

        def lax(plan, cohort, openings, headers, trust, own, secret):
            own.opening.min_trusted = 1
            return honest(plan, cohort, openings, headers, trust, own, secret)

        monkeypatch.setitem(scope, "judge_set", lax)
        (plan,) = await play(desk, bundle)
        failure = Auditor(desk, plan).report().failure
        assert (failure.code, "promised" in failure.sentence) == ("votes", True)


async def test_a_header_that_no_listed_device_signed_is_named(federation, bundle, monkeypatch):
    monkeypatch.setattr("bedside.core.audit.round.check_log", lambda *_: None)
    async with federation.coordinator() as desk:
        (plan,) = await play(desk, bundle)
        auditor = Auditor(desk, plan)
        record = auditor.record()
        headers = HeaderSet.FromString(auditor.parts.blobs.read(record.cohorts[0].headers.digest))
        headers.entries[1].header.signature = flip(headers.entries[1].header.signature)
        data = headers.SerializeToString(deterministic=True)
        record.cohorts[0].headers.digest = auditor.parts.blobs.put(data)
        assert audit_round(record, auditor.read, auditor.root_pk).failure.code == "headers"
        record = auditor.record()
        site = desk.world.sites["alder"]
        gone = next(device.member for device in desk.devices() if device.member.site == "alder")
        record.cohorts[0].rosters[0].CopyFrom(site.roster(desk.world.name, without=gone))
        assert audit_round(record, auditor.read, auditor.root_pk).failure.code == "headers"


async def test_a_sum_that_is_well_stored_but_another_is_found_out(federation, bundle, monkeypatch):
    monkeypatch.setattr("bedside.core.audit.round.check_log", lambda *_: None)
    async with federation.coordinator() as desk:
        (plan,) = await play(desk, bundle)
        auditor = Auditor(desk, plan)
        other = auditor.parts.blobs.put(flip(auditor.parts.blobs.read(_cohort(auditor).sum_digest, "blake3")), "blake3")

        def lie(result):
            result.cohorts[0].sum_digest = other

        assert audit_round(resigned(auditor, lie), auditor.read, auditor.root_pk).failure.code == "sum"


async def test_a_coordinator_that_opens_a_sum_out_of_bounds_is_found_out(federation, bundle, monkeypatch):
    async with federation.coordinator() as desk:
        scope = type(desk).device.__globals__["Device"].make.__globals__
        honest = scope["encode"]

        def lie(*args, **kwargs):
            words = honest(*args, **kwargs)
            words[-1] = 10_000
            return words

        monkeypatch.setitem(scope, "encode", lie)
        monkeypatch.setattr("bedside.coordinator.aggregation.opening.check_opened", lambda *_: None)
        (plan,) = await play(desk, bundle)
        assert Auditor(desk, plan).code() == "bounds"


async def test_a_word_by_somebody_else_is_no_word_of_a_trustee(federation, bundle, monkeypatch):
    monkeypatch.setattr("bedside.core.audit.round.check_log", lambda *_: None)
    async with federation.coordinator() as desk:
        (plan,) = await play(desk, bundle)
        auditor = Auditor(desk, plan)
        record = auditor.record()
        told = Closed(suite=1, plan_digest=plan, reason=1, credential_digest=desk.devices()[0].member.own.digest)
        record.cohorts[0].closings.append(sign_message("closed", told, desk.devices()[0].member.key))
        assert audit_round(record, auditor.read, auditor.root_pk).failure.code == "endings"
        record = auditor.record()
        record.cohorts[0].votes[0].CopyFrom(record.cohorts[0].votes[1])
        assert audit_round(record, auditor.read, auditor.root_pk).failure.code == "votes"
        record = auditor.record()
        del record.cohorts[0].answers[1]
        assert audit_round(record, auditor.read, auditor.root_pk).failure.code == "answers"


async def test_a_coordinator_that_starts_from_another_checkpoint_is_found_out(federation, bundle):
    async with federation.coordinator() as desk:
        first, second = await play(desk, bundle, rounds=2)
        assert Auditor(desk, first).report().holds
        auditor = Auditor(desk, second)
        record = auditor.record()
        record.previous_result.CopyFrom(sign_message("result", Result(task="watch"), auditor.parts.sign_key))
        assert audit_round(record, auditor.read, auditor.root_pk).failure.code == "lineage"
        record = auditor.record()
        plan = Plan.FromString(record.plan.payload)
        assert plan.checkpoint == Result.FromString(record.previous_result.payload).checkpoint


async def test_a_word_that_was_kept_from_the_log_is_named(federation, bundle):
    async with federation.coordinator() as desk:
        (plan,) = await play(desk, bundle)
        auditor = Auditor(desk, plan)
        record = auditor.record()
        del record.log.entries[2]
        assert audit_round(record, auditor.read, auditor.root_pk).failure.code == "log"
        record = auditor.record()
        del record.cohorts[0].refusals[:], record.cohorts[0].votes[1:]
        assert audit_round(record, auditor.read, auditor.root_pk).failure.code == "log"


async def test_the_log_holds_every_word_of_a_round_in_order_and_no_device(federation, bundle):
    async with federation.coordinator() as desk:
        (plan,) = await play(desk, bundle)
        parts = desk.alive.parts
        rows = parts.store.run_tx("entries", lambda tx: tx.execute(select(LOG_ENTRIES).order_by("position")).all())
        kinds = [row.kind for row in rows]
        assert kinds == ["plan", *["opening"] * 2, "header-set", *["vote"] * 2, *["answer"] * 2, "result"]
        assert {row.plan_digest for row in rows} == {plan}
        devices = [device.member.own.digest for device in desk.devices()]
        assert not any(device in row.leaf for row in rows for device in devices)


async def test_a_round_that_failed_is_audited_too(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.populate(devices=1)
        await desk.start(bundle)
        alder, birch = desk.trustees()
        await alder.serve(until="open")
        (item,) = await birch.items()
        await birch.refuse(item.open, "min-trusted", "the set is too small")
        detail = await desk.ended()
        await alder.serve(until="close")
        site = desk.world.sites["alder"]
        await desk.publish(site, without=alder.member)  # who was revoked later opened rightly then
        auditor = Auditor(desk, detail.summary.plan_digest)
        report = auditor.report()
        assert report.holds, report.failure
        assert [line.code for line in report.lines][-1] == "checkpoint"


async def bedside(*args):
    code = "from bedside.service.cli import main; main()"
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, *map(str, args), stdout=-1, stderr=-1)
    out, err = await child.communicate()
    return child.returncode, out.decode(), err.decode()


async def test_an_exported_round_is_verified_after_every_file_of_the_coordinator_is_gone(federation, bundle, tmp_path):
    archive = tmp_path / "round.tar"
    async with federation.coordinator() as desk:
        await play(desk, bundle)
        sock = federation.home.directory / "operator.sock"
        status, out, err = await bedside("audit", "round", "watch/1", "--socket", sock, "--json")
        assert (status, json.loads(out)["holds"]) == (0, True), err
        status, out, err = await bedside("audit", "export", "watch/1", "--out", archive, "--socket", sock, "--json")
        assert (status, json.loads(out)["size_bytes"]) == (0, archive.stat().st_size), err
        again = tmp_path / "again.tar"
        await bedside("audit", "export", "watch", "--out", again, "--socket", sock)
        assert again.read_bytes() == archive.read_bytes()
        status, out, _ = await bedside("audit", "log", "--socket", sock, "--json")
        assert (status, json.loads(out)["size"]) == (0, 9)
        status, _, err = await bedside("audit", "round", "watch/9", "--socket", sock)
        assert (status, err.count("\n")) == (76, 1)
        assert "no-round" in err
    root_pk = federation.home.pin.root_pk
    shutil.rmtree(federation.home.directory)
    status, out, err = await bedside("audit", "verify", archive, "--root-pk", root_pk)
    assert status == 0, err
    assert "round 1 of task watch holds" in out
    status, out, _ = await bedside(
        "audit", "verify", archive, "--root-pk", bytes(SigningKey.generate().verify_key).hex()
    )
    assert status == 1
    assert "does not hold: " in out
    archive.write_bytes(archive.read_bytes()[:-600])
    status, _, err = await bedside("audit", "verify", archive, "--root-pk", root_pk)
    assert (status, err.count("\n")) == (65, 1)
    assert "bad-archive" in err


async def test_an_export_names_each_blob_once_and_all_that_the_audit_reads(federation, bundle):
    async with federation.coordinator() as desk:
        _, plan = await play(desk, bundle, rounds=2, server=FEDADAM)
        auditor = Auditor(desk, plan)
        record = auditor.record()
        named = list(blobs_of(record, auditor.read))
        wanted = set()

        def read(name):
            wanted.add(name)
            return auditor.read(name)

        assert audit_round(record, read, auditor.root_pk).holds
        assert len(named) == len(set(named))
        assert wanted <= set(named)
        assert {name.digest for name in named} == Records(auditor.parts).blob_names(plan)


async def test_the_set_of_a_cohort_is_logged_with_it(federation, bundle):
    async with federation.coordinator() as desk:
        (plan,) = await play(desk, bundle)
        auditor = Auditor(desk, plan)
        size = auditor.parts.store.run_tx("size", log.size)
        auditor.write(update(COHORTS).where(COHORTS.c.plan_digest == plan).values(headers_digest=bytes(32)))
        assert auditor.code() == "log"
        assert auditor.parts.store.run_tx("size", log.size) == size
