# ruff: noqa: INP001 - a script of its own
"""Import every module below the named packages, as a check of an installed wheel."""

from __future__ import annotations

import importlib
import pkgutil
import sys


def main(names: list[str]) -> None:
    """Import all of them; the first that fails ends the process with its traceback."""
    count = 0
    for name in names:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
                count += 1
    sys.stdout.write(f"{count} modules import\n")


main(sys.argv[1:])
