"""What packages are built for: a Debian release with its Python, and an architecture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from packaging.tags import Tag, compatible_tags, cpython_tags

_RELEASES: Final = {"bookworm": ("deb12", (3, 11)), "trixie": ("deb13", (3, 13))}
_MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
_OLDEST_GLIBC_MINOR: Final = 17
_GLIBC_MINOR: Final = 36
"""Debian 12 has glibc 2.36. A wheel that needs more is of no use there, and none has to be taken for Debian 13."""


@dataclass(frozen=True)
class Target:
    """One Debian release on one architecture.

    Attributes:
        release: Debian's code name.
        arch: Debian's name of the architecture.
    """

    release: str
    arch: str

    @property
    def name(self) -> str:
        """As `make deb TARGETS=` and the locks call it."""
        return f"{self.release}-{self.arch}"

    @property
    def suffix(self) -> str:
        """What the version of a package for this release ends in; it sorts below the same version without it."""
        return f"~{_RELEASES[self.release][0]}"

    @property
    def python_version(self) -> tuple[int, int]:
        """The release's only Python, for which its compiled wheels have to be."""
        return _RELEASES[self.release][1]

    @property
    def python(self) -> str:
        """The version as text: 3.11."""
        return ".".join(map(str, self.python_version))

    @property
    def uv_platform(self) -> str:
        """The platform as uv calls it."""
        return f"{_MACHINES[self.arch]}-manylinux_2_{_GLIBC_MINOR}"

    def tags(self) -> Iterator[Tag]:
        """The wheels that run there, best first."""
        machine = _MACHINES[self.arch]
        platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(_GLIBC_MINOR, _OLDEST_GLIBC_MINOR - 1, -1)]
        platforms.append(f"manylinux2014_{machine}")
        if self.arch == "amd64":
            platforms += ["manylinux_2_12_x86_64", "manylinux2010_x86_64", "manylinux_2_5_x86_64", "manylinux1_x86_64"]
        platforms.append(f"linux_{machine}")
        major, minor = self.python_version
        interpreter = f"cp{major}{minor}"
        yield from cpython_tags(self.python_version, platforms=platforms)
        yield from compatible_tags(self.python_version, interpreter, platforms)

    def markers(self) -> dict[str, str]:
        """What environment markers of requirements are evaluated with."""
        return {
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": _MACHINES[self.arch],
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


TARGETS: Final = tuple(Target(release, arch) for release in _RELEASES for arch in _MACHINES)


def chosen_targets(names: str) -> tuple[Target, ...]:
    """The targets of a list of names, separated by spaces; all of them for an empty one.

    Raises:
        SystemExit: with the names that there are.
    """
    known = {target.name: target for target in TARGETS}
    unknown = [name for name in names.split() if name not in known]
    if unknown:
        raise SystemExit(f"no such target: {' '.join(unknown)}; there are {' '.join(known)}")
    return tuple(known[name] for name in names.split()) or TARGETS
