import msgspec
import pytest

from bedside.demo.result import Check, Result, Scene, encode_result
from bedside.service.cli import run

REQUIRED = {
    "local_accuracy",
    "federated_accuracy",
    "federated_int8_accuracy",
    "int8_agreement",
    "pooled_accuracy",
    "rounds",
    "devices",
    "trustees",
    "upload_bytes_per_round",
    "model_bytes",
    "round_seconds_median",
    "agent_rss_mb",
    "trustee_rss_mb",
    "coordinator_rss_mb",
}


def test_result_json_has_every_required_figure_and_the_verdict(result: Result) -> None:
    written = msgspec.json.decode(encode_result(result))

    assert set(written) >= REQUIRED
    assert all(isinstance(written[name], int | float) for name in REQUIRED)
    assert written["passed"] is True
    assert {check["name"] for check in written["checks"]} >= {"federated-beats-alone", "predictions-went-on"}


@pytest.mark.parametrize(
    ("changed", "check"),
    [
        ({"federated_accuracy": 0.70}, "federated-beats-alone"),
        ({"pooled_accuracy": 0.95}, "federated-near-pooled"),
        ({"int8_agreement": 0.979}, "int8-agrees"),
    ],
)
def test_a_figure_below_its_goal_fails_its_check(result: Result, changed: dict[str, float], check: str) -> None:
    assert not result.failed()

    failed = {one.name for one in msgspec.structs.replace(result, **changed).failed()}

    assert check in failed


def test_a_slow_run_is_a_warning_with_its_figure(result: Result) -> None:
    slow = msgspec.structs.replace(result, run_seconds=157.0)

    assert [(one.name, "157 s" in one.sentence) for one in slow.warnings()] == [("run-in-time", True)]
    assert not slow.failed()
    assert not result.warnings()
    written = msgspec.json.decode(encode_result(slow))
    assert written["passed"] is True
    assert [check["name"] for check in written["checks"] if not check["passed"]] == ["run-in-time"]


@pytest.mark.parametrize(("words", "status", "said"), [((), 0, "slow: "), (("--in-time",), 1, "check failed: ")])
def test_only_who_asks_for_it_fails_a_slow_run(
    result: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...],
    status: int, said: str
) -> None:  # fmt: skip
    slow = msgspec.structs.replace(result, run_seconds=157.0)
    monkeypatch.setattr("bedside.demo.cli._run", lambda *_args, **_named: slow)

    assert run(["demo", *words]) == status
    assert f"{said}run-in-time: the run took 157 s" in capsys.readouterr().err


def test_an_upload_that_is_not_noise_fails(result: Result) -> None:
    view = msgspec.structs.replace(result.view, upload_z=12.0)

    assert [one.name for one in msgspec.structs.replace(result, view=view).failed()] == ["uploads-are-uniform"]


def test_a_failed_scene_fails_the_run(result: Result) -> None:
    scene = Scene("device-killed", "A device was killed.", 3.0, (Check("counted-once", False, "it was counted twice"),))

    failed = msgspec.structs.replace(result, scenes=(*result.scenes, scene)).failed()

    assert [one.sentence for one in failed] == ["it was counted twice"]
