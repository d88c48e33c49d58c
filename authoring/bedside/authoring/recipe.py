"""A recipe: what a model's author writes down, and all that a bundle is built from.

The layer list in a recipe is the one in the manifest. A shipped recipe is found by its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from bedside.core.bundle.layers import Layer, Step, walk
from bedside.core.bundle.manifest import Cost, Level, Training, WindowSpec
from bedside.core.errors import ConfigError
from bedside.service.config import load_config

_SHIPPED: Final = Path(__file__).parent / "recipes"
_SUFFIX: Final = ".toml"


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model.

    Attributes:
        name: of the model.
        version: of this recipe; any text.
        labels: class names in the order of the logits.
        window: stream, shape and scaling of one input.
        layers: one table per layer: `kind` and what that kind needs, as in the manifest.
        training: what the author recommends to plans.
        level: Q1 trains with rounding in the loop, Q0 rounds afterwards.
        weight_qmax: largest magnitude of an int8 weight; 63 is safe on CPUs whose 8-bit kernels saturate at 16 bits.
        seed: of the initial parameters and the golden vectors.
        cost: measured before; without it, building measures, and two builds differ in what they measured.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    window: WindowSpec
    layers: tuple[dict[str, str | int], ...]
    training: Training
    level: Level = "Q1"
    weight_qmax: int = 63
    seed: int = 1
    cost: Cost | None = None

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
                remedy="kinds are conv1d (filters, taps), dense (units), relu, maxpool, gap and flatten",
            ) from error

    def steps(self) -> tuple[Step, ...]:
        """The layers in their places.

        Raises:
            ConfigError: `bad-recipe`.
            MalformedError: `bad-layers`.
        """
        return walk(self.layer_list(), (self.window.length, self.window.channels), len(self.labels))


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe from its file, or a shipped one by its name.

    Raises:
        ConfigError: the file is missing, or a key is missing, unknown or of another type.
    """
    path = Path(name_or_path)
    shipped = _SHIPPED / f"{name_or_path}{_SUFFIX}"
    if not path.exists() and name_or_path in shipped_recipes():
        path = shipped
    return load_config(path, Recipe)


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with Bedside."""
    return sorted(path.stem for path in _SHIPPED.glob(f"*{_SUFFIX}"))
