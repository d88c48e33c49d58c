"""Which runtime serves: measured on this machine, and never at the cost of the process that asks."""

import asyncio
import dataclasses

import msgspec
import pytest

from bedside.agent.inference import choice
from bedside.agent.inference.choice import Choice, choose, open_chosen, read_choice
from bedside.core.bundle.archive import pack_bundle
from bedside.core.bundle.manifest import MANIFEST, SIGNATURE, SIGNED_KIND, encode_manifest
from bedside.core.bundle.verify import file_digest
from bedside.core.errors import MalformedError, TrustError, UnavailableError
from bedside.core.signing.envelope import signature_of
from bedside.ondevice.confinement import run_child
from bedside.ondevice.golden import DEFAULT_LIMITS, Replay
from bedside.ondevice.refresh import int8_runtime
from bedside.ondevice.runtimes import installed
from bedside.ondevice.trial import Measured, measure
from bedside.service.platform import SystemClock


def resigned(built, author, tflite, patches=msgspec.UNSET):
    """The bundle with another `infer.tflite`, or with none, signed again by its author."""
    files = {entry.name: built.files[entry.name] for entry in built.manifest.files[:-1]}
    manifest = msgspec.structs.replace(built.manifest, files=built.manifest.files[:-1])
    if tflite is None:
        manifest = msgspec.structs.replace(manifest, patches=msgspec.UNSET)
    else:
        entry = msgspec.structs.replace(built.manifest.files[-1], size=len(tflite), blake2b=file_digest(tflite))
        manifest = msgspec.structs.replace(
            manifest, files=(*manifest.files, entry), patches=patches or built.manifest.patches
        )
        files[entry.name] = tflite
    data = encode_manifest(manifest)
    return pack_bundle({MANIFEST: data, SIGNATURE: signature_of(SIGNED_KIND, data, author), **files})


@pytest.fixture
def decide(tmp_path, author):
    def run(tar, wish):
        (tmp_path / "bundle.tar").write_bytes(tar)
        replay = Replay(str(tmp_path / "bundle.tar"), (bytes(author.verify_key).hex(),))
        return asyncio.run(choose(tmp_path / "note.json", replay, wish, DEFAULT_LIMITS))

    return run


def test_both_runtimes_are_measured_and_the_faster_one_serves(decide, built, tmp_path):
    chosen = decide(built.tar, "auto")
    by_name = {measured.runtime: measured for measured in chosen.measured}
    assert set(by_name) == {"onnx", "litert"}
    assert chosen.runtime == min(by_name, key=lambda name: by_name[name].median_us)
    assert all(0 < measured.median_us <= measured.p99_us for measured in chosen.measured)
    assert read_choice(tmp_path / "note.json") == chosen


def test_what_was_measured_is_not_measured_again(decide, built, monkeypatch):
    first = decide(built.tar, "auto")
    monkeypatch.setattr(choice, "CHILD", "bedside.nowhere")
    assert decide(built.tar, "auto") == first
    with pytest.raises(UnavailableError):
        decide(built.tar, "litert")


def test_another_version_of_a_runtime_is_measured_anew(decide, built, monkeypatch):
    first = decide(built.tar, "auto")
    monkeypatch.setattr(installed, "version_of", lambda _: "99")
    assert decide(built.tar, "auto").basis != first.basis


@pytest.mark.parametrize("wish", ["onnx", "litert"])
def test_the_configuration_may_decide(decide, built, bundle, tmp_path, wish):
    assert decide(built.tar, wish).runtime == wish
    assert open_chosen(bundle, bundle.parameters, tmp_path / "note.json", wish).name == wish


def test_a_bundle_of_before_is_served_by_onnxruntime(decide, built, author):
    old = resigned(built, author, None)
    chosen = decide(old, "auto")
    assert (chosen.runtime, chosen.reason) == ("onnx", "no-tflite")
    with pytest.raises(MalformedError) as caught:
        decide(old, "litert")
    assert caught.value.code == "no-tflite"


def test_where_litert_is_not_installed_no_child_is_started(decide, built, monkeypatch):
    monkeypatch.setattr(installed, "_MODULES", {"litert": ("nothing",), "onnx": ("onnxruntime",)})
    monkeypatch.setattr(choice, "CHILD", "bedside.nowhere")
    chosen = decide(built.tar, "auto")
    assert (chosen.runtime, chosen.reason) == ("onnx", "runtime-missing")


