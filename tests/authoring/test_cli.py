import dataclasses
import json
import re
import sys

import pytest

from bedside.authoring import bench, cli, replaying
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
    assert "A STEP OF" in shown.out
    assert max(map(len, shown.out.splitlines())) < 120
    assert "{" not in shown.out
    assert re.search(r"note: replaced har 1 [0-9a-f]{8} in har; each build measures its cost", shown.err)


def test_a_model_of_another_name_is_replaced_only_by_force(tmp_path, folder, tiny_path, key, capsys):
    other = tmp_path / "other.toml"
    other.write_text(tiny_path.read_text().replace('name = "tiny"', 'name = "huge"'))
    before = (folder / "bundle.tar").read_bytes()
    assert run(["model", "build", str(other), str(folder), "--signing-key", str(key)]) == ConfigError.exit_status
    error = capsys.readouterr().err
    assert "[other-model]" in error
    assert "tiny 1 " in error
    assert (folder / "bundle.tar").read_bytes() == before
    assert run(["model", "build", str(other), str(folder), "--signing-key", str(key), "--force"]) == 0
    assert "note: replaced tiny 1 " in capsys.readouterr().err


def test_an_unknown_recipe_names_the_shipped_ones(tmp_path, key, capsys):
    assert run(["model", "build", "ehg", str(tmp_path / "out"), "--signing-key", str(key)]) == ConfigError.exit_status
    error = capsys.readouterr().err
    assert "[no-recipe]" in error
    assert "ecg, har, linear" in error


def test_a_bundle_that_is_built_again_as_it_was_is_no_news(folder, tiny_path, key, capsys):
    assert run(["model", "build", str(tiny_path), str(folder), "--signing-key", str(key)]) == 0
    assert capsys.readouterr().err == ""


def test_how_far_a_torch_module_is_away_is_said_once(tmp_path, tiny_path, key, capsys, monkeypatch):
    differences = {"logits": 1e-7, "parameters_float32": 3.2e-6, "gradients": 1e-9}
    really = cli.build_bundle
    monkeypatch.setattr(cli, "build_bundle", lambda *given: dataclasses.replace(really(*given), from_torch=differences))
    command = ["model", "build", str(tiny_path), str(tmp_path / "out"), "--signing-key", str(key)]
    assert run(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "at most 3.2e-06 away from torch (parameters, float32)"
    assert run([*command, "--json"]) == 0
    assert told(capsys)["from_torch"] == differences


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
    assert {line[0] for line in lines if len(line) == 3} >= {"onnx", "litert", "classes", "logits_litert"}


def test_verify_says_who_has_signed_and_whether_somebody_asked_for_that(folder, capsys):
    assert run(["model", "inspect", str(folder), "--json"]) == 0
    signer = told(capsys)["manifest"]["signer"]
    assert run(["model", "verify", str(folder)]) == 0
    assert f"signed by {signer[:8]}, which nobody asked for" in capsys.readouterr().out
    assert run(["model", "verify", str(folder), "--signer", signer]) == 0
    assert "nobody asked for" not in capsys.readouterr().out


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
    lines = shown.err.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"{number} of 5" for number in range(1, 6)]
    assert "a step of q1-all-sgd with 8 examples" in shown.err


def test_a_step_that_takes_too_long_is_named_and_the_others_are_kept(folder, capsys, monkeypatch):
    asked, really = [], bench.measure_cost

    def slow_at_eight(*arguments):
        *known, batch, rates, limits = arguments
        asked.append(limits.timeout_s)
        return really(*known, batch, rates, dataclasses.replace(limits, timeout_s=0.01) if batch == 8 else limits)

    monkeypatch.setattr(bench, "measure_cost", slow_at_eight)
    status = run(["model", "bench", str(folder), "--batch", "8", "--batch", "2", "--timeout", "77", "--json"])
    assert status == UnavailableError.exit_status
    shown = capsys.readouterr()
    answer = json.loads(shown.out)
    assert [step["here"]["batch"] for step in answer["steps"]] == [2, 2]
    assert [(one["graph"], one["batch"]) for one in answer["failed"]] == [("q1-all-sgd", 8), ("q1-head-sgd", 8)]
    assert "2 of 5 could not be measured: a step of q1-all-sgd with 8 examples" in shown.err
    assert "--timeout" in shown.err
    assert "bedside." not in shown.err
    assert asked == [77, 77, 77, 77]


def test_a_machine_without_litert_measures_what_it_has(folder, capsys, monkeypatch):
    monkeypatch.setattr(replaying, "is_installed", lambda _: False)
    assert run(["model", "bench", str(folder), "--batch", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("litert") and "pip install 'bedside[litert]'" in line for line in lines)
    assert any(line.split()[:3] == ["q1-all-sgd", "2", line.split()[2]] for line in lines if line.startswith("q1"))


def test_a_batch_that_does_not_fit_into_memory_says_what_to_do(folder, capsys, monkeypatch):
    monkeypatch.setattr(bench, "LIMITS", dataclasses.replace(bench.LIMITS, address_space_bytes=100 << 20))
    assert run(["model", "bench", str(folder), "--batch", "8"]) == UnavailableError.exit_status
    error = capsys.readouterr().err
    assert "[cost-not-measured]" in error
    assert "smaller --batch" in error


def test_what_is_no_bundle_says_what_to_name(tmp_path, capsys):
    assert run(["model", "inspect", str(tmp_path)]) == ConfigError.exit_status
    assert "no-bundle-file" in capsys.readouterr().err


def test_without_onnx_the_command_names_the_extra(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith(("bedside.authoring", "onnx."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert run(["model", "--help"]) != 0
    assert "pip install 'bedside[authoring]'" in capsys.readouterr().err
