"""`bedside agent db`: status, query, export, verify and rotate-key on a device's directory."""

import csv
import json
import stat
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer.keys import KEY_FILE, load_key_ring
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Prediction
from bedside.agent.buffer.store import BufferStore
from bedside.agent.config import BUFFER_NAME
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Record
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.cli import run
from bedside.service.identity import create_identity
from bedside.service.platform import SystemClock, SystemEntropy

ECG, EHR = StreamId("ecg"), StreamId("ehr")
T0_S = 1_700_000_000
SECONDS = 300
FORMULAS = ["=cmd|x", "+1", "-1", "@sum", "\ttab", "\rreturn"]
VALUES = np.random.default_rng(2).integers(-3000, 3000, (SECONDS * 50, 2), np.int16)


@pytest.fixture
def device(tmp_path: Path) -> Path:
    identity = create_identity(tmp_path / "state" / "identity", Role.ROLE_DEVICE, SystemEntropy())
    (tmp_path / "agent.toml").write_text("")
    keys = load_key_ring(identity.directory)
    store = BufferStore(tmp_path / "state" / BUFFER_NAME, keys, SystemClock(), SystemEntropy())
    for second in range(SECONDS):
        at_ns = (T0_S + second) * 10**9
        values = VALUES[second * 50 : second * 50 + 50]
        session = store.append(Block(ECG, at_ns, 50.0, values, unit="mV", metric="MDC_ECG_ELEC_POTL", scale=0.5))
        if second % 100 == 0:
            store.add_label(ECG, at_ns, at_ns + 10**9, "walking", "cli")
            store.add_prediction(Prediction(ECG, session, at_ns, at_ns + 10**9, "rest", 0.75, b"m" * 32, 0.001, "har"))
            store.add_record(Record(EHR, at_ns, {"spo2": 97.0, "heart-rate": 60.0}, {"spo2": "%"}))
    store.close()
    return tmp_path


@pytest.fixture
def db(device, capsys):
    """Run one command; returns its status, what it printed and what it said."""

    def call(command: str, *words: str) -> tuple[int, str, str]:
        status = run(["agent", "db", command, str(device), *words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def test_status_tells_what_is_there(db) -> None:
    status, out, _ = db("status", "--json")
    found = json.loads(out)
    assert status == 0
    assert {row["table"]: row["rows"] for row in found["tables"]}["blobs"] == SECONDS
    assert [(row["stream"], row["samples"]) for row in found["streams"]] == [("ecg", len(VALUES)), ("ehr", 0)]
    ehr = found["streams"][1]
    assert (found["streams"][0]["records"], ehr["records"], ehr["rows"]) == (0, 3, 0)
    assert ehr["oldest_ns"] == T0_S * 10**9
    assert found["streams"][0]["oldest_ns"] == T0_S * 10**9
    assert len(found["key_ids"]) == 1
    assert found["file_bytes"] > 100_000
    _, out, _ = db("status")
    assert "blobs" in out
    assert "ecg" in out


def test_a_query_reads_and_shows_sealed_content_as_its_length(db) -> None:
    _, out, _ = db("query", "SELECT sealed FROM blobs LIMIT 1", "--json")
    assert json.loads(out)[0]["sealed"].endswith(" bytes>")
    _, out, _ = db("query", "SELECT label, confidence, model FROM predictions", "--csv")
    assert out.splitlines()[:2] == ["label,confidence,model", f"rest,0.75,{b'm'.hex() * 32}"]
    status, out, err = db("query", "SELECT id FROM blobs", "--limit", "7", "--json")
    assert (status, len(json.loads(out))) == (0, 7)
    assert "only the first 7 rows" in err


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM blobs",
        "UPDATE labels SET label = 'x'",
        "ATTACH 'other.db' AS other",
        "PRAGMA journal_mode = DELETE",
        "VACUUM INTO 'copy.db'",
        "SELECT 1; SELECT 2",
        "SELECT nothing FROM nowhere",
    ],
)
def test_a_query_that_is_no_select_is_refused(db, device, sql) -> None:
    before = (device / "state" / BUFFER_NAME).read_bytes()
    status, _, err = db("query", sql)
    assert status == 65
    assert "[bad-query]" in err
    assert (device / "state" / BUFFER_NAME).read_bytes() == before


def test_a_query_without_an_end_is_ended_and_lets_the_log_go(db) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n, blobs"
    status, _, err = db("query", endless, "--timeout", "0.2")
    assert status == 69
    assert "[query-timeout]" in err


