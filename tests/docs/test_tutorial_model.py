"""docs/tutorial-model.md: a data scientist who types it has a bundle and a comparison; each part as it stands."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from walkthrough import File, Line, Shown, section_of, shell, steps_of

from bedside.authoring.simulation.settings import Settings
from bedside.core.bundle.archive import unpack_bundle
from bedside.core.bundle.manifest import MANIFEST, decode_manifest
from bedside.service.config import load_config

TEXT = (Path(__file__).parents[2] / "docs" / "tutorial-model.md").read_text()
RECORDS = Path(os.environ.get("BEDSIDE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "mitdb_wfdb"


def type_section(folder: Path, heading: str) -> str:
    """Write the files of a section and type its commands; returns all that they print."""
    printed = output = ""
    with shell(folder, {}) as typed:
        for step in steps_of(section_of(TEXT, heading)):
            match step:
                case File(name, body):
                    (folder / name).write_text(body)
                case Shown(text):
                    rows = [line for line in text.splitlines() if line.startswith(("fed", "pool", "local", "MODEL"))]
                    assert len(rows) == 5
                    assert all(re.search(rf"^{re.sub(' +', ' +', row)}", output, re.MULTILINE) for row in rows), output
                case Line(command):
                    output = typed.must(command)
                    printed += output
    return printed


def figure(text: str, row: str) -> float:
    """The accuracy in a row of the last table."""
    return float(re.findall(rf"^{row} +(\d\.\d+)", text, re.MULTILINE)[-1])


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tutorial")
    return folder, type_section(folder, "A table of four hospitals")


def test_a_table_becomes_a_bundle_and_a_comparison(table):
    folder, printed = table
    assert "balanced_class_weights" in printed
    assert "h0: 120, h1: 90, h2: 68, h3: 45" in printed
    assert figure(printed, "federated, int8") > 0.75
    run = json.loads((folder / "run.json").read_text())
    assert run["settings"]["server"] == "fedyogi"
    assert len(run["rounds"][0]) == 4
    assert load_config(folder / "run.toml", Settings).rounds == 8


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_a_module_becomes_another(table):
    folder, _ = table
    printed = type_section(folder, "Your own `nn.Module`")
    manifest = decode_manifest(unpack_bundle((folder / "net-bundle" / "bundle.tar").read_bytes())[MANIFEST])
    assert [layer.__struct_config__.tag for layer in manifest.layers] == [
        "flatten",
        "dense",
        "batchnorm",
        "relu",
        "dense",
    ]
    assert all(spec.shared for spec in manifest.parameters)
    assert "q0-all-sgd" in [graph.key for graph in manifest.graphs]
    assert figure(printed, "federated, int8") > 0.75


def test_records_of_an_ecg_are_cut_as_on_a_device(table):
    folder, _ = table
    pytest.importorskip("wfdb")
    if not RECORDS.is_dir():
        pytest.skip(f"the records are not in {RECORDS}")
    (folder / "mitdb").symlink_to(RECORDS)
    printed = type_section(folder, "Beats of an ECG")
    assert re.search(r"2 clients, 4\d{3} examples, 2 rounds, .* on 2\d{3} held-out examples", printed)
    assert figure(printed, "federated, int8") > 0.5
