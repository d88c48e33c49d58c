"""HL7: what leaves is an ORU^R01 that python-hl7 reads, once under each control id, whatever the receiver says."""

from __future__ import annotations

import math

import hl7
import pytest

from bedside.agent.alarms.machine import Happens
from bedside.agent.formats.hl7.writing import Report, write_report
from bedside.agent.sinks.hl7.sink import results_of
from bedside.agent.sinks.observation import Coding
from bedside.agent.sinks.outgoing import Outgoing, SentRecord, derive_id
from mllp_peers import certificates, framed, receiver
from ward import sink


def controls(received) -> list[str]:
    return [str(message.segment("MSH")[10]) for message in map(_read, received)]


def _read(message):
    return message if isinstance(message, hl7.Message) else hl7.parse(str(message))


async def test_each_row_is_one_message_with_its_place_and_its_code(ward) -> None:
    async with receiver() as (port, received):
        ward.begin(
            sink("hl7", address=f"127.0.0.1:{port}", tls=False, send=["alarms", "predictions", "records"],
                 streams=["bed-4-ecg", "bed-4-vitals"], subjects={"bed-4-ecg": "ICU^^4"}, facility="WARD",
                 codes={"fall": {"code": "161898004", "system": "SCT", "display": "Falls"}})
        )  # fmt: skip
        ward.predict()
        ward.record()
        alarm = ward.raise_alarm()
        await ward.until(lambda: ward.facts().sent == 3)
        ward.change(alarm, Happens.CLEAR)
        await ward.until(lambda: ward.facts().sent == 4)
        await ward.engine.stop()
    texts = [str(message) for message in received]
    assert all("|ORU^R01^ORU_R01|" in text and "|BEDSIDE|WARD|" in text for text in texts)
    assert len(set(controls(received))) == 4
    decided = next(text for text in texts if "probability" in text)
    assert "PV1||U|ICU^^4" in decided
    alarms = [text for text in texts if "priority" in text]
    assert [("|raised|" in text, "|cleared|" in text) for text in alarms] == [(True, False), (False, True)]
    assert all("161898004^Falls^SCT" in text for text in alarms)
    vitals = next(text for text in texts if "heart_rate" in text)
    assert "|71|/min^/min^UCUM" in vitals.replace("|71.0|", "|71|")
    assert not any(ward.session in text or ward.vitals in text for text in texts)


async def test_an_error_is_tried_again_under_the_same_id_and_a_rejection_is_counted(ward) -> None:
    def answer(message, count):
        code = ["AE", "AA", "AR", "AR", "AR", "AA"][count]
        control = str(message.segment("MSH")[10])
        return [framed(f"MSH|^~\\&|||||1||ACK|2|P|2.6\rMSA|{code}|{control}|no bed\r".encode())]

    async with receiver(answer) as (port, received):
        ward.begin(sink("hl7", address=f"127.0.0.1:{port}", tls=False))
        for _ in range(3):
            ward.predict()
        await ward.until(lambda: ward.facts().sent == 2 and ward.facts().refused == 1)
        await ward.engine.stop()
    ids = controls(received)
    assert ids[0] == ids[1]
    assert ids[2] == ids[3] == ids[4]
    assert len(set(ids)) == 3
    assert str(received[0]) == str(received[1]), "the same row makes the same bytes"


async def test_over_tls_with_a_named_authority(ward, tmp_path) -> None:
    made = certificates(tmp_path / "tls")
    async with receiver(tls=made.server()) as (port, received):
        ward.begin(sink("hl7", address=f"127.0.0.1:{port}", ca="tls/ca.pem"))
        ward.predict()
        await ward.until(lambda: received)
        await ward.engine.stop()


def test_a_value_that_is_not_there_is_no_number() -> None:
    same = derive_id("x")
    body = SentRecord(1, {"spo2": math.nan, "hr": 61.0}, {"spo2": "%"})
    results = results_of(Outgoing(1, same, same, "d", "s", "", body), {"hr": Coding(code="8867-4", system="LN")})
    text = write_report(Report("1", 1, "d", "", results)).decode()
    assert "OBX|1|NM|spo2^spo2^99BEDSIDE|||%^%^UCUM|||||X" in text
    assert "8867-4^hr^LN" in text


@pytest.mark.parametrize("options", [{"address": "127.0.0.1:1", "timeout_s": 1000}, {"address": "127.0.0.1:0"}])
async def test_what_cannot_be_is_refused(ward, options) -> None:
    with pytest.raises(Exception, match="sink-config"):
        ward.begin(sink("hl7", tls=False, **options))
