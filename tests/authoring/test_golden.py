"""What golden vectors refuse, a graph that is wrong, and what they let pass, one whose sums run in another order."""

import dataclasses
import math

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bedside.authoring.build import build_bundle
from bedside.core.bundle.manifest import INFER, Targets
from bedside.core.bundle.training import TrainingGraph
from bedside.core.bundle.verify import verify_archive
from bedside.core.errors import TrustError
from bedside.ondevice.golden import check_differences
from bedside.ondevice.replay import _compare_training, compare_golden
from bedside.ondevice.training.step import Rates, open_step

GRAPHS = (
    *(TrainingGraph(level, "all", optimiser) for level in ("Q0", "Q1", "Q2") for optimiser in ("sgd", "adam")),
    TrainingGraph("Q1", "head", "sgd"),
)
LAYERS = (
    {"kind": "conv1d", "filters": 8, "taps": 3},
    {"kind": "groupnorm", "groups": 2},
    {"kind": "relu"},
    {"kind": "conv1d", "filters": 8, "taps": 3, "stride": 2},
    {"kind": "batchnorm"},
    {"kind": "relu"},
    {"kind": "depthwise", "taps": 3},
    {"kind": "add", "back": 2},
    {"kind": "gap"},
    {"kind": "dense", "units": 3},
)
GRAPHS_BY_KEY = {graph.key: graph for graph in GRAPHS}


@pytest.fixture(scope="module")
def bundle(tiny, author):
    built = build_bundle(msgspec.structs.replace(tiny, graphs=GRAPHS, layers=LAYERS), author)
    return verify_archive(built.tar, [bytes(author.verify_key)])


def altered(bundle, file, change):
    """The bundle with one graph changed behind the signature."""
    model = onnx.load_model_from_string(bundle.files[file])
    change(model.graph)
    return dataclasses.replace(bundle, files={**bundle.files, file: model.SerializeToString()})


def retrain(bundle, graph, change):
    """Replay one training graph, changed."""
    manifest = msgspec.structs.replace(bundle.manifest, graphs=(graph,))
    alone = dataclasses.replace(altered(bundle, graph.file, change), manifest=manifest)
    check_differences(manifest, _compare_training(alone))


def pulls(graph):
    """The nodes that add the FedProx term to a gradient."""
    products = {node.output[0] for node in graph.node if node.op_type == "Mul" and node.input[0] == "mu"}
    return [node for node in graph.node if node.op_type == "Add" and node.input[1] in products]


@pytest.mark.parametrize("key", GRAPHS_BY_KEY)
def test_one_gradient_with_the_wrong_sign_is_refused(bundle, key):
    graph = GRAPHS_BY_KEY[key]
    trained = [spec.name for spec in bundle.manifest.changed(graph.suffix) if spec.trained]

    def flipped(number):
        def flip(model):
            node = pulls(model)[number]
            node.op_type, (gradient, pull) = "Sub", tuple(node.input)
            node.input[:] = [pull, gradient]

        return flip

    # in front of a batch norm a bias has a gradient of nought, whatever its sign
    refused = {}
    for number, name in enumerate(trained):
        try:
            retrain(bundle, graph, flipped(number))
        except TrustError as error:
            refused[name] = error.code
    assert refused == dict.fromkeys((name for name in trained if name != "b1"), "golden-mismatch")


def test_one_gradient_of_twice_the_size_is_refused(bundle):
    def double(model):
        node = pulls(model)[0]
        node.input[1] = node.input[0]

    with pytest.raises(TrustError, match="golden"):
        retrain(bundle, GRAPHS_BY_KEY["q1-all-sgd"], double)


def test_one_wrong_scale_is_refused(bundle):
    def exchange(model):
        node = next(node for node in model.node if node.op_type == "DequantizeLinear" and "w0.scale" in node.input)
        node.input[1] = "w2.scale"

    with pytest.raises(TrustError, match="logits"):
        check_differences(bundle.manifest, compare_golden(altered(bundle, INFER, exchange)))


@pytest.mark.parametrize("key", GRAPHS_BY_KEY)
def test_a_value_that_is_no_number_is_refused(bundle, key):
    def poison(model):
        scalars = [tensor for tensor in model.initializer if tensor.data_type == 1 and not tensor.dims]
        tensor = next(tensor for tensor in scalars if math.isclose(numpy_helper.to_array(tensor), 0.9, rel_tol=1e-6))
        tensor.CopyFrom(numpy_helper.from_array(np.array(np.nan, np.float32), tensor.name))

    with pytest.raises(TrustError, match="golden"):
        retrain(bundle, GRAPHS_BY_KEY[key], poison)


@pytest.mark.parametrize("key", GRAPHS_BY_KEY)
def test_sums_in_another_order_are_let_pass(bundle, key):
    """Another CPU: the batch in another order, and biases off by a rounding of what they are added to."""
    generator, seen = np.random.default_rng(4), {}
    graph, golden = GRAPHS_BY_KEY[key], bundle.golden
    for _ in range(6):
        order = generator.permutation(len(golden["x"]))
        start = {
            name: array + np.float32(2e-7) * generator.normal(size=array.shape).astype(np.float32)
            if name.startswith("b")
            else array
            for name, array in bundle.parameters.items()
        }
        step = open_step(bundle, graph, start, Rates.of_golden(bundle.manifest.golden))
        losses = [step(golden["x"][order], golden["y"][order]) for _ in range(bundle.manifest.golden.steps)]
        after = step.parameters()
        seen[f"{key}/loss"] = np.abs(losses - golden[f"{key}/loss"]).max()
        for spec in bundle.manifest.changed(graph.suffix):
            name = f"{key}/{spec.name}"
            seen[name] = float(np.sqrt(np.mean((after[spec.name] - golden[name]) ** 2)))
        check_differences(bundle.manifest, seen)
    assert max(seen.values()) > 0, "nothing was disturbed"


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_a_bundle_of_each_task_is_replayed_by_its_outputs(tiny, author, task):
    targets = Targets(("mm[Hg]",) * 3, (80.0,) * 3, (0.1,) * 3) if task == "regression" else None
    built = build_bundle(msgspec.structs.replace(tiny, task=task, targets=targets), author)
    other = verify_archive(built.tar, [bytes(author.verify_key)])
    assert other.golden["y"].dtype == np.float32
    assert other.golden["y"].shape == (len(other.golden["x"]), 3)
    assert "classes" not in other.golden
    found = compare_golden(other)
    assert set(found.values()) == {0.0}
    golden = {**other.golden, "logits": other.golden["logits"] + np.float32(1)}
    with pytest.raises(TrustError, match="logits"):
        check_differences(other.manifest, compare_golden(dataclasses.replace(other, golden=golden)))