def test_a_table_that_forgets_a_layer_is_not_taken(decide, built, author):
    forgotten = f"{built.manifest.quantisation.layers[-1].weight}.real"
    kept = tuple(patch for patch in built.manifest.patches if patch.tensor != forgotten)
    assert len(kept) == len(built.manifest.patches) - 1
    other = resigned(built, author, built.files["infer.tflite"], patches=kept)
    chosen = decide(other, "auto")
    assert (chosen.runtime, chosen.measured, chosen.reason) == ("onnx", (), "golden-mismatch")
    with pytest.raises(TrustError):
        decide(other, "litert")


INFER_ONLY = """
import sys
sys.modules["onnxruntime"] = None
from bedside.ondevice import {module}
{module}.main()
"""


@pytest.mark.parametrize("module", ["golden", "trial"])
def test_a_board_without_onnxruntime_verifies_and_measures_what_it_has(built, author, tmp_path, monkeypatch, module):
    (tmp_path / "bundle.tar").write_bytes(built.tar)
    (tmp_path / "infer_only.py").write_text(INFER_ONLY.format(module=module))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    job = msgspec.json.encode(Replay(str(tmp_path / "bundle.tar"), (bytes(author.verify_key).hex(),)))
    answer = msgspec.json.decode(asyncio.run(run_child("infer_only", job, DEFAULT_LIMITS)))
    if module == "golden":
        assert set(answer["differences"]) == {"logits_litert", "classes"}
    else:
        assert [measured["runtime"] for measured in answer] == ["litert"]


def test_a_board_without_onnxruntime_has_no_second_choice(decide, built, author, bundle, monkeypatch, tmp_path):
    monkeypatch.setattr(installed, "_MODULES", {"litert": ("ai_edge_litert",), "onnx": ("nothing",)})
    with pytest.raises(MalformedError):
        decide(resigned(built, author, None), "auto")
    with pytest.raises(UnavailableError) as caught:
        int8_runtime(bundle, bundle.parameters, "onnx")
    assert caught.value.code == "runtime-missing"
    assert "32-bit" in caught.value.sentence


def test_a_crash_in_the_trial_costs_the_trial_alone(decide, built, monkeypatch, tmp_path):
    (tmp_path / "crashing_child.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(choice, "CHILD", "crashing_child")
    chosen = decide(built.tar, "auto")
    assert (chosen.runtime, chosen.reason) == ("onnx", "child-died")
    assert read_choice(tmp_path / "note.json") is None, "it may have been the memory: the next start tries again"


@pytest.mark.parametrize("damage", [b"", b"{", b'{"runtime": "tensorflow", "basis": ""}', b"\xff" * 9])
def test_a_damaged_note_is_as_good_as_none(bundle, tmp_path, damage):
    (tmp_path / "note.json").write_bytes(damage)
    assert read_choice(tmp_path / "note.json") is None
    assert open_chosen(bundle, bundle.parameters, tmp_path / "note.json", "auto").name == "onnx"


def test_what_litert_cannot_run_is_served_by_onnxruntime_where_the_choice_was_ours(bundle, tmp_path):
    chosen = Choice("litert", "measured")
    (tmp_path / "note.json").write_bytes(msgspec.json.encode(chosen))
    assert open_chosen(bundle, bundle.parameters, tmp_path / "note.json", "auto").name == "litert"
    files = {**bundle.files, "infer.tflite": bytes(len(bundle.files["infer.tflite"]))}
    empty = dataclasses.replace(bundle, files=files)
    assert open_chosen(empty, bundle.parameters, tmp_path / "note.json", "auto").name == "onnx"
    with pytest.raises(MalformedError):
        open_chosen(empty, bundle.parameters, tmp_path / "note.json", "litert")


def test_an_equal_share_of_time_is_measured_for_each(bundle):
    class Slow:
        name = "onnx"
        seen = 0

        def predict(self, x):
            self.seen += len(x)
            return x

    runtimes = (Slow(), Slow())
    found = measure(runtimes, bundle.golden["probe"], SystemClock())
    assert [type(measured) for measured in found] == [Measured, Measured]
    assert runtimes[0].seen == runtimes[1].seen > 500
