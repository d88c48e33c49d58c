"""A recipe: what a model's author writes down, and all that a bundle is built from.

The layer list in a recipe is the one in the manifest. A shipped recipe is found by its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from bedside.authoring.net import Net
from bedside.authoring.torch_import.source import TorchSource
from bedside.core.bundle.layers import Layer, walk
from bedside.core.bundle.manifest import Targets, WindowSpec
from bedside.core.bundle.preprocessing import Filter
from bedside.core.bundle.training import ALL, HEAD, Cost, Level, Optimiser, Suffix, Task, Training, TrainingGraph
from bedside.core.errors import ConfigError
from bedside.core.signal.butterworth import Section, butterworth, notch, settling_samples
from bedside.ondevice.windows.targets import Question
from bedside.service.config import load_config

_SHIPPED: Final = Path(__file__).parent / "recipes"
_SUFFIX: Final = ".toml"


class FilterDesign(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A filter as authors think of it; the manifest has its coefficients.

    Attributes:
        low_hz: where the band begins (-3 dB); 0 for none.
        high_hz: where it ends; 0 for none.
        order: of the Butterworth filter; a band-pass has twice as many poles.
        notch_hz: mains frequency to remove; 0 for none.
        notch_quality: its centre over its width.
        settle_s: what a run's beginning is not used for; by default until 60 dB of a step are gone.
    """

    low_hz: float = 0.0
    high_hz: float = 0.0
    order: int = 2
    notch_hz: float = 0.0
    notch_quality: float = 30.0
    settle_s: float | None = None

    def design(self, rate_hz: float) -> Filter:
        """The sections at `rate_hz`.

        Raises:
            ValueError: there is no such filter.
        """
        sections: tuple[Section, ...] = ()
        if self.low_hz or self.high_hz or not self.notch_hz:
            sections += butterworth(self.order, rate_hz, low_hz=self.low_hz, high_hz=self.high_hz)
        if self.notch_hz:
            sections += (notch(self.notch_hz, rate_hz, self.notch_quality),)
        settle_s = settling_samples(sections) / rate_hz if self.settle_s is None else self.settle_s
        return Filter(sections, round(settle_s, 3))


class GraphChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A training graph as authors write it: what they leave out is usual. The manifest leaves nothing out."""

    level: Level = "Q1"
    suffix: str = ALL
    optimiser: Optimiser = "sgd"


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model.

    Attributes:
        name: of the model.
        version: of this recipe; any text.
        task: what the outputs are.
        labels: names of the outputs: classes, or what is measured.
        window: stream, shape and scaling of one input, and its stages (docs/models.md).
        filter: stage of the window, designed here.
        physical_range: (lowest, highest) possible value per channel of the stream that the model takes, physical units.
        layers: one table per layer: `kind` and what that kind needs, as in the manifest.
        torch: instead of layers, the module that they are translated from.
        training: what the author recommends to plans.
        graphs: ways in which plans may have it trained, the recommended one first; by default Q1 by SGD, of all layers
            and, where that is less, of the head, which personal heads need.
        suffixes: which layers a plan may train alone, by name and the place of the first; the last layer is `head`
            unless it has a name here.
        class_weights: of the loss, one per label; empty for ones.
        targets: of a regression: what its outputs stand for.
        weight_qmax: largest magnitude of an int8 weight; 63 is safe on CPUs whose 8-bit kernels saturate at 16 bits.
        seed: of the initial parameters and the golden vectors.
        costs: measured before; without them, building measures, and two builds differ in what they measured.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    window: WindowSpec
    training: Training
    layers: tuple[dict[str, str | int], ...] = ()
    torch: TorchSource | None = None
    task: Task = "classification"
    graphs: tuple[GraphChoice, ...] = ()
    suffixes: tuple[Suffix, ...] = ()
    class_weights: tuple[float, ...] = ()
    targets: Targets | None = None
    weight_qmax: int = 63
    seed: int = 1
    costs: tuple[Cost, ...] = ()
    filter: FilterDesign | None = None
    physical_range: tuple[tuple[float, float], ...] = ()

    def window_spec(self) -> WindowSpec:
        """The window with its filter designed, as the manifest has it.

        Raises:
            ConfigError: `bad-recipe`: there is no such filter, or the window has another already.
        """
        if self.filter is None:
            return self.window
        try:
            if self.window.filter is not None:
                raise ValueError("the window has coefficients of its own")
            return msgspec.structs.replace(self.window, filter=self.filter.design(self.window.rate_hz))
        except ValueError as error:
            raise ConfigError(
                "bad-recipe",
                f"the filter of {self.name} cannot be designed: {error}",
                remedy="correct low_hz, high_hz, order and notch_hz in its [filter] table",
            ) from error

    def question(self) -> Question:
        """What the model is asked about a window."""
        return Question(self.window_spec(), self.labels, self.task, self.targets)

    def layer_list(self) -> tuple[Layer, ...]:
        """The layers as the manifest has them.

        Raises:
            ConfigError: `bad-recipe`: a layer of unknown kind, or with a key that its kind does not have.
        """
        try:
            return msgspec.convert(self.layers, tuple[Layer, ...])
        except msgspec.ValidationError as error:
            raise ConfigError(
                "bad-recipe",
                f"the layers of {self.name} cannot be read: {error}",
                remedy="kinds are conv1d (filters, taps, stride), depthwise (taps, stride), dense (units), relu, "
                "maxpool, gap, flatten, add (back), groupnorm (groups), batchnorm and standardise; those that have "
                "tensors take a scope",
            ) from error

    def net(self) -> Net:
        """The model to build graphs of.

        Raises:
            ConfigError: `bad-recipe`.
            MalformedError: `bad-layers`.
        """
        steps = walk(self.layer_list(), (self.window.length, self.window.channels), len(self.labels))
        return Net(steps, self.task, self.weight_qmax, self.class_weights)

    def graph_list(self) -> tuple[TrainingGraph, ...]:
        """The training graphs as the manifest has them."""
        weighted = sum(step.kernel is not None for step in self.net().steps)
        names = (ALL, *(suffix.name for suffix in self.suffix_list()))
        usual = (ALL, HEAD if HEAD in names else names[-1])
        chosen = tuple(TrainingGraph(one.level, one.suffix, one.optimiser) for one in self.graphs)
        return chosen or tuple(TrainingGraph("Q1", suffix, "sgd") for suffix in usual[: min(weighted, 2)])

    def suffix_list(self) -> tuple[Suffix, ...]:
        """The suffixes as the manifest has them, in the order of the layers; the author's own name for a last layer."""
        last, named = len(self.layers) - 1, self.suffixes
        if last > 0 and not any(suffix.name == HEAD or suffix.first_layer == last for suffix in named):
            named = (*named, Suffix(HEAD, last))
        return tuple(sorted(named, key=lambda suffix: suffix.first_layer))


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe from its file, or a shipped one by its name; a folder of that name is in nobody's way.

    Raises:
        ConfigError: `no-recipe`: there is neither. A key is missing, unknown or of another type.
    """
    path, shipped = Path(name_or_path), shipped_recipes()
    if path.is_file():
        return _whole(load_config(path, Recipe), path)
    if name_or_path not in shipped:
        raise ConfigError(
            "no-recipe",
            f"{name_or_path} is neither a recipe's file nor the name of one that comes with Bedside",
            remedy=f"name a file, or one of {', '.join(shipped)}",
        )
    return load_config(_SHIPPED / f"{name_or_path}{_SUFFIX}", Recipe)


def _whole(recipe: Recipe, path: Path) -> Recipe:
    """A recipe with layers or with the module that they come from, whose file is looked for beside the recipe's."""
    if bool(recipe.layers) == (recipe.torch is not None):
        raise ConfigError(
            "bad-recipe",
            f"{path} has {'both layers and [torch]' if recipe.layers else 'neither layers nor [torch]'}",
            remedy="list the layers, or name a module in [torch]",
        )
    return recipe if recipe.torch is None else msgspec.structs.replace(recipe, torch=recipe.torch.within(path.parent))


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with Bedside."""
    return sorted(path.stem for path in _SHIPPED.glob(f"*{_SUFFIX}"))
