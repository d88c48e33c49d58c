"""What is personal of one model, as programs and people look at it, whether its agent runs or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bedside.agent.personal.report import Report

if TYPE_CHECKING:
    from bedside.agent.personal.files import PersonalFiles
    from bedside.agent.personal.settings import PersonalConfig
    from bedside.agent.rounds.slots import Slot


@dataclass(frozen=True, slots=True)
class PersonalView:
    """One model.

    Attributes:
        name: of its slot.
        local: names of the tensors that this device has values of its own for.
        tuned: names of those that serve because they were tuned here.
        temperature: of its logits; 1 when none was fitted.
        fine_tune: whether agent.toml wants it tuned.
        fit_temperature: whether it wants a temperature.
        report: of the newest run for what serves; None before the first.
        sentence: why the last run came to nothing, or what is waited for; empty where nothing is to be said.
    """

    name: str
    local: tuple[str, ...] = ()
    tuned: tuple[str, ...] = ()
    temperature: float = 1.0
    fine_tune: bool = False
    fit_temperature: bool = False
    report: Report | None = None
    sentence: str = ""


def personal_views(
    slots: Mapping[str, Slot], files: PersonalFiles, config: PersonalConfig, sentences: Mapping[str, str]
) -> Iterator[PersonalView]:
    """Every slot's.

    Args:
        slots: what serves, by name.
        files: of the device.
        config: `[personal]` of agent.toml.
        sentences: what is to be said of a slot.
    """
    for name, slot in slots.items():
        local, tuned = files.read("local", slot.model.bundle), files.tuned(slot.model.bundle, slot.model.name)
        rules = config.of(name)
        yield PersonalView(
            name,
            tuple(local.tensors) if local is not None else (),
            tuple(tuned.tensors) if tuned is not None else (),
            tuned.facts.temperature if tuned is not None else 1.0,
            rules.fine_tune,
            rules.temperature,
            tuned.facts.report if tuned is not None else None,
            sentences.get(name, ""),
        )
