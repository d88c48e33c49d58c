"""docs/protocol/bundle.md tells every field, layer, file, tensor and limit of the code, and no other."""

from __future__ import annotations

import json
import re
import typing
from pathlib import Path

import msgspec
import pytest

from bedside.authoring.build import build_bundle
from bedside.authoring.recipe import load_recipe
from bedside.core.bundle import bounds
from bedside.core.bundle.archive import HEAD
from bedside.core.bundle.layers import Layer
from bedside.core.bundle.manifest import COMMITTED, OPTIONAL, SCHEMA, Manifest
from bedside.core.bundle.tensors import decode_tensors
from bedside.core.bundle.training import TrainingGraph

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "protocol" / "bundle.md").read_text()
WORDS = {str: "text", int: "integer", float: "number", bool: "boolean"}


def section(title):
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, f"there is no section {title}"
    return found[1]


def rows(title):
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def structs(kind):
    """Every struct that is reached from a type, each once, in the order in which it is met."""
    met = [kind] if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else []
    inner = [field.type for field in msgspec.structs.fields(kind)] if met else typing.get_args(kind)
    for one in inner:
        met += [found for found in structs(one) if found not in met]
    return met


def written(kind):
    """A type as the page has it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in WORDS:
        return WORDS[kind]
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {written(arguments[0])}"
    if origin is tuple:
        return f"list of {len(arguments)} {written(arguments[0])}s"
    if origin is typing.Literal:
        return " or ".join(f"`{json.dumps(one)}`" for one in arguments)
    if isinstance(kind, type):
        return f"`{kind.__name__}`"
    real = [one for one in arguments if one not in (type(None), msgspec.UnsetType)]
    return written(real[0]) if len(real) == 1 else "layer"


def absent(struct, field):
    if field.default is msgspec.UNSET:
        return "may be"
    if struct.__struct_config__.omit_defaults and field.default is not msgspec.NODEFAULT:
        return f"when `{json.dumps(field.default)}`"
    return "-"


TABLES = [struct for struct in structs(Manifest) if struct not in Layer.__args__]


@pytest.mark.parametrize("struct", TABLES, ids=lambda struct: struct.__name__)
def test_every_field_is_told_with_its_type_and_when_it_is_absent(struct):
    told = {name.strip("`"): (kind, away) for name, kind, away, _ in rows(struct.__name__)}
    fields = msgspec.structs.fields(struct)
    assert told == {field.encode_name: (written(field.type), absent(struct, field)) for field in fields}
    assert all(meaning for *_, meaning in rows(struct.__name__))


def test_no_other_object_is_told():
    told = set(re.findall(r"^### (\w+)$", PAGE, re.MULTILINE))
    assert told == {struct.__name__ for struct in TABLES}


def test_every_kind_of_layer_is_told_with_its_fields_and_default_scope():
    told = {kind.strip("`"): (fields, scope) for kind, fields, scope, *_ in rows("Layers")}
    wanted = {}
    for layer in Layer.__args__:
        fields = {field.encode_name: field for field in msgspec.structs.fields(layer)}
        scope = fields.pop("scope", None)
        words = [
            f"`{name}`" + ("" if field.default is msgspec.NODEFAULT else f" = {field.default}")
            for name, field in fields.items()
        ]
        wanted[layer.__struct_config__.tag] = (", ".join(words), scope.default if scope else "")
    assert told == wanted


def test_the_files_are_those_of_the_code_in_their_order():
    told = [name.strip("`") for name, _ in rows("The tar")]
    key = TrainingGraph("Q1", "all", "sgd").file
    assert told == [*HEAD, "train-LEVEL-SUFFIX-OPTIMISER.onnx", *COMMITTED, *OPTIONAL]
    assert key in section("The tar")


def test_the_limits_and_the_schema_are_those_of_the_code():
    told = {name.strip("`"): float(value) for name, value in rows("Limits")}
    assert told == {name: value for name, value in vars(bounds).items() if name.isupper()}
    assert f"specification of schema {SCHEMA}," in PAGE
    assert {row[0]: row[3] for row in rows("Manifest")}["`schema`"].startswith(f"{SCHEMA};")


@pytest.fixture(scope="module")
def built():
    """Every form of training graph of a small net with every kind of tensor."""
    from nacl.signing import SigningKey

    layers = (
        *({"kind": "standardise"}, {"kind": "depthwise", "taps": 3}, {"kind": "batchnorm"}, {"kind": "relu"}),
        *({"kind": "conv1d", "filters": 4, "taps": 3, "stride": 2}, {"kind": "groupnorm", "groups": 2}),
        *({"kind": "add", "back": 3}, {"kind": "gap"}, {"kind": "dense", "units": 3}),
    )
    tiny = load_recipe(str(ROOT / "tests" / "recipes" / "tiny.toml"))
    graphs = tuple(
        TrainingGraph(*names) for names in (("Q1", "all", "sgd"), ("Q2", "all", "adam"), ("Q0", "head", "sgd"))
    )
    return build_bundle(msgspec.structs.replace(tiny, layers=layers, graphs=graphs), SigningKey(b"k" * 32))


def pattern_of(cells, names):
    """What a cell of names in code marks matches: NAME is a parameter, KEY a graph, K a number, w and b layers."""
    parts = []
    for word in re.findall(r"`([^`]+)`", cells):
        text = re.escape(word).replace("NAME", f"(?:{names})").replace("KEY", r"q\d-\w+-\w+")
        text = re.sub(r"^([wb])(?=\\\.)", r"\1\\d+", text)
        parts.append(re.sub(r"K$", r"\\d+", text))
    return "|".join(parts)


def test_the_int8_tensors_are_those_that_are_told(built):
    from bedside.core.bundle.quantise import quantise_parameters, real_tensors

    quantisation = built.manifest.quantisation
    quantised = quantise_parameters(decode_tensors(built.files["parameters.safetensors"]), quantisation)
    made = quantised | real_tensors(quantised, quantisation)
    patterns = [pattern_of(row[0], "") for row in rows("The int8 form")]
    for name in made:
        assert sum(re.fullmatch(pattern, name) is not None for pattern in patterns) == 1, name
    assert all(any(re.fullmatch(pattern, name) for name in made) for pattern in patterns)


def test_the_inputs_of_training_graphs_are_those_that_are_told(built):
    import onnx

    names = "|".join(spec.name for spec in built.manifest.parameters)
    patterns = [pattern_of(row[0], names) or names for row in rows("Training graphs")]
    met = set()
    for graph in built.manifest.graphs:
        model = onnx.ModelProto.FromString(built.files[graph.file]).graph
        inputs = {put.name for put in model.input}
        for name in inputs:
            matching = [number for number, pattern in enumerate(patterns) if re.fullmatch(pattern, name)]
            assert len(matching) == 1, name
            met.update(matching)
        assert {put.name.removesuffix(".next") for put in model.output} <= inputs | {"loss"}
    assert met == set(range(len(patterns)))


def test_the_golden_tensors_are_those_that_are_told(built):
    names = "|".join(spec.name for spec in built.manifest.parameters)
    patterns = [pattern_of(row[0], names) for row in rows("Golden vectors")]
    made = decode_tensors(built.files["golden.safetensors"])
    for name in made:
        assert sum(re.fullmatch(pattern, name) is not None for pattern in patterns) == 1, name
    assert all(any(re.fullmatch(pattern, name) for name in made) for pattern in patterns)


@pytest.mark.parametrize("number", [50.0, 0.00001, 1e16, 1.5e-7])
def test_numbers_are_written_as_the_page_has_them(number):
    assert f"`{msgspec.json.encode(number).decode()}`" in section("Canonical JSON")


def test_the_operators_of_each_file_are_those_of_the_code():
    from bedside.core.bundle import onnx_graph, tflite_file

    told = [
        set(re.findall(r"`([A-Z][A-Za-z0-9_]+)`", operators)) for _, operators in rows("What graphs may consist of")
    ]
    assert told == [
        onnx_graph.INT8_OPERATORS,
        onnx_graph.FLOAT_OPERATORS,
        onnx_graph.TRAINING_OPERATORS - onnx_graph.FLOAT_OPERATORS,
        set(tflite_file.OPERATORS.values()),
    ]


def test_the_caps_of_golden_tolerances_are_those_of_the_code():
    from bedside.core.bundle.tolerances import LOGITS_SHARE, LOSS_SHARE, RANGE_SHARE, WAY_SHARE

    sentence = re.search(r"A tolerance is at most (.*?)\n\n", PAGE, re.DOTALL)[1].split(";")[0]
    assert re.findall(r"\d\.\d+", sentence) == [
        f"{one:g}" for one in (LOGITS_SHARE, LOSS_SHARE, WAY_SHARE, RANGE_SHARE)
    ]
