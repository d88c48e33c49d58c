"""The file `copyright` of a package: Bedside's own licence, and those of the wheels that it carries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Final

_UNNAMED: Final = frozenset({"", "unknown", "dual license"})
_CLASSIFIER: Final = "License :: OSI Approved :: "
_SPDX_OF_CLASSIFIERS: Final = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}


@dataclass(frozen=True)
class Distribution:
    """One installed distribution, as its metadata describe it.

    Attributes:
        name: normalised, as locks have it.
        version: its version.
        licence: an SPDX expression, or what the metadata say instead.
        home: where it comes from; empty when unknown.
        texts: its licence files.
        folder: its *.dist-info.
    """

    name: str
    version: str
    licence: str
    home: str
    texts: tuple[Path, ...]
    folder: Path


def read_distributions(site: Path) -> list[Distribution]:
    """Everything that lies in a site-packages, sorted by name."""
    return sorted(map(_read, site.glob("*.dist-info")), key=lambda found: found.name)


def _read(folder: Path) -> Distribution:
    metadata = HeaderParser().parsestr((folder / "METADATA").read_text("utf-8"))
    names = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name.lower().startswith(("licen", "copying", "notice"))
    )
    return Distribution(
        name=str(metadata["Name"]).lower().replace("_", "-").replace(".", "-"),
        version=str(metadata["Version"]),
        licence=_licence(metadata),
        home=_home(metadata),
        texts=tuple(names),
        folder=folder,
    )


def _licence(metadata: Message) -> str:
    expression = str(metadata["License-Expression"] or "")
    if expression:
        return expression
    named = [str(value) for value in metadata.get_all("Classifier", []) if str(value).startswith(_CLASSIFIER)]
    short = [value.removeprefix(_CLASSIFIER) for value in named]
    if short:
        return " AND ".join(_SPDX_OF_CLASSIFIERS.get(value, value) for value in short)
    field = " ".join(str(metadata["License"] or "").split())
    # Some put the whole text into the field.
    return field[:60] if field.lower() not in _UNNAMED else "see the licence files"


def _home(metadata: Message) -> str:
    urls = dict(str(value).split(", ", 1) for value in metadata.get_all("Project-URL", []) if ", " in str(value))
    wanted = {key.lower(): value for key, value in urls.items()}
    for key in ("source", "source code", "repository", "homepage", "home"):
        if key in wanted:
            return wanted[key]
    return str(metadata["Home-page"] or next(iter(urls.values()), ""))


def copyright_file(installed: str, distributions: list[Distribution]) -> str:
    """The text, after Debian's machine-readable form 1.0.

    Args:
        installed: site-packages on the target, without a leading slash.
        distributions: what lies there.
    """
    return "\n".join(_paragraphs(installed, distributions))


def _paragraphs(installed: str, distributions: list[Distribution]) -> Iterator[str]:
    yield "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: bedside\n"
    yield "Files: *\nCopyright: 2026 the Bedside contributors\nLicense: Apache-2.0\n"
    for found in distributions:
        if found.name == "bedside":
            continue
        stem = found.folder.name.rpartition("-")[0].rpartition("-")[0] or found.name
        texts = [f" /{installed}/{path.relative_to(found.folder.parent)}" for path in found.texts]
        comment = [f"Comment: {found.name} {found.version}" + (f" of {found.home}" if found.home else "") + "."]
        comment += [" Its licence and the names of its authors:", *texts] if texts else []
        files = f"Files: {installed}/{stem}*"
        yield (
            "\n".join([files, f"Copyright: the authors of {found.name}", f"License: {found.licence}", *comment]) + "\n"
        )
    yield "License: Apache-2.0\n On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.\n"
