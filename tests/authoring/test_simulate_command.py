"""A data set of another shape needs no code: recipe, data.toml and two commands."""

import json

import pytest
from click.shell_completion import ShellComplete
from data_sets import write_pulse, write_ward

from bedside.authoring.simulation.comparison import summary
from bedside.core.bundle.tensors import decode_tensors
from bedside.core.errors import ConfigError
from bedside.service.cli import cli, run


def told(capsys):
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def built(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def build(write, name):
        write(tmp_path)
        assert run(["model", "key", "author.key"]) == 0
        capsys.readouterr()
        command = ["model", "build", f"{name}.toml", "out", "--signing-key", "author.key", "--data", "data.toml"]
        assert run([*command, "--json"]) == 0
        return told(capsys)

    return build


def test_a_csv_of_22_features_is_a_federation_by_configuration_alone(built, capsys):
    about = built(write_ward, "ward")
    assert about["clients"] == {f"site-{at}": 60 for at in range(4)}
    assert about["held_out"] == {f"site-{at}": 20 for at in range(4)}
    share = about["balanced_class_weights"]
    assert len(share) == 2
    assert min(share) < 1 < max(share)
    assert run(["model", "simulate", "out", "--data", "data.toml", "--rounds", "6", "--seeds", "2", "--json"]) == 0
    shown = capsys.readouterr()
    assert "simulating: 100 %" in shown.err
    assert "site-0 alone round" in shown.err
    figures = json.loads(shown.out)["figures"]
    assert list(figures) == ["federated, float", "federated, int8", "pooled, float", "local only, float"]
    assert figures["federated, float"]["accuracy"]["mean"] > 0.8
    assert figures["federated, int8"]["accuracy"]["mean"] > 0.8
    assert figures["federated, float"]["loss"]["deviation"] > 0


def test_a_regression_of_3_channels_by_50_samples_is_another(built, capsys, tmp_path):
    about = built(write_pulse, "pulse")
    assert about["clients"] == {f"p{at}": 48 for at in range(4)}
    assert about["held_out"]["p4"] == 60
    assert "balanced_class_weights" not in about
    (tmp_path / "run.toml").write_text("rounds = 40\nlearning_rate = 0.1\n")
    command = ["model", "simulate", "out", "--data", "data.toml", "--settings", "run.toml", "--rounds", "10"]
    assert run([*command, "--out", "new.safetensors", "--json"]) == 0
    answer = told(capsys)
    assert (answer["settings"]["rounds"], answer["settings"]["learning_rate"]) == (10, 0.1)
    ran = answer["settings"]
    assert (ran["graph"], ran["final_learning_rate"]) == ("q1-all-sgd", 0.1)
    assert None not in ran.values(), "the author's advice is filled in"
    assert answer["outputs"] == [{"label": "systolic", "unit": "mm[Hg]"}]
    rounds = answer["rounds"][0]
    assert len(rounds) == 10
    assert rounds[-1]["loss_after"] < rounds[0]["loss_before"] / 2
    assert answer["figures"]["federated, int8"]["r2"]["mean"] > 0.8
    assert answer["figures"]["federated, int8"]["mae_0"]["mean"] < 15, "in mm[Hg]"
    assert decode_tensors((tmp_path / "new.safetensors").read_bytes())["w0"].shape == (5, 3, 8)
    assert run(["model", "inspect", "out", "--json"]) == 0
    reference = told(capsys)["manifest"]["reference"]["channels"]
    assert len(reference) == 3
    assert all(-2.5 < edge < 2.5 for channel in reference for edge in channel["edges"])


def test_errors_of_a_regression_have_the_names_and_units_of_outputs(built, capsys):
    built(write_pulse, "pulse")
    assert run(["model", "simulate", "out", "--data", "data.toml", "--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["MODEL", "R2", "LOSS"]
    at = lines.index("") + 1
    assert lines[at].split() == ["OUTPUT", "UNIT", "MODEL", "MEAN", "ERROR", "RMS", "ERROR"]
    assert [line.split()[:2] for line in lines[at + 1 :]] == [["systolic", "mm[Hg]"]] * 4


def test_a_shell_completes_the_graphs_of_the_bundle_and_the_shipped_recipes(built):
    built(write_pulse, "pulse")
    for words, expected in (
        (["model", "simulate", "out", "--graph"], ["q1-all-sgd"]),
        (["model", "build"], ["separable", "s"]),
    ):
        complete = ShellComplete(cli, {}, "bedside", "_BEDSIDE_COMPLETE")
        assert [
            one.value for one in complete.get_completions(words, "q1-a" if "simulate" in words else "s")
        ] == expected


def test_ranges_come_from_the_data(built, capsys, tmp_path):
    built(write_pulse, "pulse")
    ranges = decode_tensors((tmp_path / "out" / "parameters.safetensors").read_bytes())["amax"]
    again = ["model", "build", "pulse.toml", "plain", "--signing-key", "author.key", "--json"]
    assert run(again) == 0
    synthetic = decode_tensors((tmp_path / "plain" / "parameters.safetensors").read_bytes())["amax"]
    assert abs(ranges[0] - 1.7) < 0.3, "the largest amplitude"
    assert ranges[0] != synthetic[0]


def test_people_see_a_table(built, capsys):
    built(write_ward, "ward")
    assert run(["model", "simulate", "out", "--data", "data.toml", "--rounds", "1", "--bits", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 clients, 240 examples, 1 rounds, last training loss")
    assert lines[1].split() == ["MODEL", "ACCURACY", "MACRO_F1", "LOSS"]
    assert [line.rsplit(maxsplit=3)[0] for line in lines[2:]] == [
        *("federated, float", "federated, int8", "pooled, float", "local only, float")
    ]


def test_without_held_out_examples_nothing_is_claimed(built, capsys, tmp_path):
    built(write_ward, "ward")
    (tmp_path / "data.toml").write_text('kind = "csv"\nfile = "ward.csv"\nclient = "site"\nlabel = "outcome"\n')
    assert run(["model", "simulate", "out", "--data", "data.toml"]) == ConfigError.exit_status
    assert "nothing is held out" in capsys.readouterr().err


def test_mean_and_deviation_are_over_seeds():
    assert summary([{"a": 1.0}, {"a": 3.0}]) == {"a": (2.0, pytest.approx(2**0.5))}
    assert summary([{"a": 1.0}]) == {"a": (1.0, 0.0)}
