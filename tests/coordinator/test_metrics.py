"""What Prometheus reads of a coordinator: what happened, how things stand, and nothing that names a device."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bedside.coordinator.metrics.meters import MAX_CODES, Meters
from bedside.coordinator.metrics.state import PREFIX, render
from bedside.core.errors import ProtocolError, StoreError
from bedside.service.metrics_config import MetricsConfig
from ports import free_port


def read(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name.removeprefix(f"{PREFIX}_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


async def scraped(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    answer = await reader.read()
    writer.close()
    head, _, page = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head
    return page


async def test_a_round_is_told_by_site_and_phase_and_no_device_is_named(federation, bundle):
    port = free_port()
    async with federation.coordinator(metrics=MetricsConfig(listen=f"127.0.0.1:{port}")) as desk:
        await desk.populate(devices=3)
        before = read(await scraped(port))
        assert before["devices", (("site", "alder"), ("state", "never"))] == 3
        assert before["rounds_total", (("outcome", "opened"),)] == 0
        await desk.start(bundle, noise_multiplier_e6=700_000)
        devices, trustees = desk.devices(), desk.trustees()
        serving = [asyncio.create_task(trustee.serve()) for trustee in trustees]
        for device in devices:
            await device.beat()
        with pytest.raises(ProtocolError):
            await desk.round(99)
        offer = await devices[0].offer()
        for _ in range(2):
            await devices[0].decline(offer, "too-few-examples")
        await asyncio.gather(*(device.take_part() for device in devices[1:]))
        await desk.ended()
        for task in serving:
            task.cancel()
        page = await scraped(port)
        told = read(page)
        assert (
            told["contributions_total", (("site", "alder"),)] + told["contributions_total", (("site", "birch"),)] == 5
        )
        assert told["refusals_total", (("code", "too-few-examples"), ("role", "device"))] == 1
        assert told["refused_calls_total", (("code", "no-round"),)] == 1
        assert told["devices", (("site", "birch"), ("state", "online"))] == 3
        assert told["trustee_online", (("site", "alder"),)] == 1
        assert told["rounds_total", (("outcome", "opened"),)] == 1
        assert told["tasks", (("state", "finished"),)] == 1
        assert sum(value for (name, _), value in told.items() if name == "open_cohorts") == 0
        assert {labels[0][1] for name, labels in told if name == "phase_seconds_count"} == {
            *("opening", "collecting", "sealed", "revealing", "answered"),
        }
        assert told["upload_bytes_total", ()] > 0
        assert told["charged_rounds_total", (("site", "alder"), ("task", "watch"))] == 1
        assert 0 < told["privacy_epsilon", (("site", "alder"), ("task", "watch"))] < 100
        assert told["transaction_seconds_count", (("transaction", "seal-cohort"),)] == 1
        assert told["component_level", (("component", "store"),)] == 0
        assert told["store_up", ()] == 1
        assert told["expiry_timestamp_seconds", (("what", "server_certificate"),)] > 2e9
        assert told["process_resident_memory_bytes", ()] > 1e6
        for member in (*devices, *trustees):
            told_of = member.member.own
            assert told_of.credential.subject.encode() not in page
            assert told_of.credential.label.encode() not in page
            assert told_of.digest.hex().encode() not in page


async def test_a_store_that_cannot_be_read_leaves_out_what_it_holds(federation, monkeypatch):
    async with federation.coordinator() as desk:
        parts = desk.alive.parts

        def fail(name, work):
            raise StoreError("store-write", "no")

        assert read(render(parts))["store_up", ()] == 1
        monkeypatch.setattr(parts.store, "run_tx", fail)
        told = read(render(parts))
        assert told["store_up", ()] == 0
        assert not any(name == "rounds_total" for name, _ in told)
        assert any(name == "devices" for name, _ in told)


def test_codes_that_peers_choose_cannot_fill_a_database_of_metrics():
    meters = Meters()
    for number in range(3 * MAX_CODES):
        meters.refused("device", f"code-{number}")
    codes = {sample.labels["code"] for sample in next(iter(meters._refusals.collect())).samples}
    assert len(codes) == MAX_CODES + 1
    assert "other" in codes


def test_who_had_begun_and_is_in_no_set_has_dropped_out():
    meters = Meters()
    meters.sealed(["alder", "alder"], ["birch"])
    meters.judged(holds=False)
    get = meters.registry.get_sample_value
    assert get(f"{PREFIX}_contributions_total", {"site": "alder"}) == 2
    assert get(f"{PREFIX}_dropouts_total", {"site": "birch"}) == 1
    verdicts = [get(f"{PREFIX}_verdicts_total", {"holds": word}) for word in ("false", "true")]
    assert verdicts == [1, 0]
