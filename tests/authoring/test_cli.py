import dataclasses
import json
import sys

import pytest

from bedside.authoring import cost, replaying
from bedside.core.errors import ConfigError, TrustError, UnavailableError
from bedside.service.cli import run


@pytest.fixture
def key(tmp_path):
    assert run(["model", "key", str(tmp_path / "author.key")]) == 0
    return tmp_path / "author.key"


@pytest.fixture
def folder(tmp_path, tiny_path, key, capsys):
    assert run(["model", "build", str(tiny_path), str(tmp_path / "out"), "--signing-key", str(key)]) == 0
    capsys.readouterr()
    return tmp_path / "out"


def told(capsys):
    return json.loads(capsys.readouterr().out)


def test_a_key_is_private_and_never_replaced(key, capsys):
    assert key.stat().st_mode & 0o777 == 0o600
    secret = key.read_bytes()
    assert run(["model", "key", str(key)]) == ConfigError.exit_status
    assert "key-exists" in capsys.readouterr().err
    assert key.read_bytes() == secret


def test_without_a_key_building_writes_nothing_and_says_how_to_make_one(tmp_path, tiny_path, capsys):
    missing = tmp_path / "none.key"
    assert run(["model", "build", str(tiny_path), str(tmp_path / "out"), "--signing-key", str(missing)]) != 0
    assert f"bedside model key {missing}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_built_bundle_verifies_as_folder_and_as_tar(folder, capsys):
    digests = set()
    for path in (folder, folder / "bundle.tar"):
        assert run(["model", "verify", str(path), "--json"]) == 0
        answer = told(capsys)
        assert answer["golden"]["classes"] == 0
        assert answer["signer_checked"] is False
        digests.add(answer["digest"])
    assert run(["model", "inspect", str(folder), "--json"]) == 0
    assert {told(capsys)["digest"]} == digests


def test_building_again_into_the_same_folder_gives_the_same_tar(folder, tiny_path, key):
    before = (folder / "bundle.tar").read_bytes()
    assert run(["model", "build", str(tiny_path), str(folder), "--signing-key", str(key)]) == 0
    assert (folder / "bundle.tar").read_bytes() == before


