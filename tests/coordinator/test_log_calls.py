"""The trustees' calls about the log and about finished rounds, with the trustee's own code at the other end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from bedside.coordinator.store import log
from bedside.core.errors import BedsideError, UnavailableError
from bedside.core.log.messages import open_verdict, sign_checkpoint, sign_cosignature
from bedside.core.signing import digest
from bedside.proto.v1.audit_pb2 import LogCheckpoint
from bedside.proto.v1.common_pb2 import Empty
from bedside.service.link.address import parse_address
from bedside.service.link.channel import ClientTls, open_channel
from bedside.trustee.auditor import RoundAuditor
from bedside.trustee.link import TrusteeLink
from bedside.trustee.log_store import LogStore
from bedside.trustee.logbook import LogBook
from bedside.trustee.store import TrusteeStore


class Draw:
    def token_bytes(self, count):
        return bytes(count)


@pytest.fixture
async def link_of():
    channels = []

    def link_of(desk, member):
        tls = ClientTls(desk.world.home.authority.certificate_pem, member.certificate_pem, member.tls_key_pem)
        channels.append(open_channel(parse_address(desk.service_address), tls))
        return TrusteeLink(channels[-1], "the coordinator")

    yield link_of
    for channel in channels:
        await channel.close()


@pytest.fixture
def clock(federation):
    return SimpleNamespace(now_ns=lambda: 10**18, monotonic_s=lambda: 0.0)


class Seat:
    """One trustee's log tables, logbook and auditor on a disk of its own."""

    def __init__(self, desk, member, folder, clock):
        self.member = member
        self.file = TrusteeStore.open(folder / "trustee.db")
        self.store = LogStore(self.file.database)
        self.federation = desk.alive.parts.registry.federation
        self.root_pk = bytes.fromhex(desk.world.home.pin.root_pk)
        self.book = LogBook(self.store, member.own, member.key, clock=clock, entropy=Draw())
        self.auditor = RoundAuditor(self.store, member.own, member.key, self.root_pk, folder, clock)
        self.folder = folder

    def take_part(self, plan):
        """As if this file's trustee had opened the round, so that it may draw it; the scripted one did."""
        self.store.opened = lambda wanted: wanted == plan
        self.store.said = lambda payload_digest: True


async def play(desk, bundle):
    await desk.populate(devices=2)
    await desk.start(bundle)
    serving = [asyncio.create_task(trustee.serve()) for trustee in desk.trustees()]
    for device in desk.devices():
        await device.beat()
    for device in desk.devices():
        await device.take_part()
    detail = await desk.ended()
    for task in serving:
        task.cancel()
    return detail.summary.plan_digest


async def test_a_trustee_reads_the_log_vouches_recomputes_and_its_verdict_is_kept_and_logged(
    federation, bundle, link_of, clock, tmp_path
):
    async with federation.coordinator() as desk:
        plan = await play(desk, bundle)
        seat = Seat(desk, desk.trustees()[0].member, tmp_path, clock)
        seat.take_part(plan)
        link = link_of(desk, seat.member)
        assert await seat.book.follow(link, seat.federation, 1)
        await link.put_cosignature(seat.store.undelivered_cosignature())
        await seat.auditor.work(link)
        (verdict,) = seat.store.undelivered_verdicts()
        told = open_verdict(verdict, seat.member.own, desk.world.name)
        assert (told.holds, told.plan_digest) == (True, plan)
        await link.put_verdict(verdict)
        await link.put_verdict(verdict)
        status = await desk.operator.GetLogStatus(Empty())
        assert [one.verdict for one in status.verdicts] == [verdict]
        assert LogCheckpoint.FromString(status.checkpoint.payload).size == 10
        assert len(status.cosignatures) == 1
        assert await seat.book.follow(link, seat.federation, 1)
        assert seat.store.frontier().size == 10
        assert not [file for file in tmp_path.iterdir() if len(file.name) == 64], "no blob stays behind"
        seat.file.close()


async def test_an_altered_upload_becomes_a_verdict_that_names_it(federation, bundle, link_of, clock, tmp_path):
    async with federation.coordinator() as desk:
        plan = await play(desk, bundle)
        detail = await desk.round()
        path = desk.alive.parts.blobs._path(detail.upload_digests[0], "blake3")
        path.write_bytes(bytes(path.stat().st_size))
        seat = Seat(desk, desk.trustees()[1].member, tmp_path, clock)
        seat.take_part(plan)
        link = link_of(desk, seat.member)
        await seat.book.follow(link, seat.federation, 1)
        await seat.auditor.work(link)
        (verdict,) = seat.store.undelivered_verdicts()
        assert open_verdict(verdict, seat.member.own, desk.world.name).code == "uploads"
        await link.put_verdict(verdict)
        status = await desk.operator.GetLogStatus(Empty())
        assert len(status.verdicts) == 1
        seat.file.close()


