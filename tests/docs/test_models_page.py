"""docs/models.md: what it says to write into a recipe can be built, and its options exist."""

import re
import tomllib
from pathlib import Path

import click
from nacl.signing import SigningKey

from bedside.authoring.build import build_bundle
from bedside.authoring.recipe import load_recipe
from bedside.core.bundle.training import TrainingGraph
from bedside.service.cli import cli

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "models.md").read_text("utf-8")


def test_the_graphs_and_suffixes_of_the_page_are_a_recipe_s_and_what_is_left_out_is_usual(tmp_path):
    (block,) = [one for one in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "graphs" in tomllib.loads(one)]
    tiny = (ROOT / "tests" / "recipes" / "tiny.toml").read_text("utf-8")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(block + re.sub(r"(?m)^(graphs|suffixes) = .*\n", "", tiny))
    expected = (
        TrainingGraph("Q1", "all", "sgd"),
        TrainingGraph("Q2", "all", "adam"),
        TrainingGraph("Q1", "block", "sgd"),
        TrainingGraph("Q1", "head", "sgd"),
    )
    assert build_bundle(load_recipe(str(recipe)), SigningKey(b"k" * 32)).manifest.graphs == expected


def test_the_options_that_choose_a_graph_are_those_of_round_start():
    context = click.Context(cli)
    group = cli.get_command(context, "round")
    start = group.get_command(context, "start")
    known = {option for parameter in start.params for option in parameter.opts}
    named = set(re.findall(r"`(--[a-z-]+)`", PAGE.partition("`bedside round start` chooses")[2].partition("\n\n")[0]))
    assert named == {"--level", "--suffix", "--local-optimiser", "--gradient-clip", "--max-local-steps"}
    assert named <= known
