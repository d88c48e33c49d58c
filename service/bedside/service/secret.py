"""Passwords and tokens that an option names by where they lie, so that no configuration holds one.

    credential:NAME     a credential of the unit, see systemd.exec(5), LoadCredentialEncrypted=
    any other text      a file of mode 0600 (or 0400) that belongs to the user who runs the program

Invariants:
    * Neither an error nor a log line holds what was read.
    * Nor does it hold what the option says, unless a file or a credential of that name is there: somebody may have
      written the secret itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bedside.core.errors import ConfigError
from bedside.service.files import read_private, read_regular

MAX_SECRET_BYTES: Final = 4096
"""Bytes of a password or a bearer token: beyond it, a path names the wrong file."""

CREDENTIAL_PREFIX: Final = "credential:"

_CREDENTIAL_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,99}")


def read_secret(directory: Path, where: str, environ: Mapping[str, str] = os.environ, *, option: str) -> str:
    """The secret that lies at `where`, without the newline that an editor puts behind it.

    Args:
        directory: relative paths start here.
        where: `credential:NAME`, or a path.
        environ: holds `CREDENTIALS_DIRECTORY` where systemd gives the unit credentials.
        option: that says so; errors name it.

    Raises:
        ConfigError: `secret-missing`, `secret-mode` (others may read or write the file), or `secret-form` (empty,
            more than 4096 bytes, or no UTF-8).
    """
    if where.startswith(CREDENTIAL_PREFIX):
        data = _read_credential(where.removeprefix(CREDENTIAL_PREFIX), environ, option)
    else:
        data = _read_file(directory / where, option)
    try:
        text = data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        text = ""
    if not text or "\x00" in text:
        raise ConfigError(
            "secret-form",
            f"what {option} names holds no secret: it is empty, or no UTF-8 text",
            remedy="write the secret into it as one line",
        )
    return text


def _read_credential(name: str, environ: Mapping[str, str], option: str) -> bytes:
    if not _CREDENTIAL_NAME.fullmatch(name):
        raise ConfigError(
            "secret-missing",
            f"{option} names no credential that can be",
            remedy="use letters, digits and _ . @ - for its name",
        )
    remedy = f"add LoadCredentialEncrypted=NAME:FILE with the name that {option} says to the unit"
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        sentence = f"there is no credential for {option}: systemd gave this process none"
        raise ConfigError("secret-missing", sentence, remedy=remedy)
    try:
        return read_regular(
            Path(folder) / name, MAX_SECRET_BYTES
        )  # systemd guards the directory, its modes are its own
    except OSError as error:
        raise ConfigError(
            "secret-missing", f"the credential that {option} names cannot be read: {error.strerror}", remedy=remedy
        ) from None


def _read_file(path: Path, option: str) -> bytes:
    remedy = f"{option} says where the secret lies, never what it is: write it into a file, and chmod 600 that"
    try:
        return read_private(path, MAX_SECRET_BYTES)
    except ValueError:  # a path with a NUL
        raise ConfigError("secret-missing", f"{option} names no file that can be", remedy=remedy) from None
    except ConfigError as error:
        if error.code == "key-missing":
            why = error.__cause__.strerror if isinstance(error.__cause__, OSError) else "it is not there"
            sentence = f"the file that {option} names cannot be opened: {why}"
            raise ConfigError("secret-missing", sentence, remedy=remedy) from None
        code = "secret-form" if error.code == "key-size" else "secret-mode"
        raise ConfigError(
            code, error.sentence.replace("the key file ", ""), remedy=error.remedy if code == "secret-mode" else remedy
        ) from error
