"""LiteRT serves the bundle's int8 net: the same file, patched, wherever the wheel is."""

import subprocess
import sys

import msgspec
import numpy as np
import pytest

from bedside.authoring.net import Net
from bedside.authoring.tflite_graph import build_tflite
from bedside.core.bundle.quantise import quantise_parameters, real_tensors
from bedside.core.errors import MalformedError, UnavailableError
from bedside.ondevice.refresh import int8_runtime, patched_tflite
from bedside.ondevice.runtimes import litert


@pytest.fixture
def moved(bundle):
    """Parameters far from those that the bundle's file was written with."""
    generator = np.random.default_rng(2)
    return {
        name: (array * 1.7 + generator.normal(0, 0.3, array.shape) * (name != "amax")).astype(np.float32)
        for name, array in bundle.parameters.items()
    }


def without_tflite(bundle):
    made = msgspec.structs.replace(bundle.manifest, patches=msgspec.UNSET)
    return type(bundle)(made, b"", b"", bundle.files, bundle.parameters, bundle.golden)


def test_a_refresh_is_a_freshly_written_file_byte_for_byte(bundle, moved):
    net, window = Net(bundle.manifest.steps()), bundle.manifest.window
    quantised = quantise_parameters(moved, bundle.manifest.quantisation)
    fresh, patches = build_tflite(net, quantised | real_tensors(quantised, bundle.manifest.quantisation))
    assert patched_tflite(bundle, moved) == fresh != bundle.files["infer.tflite"]
    assert patches == bundle.manifest.patches
    windows = bundle.golden["probe"]
    ours = int8_runtime(bundle, moved, "litert").predict(windows)
    assert ours.tobytes() == litert.LiteRtRuntime(fresh, (window.length, window.channels), 3).predict(windows).tobytes()
    assert ours.tobytes() != int8_runtime(bundle, bundle.parameters, "litert").predict(windows).tobytes()


def test_both_runtimes_compute_the_same_net(bundle, moved):
    windows = bundle.golden["probe"]
    onnx, lite = (int8_runtime(bundle, moved, name) for name in ("onnx", "litert"))
    wanted = onnx.predict(windows)
    found = lite.predict(windows)
    assert np.abs(found - wanted).max() < np.abs(wanted).max() * 0.02
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    assert np.array_equal(np.concatenate([lite.predict(window[np.newaxis]) for window in windows]), found)
    assert (onnx.name, lite.name) == ("onnx", "litert")


def test_an_answer_is_not_overwritten_by_the_next_one(bundle):
    lite = int8_runtime(bundle, bundle.parameters, "litert")
    first = lite.predict(bundle.golden["probe"][:1])
    kept = first.copy()
    lite.predict(-bundle.golden["probe"][:1])
    assert np.array_equal(first, kept)


def test_any_layout_and_number_of_windows_is_taken(bundle):
    windows = bundle.golden["probe"]
    lite = int8_runtime(bundle, bundle.parameters, "litert")
    assert np.array_equal(lite.predict(np.asfortranarray(windows)), lite.predict(windows))
    assert lite.predict(windows[:0]).shape == (0, len(bundle.manifest.labels))


def test_a_checkpoint_of_another_model_is_refused(bundle):
    with pytest.raises(MalformedError, match="not the parameters"):
        int8_runtime(bundle, {"w0": bundle.parameters["w0"]}, "litert")


def test_a_bundle_of_before_says_that_it_has_no_such_file(bundle):
    with pytest.raises(MalformedError) as caught:
        int8_runtime(without_tflite(bundle), bundle.parameters, "litert")
    assert caught.value.code == "no-tflite"


def test_a_machine_without_the_runtime_is_told_how_to_get_it(bundle, monkeypatch):
    monkeypatch.setattr(litert, "_MODULES", ("ai_edge_litert_of_nowhere",))
    with pytest.raises(UnavailableError) as caught:
        int8_runtime(bundle, bundle.parameters, "litert")
    assert caught.value.code == "runtime-missing"
    assert "bedside[litert]" in caught.value.remedy


def test_a_runtime_that_imports_but_does_not_run_counts_as_missing(bundle, monkeypatch, tmp_path):
    source = "class Interpreter:\n    def __init__(self, **_):\n        raise SystemError('built for another numpy')\n"
    (tmp_path / "old_runtime.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(litert, "_MODULES", ("ai_edge_litert_of_nowhere", "old_runtime"))
    with pytest.raises(UnavailableError, match="numpy") as caught:
        int8_runtime(bundle, bundle.parameters, "litert")
    assert caught.value.code == "runtime-missing"


@pytest.mark.parametrize(("shape", "classes"), [((32, 3), 3), ((16, 2), 3), ((32, 2), 4)])
def test_a_net_of_another_shape_is_refused(bundle, shape, classes):
    with pytest.raises(MalformedError) as caught:
        litert.LiteRtRuntime(bundle.files["infer.tflite"], shape, classes)
    assert caught.value.code == "bad-graph"


def test_bytes_that_are_no_graph_are_refused():
    for data in (b"", b"TFL3" * 100, bytes(64)):
        with pytest.raises(MalformedError):
            litert.LiteRtRuntime(data, (32, 2), 3)


EXTREMES = """
import sys, numpy as np
from pathlib import Path
from bedside.ondevice.refresh import int8_runtime
from bedside.core.bundle.verify import verify_archive
from bedside.core.errors import MalformedError
bundle = verify_archive(Path(sys.argv[1]).read_bytes(), [bytes.fromhex(sys.argv[2])])
generator, counts = np.random.default_rng(1), [0, 0]
np.seterr(all="ignore")
for draw in range(200):
    parameters = {}
    for name, array in bundle.parameters.items():
        factors = 10.0 ** generator.uniform(-38, 38, array.shape if draw % 2 else ())
        moved = array * factors * generator.choice([-1, 0, 1, 1])
        parameters[name] = np.nan_to_num(moved.astype(np.float32))
    try:
        int8_runtime(bundle, parameters, "litert").predict(bundle.golden["probe"][:2])
        counts[0] += 1
    except MalformedError:
        counts[1] += 1
print(*counts)
"""


def test_no_parameters_that_a_diverged_round_may_give_bring_the_process_down(built, author, tmp_path):
    (tmp_path / "bundle.tar").write_bytes(built.tar)
    command = [sys.executable, "-c", EXTREMES, str(tmp_path / "bundle.tar"), bytes(author.verify_key).hex()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2_000:]
    served, refused = map(int, done.stdout.split())
    assert served + refused == 200
    assert served