@pytest.mark.parametrize(
    "call", ["randomblob(9)", "hex(zeroblob(9))", "load_extension('x')", "sqlite_version()", "printf('%9d', 1)"]
)
def test_a_query_calls_harmless_functions_alone(db, call) -> None:
    status, _, err = db("query", f"SELECT {call}")
    assert status == 65
    assert "function" in err
    harmless = "SELECT upper(label), round(avg(confidence), 2) FROM predictions WHERE label LIKE 'r%' GROUP BY label"
    assert db("query", harmless, "--csv")[1].splitlines()[1] == "REST,0.75"


def test_text_in_csv_is_no_formula_and_a_file_is_replaced_only_by_force(db, device, tmp_path) -> None:
    keys = load_key_ring(device / "state" / "identity")
    with closing(BufferStore(device / "state" / BUFFER_NAME, keys, SystemClock(), SystemEntropy())) as store:
        for label in FORMULAS:
            store.add_label(ECG, T0_S * 10**9, T0_S * 10**9 + 1, label, "cli")
    target = tmp_path / "labels.csv"
    target.write_text("mine")
    status, _, err = db("export", str(target), "--kind", "labels")
    assert (status, target.read_text()) == (78, "mine")
    assert "--force" in err
    assert db("export", str(target), "--kind", "labels", "--force")[0] == 0
    with target.open(newline="") as file:
        found = [row["label"] for row in csv.DictReader(file)]
    assert [one for one in found if one != "walking"] == [f"'{label}" for label in FORMULAS]
    _, out, _ = db("query", "SELECT label, -1 FROM labels WHERE label LIKE '=%'", "--csv")
    assert out.splitlines()[1] == "'=cmd|x,-1"


