import importlib.util
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bedside.authoring import backward, convolution
from bedside.authoring.build import build_bundle
from bedside.authoring.golden import FLOAT, golden_batch
from bedside.authoring.initialise import initial_parameters
from bedside.authoring.recipe import load_recipe
from bedside.authoring.torch_import import exact, source
from bedside.authoring.torch_import.exact import check_exact
from bedside.authoring.torch_import.imported import import_module
from bedside.authoring.torch_import.source import TorchSource
from bedside.core.bundle.training import TrainingGraph
from bedside.core.bundle.verify import verify_archive
from bedside.core.errors import ConfigError, TrustError, UnavailableError
from bedside.ondevice.replay import compare_golden, golden_parameters
from bedside.ondevice.training.step import Rates

MODULES = Path(__file__).parent / "torch_modules.py"
RECORDS = {"length": 1, "hop": 1, "channels": 5, "fields": tuple("abcde"), "offset": (0.0,) * 5, "scale": (1.0,) * 5}
EXPECTED = {
    "Tabular": "flatten dense batchnorm relu dense",
    "Flattened": "conv1d relu maxpool conv1d relu flatten dense relu dense",
    "Residual": "conv1d batchnorm relu conv1d groupnorm relu conv1d add relu conv1d groupnorm relu conv1d add relu "
    "gap dense",
    "Separable": "depthwise conv1d relu depthwise batchnorm relu gap dense",
}
ARGUMENTS = "arguments = { sizes = [3, 5], gain = 0.5 }\n"
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


def recipe_of(tiny, name, *, file=MODULES, arguments=None, scopes=None, standardise="none", **changes):
    window = msgspec.structs.replace(tiny.window, **(RECORDS if name == "Tabular" else {}))
    torch = TorchSource(
        module=f"{file}:{name}", arguments=arguments or {}, scopes=scopes or {}, standardise=standardise
    )
    return msgspec.structs.replace(tiny, layers=(), torch=torch, window=window, **changes)


def initial(recipe, peer):
    net = recipe.net()
    return net, initial_parameters(net, recipe.seed, *golden_batch(net, recipe.seed), peer.parameters())


@needs_torch
@pytest.mark.parametrize("name", EXPECTED)
def test_a_module_becomes_layers_that_train_as_torch_does(tiny, name):
    recipe, peer = import_module(recipe_of(tiny, name))
    assert " ".join(str(layer["kind"]) for layer in recipe.layers) == EXPECTED[name]
    net, parameters = initial(recipe, peer)
    found = check_exact(net, peer, parameters, recipe.seed)
    assert found["logits"] < 1e-6
    assert max(found["gradients"], found["parameters"]) < 1e-6, "in double precision"
    assert found["parameters_float32"] < 1e-5


@needs_torch
@pytest.mark.parametrize(("task", "weights"), [("multilabel", (0.5, 2.0, 1.0)), ("regression", ())])
def test_losses_of_other_tasks_are_those_of_torch(tiny, task, weights):
    recipe, peer = import_module(recipe_of(tiny, "Flattened", task=task, class_weights=weights))
    net, parameters = initial(recipe, peer)
    assert max(check_exact(net, peer, parameters, recipe.seed).values()) < 1e-5


@needs_torch
@pytest.mark.parametrize("name", ["Tabular", "Residual"])
def test_a_layer_in_front_standardises_what_the_module_sees(tiny, name):
    recipe, peer = import_module(recipe_of(tiny, name, standardise="shared"))
    net, parameters = initial(recipe, peer)
    assert recipe.layers[0] == {"kind": "standardise", "scope": "shared"}
    moved = parameters | {"mean0": parameters["mean0"] + 0.3, "square0": parameters["square0"] + 1.7}
    assert check_exact(net, peer, moved, recipe.seed)["parameters"] < 1e-6
    x, _ = golden_batch(net, recipe.seed)
    assert np.abs(peer.predict(moved, x) - peer.predict(parameters, x)).max() > 0.01


def flipped(emit):
    def emitted(graph, *rest):
        return graph.op("Neg", emit(graph, *rest))

    return emitted


@needs_torch
@pytest.mark.parametrize("rule", ["emit_bias_gradient", "emit_weight_gradient", "emit_input_gradient"])
def test_a_wrong_sign_in_our_backward_pass_refuses_the_import(tiny, author, monkeypatch, rule):
    monkeypatch.setattr(backward, rule, flipped(getattr(convolution, rule)))
    with pytest.raises(TrustError, match=r"in its gradient.*allowed") as caught:
        build_bundle(recipe_of(tiny, "Flattened"), author)
    assert caught.value.code == "import-not-exact"


