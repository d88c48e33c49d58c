"""Predictions of several labels and of values, as every sink sends them."""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path

import pytest
from fhir.resources.R4B.observation import Observation

from bedside.agent.buffer.rows import Output
from bedside.agent.sinks.csv_file import COLUMNS, CsvOptions, CsvSink
from bedside.agent.sinks.hl7.sink import results_of
from bedside.agent.sinks.observation import Coding, observation
from bedside.agent.sinks.outgoing import Outgoing, SentPrediction, derive_id
from bedside.agent.sinks.rows import fields_of

S = 1_000_000_000
T = 1_780_000_000 * S
CODES = {"po2": Coding(system="http://loinc.org", code="11556-8", display="Oxygen partial pressure")}
VALUE = SentPrediction("po2", 1.0, T, T + S, "gases", b"\x01" * 32, (Output("po2", 11.25, "kPa"),))
VALUES = SentPrediction(
    "po2", 1.0, T, T + S, "gases", b"\x01" * 32, (Output("po2", 11.25, "kPa"), Output("ratio", 0.5, "1"))
)
LABELS = SentPrediction("", 0.6, T, T + S, "rhythms", b"\x02" * 32, (Output("af", 0.4), Output("vt", 0.0123456789)))
CLASS = SentPrediction("afib", 0.93, T, T + S, "ecg", b"\x03" * 32)


def outgoing(body: SentPrediction, number: int = 1, *, again: bool = False) -> Outgoing:
    same = derive_id("d", "x", number)
    return Outgoing(number, same, same, "d", "flow", "Location/bed-4", body, again)


@pytest.mark.parametrize("body", [VALUE, VALUES, LABELS], ids=["value", "values", "labels"])
def test_an_observation_of_outputs_is_valid_r4(body) -> None:
    made = observation(outgoing(body), CODES, "")
    valid = Observation.model_validate(json.loads(json.dumps(made, allow_nan=False)))
    assert valid.valueCodeableConcept is None
    assert valid.method.text.startswith("model 0")


def test_one_value_is_the_observations_own_and_more_are_components_with_ucum_units() -> None:
    one, several, labels = (observation(outgoing(body), CODES, "") for body in (VALUE, VALUES, LABELS))
    assert one["code"]["coding"][0]["code"] == "11556-8"
    assert one["valueQuantity"] == {
        "value": 11.25, "unit": "kPa", "system": "http://unitsofmeasure.org", "code": "kPa"
    }  # fmt: skip
    assert [part["valueQuantity"]["code"] for part in several["component"]] == ["kPa", "1"]
    assert [(part["code"]["text"], part["valueQuantity"]["value"]) for part in labels["component"]] == [
        ("af", 0.4), ("vt", 0.012346)
    ]  # fmt: skip


def test_outputs_are_numeric_obx_with_their_units() -> None:
    (value,) = results_of(outgoing(VALUE), CODES)
    assert (value.code, value.value, value.unit, value.time_ns) == ("11556-8", 11.25, "kPa", T + S)
    assert [(one.code, one.value, one.unit) for one in results_of(outgoing(LABELS), CODES)] == [
        ("af", 0.4, "1"), ("vt", 0.012346, "1")
    ]  # fmt: skip


def test_json_of_values_claims_no_class_and_no_probability() -> None:
    values, labels, of_class = (fields_of(outgoing(body)) for body in (VALUE, LABELS, CLASS))
    assert values["outputs"] == [{"name": "po2", "value": 11.25, "unit": "kPa"}]
    assert not {"label", "confidence"} & values.keys()
    assert (labels["label"], labels["confidence"]) == ("", 0.6)
    assert labels["outputs"] == [{"name": "af", "probability": 0.4}, {"name": "vt", "probability": 0.012346}]
    assert "outputs" not in of_class


def test_csv_has_a_table_of_outputs_beside_that_of_classes(tmp_path: Path) -> None:
    def sink() -> CsvSink:
        return CsvSink(CsvOptions(name="out", directory="out"), tmp_path)

    batch = [outgoing(body, number) for number, body in enumerate((CLASS, VALUES, LABELS, CLASS), 1)]

    async def send() -> None:
        first = sink()
        await first.send(batch[:3])
        await first.close()
        after_a_crash = sink()
        await after_a_crash.send(batch)
        await after_a_crash.close()

    asyncio.run(send())
    with (tmp_path / "predictions.csv").open() as file:
        assert [row["number"] for row in csv.DictReader(file)] == ["1", "4"]
    with (tmp_path / "outputs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS["outputs"])
    shown = [(row["number"], row["output"], row["value"], row["unit"], row["probability"], row["line"]) for row in rows]
    assert shown == [
        ("2", "po2", "11.25", "kPa", "", "1"),
        ("2", "ratio", "0.5", "1", "", "2"),
        ("3", "af", "", "", "0.4", "1"),
        ("3", "vt", "", "", "0.012346", "2"),
    ]


def test_half_a_prediction_at_the_end_of_a_file_is_written_again(tmp_path: Path) -> None:
    sink = CsvSink(CsvOptions(name="out", directory="out"), tmp_path)
    asyncio.run(sink.send([outgoing(VALUES, 2)]))
    asyncio.run(sink.close())
    path = tmp_path / "outputs.csv"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))  # killed behind the first of two lines
    again = CsvSink(CsvOptions(name="out", directory="out"), tmp_path)
    asyncio.run(again.send([outgoing(VALUES, 2)]))
    asyncio.run(again.close())
    assert [line.split(b",")[0] for line in path.read_bytes().splitlines()[1:]] == [b"2", b"2"]
