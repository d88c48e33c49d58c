"""Where everything lies in a site's directory, which the trustee daemon and the `site` commands share."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from bedside.core.errors import ConfigError, UnavailableError
from bedside.core.unreadable import UNREADABLE
from bedside.service.files import private_opener

PRIVATE_DIRECTORY_MODE: Final = 0o700


class SitePublic(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a site hands to the holder of the federation root: `site.public.json`."""

    site: str
    authority_pk: str


class SitePaths:
    """Names inside one site's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority_key = directory / "authority" / "authority.key"
        self.public = directory / "site.public.json"
        self.policy = directory / "policy.toml"
        self.identity = directory / "identity"
        self.database = directory / "trustee.db"
        self.answers = directory / "answers"
        self.headers = directory / "headers"
        self.audit = directory / "audit"
        self.status = directory / "status.json"
        self.lock = directory / "daemon.lock"

    def read_public(self) -> SitePublic:
        """Who this site is.

        Raises:
            ConfigError: `no-site` or `bad-site`.
        """
        try:
            return msgspec.json.decode(self.public.read_bytes(), type=SitePublic)
        except OSError as error:
            raise ConfigError(
                "no-site", f"there is no site in {self.directory}", remedy="make one with `bedside site init`"
            ) from error
        except UNREADABLE as error:
            raise ConfigError("bad-site", f"{self.public} is damaged: {error}") from error

    def make_directories(self) -> None:
        """Make the folders of the trustee, private to its user."""
        for folder in (self.directory, self.authority_key.parent, self.answers, self.headers, self.audit):
            folder.mkdir(mode=PRIVATE_DIRECTORY_MODE, parents=True, exist_ok=True)
            if folder != self.directory:  # that one may be the admin's own, with others' files beside
                folder.chmod(PRIVATE_DIRECTORY_MODE)

    def is_running(self) -> bool:
        """Whether a daemon holds this directory."""
        try:
            with self._locked():
                return False
        except UnavailableError:
            return True

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep a second daemon out while inside.

        Raises:
            UnavailableError: `trustee-running`.
        """
        with self._locked():
            yield

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.lock, "ab", opener=private_opener) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UnavailableError(
                    "trustee-running",
                    f"a trustee already runs on {self.directory}",
                    remedy="stop it first; two would share one chain",
                ) from error
            yield


def default_runtime_directory(state_directory: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where round keys lie unless `--runtime-dir` says so: systemd's, the user's, or shared memory."""
    if environ.get("RUNTIME_DIRECTORY"):
        return Path(environ["RUNTIME_DIRECTORY"].split(":")[0])
    name = hashlib.blake2b(str(state_directory.resolve()).encode(), digest_size=6).hexdigest()
    base = environ.get("XDG_RUNTIME_DIR")
    return Path(base or "/dev/shm") / f"bedside-trustee-{os.geteuid()}-{name}"  # noqa: S108  # private folder, 0700
