"""What a cohort takes next, fact by fact; and the stores below it."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from bedside.coordinator.fleet.pacing import DeviceState, device_state, next_call_ms
from bedside.coordinator.rounds.judge import Crowd, Patience, judge_cohort
from bedside.coordinator.rounds.state import RoundState
from bedside.coordinator.store import open_store
from bedside.coordinator.store.contributions import CohortRow, RefusalRow, UploadRow
from bedside.coordinator.store.schema import METADATA
from bedside.coordinator.store.tasks import RoundRow
from bedside.core.securesum.aggregator import CohortInput

PATIENCE = Patience(10_000, 10_000)


class Facts:
    """A collecting cohort of the shared world's eight devices; the plan asks for three."""

    def __init__(self, world) -> None:
        self.plan = world.plan(min_contributors=3, max_contributors=5)
        self.devices = [device.credential for device in world.devices]
        self.now_ms = self.plan.plan.issued_at_s * 1000

    def judge(self, *, accepted=0, begun=0, declined=0, online=8, late_ms=0):
        digest = self.plan.digest
        row = CohortRow(digest, 0, "collecting", self.now_ms, "", "", None, 0, 0, None, 0)
        uploads = tuple(
            UploadRow(b"", digest, 0, device.digest, b"", b"", 1, 1, at < accepted, False)
            for at, device in enumerate(self.devices[: accepted + begun])
        )
        gone = self.devices[len(self.devices) - declined :]
        refusals = tuple(RefusalRow(digest, device.digest, 0, "busy", "it is busy", b"") for device in gone)
        stored = RoundRow(digest, "watch", 1, b"", 0, 0, None)
        state = RoundState(stored, self.plan, (row,), (), uploads, refusals)
        awake = {device.digest for device in self.devices[:online]}
        crowd = Crowd(self.devices, lambda device: device.digest in awake)
        return judge_cohort(state, row, crowd, PATIENCE, self.now_ms + late_ms)


def test_a_round_waits_for_every_device_that_is_online(world):
    facts = Facts(world)
    decision = facts.judge(accepted=4, online=5)
    assert decision.event is None
    assert decision.deadline_ms == facts.plan.plan.close_at_s * 1000
    assert facts.judge(accepted=4, online=4).event is CohortInput.SEAL


def test_a_round_waits_for_an_upload_that_was_begun_even_when_its_device_went_away(world):
    facts = Facts(world)
    assert facts.judge(accepted=3, begun=1, online=3).event is None
    assert facts.judge(accepted=3, begun=1, online=3, late_ms=600_000).event is CohortInput.SEAL


def test_a_full_round_is_sealed_at_once(world):
    assert Facts(world).judge(accepted=5, online=8).event is CohortInput.SEAL


def test_a_round_that_can_no_longer_reach_its_minimum_ends_early_with_the_reasons(world):
    decision = Facts(world).judge(accepted=1, declined=6, online=2)
    assert decision.event is CohortInput.TOO_FEW
    assert decision.sentence == "1 devices sent an update; the plan asks for 3 (6 declined: busy)"


def test_at_the_close_a_round_is_sealed_or_left_out(world):
    assert Facts(world).judge(accepted=3, late_ms=600_000).event is CohortInput.SEAL
    assert Facts(world).judge(accepted=2, late_ms=600_000).event is CohortInput.TOO_FEW


def test_silence_is_judged_in_heartbeats():
    states = [device_state(1000, 1000 + age_s, 10, listed=True) for age_s in (25, 26, 101)]
    assert states == [DeviceState.ONLINE, DeviceState.LATE, DeviceState.SILENT]
    assert device_state(0, 1000, 10, listed=True) is DeviceState.NEVER
    assert device_state(1000, 1000, 10, listed=False) is DeviceState.REVOKED
    assert 9_000 <= next_call_ms(10, b"\xff" * 32) < next_call_ms(10, bytes(32)) == 10_000


def test_the_migrations_make_exactly_the_tables_that_the_code_knows(tmp_path):
    open_store(tmp_path / "coordinator.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'coordinator.db'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()