async def test_a_coordinator_that_cannot_be_reached_is_no_finding(federation, bundle, link_of, clock, tmp_path):
    async with federation.coordinator() as desk:
        plan = await play(desk, bundle)
        seat = Seat(desk, desk.trustees()[0].member, tmp_path, clock)
        seat.take_part(plan)
        link = link_of(desk, seat.member)
        await seat.book.follow(link, seat.federation, 1)

        async def cut(*_):
            raise UnavailableError("peer-gone", "the link broke")

        link.get_round_blob = cut
        with pytest.raises(UnavailableError):
            await seat.auditor.work(link)
        assert seat.store.undelivered_verdicts() == []
        assert len(seat.store.due_audits()) == 1
        seat.file.close()


async def test_a_result_that_is_not_the_logged_one_is_a_finding(federation, bundle, link_of, clock, tmp_path):
    async with federation.coordinator() as desk:
        plan = await play(desk, bundle)
        seat = Seat(desk, desk.trustees()[0].member, tmp_path, clock)
        seat.take_part(plan)
        link = link_of(desk, seat.member)
        await seat.book.follow(link, seat.federation, 1)
        seat.file.database.connection.execute("UPDATE audits SET result_digest = ?", (bytes(32),))
        await seat.auditor.work(link)
        (verdict,) = seat.store.undelivered_verdicts()
        assert open_verdict(verdict, seat.member.own, desk.world.name).code == "result"
        seat.file.close()


async def test_rounds_are_shown_to_their_own_trustees_only_and_blobs_of_that_round_only(
    new_federation, bundle, link_of, tmp_path
):
    async with new_federation("alder", "birch").coordinator() as desk:
        plan = await play(desk, bundle)
        alder = desk.world.sites["alder"]
        stranger = alder.new_member(desk.trustees()[0].member.role)
        alder.grant(stranger, desk.world.name)
        await desk.publish(alder)
        await desk.certify(stranger)
        link = link_of(desk, stranger)
        assert await refused(link.get_round_record(plan, 1 << 20)) == "not-a-trustee"
        own = link_of(desk, desk.trustees()[0].member)
        assert await own.get_round_record(plan, 1 << 20)
        assert await refused(own.get_round_record(plan, 100)) == "bad-chunk"
        assert await refused(own.get_round_record(bytes(32), 1 << 20)) == "no-round"
        other = desk.alive.parts.blobs.put(b"a blob of another round", "blake3")
        assert await refused(own.get_round_blob(plan, other, tmp_path / "b", "blake3")) == "no-blob"


async def refused(call):
    with pytest.raises(BedsideError) as caught:
        await call
    return caught.value.code


async def test_a_cosignature_on_another_log_is_refused_by_name_and_an_older_one_replaces_nothing(
    federation, bundle, link_of
):
    async with federation.coordinator() as desk:
        await play(desk, bundle)
        member = desk.trustees()[0].member
        link, parts = link_of(desk, member), desk.alive.parts
        roots = {size: parts.store.run_tx("root", lambda tx, size=size: log.root(tx, size)) for size in (3, 9)}

        def cosigned(size, root):
            told = sign_checkpoint(desk.world.name, size, root, 1, member.key)
            return sign_cosignature(LogCheckpoint.FromString(told.payload), member.own, 1, member.key)

        assert await refused(link.put_cosignature(cosigned(9, roots[3]))) == "other-log"
        assert await refused(link.put_cosignature(cosigned(90, roots[3]))) == "other-log"
        await link.put_cosignature(cosigned(9, roots[9]))
        await link.put_cosignature(cosigned(3, roots[3]))
        (row,) = parts.store.run_tx("cosignatures", log.cosignatures)
        assert row.size == 9
        stranger = desk.trustees()[1].member
        assert await refused(link_of(desk, stranger).put_cosignature(cosigned(9, roots[9]))) == "bad-signature"


async def test_proofs_and_pages_out_of_range_are_refused(federation, bundle, link_of):
    async with federation.coordinator() as desk:
        await play(desk, bundle)
        link = link_of(desk, desk.trustees()[0].member)
        assert await refused(link.get_log_checkpoint(10)) == "no-such-log"
        assert await refused(link.get_plan_proof(9, 9)) == "no-such-log"
        assert await refused(link.get_log_entries(0, 1001)) == "bad-page"
        assert list(await link.get_log_entries(9, 5)) == []
        assert len(await link.get_log_entries(7, 5)) == 2


async def test_a_checkpoint_of_one_size_is_signed_once(federation, bundle, link_of):
    async with federation.coordinator() as desk:
        await play(desk, bundle)
        link = link_of(desk, desk.trustees()[0].member)
        first, second = [await link.get_log_checkpoint(0) for _ in range(2)]
        assert first == second
        assert digest(first.checkpoint.payload) == digest(second.checkpoint.payload)
