"""`[personal]` of agent.toml: what a device learns for itself of its models, beside their local tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from bedside.agent.config_bounds import MAX_WAIT_S
from bedside.core.bundle.training import HEAD

_MAX_EPOCHS = 1_000
_MAX_WINDOWS = 100_000
_MAX_RATE = 10.0
_MAX_HOURS = MAX_WAIT_S / 3_600


class PersonalRules(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Of one model.

    Attributes:
        fine_tune: whether a suffix is tuned on this device's own windows.
        temperature: whether a temperature is fitted on the windows that are held out.
        suffix: what is tuned; the bundle must have a training graph for it.
        epochs: passes over the windows.
        learning_rate: of the optimiser; 0 = the one that the bundle's author recommends.
        every_hours: between two runs.
        min_windows: labelled windows for training without which nothing is tuned.
        max_windows: the newest so many are used.
    """

    fine_tune: bool = False
    temperature: bool = False
    suffix: str = HEAD
    epochs: int = 5
    learning_rate: float = 0.0
    every_hours: float = 24.0
    min_windows: int = 100
    max_windows: int = 4_096

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do."""
        return self.fine_tune or self.temperature


class ModelRules(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What differs for one model: attributes of `PersonalRules`; absent = as for the others."""

    name: str
    fine_tune: bool | None = None
    temperature: bool | None = None
    suffix: str | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    every_hours: float | None = None
    min_windows: int | None = None
    max_windows: int | None = None


class PersonalConfig(PersonalRules, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Of all models.

    Attributes:
        models: what differs, by name.
    """

    models: list[ModelRules] = msgspec.field(default_factory=list)

    def of(self, name: str) -> PersonalRules:
        """The rules of one model."""
        rules = {field: getattr(self, field) for field in PersonalRules.__struct_fields__}
        for entry in self.models:
            if entry.name == name:
                differing = {field: getattr(entry, field) for field in rules}
                rules |= {field: value for field, value in differing.items() if value is not None}
        return PersonalRules(**rules)


def personal_rules(config: PersonalConfig) -> Iterator[tuple[bool, str]]:
    """What must hold of a configuration, each with the sentence for one of which it does not."""
    names = [entry.name for entry in config.models]
    yield len(set(names)) == len(names), "personal.models names one model twice"
    for rules in (config, *(config.of(name) for name in names)):
        yield bool(rules.suffix), "personal.suffix names the layers that are tuned"
        yield 1 <= rules.epochs <= _MAX_EPOCHS, f"personal.epochs must be 1 to {_MAX_EPOCHS}"
        rate = rules.learning_rate
        yield math.isfinite(rate) and 0 <= rate <= _MAX_RATE, f"personal.learning_rate must be 0 to {_MAX_RATE:g}"
        yield 0 < rules.every_hours <= _MAX_HOURS, f"personal.every_hours must be above zero, at most {_MAX_HOURS:.0f}"
        for name in ("min_windows", "max_windows"):
            yield 1 <= getattr(rules, name) <= _MAX_WINDOWS, f"personal.{name} must be 1 to {_MAX_WINDOWS}"
