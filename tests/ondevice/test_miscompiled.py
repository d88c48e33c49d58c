"""Bundles that their author signed and that compute something else, or do something else, than they should."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from resigned import resigned, with_tensors

from bedside.core.bundle.manifest import GOLDEN, INFER, INFER_FLOAT, INFER_TFLITE, PARAMETERS

TRAIN = "train-q1-all-sgd.onnx"


def altered(built, author, file, change):
    """The bundle with another graph in one file."""
    model = onnx.ModelProto.FromString(built.files[file])
    change(model.graph)
    if change is not read_a_file:  # which onnx refuses itself
        onnx.checker.check_model(model)
    return resigned(built, author, {file: model.SerializeToString()})


def node_giving(graph, output):
    return next(node for node in graph.node if output in node.output)


def constants(graph, kind=TensorProto.FLOAT):
    return [one for one in graph.initializer if one.name.startswith("const_") and one.data_type == kind]


def flip_a_gradient(graph):
    node = node_giving(graph, "w1.next")
    assert node.op_type == "Sub"
    node.op_type = "Add"


def leave_a_parameter_as_it_was(graph):
    node = node_giving(graph, "b1.next")
    node.op_type = "Identity"
    del node.input[1:]


def double_a_scale(graph):
    """What a device lays over the file's own scale is not used any more."""
    graph.initializer.append(numpy_helper.from_array(np.array(0.2, np.float32), "wrong"))
    node = next(node for node in graph.node if node.op_type == "QuantizeLinear" and "w1.input_scale" in node.input)
    node.input[1] = "wrong"


def shift_a_zero_point(graph):
    node = next(node for node in graph.node if node.op_type == "DequantizeLinear" and "w2.q" in node.input)
    graph.initializer.append(numpy_helper.from_array(np.full(3, 20, np.int8), "wrong"))
    node.input[2] = "wrong"


def put_a_nan_into_a_constant(graph):
    number = next(one for one in constants(graph) if not one.dims)
    number.CopyFrom(numpy_helper.from_array(np.array(np.nan, np.float32), number.name))


def add_a_nan_to_the_answer(graph):
    graph.initializer.append(numpy_helper.from_array(np.array(np.nan, np.float32), "nan"))
    answer = node_giving(graph, "logits")
    answer.op_type = "Add"
    answer.input.append("nan")


def read_a_file(graph):
    tensor = graph.initializer.add(name="secret", data_type=TensorProto.FLOAT, dims=[1], data_location=1)
    for key, value in (("location", "../../etc/machine-id"), ("offset", "0"), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    answer = node_giving(graph, "logits")
    answer.op_type = "Add"
    answer.input.append("secret")


def answer_with_more(graph):
    answer = node_giving(graph, "logits")
    answer.op_type = "Expand"
    graph.initializer.append(numpy_helper.from_array(np.array([1 << 40, 1], np.int64), "huge"))
    answer.input.append("huge")


def loop_for_ever(graph):
    inner = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Mul", ["before", "before"], ["after"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    graph.initializer.append(numpy_helper.from_array(np.array(np.iinfo(np.int64).max), "turns"))
    graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    answer = node_giving(graph, "logits")
    before = answer.input[0]
    answer.CopyFrom(helper.make_node("Loop", ["turns", "yes", before], ["logits"], body=inner))


MISCOMPILED = {
    "a gradient's sign": (TRAIN, flip_a_gradient, "golden-mismatch"),
    "a parameter that is not trained": (TRAIN, leave_a_parameter_as_it_was, "golden-mismatch"),
    "a nan in a training graph": (TRAIN, put_a_nan_into_a_constant, "golden-mismatch"),
    "a scale of infer.onnx": (INFER, double_a_scale, "golden-mismatch"),
    "a zero point of infer.onnx": (INFER, shift_a_zero_point, "golden-mismatch"),
    "a nan in infer.onnx": (INFER, add_a_nan_to_the_answer, "golden-mismatch"),
    "a nan in infer_float.onnx": (INFER_FLOAT, add_a_nan_to_the_answer, "golden-mismatch"),
    "a graph that reads a file": (INFER, read_a_file, "bad-graph"),
    "a graph that wants terabytes": (INFER, answer_with_more, "bad-graph"),
}


@pytest.mark.parametrize("name", MISCOMPILED)
def test_a_graph_that_computes_something_else_is_refused(built, author, forks, name):
    file, change, code = MISCOMPILED[name]
    assert forks(altered(built, author, file, change)) == code


def test_a_graph_that_never_ends_is_refused_before_it_begins(built, author, forks):
    assert forks(altered(built, author, INFER, loop_for_ever)) == "bad-graph"


NANS = {
    "parameters": (PARAMETERS, "w1", "bad-parameters"),
    "parameters after the golden steps": (GOLDEN, "q1-all-sgd/w1", "bad-golden"),
    "golden losses": (GOLDEN, "q1-all-sgd/loss", "bad-golden"),
    "golden logits": (GOLDEN, "logits", "bad-golden"),
    "golden windows": (GOLDEN, "probe", "golden-mismatch"),
    "golden examples": (GOLDEN, "x", "golden-mismatch"),
}


@pytest.mark.parametrize("name", NANS)
def test_a_nan_in_a_tensor_is_refused(built, author, forks, name):
    file, tensor, code = NANS[name]

    def spoil(tensors):
        tensors[tensor].flat[0] = np.nan

    assert forks(with_tensors(built, author, file, spoil)) == code


def test_golden_vectors_without_a_window_decide_nothing_and_are_refused(built, author, forks):
    def empty(tensors):
        for name in ("probe", "logits", "logits_float", "classes"):
            tensors[name] = tensors[name][:0]

    assert forks(with_tensors(built, author, GOLDEN, empty)) == "bad-golden"


def patch_of(built, tensor):
    return next(patch for patch in built.manifest.patches if patch.tensor == tensor)


@pytest.mark.parametrize(
    ("tensor", "code"),
    [
        ("w0.scale", "golden-mismatch"),
        ("b0.q", "golden-mismatch"),
        ("w2.real", "golden-mismatch"),
        ("w1.input_scale", "bad-graph"),  # which stands twice, and LiteRT wants a pool's two to be equal
    ],
)
def test_a_place_of_infer_tflite_that_a_refresh_does_not_reach_is_found(built, author, forks, tensor, code):
    """A wrong scale that the table covers is written over: it is wrong only where the table forgets it."""
    patch, data = patch_of(built, tensor), bytearray(built.files[INFER_TFLITE])
    for at in range(patch.offset, patch.offset + patch.size):
        data[at] ^= 0x11
    assert forks(resigned(built, author, {INFER_TFLITE: bytes(data)}), "trial") == "same"
    forgotten = tuple(one for one in built.manifest.patches if one != patch)
    tar = resigned(built, author, {INFER_TFLITE: bytes(data)}, patches=forgotten)
    assert forks(tar, "trial") == code


def test_two_scales_in_each_other_s_place_are_found(built, author, forks):
    first, second = patch_of(built, "w0.scale"), patch_of(built, "b0.scale")
    swapped = {first.tensor: second.tensor, second.tensor: first.tensor}
    patches = tuple(
        type(patch)(swapped.get(patch.tensor, patch.tensor), patch.offset, patch.size, patch.axes)
        for patch in built.manifest.patches
    )
    assert forks(resigned(built, author, {}, patches=patches), "trial") == "golden-mismatch"


def test_the_sound_bundle_is_taken(built, forks):
    assert forks(built.tar) == forks(built.tar, "trial") == "same"