def test_signal_is_exported_sample_by_sample(db, tmp_path) -> None:
    status, _, err = db("export", str(tmp_path / "ecg.csv"), "--stream", "ecg")
    assert status == 0
    assert "patient data" in err
    with (tmp_path / "ecg.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["time_ns"]) for row in rows] == [T0_S * 10**9 + i * 20_000_000 for i in range(len(VALUES))]
    assert np.array_equal([[float(row["channel_0"]), float(row["channel_1"])] for row in rows], VALUES * 0.5)
    assert stat.S_IMODE((tmp_path / "ecg.csv").stat().st_mode) == 0o600


def test_parquet_holds_the_same_signal_and_times_select(db, tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra 'export' is not installed")
    first, last = "2023-11-14T22:13:30", str(T0_S + 20)  # ten and twenty seconds after T0_S
    status, out, _ = db(
        *("export", str(tmp_path / "ecg.parquet"), "--stream", "ecg", "--from", first, "--to", last, "--json")
    )
    assert (status, json.loads(out)["rows"]) == (0, 500)
    table = parquet.read_table(tmp_path / "ecg.parquet")
    assert np.array_equal(table["channel_1"].to_numpy(), VALUES[500:1000, 1] * 0.5)
    assert table["unit"][0].as_py() == "mV"


@pytest.mark.parametrize(
    ("kind", "rows", "shown"), [("labels", 3, "walking"), ("predictions", 3, "rest"), ("records", 6, "97.0")]
)
def test_every_kind_is_exported(db, tmp_path, kind, rows, shown) -> None:
    status, out, _ = db("export", str(tmp_path / "out.csv"), "--kind", kind, "--json")
    assert (status, json.loads(out)["rows"]) == (0, rows)
    assert shown in (tmp_path / "out.csv").read_text()


def test_what_cannot_be_exported_leaves_no_file(db, tmp_path) -> None:
    after = str(T0_S + SECONDS + 1)
    for words, code, exit_status, said in (
        (("out.csv", "--stream", "nowhere"), "nothing-found", 76, "nothing is stored of stream nowhere"),
        (
            ("out.csv", "--stream", "ecg", "--session", "f" * 16),
            "nothing-found",
            76,
            "no session of stream ecg",
        ),
        (("out.csv", "--kind", "summaries"), "nothing-found", 76, "there are no summaries"),
        (("out.csv", "--stream", "ehr"), "nothing-found", 76, "there is no signal of stream ehr"),
        (
            ("out.csv", "--kind", "records", "--stream", "ecg"),
            "nothing-found",
            76,
            "no records of stream ecg",
        ),
        (("out.csv", "--stream", "ecg", "--from", after), "nothing-found", 76, "leave no signal of stream ecg"),
        (("out.csv", "--stream", "ecg", "--from", after, "--to", str(T0_S)), "usage", 64, "later than --from"),
        (("out.csv", "--stream", "ecg", "--from", "yesterday"), "usage", 64, "'yesterday' is not a time such as"),
        (("out.txt", "--stream", "ecg"), "usage", 64, "must end with .csv or .parquet"),
        (("out.csv",), "usage", 64, "name one --stream"),
    ):
        status, _, err = db("export", str(tmp_path / words[0]), *words[1:])
        assert (status, f"[{code}]" in err) == (exit_status, True), err
        assert said in err
        assert "patient data" not in err, "nothing was written"
        assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize(("whole", "code"), [(1, "store-open"), (60, "store-damaged")])
def test_a_damaged_buffer_is_left_to_the_agent_and_to_no_backup(db, device, whole, code) -> None:
    path = device / "state" / BUFFER_NAME
    data = bytearray(path.read_bytes())
    data[whole * 4096 :] = b"\x5a" * (len(data) - whole * 4096)
    path.write_bytes(data)
    status, _, err = db("export", str(device / "out.csv"), "--stream", "ecg")
    assert status == 74
    assert f"[{code}]" in err
    assert "bedside agent db verify DIR" in err
    assert "backup" not in err


def test_a_sound_buffer_is_verified_without_a_change(db, device) -> None:
    before = (device / "state" / BUFFER_NAME).read_bytes()
    status, out, _ = db("verify", "--json")
    found = json.loads(out)
    assert (status, found["sound"], found["rows"]["blobs"], found["problems"]) == (0, True, SECONDS, [])
    assert (device / "state" / BUFFER_NAME).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "table", "code"),
    [
        ("UPDATE blobs SET sealed = zeroblob(100) WHERE id = (SELECT min(id) FROM blobs)", "blobs", "seal"),
        ("UPDATE labels SET label = 'running' WHERE id = 2", "labels", "tag"),
        ("UPDATE predictions SET session = 'ffffffffffffffff' WHERE id = 2", "predictions", "session-unknown"),
        ("UPDATE blobs SET id = id + 16777216 * 4096 WHERE id = (SELECT max(id) FROM blobs)", "blobs", "place"),
        ("UPDATE seal_keys SET key_id = 7", "seal_keys", "key-missing"),
        ("ALTER TABLE labels ADD COLUMN more INTEGER", "the file", "schema"),
    ],
)
def test_what_does_not_hold_is_named(db, device, change, table, code) -> None:
    import sqlite3

    with closing(sqlite3.connect(device / "state" / BUFFER_NAME)) as connection:
        connection.execute(change)
        connection.commit()
    status, out, _ = db("verify", "--json")
    problems = json.loads(out)["problems"]
    assert status == 1
    assert (table, code, 1) in [(one["table"], one["code"], one["rows"]) for one in problems]
    assert code in db("verify")[1]


def test_a_key_is_rotated_by_command(db, device) -> None:
    old = (device / "state" / "identity" / KEY_FILE).read_bytes()
    status, out, err = db("rotate-key", "--json")
    assert (status, json.loads(out)["resealed"]) == (0, SECONDS + 3)
    assert "rows: 100 %" in err
    assert (device / "state" / "identity" / KEY_FILE).read_bytes() != old
    assert db("verify")[0] == 0


def test_a_wrong_key_is_named_with_its_remedy_and_nothing_is_destroyed(db, device) -> None:
    key = device / "state" / "identity" / KEY_FILE
    right = key.read_bytes()
    key.write_bytes(b"\1" * 32)
    status, _, err = db("rotate-key")
    assert status == 78
    assert "[buffer-key-wrong]" in err
    assert "restore identity/buffer.key" in err
    key.write_bytes(right)
    with closing(BufferReader(device / "state" / BUFFER_NAME, right)) as reader:
        assert sum(len(part.values) for part in reader.parts(ECG, reader.sessions(ECG)[0].session)) == len(VALUES)


def test_before_the_first_run_there_is_nothing_to_look_into(tmp_path, capsys) -> None:
    (tmp_path / "agent.toml").write_text("")
    assert run(["agent", "db", "status", str(tmp_path)]) == 69
    assert "[nothing-stored]" in capsys.readouterr().err
