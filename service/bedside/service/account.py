"""The user that a component's files belong to, and doing work as that user where root was asked to.

Invariants:
    * Work is done in a child that has given root up for good (setgroups, setgid, setuid), before it reads a byte from
      the network or makes a file: nothing has to be given away afterwards.
    * Who is not root does the work as who they are.

Source: setresuid(2), credentials(7).
"""

from __future__ import annotations

import grp
import os
import pwd
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import msgspec

from bedside.core.errors import BedsideError, ConfigError, UnavailableError
from bedside.core.unreadable import UNREADABLE
from bedside.service.failures import INTERRUPTED_STATUS, report_failure
from bedside.service.relayed_error import RelayedError

_ENDED = "the part of it that runs as {} ended with status {}"


@dataclass(frozen=True, slots=True)
class Account:
    """A user that work is done as.

    Attributes:
        name: as people know it.
        uid: its number.
        gid: of its group.
        groups: numbers of all of its groups.
        home: its home directory.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    @property
    def is_other(self) -> bool:
        """Whether this process is root and has to become this user."""
        return os.geteuid() == 0 and self.uid != 0


class _Told(msgspec.Struct, frozen=True):
    result: msgspec.Raw = msgspec.Raw()
    error: RelayedError | None = None
    status: int = 0


def account_of(directory: Path, user: str = "", groups: Sequence[str] = ()) -> Account:
    """Whose the files in `directory` are: its owner, where it is there; else `user`, where there is one; else we.

    Args:
        directory: of the component.
        user: that its package makes.
        groups: names of groups that its unit adds; those that are not here are left out.
    """
    with suppress(OSError, KeyError):
        return _account(pwd.getpwuid(directory.stat().st_uid), groups)
    with suppress(KeyError):
        if os.geteuid() == 0 and user:
            return _account(pwd.getpwnam(user), groups)
    with suppress(KeyError):
        return _account(pwd.getpwuid(os.geteuid()), groups)
    return Account(str(os.geteuid()), os.geteuid(), os.getegid(), tuple(os.getgroups()), "/")


def _account(entry: pwd.struct_passwd, groups: Sequence[str]) -> Account:
    numbers = set(os.getgrouplist(entry.pw_name, entry.pw_gid))
    for name in groups:
        with suppress(KeyError):
            numbers.add(grp.getgrnam(name).gr_gid)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, tuple(sorted(numbers)), entry.pw_dir)


def run_as(account: Account, work: Callable[[], object]) -> bytes:
    """Do `work` as a user and return its result as JSON; in a child where this process is root.

    The child has the terminal, so that it may ask and print.

    Raises:
        BedsideError: what the work raised.
        KeyboardInterrupt: the child was interrupted.
        UnavailableError: `child-died`: it ended without a result.
    """
    if not account.is_other:
        return msgspec.json.encode(work())
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(account, work, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            data = pipe.read()
    finally:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == INTERRUPTED_STATUS:
        raise KeyboardInterrupt
    try:
        told = msgspec.json.decode(data, type=_Told)
    except UNREADABLE as error:
        raise UnavailableError("child-died", _ENDED.format(account.name, status), remedy="read what it said") from error
    if told.error is not None:
        raise told.error.revive()
    return bytes(told.result)


def _work(account: Account, work: Callable[[], object], writing: int) -> NoReturn:
    """In the child: become the user, work, report, and end without what the parent has registered for its own end."""
    status = 0
    try:
        become(account)
        try:
            check_python(account)
            told: dict[str, object] = {"result": work()}
        except BedsideError as error:
            told = {"error": RelayedError.of(error)}
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(msgspec.json.encode(told))
    except KeyboardInterrupt:
        status = INTERRUPTED_STATUS
    except Exception as error:  # noqa: BLE001 - a fork must not run on in its parent's frames
        status = report_failure(error, debug=False)
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def check_python(account: Account) -> None:
    """See that this user may use the Python that runs this, of which more is loaded and started later.

    Raises:
        ConfigError: `python-private`.
    """
    if not os.access(sys.executable, os.X_OK):
        raise ConfigError(
            "python-private",
            f"{account.name}, whose the files are, may not run {sys.executable}",
            remedy="install the package, or a Python where every user may read it; or give the directory to this user",
        )


def become(account: Account) -> None:
    """Give root up for good.

    Raises:
        OSError: it was not root's to give.
    """
    os.setgroups(list(account.groups))
    os.setgid(account.gid)
    os.setuid(account.uid)
    os.environ.update(HOME=account.home, USER=account.name, LOGNAME=account.name)
    os.umask(0o077)
