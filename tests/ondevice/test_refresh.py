import numpy as np
import pytest

from bedside.authoring.inference_graph import build_float_graph, build_int8_graph
from bedside.authoring.net import Net
from bedside.core.bundle.quantise import quantise_parameters
from bedside.core.errors import MalformedError
from bedside.ondevice.refresh import float_runtime, int8_runtime
from bedside.ondevice.runtimes.onnx import OnnxRuntime


@pytest.fixture
def net(bundle):
    return Net(bundle.manifest.steps())


@pytest.fixture
def moved(bundle):
    """Parameters far from those that the bundle's graphs were written with."""
    generator = np.random.default_rng(2)
    return {
        name: (array * 1.7 + generator.normal(0, 0.3, array.shape).astype(np.float32) * (name != "amax")).astype(
            np.float32
        )
        for name, array in bundle.parameters.items()
    }


@pytest.fixture
def windows(bundle):
    return bundle.golden["probe"]


def test_a_refresh_is_a_fresh_quantisation_bit_for_bit(bundle, moved, net, windows):
    fresh = build_int8_graph(net, quantise_parameters(moved, bundle.manifest.quantisation))
    ours = int8_runtime(bundle, moved).predict(windows)
    assert ours.tobytes() == OnnxRuntime(fresh, {}).predict(windows).tobytes()
    assert ours.tobytes() != int8_runtime(bundle, bundle.parameters).predict(windows).tobytes()


def test_a_float_refresh_is_the_graph_built_with_those_parameters_bit_for_bit(bundle, moved, net, windows):
    fresh = build_float_graph(net, {name: array for name, array in moved.items() if name != "amax"})
    ours = float_runtime(bundle, moved).predict(windows)
    assert ours.tobytes() == OnnxRuntime(fresh, {}).predict(windows).tobytes()
    assert ours.tobytes() != float_runtime(bundle, bundle.parameters).predict(windows).tobytes()


def test_the_engine_keeps_its_parameters_alive(bundle, windows):
    runtime = int8_runtime(bundle, {name: array.copy() for name, array in bundle.parameters.items()})
    before = runtime.predict(windows)
    churn = [np.full(200_000, at, np.float32) for at in range(50)]
    assert runtime.predict(windows).tobytes() == before.tobytes()
    assert len(churn) == 50


def test_a_checkpoint_of_another_model_is_refused(bundle):
    with pytest.raises(MalformedError, match="not the parameters"):
        int8_runtime(bundle, {"w0": bundle.parameters["w0"]})
