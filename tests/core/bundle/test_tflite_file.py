"""A `.tflite` file of a bundle is one flat graph of operators that we write, within its bytes."""

import random
import struct
from contextlib import suppress

import flatbuffers
import msgspec
import pytest
from ai_edge_litert import schema_py_generated as schema

from bedside.core.bundle import tflite_file
from bedside.core.bundle.graphs import check_graphs
from bedside.core.bundle.manifest import INFER_TFLITE
from bedside.core.bundle.patch import Patch
from bedside.core.bundle.tflite_file import check_tflite
from bedside.core.errors import MalformedError

CODES = schema.BuiltinOperator


def written(model):
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operator(code):
    def change(model):
        model.operatorCodes[0].builtinCode = code
        model.operatorCodes[0].deprecatedBuiltinCode = min(code, 127)

    return change


def old_code(model):
    """A runtime takes the larger of the two."""
    model.operatorCodes[0].builtinCode, model.operatorCodes[0].deprecatedBuiltinCode = CODES.ADD, CODES.WHILE


def custom(model):
    model.operatorCodes[0].customCode = b"mine"


def second_graph(model):
    model.subgraphs.append(model.subgraphs[0])


def variable(model):
    model.subgraphs[0].tensors[1].isVariable = True


def shape_of_the_window(model):
    graph = model.subgraphs[0]
    reshape = next(one for one in graph.operators if model.operatorCodes[one.opcodeIndex].builtinCode == CODES.RESHAPE)
    reshape.inputs = [reshape.inputs[0], graph.inputs[0]]


def shape_from_the_options(model):
    graph = model.subgraphs[0]
    reshape = next(one for one in graph.operators if model.operatorCodes[one.opcodeIndex].builtinCode == CODES.RESHAPE)
    reshape.inputs = reshape.inputs[:1]


def two_answers(model):
    model.subgraphs[0].outputs = [*model.subgraphs[0].outputs, model.subgraphs[0].inputs[0]]


def huge(model):
    model.subgraphs[0].tensors[1].shape = [1 << 30, 1 << 30]


def no_buffer(model):
    model.subgraphs[0].tensors[1].buffer = 10_000


def elsewhere(model):
    model.buffers[1].offset, model.buffers[1].size = 1 << 40, 4


CHANGES = {
    "a loop": (operator(CODES.WHILE), "operator 119"),
    "a branch": (operator(CODES.IF), "operator 118"),
    "a call": (operator(CODES.CALL_ONCE), "operator 129"),
    "a fill": (operator(CODES.FILL), "operator 94"),
    "a loop in the old field": (old_code, "operator 119"),
    "an operator of somebody's own": (custom, "operator code with field 1"),
    "a second graph": (second_graph, "2 graphs"),
    "a variable": (variable, "tensor with field 5"),
    "a shape that is the window": (shape_of_the_window, "RESHAPE with a shape"),
    "a shape in the options": (shape_from_the_options, "RESHAPE with a shape"),
    "a second answer": (two_answers, "one output"),
    "a tensor of exabytes": (huge, "values"),
    "a tensor without a buffer": (no_buffer, "buffer"),
    "a buffer behind the file": (elsewhere, "buffer with field"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_with_something_else_is_refused(built, name):
    change, sentence = CHANGES[name]
    model = schema.ModelT.InitFromPackedBuf(built.files[INFER_TFLITE], 0)
    check_tflite(written(model), ())  # the bindings write the same file, but for its places
    change(model)
    with pytest.raises(MalformedError, match=sentence) as caught:
        check_tflite(written(model), ())
    assert caught.value.code == "bad-graph"


def test_parameters_are_written_over_constants_and_scales_alone(built):
    data, patches = built.files[INFER_TFLITE], built.manifest.patches
    check_tflite(data, patches)
    first = patches[0]
    wrong = [
        Patch(first.tensor, 0, 8),
        msgspec.structs.replace(first, size=first.size - 1),
        msgspec.structs.replace(first, offset=first.offset - 4),
        *(Patch("w0.q", at, 4) for at in range(8, 64, 4)),
    ]
    for patch in wrong:
        with pytest.raises(MalformedError, match="written over") as caught:
            check_tflite(data, (*patches[1:], patch))
        assert caught.value.code == "bad-graph"


def test_a_shape_is_never_written_over(built):
    data = built.files[INFER_TFLITE]
    graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    shape = next(graph.Tensors(number) for number in range(graph.TensorsLength()) if graph.Tensors(number).Type() == 2)
    buffer = schema.Model.GetRootAs(data, 0).Buffers(shape.Buffer())
    table = buffer._tab
    place = Patch("b0.q", int(table.Vector(table.Offset(4))), buffer.DataLength())
    with pytest.raises(MalformedError, match="written over"):
        check_tflite(data, (place,))


def test_every_place_of_a_number_is_checked_before_it_is_followed(built):
    data, draw = built.files[INFER_TFLITE], random.Random(5)
    for _ in range(400):
        changed = bytearray(data[: draw.randrange(len(data))] if draw.random() < 0.2 else data)
        for _ in range(draw.choice((1, 2, 4))):
            if len(changed) > 8:
                number = draw.choice((0, 1, 4, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data), len(data) - 2))
                struct.pack_into("<I", changed, draw.randrange(0, len(changed) - 4), number)
        with suppress(MalformedError):
            check_tflite(bytes(changed), built.manifest.patches)


def test_a_table_that_is_read_again_and_again_ends(built, monkeypatch):
    monkeypatch.setattr(tflite_file, "MAX_GRAPH_FIELDS", 100)
    with pytest.raises(MalformedError, match="more than 100 parts"):
        check_tflite(built.files[INFER_TFLITE], ())


def test_a_bundle_s_file_is_looked_through_with_the_others(built):
    other = built.files | {INFER_TFLITE: bytes(len(built.files[INFER_TFLITE]))}
    check_graphs(built.manifest, built.files)
    with pytest.raises(MalformedError, match=r"^bad-graph: infer\.tflite"):
        check_graphs(built.manifest, other)
