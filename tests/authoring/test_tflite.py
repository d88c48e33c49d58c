"""`infer.tflite` computes what `infer.onnx` computes, for every kind of layer in every place."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from bedside.authoring.golden import synthetic_windows
from bedside.authoring.inference_graph import build_int8_graph
from bedside.authoring.initialise import initial_parameters
from bedside.authoring.net import Net as Model
from bedside.authoring.tflite_graph import build_tflite
from bedside.core.bundle.layers import Conv1d, Dense, Flatten, GlobalAveragePool, MaxPool, Relu, walk
from bedside.core.bundle.patch import apply_patches, check_patches
from bedside.core.bundle.quantise import quantise_parameters, real_tensors
from bedside.core.errors import MalformedError
from bedside.ondevice.runtimes.litert import LiteRtRuntime
from bedside.ondevice.runtimes.onnx import OnnxRuntime

NETS = {
    "pools between convolutions": (
        Conv1d(8, 3),
        Relu(),
        MaxPool(),
        Conv1d(6, 5),
        Relu(),
        GlobalAveragePool(),
        Dense(3),
    ),
    "pool before its rectifier": (Conv1d(8, 1), MaxPool(), Relu(), Conv1d(4, 3), Flatten(), Dense(5), Relu(), Dense(3)),
    "no rectifier between": (Conv1d(8, 3), Conv1d(8, 3), Flatten(), Dense(6), Dense(3)),
    "average before a rectifier": (Conv1d(8, 3), GlobalAveragePool(), Relu(), Dense(6), Relu(), Dense(3)),
    "pool and rectifier first": (MaxPool(), Relu(), Conv1d(8, 3), Relu(), GlobalAveragePool(), Dense(3)),
    "average first": (GlobalAveragePool(), Dense(3)),
    "one dense layer": (Flatten(), Dense(3)),
}


class Net:
    def __init__(self, layers, seed=5):
        shape = (16, 2)
        self.steps = walk(layers, shape, 3)
        self.model = Model(self.steps)
        self.x, y = synthetic_windows(shape, 3, 60, seed)
        parameters = initial_parameters(self.model, seed, self.x, y)
        self.quantised = quantise_parameters(parameters, self.model.quantisation)
        self.tensors = self.quantised | real_tensors(self.quantised, self.model.quantisation)


@pytest.fixture(params=NETS)
def net(request):
    return Net(NETS[request.param])


def test_it_computes_what_onnxruntime_computes(net):
    data, _ = build_tflite(net.model, net.tensors)
    wanted = OnnxRuntime(build_int8_graph(net.model, net.quantised), {}).predict(net.x)
    found = LiteRtRuntime(data, (16, 2), 3).predict(net.x)
    step = max(float(net.quantised[f"w{net.steps[-1].order}.input_scale"]), 1e-9)
    assert np.abs(wanted).max() > 20 * step, "the answers must be more than rounding"
    # Where a sum falls on the middle between two integers, the runtimes may round it apart.
    assert np.median(np.abs(found - wanted).max(axis=1)) < 1e-5
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def test_the_table_covers_all_that_follows_from_the_parameters(net):
    data, table = build_tflite(net.model, net.tensors)
    check_patches(table, len(data))
    assert apply_patches(data, table, net.tensors) == data
    other = {name: (array * 0 + 1).astype(array.dtype) for name, array in net.tensors.items()}
    fresh, again = build_tflite(net.model, other)
    assert again == table
    assert apply_patches(data, table, other) == fresh != data


def test_a_file_of_another_recipe_is_not_run():
    data, _ = build_tflite(Net(NETS["one dense layer"]).model, Net(NETS["one dense layer"]).tensors)
    with pytest.raises(MalformedError) as caught:
        LiteRtRuntime(data, (16, 3), 3)
    assert caught.value.code == "bad-graph"


def test_inner_layers_are_integers_with_a_scale_per_channel_and_aligned(net):
    data, table = build_tflite(net.model, net.tensors)
    assert all(patch.offset % 16 == 0 for patch in table if patch.tensor.endswith((".q", ".real")))
    graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    tensors = [graph.Tensors(number) for number in range(graph.TensorsLength())]
    weights = {t.Name().decode(): t for t in tensors if t.Name().startswith(b"w")}
    for name, tensor in weights.items():
        if tensor.Type() == schema.TensorType.INT8:
            assert tensor.Quantization().ScaleLength() == tensor.Shape(0) == net.quantised[f"{name}.scale"].size
    assert weights[f"w{net.steps[-1].order}"].Type() == schema.TensorType.FLOAT32
