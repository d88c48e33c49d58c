"""No graph of a bundle reads another file: every place where a tensor can be is looked at."""

import random
from contextlib import suppress

import numpy as np
import pytest
from onnx import TensorProto, helper

from bedside.core.bundle.bounds import MAX_GRAPH_FIELDS
from bedside.core.bundle.onnx_file import check_self_contained
from bedside.core.errors import MalformedError
from bedside.ondevice.runtimes.onnx import OnnxRuntime, open_session, session_options

WINDOW = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])]
ANSWER = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [4])]
ADD = helper.make_node("Add", ["x", "w"], ["logits"])


def elsewhere(path="secret.bin"):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", path), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def graph(*nodes, tensors=(), name="g", inputs=WINDOW):
    return helper.make_graph(list(nodes), name, inputs, ANSWER, list(tensors))


def branch(tensor):
    inner = graph(ADD, tensors=[tensor], inputs=[])
    return helper.make_node("If", ["condition"], ["logits"], then_branch=inner, else_branch=inner)


def sparse():
    return helper.make_sparse_tensor(elsewhere(), helper.make_tensor("i", TensorProto.INT64, [1], [0]), [4])


def with_function():
    model = helper.make_model(graph(ADD))
    constant = helper.make_node("Constant", [], ["w"], value=elsewhere())
    model.functions.append(helper.make_function("own", "f", [], ["w"], [constant], [helper.make_opsetid("", 18)]))
    return model


def with_training():
    model = helper.make_model(graph(ADD))
    model.training_info.add().algorithm.CopyFrom(graph(ADD, tensors=[elsewhere()]))
    return model


PLACES = {
    "an initialiser": lambda: helper.make_model(graph(ADD, tensors=[elsewhere()])),
    "a constant": lambda: helper.make_model(graph(helper.make_node("Constant", [], ["w"], value=elsewhere()), ADD)),
    "a branch": lambda: helper.make_model(graph(branch(elsewhere()))),
    "a sparse initialiser": lambda: helper.make_model(
        helper.make_graph([ADD], "g", WINDOW, ANSWER, sparse_initializer=[sparse()])
    ),
    "a sparse constant": lambda: helper.make_model(
        graph(helper.make_node("Constant", [], ["w"], sparse_value=sparse()), ADD)
    ),
    "a list of tensors": lambda: helper.make_model(
        graph(helper.make_node("Add", ["x", "w"], ["y"], many=[elsewhere()]))
    ),
    "a function": with_function,
    "training information": with_training,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_in_another_file_is_refused_wherever_it_stands(place):
    model = PLACES[place]().SerializeToString()
    with pytest.raises(MalformedError, match="another file") as caught:
        check_self_contained(model)
    assert caught.value.code == "bad-graph"


def test_onnxruntime_would_have_read_the_file_and_never_sees_the_graph(tmp_path, monkeypatch):
    import onnxruntime

    monkeypatch.chdir(tmp_path)
    np.arange(4, dtype=np.float32).tofile(tmp_path / "secret.bin")
    model = helper.make_model(graph(ADD, tensors=[elsewhere()]), opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    options = session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    assert session.run(None, {"x": np.zeros(4, np.float32)})[0].tolist() == [0, 1, 2, 3]
    with pytest.raises(MalformedError, match="another file"):
        open_session(model.SerializeToString(), options)
    with pytest.raises(MalformedError, match="another file"):
        OnnxRuntime(model.SerializeToString(), {})


def test_either_of_the_two_fields_is_enough():
    for field in ("external_data", "data_location"):
        tensor = elsewhere()
        tensor.ClearField(field)
        with pytest.raises(MalformedError, match="another file"):
            check_self_contained(helper.make_model(graph(ADD, tensors=[tensor])).SerializeToString())


def test_the_graphs_of_a_bundle_hold_all_that_they_need_and_are_far_below_the_bounds(built):
    for name, data in built.files.items():
        if name.endswith(".onnx"):
            check_self_contained(data)
            assert len(data) < MAX_GRAPH_FIELDS


def test_a_file_of_countless_fields_is_refused():
    check_self_contained(b"\x08\x01" * MAX_GRAPH_FIELDS)
    with pytest.raises(MalformedError, match="fields"):
        check_self_contained(b"\x08\x01" * (MAX_GRAPH_FIELDS + 1))


def wrapped(number, content):
    """As a field of another message."""
    size, head = len(content), bytearray([number << 3 | 2])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(head) + bytes([size]) + content


@pytest.mark.parametrize(("subgraphs", "sound"), [(20, True), (40, False)])
def test_a_file_of_endless_subgraphs_is_refused(subgraphs, sound):
    model = b""
    for _ in range(subgraphs):
        for number in (6, 5, 1):  # a graph in an attribute in a node
            model = wrapped(number, model)
    model = wrapped(7, model)
    if sound:
        check_self_contained(model)
    else:
        with pytest.raises(MalformedError, match="deeper"):
            check_self_contained(model)


def test_bytes_that_are_no_graph_raise_nothing_else(built):
    sound, draw = built.files["infer.onnx"], random.Random(3)
    for _ in range(500):
        data = bytearray(sound[: draw.randrange(len(sound))] if draw.random() < 0.3 else sound)
        for _ in range(draw.choice((1, 3, 20))):
            if data:
                data[draw.randrange(len(data))] = draw.randrange(256)
        with suppress(MalformedError):
            check_self_contained(bytes(data))
