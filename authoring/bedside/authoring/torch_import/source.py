"""Where an author's module lies, and how it is made."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, Literal, NoReturn

import msgspec

from bedside.core.bundle.layers import Scope
from bedside.core.errors import ConfigError, UnavailableError
from bedside.service.text import bounded

if TYPE_CHECKING:
    from torch import nn

Argument = bool | int | float | str | list[int | float | str]
_FILE_MODULE: Final = "bedside_torch_recipe"


class TorchSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[torch]` table of a recipe, in the place of its layers.

    Attributes:
        module: `file.py:name`, relative to the recipe: an `nn.Module`, its class, or a function that returns one.
        arguments: what the class or function is called with.
        scopes: by the name of a submodule (`head`, `block.norm`), whether its tensors are shared or local; batch norms
            are local unless they are named here, all others are shared.
        standardise: `local` or `shared` puts a standardising layer in front of the module, by the moments of a device's
            own windows or of the federation's; `none` leaves windows as they are scaled.
    """

    module: str
    arguments: dict[str, Argument] = msgspec.field(default_factory=dict)
    scopes: dict[str, Scope] = msgspec.field(default_factory=dict)
    standardise: Literal["none", "local", "shared"] = "none"

    def within(self, folder: Path) -> TorchSource:
        """The same, with its file found from `folder`."""
        file, colon, name = self.module.rpartition(":")
        return msgspec.structs.replace(self, module=f"{folder / file}{colon}{name}") if colon else self


def require_torch() -> None:
    """Check that torch is here.

    Raises:
        UnavailableError: `torch-missing`.
    """
    if importlib.util.find_spec("torch") is None:
        raise UnavailableError(
            "torch-missing",
            "the recipe names a torch module, and torch is not installed",
            remedy="pip install 'bedside[torch]'",
        )


def load_module(source: TorchSource, seed: int) -> nn.Module:
    """Run the author's file and make the module; what it draws follows from `seed`.

    Raises:
        ConfigError: `torch-module`.
        UnavailableError: `torch-missing`.
    """
    require_torch()
    import torch

    file, _, name = source.module.rpartition(":")
    if not file or not name:
        _refuse(source, "it is not of the form file.py:name")
    torch.manual_seed(seed)
    found = getattr(_run(source, Path(file)), name, None)
    if found is None:
        _refuse(source, f"there is no {bounded(name, 64)} in the file")
    try:
        made = found if isinstance(found, torch.nn.Module) else found(**source.arguments)
    except Exception as error:  # noqa: BLE001 - the author's code may raise anything
        _refuse(source, f"it cannot be made with these arguments: {type(error).__name__}: {bounded(str(error), 200)}")
    if not isinstance(made, torch.nn.Module):
        _refuse(source, f"it gives a {type(made).__name__}, and no nn.Module")
    return made


def _run(source: TorchSource, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_FILE_MODULE, file)
    if spec is None or spec.loader is None or not file.is_file():
        _refuse(source, "there is no such Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent))  # it may import what lies beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001 - likewise
        _refuse(source, f"the file raises {type(error).__name__}: {bounded(str(error), 200)}")
    finally:
        sys.path.remove(str(file.parent))
    return module


def _refuse(source: TorchSource, why: str) -> NoReturn:
    raise ConfigError(
        "torch-module",
        f"the module {bounded(source.module, 200)} cannot be had: {why}",
        remedy='name it as module = "file.py:Net" in [torch], and its arguments in [torch.arguments]',
    )
