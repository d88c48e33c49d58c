import msgspec
import numpy as np
import pytest
from nacl.signing import SigningKey

from bedside.authoring.build import build_bundle
from bedside.authoring.recipe import load_recipe, shipped_recipes
from bedside.core.bundle.quantise import quantise_parameters
from bedside.core.bundle.tensors import decode_tensors
from bedside.core.bundle.training import Cost, Suffix, TrainingGraph
from bedside.core.bundle.verify import verify_archive
from bedside.core.errors import ConfigError, MalformedError, TrustError
from bedside.ondevice.golden import check_differences
from bedside.ondevice.refresh import int8_runtime
from bedside.ondevice.replay import compare_golden, compare_litert, golden_parameters


def believed(built, author):
    return verify_archive(built.tar, [bytes(author.verify_key)])


def test_the_same_recipe_and_key_give_the_same_bytes(tiny, author, built):
    again = build_bundle(tiny, author)
    assert again.digest == built.digest
    assert again.tar == built.tar


def test_another_seed_gives_another_bundle(tiny, author, built):
    other = build_bundle(msgspec.structs.replace(tiny, seed=4), author)
    assert other.digest != built.digest


def test_a_bundle_carries_its_signer_and_what_the_recipe_says(tiny, author, built):
    manifest = believed(built, author).manifest
    assert manifest.signer == bytes(author.verify_key).hex()
    assert (manifest.labels, manifest.window, manifest.training) == (tiny.labels, tiny.window, tiny.training)
    assert [graph.key for graph in manifest.graphs] == ["q1-all-sgd", "q1-head-sgd"]
    assert manifest.costs == tiny.costs


def test_a_last_layer_keeps_the_name_that_its_author_gave_it(tiny, author):
    last = len(tiny.layers) - 1
    own = msgspec.structs.replace(tiny, suffixes=(Suffix("last", last),), graphs=(), costs=())
    manifest = believed(build_bundle(own, author), author).manifest
    assert manifest.suffixes == (Suffix("last", last),)
    assert [graph.key for graph in manifest.graphs] == ["q1-all-sgd", "q1-last-sgd"]


def test_a_head_is_added_behind_another_suffix(tiny):
    own = msgspec.structs.replace(tiny, suffixes=(Suffix("net", 1),))
    assert own.suffix_list() == (Suffix("net", 1), Suffix("head", len(tiny.layers) - 1))


def test_ranges_are_shared_like_weights(built, author):
    assert "amax" in {spec.name for spec in believed(built, author).manifest.shared()}


@pytest.mark.parametrize("level", ["Q0", "Q1"])
def test_golden_vectors_replay_where_they_were_made(tiny, author, level):
    graphs = (TrainingGraph(level, "all", "sgd"),)
    bundle = believed(build_bundle(msgspec.structs.replace(tiny, graphs=graphs, costs=()), author), author)
    found = compare_golden(bundle)
    lite = compare_litert(bundle, int8_runtime(bundle, golden_parameters(bundle), "litert"))
    assert lite["logits_litert"] < bundle.manifest.tolerance("logits_litert") / 100
    assert set(found.values()) == {0.0}


def test_golden_classes_are_clear_by_twice_the_tolerance_of_a_logit(built, author):
    bundle = believed(built, author)
    ordered = np.sort(bundle.golden["logits"], axis=1)
    assert (ordered[:, -1] - ordered[:, -2]).min() > 2 * bundle.manifest.tolerance("logits") > 0


def test_a_replay_sees_other_parameters(built, author):
    bundle = believed(built, author)
    object.__setattr__(bundle, "parameters", {name: array * 2 for name, array in bundle.parameters.items()})
    with pytest.raises(TrustError) as caught:
        check_differences(bundle.manifest, compare_golden(bundle))
    assert caught.value.code == "golden-mismatch"


def test_int8_weights_stay_within_the_recipe_s_magnitude(tiny, author):
    bundle = believed(build_bundle(msgspec.structs.replace(tiny, weight_qmax=31), author), author)
    quantised = quantise_parameters(bundle.parameters, bundle.manifest.quantisation)
    assert (
        max(
            int(np.abs(array).max())
            for name, array in quantised.items()
            if name.startswith("w") and name.endswith(".q")
        )
        == 31
    )


def test_a_cost_that_the_recipe_does_not_state_is_measured(tiny, author):
    ballast = np.ones(80_000_000)  # 640 MB of the parent's, which are none of the child's
    graphs = (TrainingGraph("Q2", "all", "adam"),)
    costs = build_bundle(msgspec.structs.replace(tiny, costs=(), graphs=graphs), author).manifest.costs
    assert [(cost.graph, cost.batch) for cost in costs] == [("q2-all-adam", batch) for batch in (4, 8, 16)]
    assert all(0 < cost.step_ms < 1_000 for cost in costs)
    assert all(20 < cost.rss_mb < 400 < ballast.nbytes / 1e6 for cost in costs)


def test_layers_that_do_not_fit_are_refused(tiny, author):
    with pytest.raises(MalformedError, match="dense with 3 units"):
        build_bundle(msgspec.structs.replace(tiny, layers=({"kind": "gap"}, {"kind": "dense", "units": 4})), author)
    with pytest.raises(ConfigError, match="layers of tiny cannot be read"):
        build_bundle(msgspec.structs.replace(tiny, layers=({"kind": "lstm"},)), author)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_builds_and_replays(name):
    recipe = load_recipe(name)
    key, costs = SigningKey(b"r" * 32), (Cost("q1-all-sgd", recipe.training.batch, 1.0, 80.0),)
    built = build_bundle(msgspec.structs.replace(recipe, costs=costs), key)
    bundle = verify_archive(built.tar, [bytes(key.verify_key)])
    assert sum(array.size for array in bundle.parameters.values()) <= 25_000
    assert set(compare_golden(bundle).values()) == {0.0}
    assert decode_tensors(built.files["parameters.safetensors"]).keys() == bundle.parameters.keys()


def test_a_misspelt_key_of_a_recipe_is_named_with_the_nearest(tiny_path, tmp_path):
    (tmp_path / "r.toml").write_text(tiny_path.read_text().replace("epochs = 2", "epoks = 2"))
    with pytest.raises(ConfigError, match="epoks") as caught:
        load_recipe(str(tmp_path / "r.toml"))
    assert "epochs" in caught.value.remedy
