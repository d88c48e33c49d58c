"""Passwords and tokens that an option names by where they lie, so that no configuration holds one.

    credential:NAME     a credential of the agent's unit, see systemd.exec(5), LoadCredentialEncrypted=
    any other text      a file of mode 0600 (or 0400) that belongs to the agent's user

Invariant: neither an error nor a log line holds what was read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from bedside.agent.kinds import option
from bedside.core.errors import ConfigError
from bedside.service.files import read_private, read_regular
from bedside.service.text import bounded

MAX_SECRET_BYTES: Final = 4096
"""Bytes of a password or a bearer token: beyond it, a path names the wrong file."""

SecretPlace = Annotated[str, option("where it lies: credential:NAME, or a file of mode 0600")]
"""The option `password` of every kind that has one."""

CREDENTIAL_PREFIX: Final = "credential:"

_CREDENTIAL_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,99}")


def read_secret(directory: Path, where: str, environ: Mapping[str, str] = os.environ) -> str:
    """The secret that lies at `where`, without the newline that an editor puts behind it.

    Args:
        directory: relative paths start here.
        where: `credential:NAME`, or a path.
        environ: holds `CREDENTIALS_DIRECTORY` where systemd gives the unit credentials.

    Raises:
        ConfigError: `secret-missing`, `secret-mode` (others may read or write the file), or `secret-form` (empty,
            more than 4096 bytes, or no UTF-8).
    """
    if where.startswith(CREDENTIAL_PREFIX):
        data = _read_credential(where.removeprefix(CREDENTIAL_PREFIX), environ)
    else:
        data = _read_file(directory / where)
    try:
        text = data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        text = ""
    if not text or "\x00" in text:
        raise ConfigError(
            "secret-form",
            f"{bounded(where)} holds no secret: it is empty, or no UTF-8 text",
            remedy="write the secret into it as one line",
        )
    return text


def _read_credential(name: str, environ: Mapping[str, str]) -> bytes:
    folder = environ.get("CREDENTIALS_DIRECTORY")
    remedy = f"add LoadCredentialEncrypted={bounded(name, 100)}:FILE to the agent's unit"
    if not _CREDENTIAL_NAME.fullmatch(name):
        raise ConfigError(
            "secret-missing",
            f"{bounded(name, 100)!r} is no name of a credential",
            remedy="use letters, digits and _ . @ -",
        )
    if not folder:
        raise ConfigError(
            "secret-missing", f"there is no credential {name}: systemd gave this process none", remedy=remedy
        )
    try:
        return read_regular(
            Path(folder) / name, MAX_SECRET_BYTES
        )  # systemd guards the directory, its modes are its own
    except OSError as error:
        raise ConfigError(
            "secret-missing", f"the credential {name} cannot be read: {error.strerror}", remedy=remedy
        ) from error


def _read_file(path: Path) -> bytes:
    try:
        return read_private(path, MAX_SECRET_BYTES)
    except ConfigError as error:
        code = {"key-missing": "secret-missing", "key-size": "secret-form"}.get(error.code, "secret-mode")
        sentence = error.sentence.replace("the key file ", "")
        remedy = "write the secret into it, and chmod 600 it" if code != "secret-mode" else error.remedy
        raise ConfigError(code, sentence, remedy=remedy) from error
