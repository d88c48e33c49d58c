"""A row of the buffer that cannot be read: it is counted and told, and hides nothing behind it."""

from __future__ import annotations

import pytest

from bedside.agent.buffer.store import BufferStore
from ward import BEGAN_NS, Ward, sink


def spoil(buffer: BufferStore, *numbers: int) -> None:
    """Zero what is sealed in records, as a failing card does."""
    for number in numbers:
        buffer.run(
            "spoil",
            lambda tx, number=number: tx.execute(
                "UPDATE records SET sealed = zeroblob(length(sealed)) WHERE number = ?", (number,)
            ),
        )


def sent(receiver) -> list[float]:
    return [item["values"]["heart_rate"] for item in receiver.items()]


@pytest.mark.parametrize("batch_rows", [1, 4, 100])
async def test_a_row_that_cannot_be_read_is_skipped_and_told_and_the_rest_is_sent(ward, receiver, batch_rows) -> None:
    config = sink("webhook", url=receiver.url, send=["records"], streams=["bed-4-vitals"], batch_rows=batch_rows)
    await wait_in_queue(ward, config, 10)
    spoil(ward.buffer, 3, 4)
    ward.begin(config)
    await ward.until(lambda: len(receiver.items()) >= 8)
    await ward.until(lambda: ward.facts().state == "idle")
    facts = ward.facts()
    assert sent(receiver) == [60.0, 61.0, *(64.0 + place for place in range(6))]
    assert (facts.sent, facts.skipped, facts.refused, facts.waiting) == (8, 2, 0, 0)
    assert "sink-row-unreadable" in facts.last_error
    assert facts.left_out_age_s is not None
    assert facts.stalled_s == 0


async def test_what_is_asked_for_again_is_sent_in_spite_of_rows_that_cannot_be_read(ward, receiver) -> None:
    config = sink("webhook", url=receiver.url, send=["records"], streams=["bed-4-vitals"], mode="demand", batch_rows=2)
    await wait_in_queue(ward, config, 6)
    spoil(ward.buffer, 3, 4)
    engine = ward.begin(config)
    await ward.until(lambda: engine._threads["out"]._runner is not None)
    again = await engine.send_now("out", BEGAN_NS)
    assert sent(receiver) == [60.0, 61.0, 64.0, 65.0]
    assert (again.sent, again.failed) == (4, 2)
    assert "sink-row-unreadable" in again.error


async def wait_in_queue(ward: Ward, config, rows: int) -> None:
    """Rows that the sink of a configuration has not sent."""
    away = config.options | {"mode": "demand"}
    away.pop("within_s", None)
    ward.begin(type(config)(kind=config.kind, name=config.name, options=away))
    for place in range(rows):
        ward.record(heart_rate=60.0 + place)
    assert ward.engine is not None
    await ward.engine.stop()