def test_a_folder_named_like_a_shipped_recipe_is_in_nobodys_way(tmp_path, key, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run(["model", "build", "har", "har", "--signing-key", str(key)]) == 0
    shown = capsys.readouterr()
    assert "cost" in shown.out
    assert "{" not in shown.out
    assert "note: another bundle was replaced in har; each build measures its cost" in shown.err


def test_an_unknown_recipe_names_the_shipped_ones(tmp_path, key, capsys):
    assert run(["model", "build", "ehg", str(tmp_path / "out"), "--signing-key", str(key)]) == ConfigError.exit_status
    error = capsys.readouterr().err
    assert "[no-recipe]" in error
    assert "ecg, har, linear" in error


def test_a_bundle_that_is_built_again_as_it_was_is_no_news(folder, tiny_path, key, capsys):
    assert run(["model", "build", str(tiny_path), str(folder), "--signing-key", str(key)]) == 0
    assert capsys.readouterr().err == ""


def test_a_folder_with_other_files_is_left_alone(tmp_path, tiny_path, key, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("dear")
    assert run(["model", "build", str(tiny_path), str(tmp_path / "thesis"), "--signing-key", str(key)]) != 0
    assert "bundle-folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


def test_another_signer_than_the_accepted_one_is_refused(folder, capsys):
    assert run(["model", "verify", str(folder), "--signer", "ab" * 32]) == TrustError.exit_status
    assert "unknown-signer" in capsys.readouterr().err
    assert run(["model", "verify", str(folder), "--signer", "zz"]) == ConfigError.exit_status


def test_a_tampered_folder_is_refused(folder, capsys):
    graph = folder / "infer.onnx"
    data = bytearray(graph.read_bytes())
    data[-1] ^= 1
    graph.write_bytes(data)
    assert run(["model", "verify", str(folder)]) == TrustError.exit_status
    assert "bundle-file" in capsys.readouterr().err


def test_inspect_shows_layers_graphs_costs_tolerances_and_files(folder, capsys):
    assert run(["model", "inspect", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    lines_of_one_space = [" ".join(line.split()) for line in lines]
    assert "3 conv1d filters 8, taps 3 (16x8) (16x8) w1(3x8x8) b1(8)" in lines_of_one_space
    assert "q1-all-sgd layer 0 286 0" in lines_of_one_space
    assert "q1-all-sgd 8 0.1 60" in lines_of_one_space
    assert "q1-head-sgd layer 6 30 0" in lines_of_one_space
    assert any(line.split()[:2] == ["q1-all-sgd/*", "8"] for line in lines)
    assert any(line.startswith("infer.tflite") for line in lines)
    assert run(["model", "inspect", str(folder), "--json"]) == 0
    answer = told(capsys)
    assert [step["kind"] for step in answer["steps"]] == [layer["kind"] for layer in answer["manifest"]["layers"]]
    assert [tensor["name"] for tensor in answer["steps"][-1]["tensors"]] == ["w2", "b2"]


def test_verify_replays_on_both_runtimes_and_shows_what_is_allowed(folder, capsys):
    assert run(["model", "verify", str(folder)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert any(line[:2] == ["q1-all-sgd/w0", "0"] and float(line[2]) > 0 for line in lines)
    assert {line[0] for line in lines if len(line) == 3} >= {"onnx", "litert", "classes"}


def test_bench_measures_windows_and_steps_beside_what_the_manifest_says(folder, capsys):
    assert run(["model", "bench", str(folder), "--batch", "8", "--batch", "2", "--json"]) == 0
    shown = capsys.readouterr()
    answer = json.loads(shown.out)
    assert {one["runtime"] for one in answer["runtimes"]} == {"onnx", "litert"}
    assert all(0 < one["median_us"] <= one["p99_us"] for one in answer["runtimes"])
    measured = {(step["here"]["graph"], step["here"]["batch"]): step["stated"] is not None for step in answer["steps"]}
    assert measured.pop(("q1-all-sgd", 8))
    assert measured == {("q1-all-sgd", 2): False, ("q1-head-sgd", 2): False, ("q1-head-sgd", 8): False}
    assert all(step["here"]["step_ms"] > 0 and 20 < step["here"]["rss_mb"] < 400 for step in answer["steps"])
    assert "measuring: 100 %" in shown.err


def test_a_machine_without_litert_measures_what_it_has(folder, capsys, monkeypatch):
    monkeypatch.setattr(replaying, "is_installed", lambda _: False)
    assert run(["model", "bench", str(folder), "--batch", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("litert") and "pip install 'bedside[litert]'" in line for line in lines)
    assert any(line.split()[:3] == ["q1-all-sgd", "2", line.split()[2]] for line in lines if line.startswith("q1"))


def test_a_batch_that_does_not_fit_into_memory_says_what_to_do(folder, capsys, monkeypatch):
    monkeypatch.setattr(cost, "_LIMITS", dataclasses.replace(cost._LIMITS, address_space_bytes=100 << 20))
    assert run(["model", "bench", str(folder), "--batch", "8"]) == UnavailableError.exit_status
    error = capsys.readouterr().err
    assert "[cost-not-measured]" in error
    assert "smaller batches" in error


def test_what_is_no_bundle_says_what_to_name(tmp_path, capsys):
    assert run(["model", "inspect", str(tmp_path)]) == ConfigError.exit_status
    assert "no-bundle-file" in capsys.readouterr().err


def test_without_onnx_the_command_names_the_extra(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith(("bedside.authoring", "onnx."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert run(["model", "--help"]) != 0
    assert "pip install 'bedside[authoring]'" in capsys.readouterr().err
