"""What is deployed computes what was trained: each runtime, for every kind of layer in every place."""

import numpy as np
import pytest
from deployed_nets import NETS, OUTPUTS, SHAPE, Deployed
from integer_reference import fake_quantised, in_integers

from bedside.authoring.inference_graph import build_float_graph, build_int8_graph
from bedside.authoring.tflite_graph import build_tflite
from bedside.authoring.training_graph import build_training_graph
from bedside.core.bundle.layers import Layer, Standardise
from bedside.core.bundle.onnx_graph import FLOAT_OPERATORS, INT8_OPERATORS, TRAINING_OPERATORS, Rules, check_graph
from bedside.core.bundle.patch import apply_patches, check_patches
from bedside.core.bundle.tflite_file import check_tflite
from bedside.core.bundle.training import TrainingGraph, suffix_tensors, training_inputs, training_outputs
from bedside.ondevice.runtimes.litert import LiteRtRuntime
from bedside.ondevice.runtimes.onnx import OnnxRuntime


@pytest.fixture(params=NETS)
def deployed(request):
    return Deployed(NETS[request.param])


def without_ranges(parameters):
    return {name: array for name, array in parameters.items() if name != "amax"}


def same(found, wanted):
    """Equal but for what a sum on the middle between two integers does, which falls on either side."""
    largest = np.abs(wanted).max()
    apart = np.abs(found - wanted).max(axis=1)
    assert found.shape == wanted.shape
    assert np.median(apart) < 1e-5 * max(largest, 1), np.median(apart)
    assert apart.max() < 0.05 * largest


def test_whole_numbers_are_those_of_fake_quantised_training(deployed):
    steps = deployed.net.steps
    wanted, _ = fake_quantised(steps, deployed.parameters, deployed.x, deployed.net.weight_qmax)
    assert np.abs(wanted).max() > 0.1
    apart = np.abs(in_integers(steps, deployed.quantised(), deployed.x) - wanted).max(axis=1)
    assert np.median(apart) < 0.003 * np.abs(wanted).max()  # a bias is rounded too
    assert apart.max() < 0.05 * np.abs(wanted).max()


def test_onnxruntime_computes_the_whole_numbers(deployed):
    quantised = deployed.quantised()
    found = OnnxRuntime(build_int8_graph(deployed.net, quantised), {}).predict(deployed.x)
    same(found, in_integers(deployed.net.steps, quantised, deployed.x))


def test_litert_computes_the_whole_numbers(deployed):
    data, _ = build_tflite(deployed.net, deployed.tensors())
    found = LiteRtRuntime(data, SHAPE, OUTPUTS).predict(deployed.x)
    same(found, in_integers(deployed.net.steps, deployed.quantised(), deployed.x))


def test_its_graphs_hold_nothing_that_a_device_refuses(deployed):
    net, weights = deployed.net, without_ranges(deployed.parameters)
    check_graph(build_int8_graph(net, deployed.quantised()), Rules(INT8_OPERATORS, ("x",), ("logits",)))
    check_graph(build_float_graph(net, weights), Rules(FLOAT_OPERATORS, ("x", *weights), ("logits",)))
    check_tflite(*build_tflite(net, deployed.tensors()))
    moments = [f"{name}{net.steps[0].norm}" for name in ("mean", "square") if net.steps[0].norm >= 0]
    standardised = isinstance(net.steps[0].layer, Standardise)
    for level, optimiser in (("Q0", "sgd"), ("Q1", "adam"), ("Q2", "sgd"), ("Q2", "adam")):
        graph, changed = TrainingGraph(level, "all", optimiser), suffix_tensors(net.steps, 0)
        given = [spec for spec in changed if not (standardised and spec.name in moments)]
        inputs, outputs = training_inputs(graph, net.parameters, changed), training_outputs(graph, given)
        check_graph(build_training_graph(net, graph), Rules(TRAINING_OPERATORS, inputs, outputs))


def test_a_refresh_on_onnxruntime_is_a_freshly_built_graph_bit_for_bit(deployed):
    other = deployed.quantised(deployed.drawn(seed=6))
    before = build_int8_graph(deployed.net, deployed.quantised())
    fresh = OnnxRuntime(build_int8_graph(deployed.net, other), {}).predict(deployed.x)
    assert OnnxRuntime(before, other).predict(deployed.x).tobytes() == fresh.tobytes()
    assert OnnxRuntime(before, {}).predict(deployed.x).tobytes() != fresh.tobytes()


def test_a_refresh_of_the_tflite_file_is_a_freshly_built_one_byte_for_byte(deployed):
    other = deployed.tensors(deployed.drawn(seed=6))
    data, table = build_tflite(deployed.net, deployed.tensors())
    fresh, again = build_tflite(deployed.net, other)
    check_patches(table, len(data))
    assert table == again
    assert apply_patches(data, table, other) == fresh != data


def test_every_kind_of_layer_is_in_one_of_these_nets():
    assert {type(layer) for layers in NETS.values() for layer in layers} == set(Layer.__args__)


def test_the_float_graph_is_the_net_without_rounding_and_with_running_statistics(deployed):
    wanted, _ = fake_quantised(deployed.net.steps, deployed.parameters, deployed.x, 0)
    found = OnnxRuntime(build_float_graph(deployed.net, without_ranges(deployed.parameters)), {}).predict(deployed.x)
    assert np.abs(found - wanted).max() < 1e-4 * max(np.abs(wanted).max(), 1)


def test_a_refresh_of_the_float_graph_is_a_freshly_built_one_bit_for_bit(deployed):
    other = without_ranges(deployed.drawn(seed=6))
    before = build_float_graph(deployed.net, without_ranges(deployed.parameters))
    fresh = OnnxRuntime(build_float_graph(deployed.net, other), {}).predict(deployed.x)
    assert OnnxRuntime(before, other).predict(deployed.x).tobytes() == fresh.tobytes()
    assert OnnxRuntime(before, {}).predict(deployed.x).tobytes() != fresh.tobytes()
