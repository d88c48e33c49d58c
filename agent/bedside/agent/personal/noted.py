"""What is personal of a device whose agent does not run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bedside.agent.personal.view import PersonalView, personal_views
from bedside.agent.rounds.models import no_such_model

if TYPE_CHECKING:
    from bedside.agent.personal.files import PersonalFiles
    from bedside.agent.personal.settings import PersonalConfig
    from bedside.agent.rounds.models import ModelStore


class PersonalModels(Protocol):
    """Of a device; `bedside.agent.client.LocalAgent` has the same methods."""

    async def personal_models(self) -> list[PersonalView]:
        """Every model's."""

    async def reset_personal(self, name: str) -> PersonalView:
        """Throw away what is personal of a model."""


class NotedPersonal:
    """Reads and removes the files.

    Args:
        models: what serves, by name.
        files: of the device.
        config: `[personal]` of agent.toml.
    """

    def __init__(self, models: ModelStore, files: PersonalFiles, config: PersonalConfig) -> None:
        self._models = models
        self._files = files
        self._config = config

    async def personal_models(self) -> list[PersonalView]:
        """Every model's. Raises StoreError: `active-model`."""
        return list(personal_views(self._models.slots(), self._files, self._config, {}))

    async def reset_personal(self, name: str) -> PersonalView:
        """Throw away what is personal of a model. Raises ProtocolError `no-such-model`."""
        slots = self._models.slots()
        if name not in slots:
            raise no_such_model(name, slots)
        self._files.reset(slots[name].model.bundle)
        return next(view for view in await self.personal_models() if view.name == name)