@needs_torch
def test_a_wrong_statistic_is_seen_though_no_gradient_has_it(tiny, monkeypatch):
    from bedside.authoring import norms

    monkeypatch.setattr(norms, "RUNNING_SHARE", 0.2)
    recipe, peer = import_module(recipe_of(tiny, "Tabular"))
    net, parameters = initial(recipe, peer)
    with pytest.raises(TrustError, match=r"(mean|variance)0 is .* after 50 steps"):
        check_exact(net, peer, parameters, recipe.seed)


@needs_torch
def test_what_devices_replay_was_computed_by_torch(tiny, author):
    recipe = recipe_of(tiny, "Flattened", scopes={"head.3": "local"}, graphs=(TrainingGraph("Q1", "all", "sgd"),))
    built = build_bundle(recipe, author)
    assert 0 < max(built.from_torch.values()) < 1e-4
    bundle = verify_archive(built.tar, [bytes(author.verify_key)])
    manifest = bundle.manifest
    assert [graph.key for graph in manifest.graphs] == ["q1-all-sgd", "q0-all-sgd"]
    assert [spec.name for spec in manifest.parameters if not spec.shared] == ["w3", "b3"]
    _, peer = import_module(recipe)
    losses, after = peer.train(
        bundle.parameters, bundle.golden["x"], bundle.golden["y"], Rates.of_golden(manifest.golden), 4
    )
    assert np.array_equal(bundle.golden["q0-all-sgd/loss"], losses)
    assert all(np.array_equal(bundle.golden[f"{FLOAT.key}/{name}"], array) for name, array in after.items())
    probe = peer.predict(golden_parameters(bundle), bundle.golden["probe"])
    assert np.array_equal(bundle.golden["logits_float"], probe)
    found = compare_golden(bundle)
    assert 0 < max(found[f"{FLOAT.key}/{name}"] for name in after) < 1e-6
    assert all(manifest.tolerance(f"{FLOAT.key}/{name}") > 0 for name in after)


HEAD = "from torch import nn\nimport torch\nfrom torch.nn import functional as F\n"
REFUSED = {
    "even kernel": ("nn.Sequential(nn.Conv1d(2, 4, 4, padding=2), nn.Flatten(), nn.Linear(132, 3))", ": 0: kernel 4"),
    "no padding": ("nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(120, 3))", "odd kernel_size"),
    "dilated": ("nn.Sequential(nn.Conv1d(2, 4, 3, padding=1, dilation=2))", "dilation 2"),
    "grouped": ("nn.Sequential(nn.Conv1d(2, 4, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(128, 3))", "2 groups"),
    "no bias": ("nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False))", "bias=True"),
    "dropout": ("nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))", "set p=0"),
    "tanh": ("nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Tanh())", "Tanh (2) has no exact form"),
    "softmax": ("nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Softmax(1))", "Softmax"),
    "epsilon": ("nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.BatchNorm1d(3, eps=1e-3))", "eps=1e-05"),
    "momentum": ("nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.BatchNorm1d(3, momentum=0.5))", "momentum=0.1"),
    "loose norm": ("nn.Sequential(nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(64, 3))", "right behind"),
    "over time": ("nn.Sequential(nn.Linear(32, 3))", "flatten first"),
    "pool of three": ("nn.Sequential(nn.MaxPool1d(3), nn.Flatten(), nn.Linear(20, 3))", "MaxPool1d(2)"),
    "input": ("nn.Sequential(nn.Conv1d(5, 4, 3, padding=1))", r"input of (N, 2, 32)"),
    "frozen": ("nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).requires_grad_(False)", "frozen"),
    "double": ("nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double()", "input of"),
}  # fmt: skip
WRITTEN = {
    "scaled": ("self.one(torch.flatten(x, 1)) * 2", "mul"),
    "the input added": ("self.one(torch.flatten(self.conv(x) + x, 1))", "the module's input"),
    "twice": ("self.one(torch.flatten(self.conv(self.conv(x)), 1))", "used twice"),
    "by value": ("self.one(torch.flatten(x if x.sum() > 0 else -x, 1))", "not decide by values"),
    "viewed": ("self.one(x.view(x.size(0), -1))", "view"),
    "two branches": ("self.one(torch.flatten(self.conv(x) + torch.relu(x), 1))", "two branches"),
    "dropped": ("F.dropout(self.one(torch.flatten(x, 1)))", "dropout of 0.5"),
    "a constant": ("self.one(torch.flatten(x, 1)) + 1", "no layer gave"),
}


