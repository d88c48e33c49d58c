"""Logs: an event name with fields, on standard library logging, for journald, terminals and log collectors.

Invariants:
    * A field's value is shown only when its type is known to be harmless; others show their type's name.
    * Bytes show a digest, so that a key or a token that got here by mistake cannot be read back.
    * Strings from elsewhere are bounded and carry no control characters: one event is one line.
    * Libraries are heard from WARNING on: their lines hold what they like, and an operator looks for ours.

The form is `round-opened round=3 site=north`; with BEDSIDE_LOG=json, one JSON object per line.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from enum import Enum
from hashlib import blake2b
from pathlib import PurePath
from typing import Final, TextIO

from bedside.core.errors import BedsideError
from bedside.service.text import bounded

Field = str | int | float | bool | bytes | PurePath | Enum | BaseException | None

_FIELDS: Final = "bedside_fields"
_OWN_LOGGERS: Final = "bedside"
_MAX_OPEN_BYTES: Final = 8
_WITHHELD_WORDS: Final = ("secret", "token", "password", "private")
_WITHHELD_ENDINGS: Final = ("_sk", "_key_pem", "_seed")
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:/+@%,[]()")
_SYSLOG_PRIORITY: Final = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.NOTSET, 7),
)


def event(logger: logging.Logger, name: str, /, *, level: int = logging.INFO, **fields: Field) -> None:
    """Log one event.

    Args:
        logger: usually `logging.getLogger(__name__)`.
        name: what happened, in words joined by dashes; stable, so that it may be searched and counted.
        level: of the standard library.
        **fields: what it happened to; never a value of a patient, a key or a token.
    """
    logger.log(level, name, extra={_FIELDS: fields}, stacklevel=2)


def setup_logging(
    level: int = logging.INFO, *, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ
) -> None:
    """Send the logs of this process to `stream` (standard error), replacing what was set up before."""
    out = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(out)
    if environ.get("BEDSIDE_LOG") == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(EventFormatter(journal=_is_journal(out, environ.get("JOURNAL_STREAM", ""))))
    handler.addFilter(_is_wanted)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)


class EventFormatter(logging.Formatter):
    """`name key=value ...`; with a time and level for people, or with a syslog priority for journald."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, and the lines of its traceback where there is one."""
        fields = [f"{key}={_quote(show(key, value))}" for key, value in _fields(record).items()]
        text = " ".join([_message(record), *fields])
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        if self._journal:
            prefix = f"<{_priority(record.levelno)}>"
            return "\n".join(prefix + line for line in text.splitlines())
        return f"{self.formatTime(record, self.datefmt)} {record.levelname.lower():<7} {text}"


class JsonFormatter(logging.Formatter):
    """One JSON object per record; fields stand beside `time`, `level`, `logger` and `event`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        body: dict[str, str | int | float | bool | None] = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _message(record),
        }
        for key, value in _fields(record).items():
            body.setdefault(key, show(key, value))
        if record.exc_info:
            body["traceback"] = self.formatException(record.exc_info)
        return json.dumps(body)


def show(key: str, value: object) -> str | int | float | bool | None:
    """Return a field's value as a log may show it."""
    if key.endswith(_WITHHELD_ENDINGS) or any(word in key for word in _WITHHELD_WORDS):
        return "[withheld]"
    if isinstance(value, Enum):
        return bounded(str(value.value))
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | PurePath):
        return bounded(str(value))
    if isinstance(value, bytes):
        if len(value) <= _MAX_OPEN_BYTES:
            return value.hex()
        return f"{len(value)}B:{blake2b(value, digest_size=32).hexdigest()[:12]}"
    if isinstance(value, BedsideError):
        return bounded(f"{value.sentence} [{value.code}]")
    if isinstance(value, BaseException):
        return bounded(f"{type(value).__name__}: {value}")
    return f"<{type(value).__name__}>"


def _is_wanted(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.split(".")[0] == _OWN_LOGGERS


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, _FIELDS, {})
    return fields


def _message(record: logging.LogRecord) -> str:
    return bounded(record.getMessage())


def _quote(value: str | int | float | bool | None) -> str:
    text = str(value)
    return text if text and _PLAIN.issuperset(text) else json.dumps(text, ensure_ascii=False)


def _priority(level: int) -> int:
    return next(priority for least, priority in _SYSLOG_PRIORITY if level >= least)


def _is_journal(stream: TextIO, journal_stream: str) -> bool:
    """Whether `stream` is the socket that systemd names as `device:inode` in JOURNAL_STREAM."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return journal_stream == f"{status.st_dev}:{status.st_ino}"
