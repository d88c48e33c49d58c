"""Graphs that reproduce every golden vector and turn on a device with another window: no device takes them."""

import asyncio

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from resigned import resigned

from bedside.core.bundle.manifest import INFER, INFER_FLOAT
from bedside.core.bundle.verify import verify_archive
from bedside.core.errors import MalformedError
from bedside.ondevice.golden import Replay, replay_golden
from bedside.ondevice.runtimes.onnx import OnnxRuntime, session_options

HUGE = 1 << 40


def add_constants(graph):
    for name, value in (("limit", np.float32(50)), ("huge", [HUGE]), ("one", [1]), ("zero", np.float32(0))):
        array = np.array(value, np.int64 if isinstance(value, list) else None)
        graph.initializer.append(numpy_helper.from_array(array, name))


def looped(graph):
    """As many turns as are asked for, each a sine."""
    graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sin", ["before"], ["after"])],
        "body",
        [value("turn", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("before", 1, [])],
        [value("on", TensorProto.BOOL, []), value("after", 1, [])],
    )
    yield helper.make_node("Squeeze", ["count"], ["turns"])
    yield helper.make_node("Loop", ["turns", "yes", "largest"], ["waste"], body=body)


def filled(graph):
    """As many values as are asked for."""
    ones = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    yield helper.make_node("ConstantOfShape", ["count"], ["many"], value=ones)
    yield helper.make_node("ReduceMax", ["many"], ["waste"], keepdims=0)


def expanded(graph):
    """The same with an operator that graphs of ours have."""
    yield helper.make_node("Expand", ["zero", "count"], ["many"])
    yield helper.make_node("ReduceMax", ["many"], ["waste"], keepdims=0)


def turned(data, waste):
    """An ONNX file whose answer waits for `waste`, which depends on whether a value of the window is above 50."""
    model = onnx.load_from_string(data)
    graph = model.graph
    answer = next(node for node in graph.node if "logits" in node.output)
    answer.output[0] = "answer"
    add_constants(graph)
    graph.node.extend(
        [
            helper.make_node("Abs", ["x"], ["sizes"]),
            helper.make_node("ReduceMax", ["sizes"], ["largest"], keepdims=0),
            helper.make_node("Greater", ["largest", "limit"], ["above"]),
            helper.make_node("Where", ["above", "huge", "one"], ["count"]),
            *waste(graph),
            helper.make_node("Mul", ["waste", "zero"], ["nothing"]),
            helper.make_node("Add", ["answer", "nothing"], ["logits"]),
        ]
    )
    return model.SerializeToString()


@pytest.mark.parametrize("file", [INFER, INFER_FLOAT])
@pytest.mark.parametrize(
    ("waste", "operator"), [(looped, "Loop"), (filled, "ConstantOfShape"), (expanded, "Abs")], ids=lambda one: str(one)
)
def test_a_graph_that_waits_for_a_large_value_is_refused_by_its_operator(built, author, file, waste, operator):
    data = turned(built.files[file], waste)
    ordinary = np.zeros((1, 32, 2), np.float32)
    plain = OnnxRuntime(built.files[file], {}).predict(ordinary)
    assert OnnxRuntime(data, {}).predict(ordinary).tobytes() == plain.tobytes(), "it computes the same, today"
    with pytest.raises(MalformedError, match=f"{file}: .*'(Abs|{operator})'") as caught:
        verify_archive(resigned(built, author, {file: data}), [bytes(author.verify_key)])
    assert caught.value.code == "bad-graph"


def test_a_device_refuses_it_when_it_is_handed_over(built, author, tmp_path):
    path = tmp_path / "bundle.tar"
    path.write_bytes(resigned(built, author, {INFER: turned(built.files[INFER], looped)}))
    with pytest.raises(MalformedError, match="operator 'Abs'"):
        asyncio.run(replay_golden(Replay(str(path), (bytes(author.verify_key).hex(),))))


def test_bytes_in_the_other_format_of_onnxruntime_are_not_read(tmp_path, built):
    import onnxruntime

    options = session_options()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(built.files[INFER], options)
    other = (tmp_path / "model.ort").read_bytes()
    assert other[4:8] == b"ORTM"
    assert onnxruntime.InferenceSession(other).get_outputs()[0].name == "logits"
    with pytest.raises(Exception, match=r"(?i)protobuf"):
        onnxruntime.InferenceSession(other, session_options())
    with pytest.raises(MalformedError):
        OnnxRuntime(other, {})
