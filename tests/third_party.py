"""Packages of other people, installed as pip leaves them: a module and the metadata that names its entry points."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, package: str, module: str, entry_points: dict[str, str]) -> Path:
    """Lay `package` into `folder`, which is to be on `sys.path`.

    Args:
        folder: plays `site-packages`.
        package: its name, and its module's.
        module: source text.
        entry_points: of the group `bedside.sources`: object by kind.
    """
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / f"{package}.py").write_text(module)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{kind} = {value}" for kind, value in entry_points.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[bedside.sources]", *lines, ""]))
    return folder