def refused(tiny, tmp_path, body, said):
    (tmp_path / "m.py").write_text(HEAD + body)
    with pytest.raises(ConfigError) as caught:
        import_module(recipe_of(tiny, "make", file=tmp_path / "m.py"))
    assert caught.value.code == "torch-unsupported"
    assert said in caught.value.diagnostics()
    assert caught.value.remedy


@needs_torch
@pytest.mark.parametrize(("made", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_exact_is_refused_with_its_name_and_a_remedy(tiny, tmp_path, made, said):
    refused(tiny, tmp_path, f"def make():\n    return {made}\n", said)


@needs_torch
def test_all_that_devices_do_not_have_is_named_at_once_with_the_names_of_the_modules(tiny, tmp_path):
    body = """
class make(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.soft, self.head = nn.GRU(32, 8, batch_first=True), nn.GELU(), nn.Linear(8, 3)

    def forward(self, x):
        found, _ = self.gru(x)
        return torch.sigmoid(self.head(self.soft(found[:, -1])))
"""
    refused(tiny, tmp_path, body, "GRU (gru), GELU (soft), sigmoid have no exact form")


@needs_torch
def test_another_number_of_outputs_than_labels_is_the_recipe_s_mistake(tiny, tmp_path):
    (tmp_path / "m.py").write_text(f"{HEAD}def make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))\n")
    with pytest.raises(ConfigError, match=r"labels has 3 names \(rest, walk, shake\), and .* has 4 outputs") as caught:
        import_module(recipe_of(tiny, "make", file=tmp_path / "m.py"))
    assert caught.value.code == "bad-recipe"


@needs_torch
@pytest.mark.parametrize(("forward", "said"), WRITTEN.values(), ids=WRITTEN)
def test_what_forward_does_besides_is_refused(tiny, tmp_path, forward, said):
    init = "self.conv, self.one = nn.Conv1d(2, 2, 3, padding=1), nn.Linear(64, 3)"
    body = f"class make(nn.Module):\n    def __init__(self):\n        super().__init__()\n        {init}\n"
    refused(tiny, tmp_path, f"{body}    def forward(self, x):\n        return {forward}\n", said)


@needs_torch
@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("Net", "none.py", "no such Python file"),
        ("Nothing", "m.py", "there is no Nothing"),
        ("needy", "m.py", "TypeError"),
        ("number", "m.py", "gives a int"),
        ("x", "broken.py", "the file raises ZeroDivisionError"),
    ],
)
def test_a_module_that_cannot_be_had_says_why(tiny, tmp_path, name, file, said):
    (tmp_path / "m.py").write_text("def needy(size):\n    return size\ndef number():\n    return 3\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match=said) as caught:
        import_module(recipe_of(tiny, name, file=tmp_path / file))
    assert caught.value.code == "torch-module"


def test_without_torch_the_command_names_the_extra(tiny, author, monkeypatch):
    monkeypatch.setattr(source.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UnavailableError) as caught:
        build_bundle(recipe_of(tiny, "Flattened"), author)
    assert "pip install 'bedside[torch]'" in caught.value.remedy


def test_a_recipe_has_layers_or_a_module_and_finds_it_beside_itself(tiny_path, tmp_path):
    text = tiny_path.read_text()
    (tmp_path / "both.toml").write_text(text + '\n[torch]\nmodule = "net.py:Net"\n')
    start, end = text.index("layers = ["), text.index("[window]")
    (tmp_path / "one.toml").write_text(text[:start] + text[end:] + '\n[torch]\nmodule = "net.py:Net"\n' + ARGUMENTS)
    (tmp_path / "neither.toml").write_text(text[:start] + text[end:])
    for name in ("both", "neither"):
        with pytest.raises(ConfigError, match=name) as caught:
            load_recipe(str(tmp_path / f"{name}.toml"))
        assert caught.value.code == "bad-recipe"
    loaded = load_recipe(str(tmp_path / "one.toml")).torch
    assert loaded.module == f"{tmp_path / 'net.py'}:Net"
    assert loaded.arguments == {"sizes": [3, 5], "gain": 0.5}


@needs_torch
def test_what_float32_rounds_apart_is_told_from_a_wrong_rule(tiny):
    recipe, peer = import_module(recipe_of(tiny, "Separable", seed=4))  # its batch norm divides by small deviations
    net, parameters = initial(recipe, peer)
    found = check_exact(net, peer, parameters, recipe.seed)
    assert found["parameters"] < exact.TOLERANCE == 1e-6 < found["parameters_float32"] < 1e-3
    assert exact.STEPS == 50
