"""The Python environment of a package: locked wheels and Bedside's own parts, on the distribution's interpreter.

It is laid out by hand, as `python -m venv` would on the target: that needs neither the target's Python nor its
architecture here, and no path of the building machine gets into it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from locks import uv
from parts import Part
from targets import Target

_RECORDS: Final = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")
"""What an installer keeps for itself beside METADATA; dpkg does that here."""

_UNUSED: Final = (
    "**/tests",
    "**/*.pyi",
    "numpy/distutils",
    "onnxruntime/capi/libonnxruntime.so*",
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
)
"""Below site-packages, what nothing here loads: tests, stubs, how numpy once built extensions, the library of
onnxruntime's C interface (35 MB that its Python module holds too), and converters of models that want onnx or torch."""


def site_packages(part: Part, target: Target) -> str:
    """Where the modules lie, without a leading slash."""
    return f"{part.home}/lib/python{target.python}/site-packages"


def lay_environment(part: Part, target: Target, wheel: Path, root: Path) -> Path:
    """Make the environment below `root`, and return its site-packages."""
    site = root / site_packages(part, target)
    site.mkdir(parents=True)
    where = ["--python-platform", target.uv_platform, "--python-version", target.python, "--target", str(site)]
    options = ["--quiet", "--no-deps", "--link-mode", "copy", "--only-binary", ":all:", *where]
    uv("pip", "install", *options, "--require-hashes", "-r", part.lock(target.name))
    uv("pip", "install", *options, wheel)
    _prune(site, part)
    _interpreter(root / part.home, f"/{part.home}", target)
    return site


def _prune(site: Path, part: Part) -> None:
    kept = {"proto" if root == "protos" else root for root in part.roots}
    strange = [folder for folder in (site / "bedside").iterdir() if folder.name not in kept]
    records = [file for name in _RECORDS for file in site.glob(f"*.dist-info/{name}")]
    unused = [found for pattern in _UNUSED for found in site.glob(pattern)]
    _remove([site / "bin", site / ".lock", *strange, *records, *unused])


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _interpreter(home: Path, installed: str, target: Target) -> None:
    (home / "bin").mkdir()
    (home / "bin" / "python3").symlink_to(f"/usr/bin/python{target.python}")
    (home / "bin" / "python").symlink_to("python3")
    (home / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {target.python}\n", "utf-8"
    )
    # -I: neither PYTHONPATH nor a user's own packages reach a service or an administrator's command.
    script = f"#!{installed}/bin/python3 -I\nimport sys\n\nfrom bedside.service.cli import main\n\nsys.exit(main())\n"
    (home / "bin" / "bedside").write_text(script, "utf-8")
    (home / "bin" / "bedside").chmod(0o755)
