"""An error on its way from a child process to its parent."""

from __future__ import annotations

import msgspec

from bedside.core import errors
from bedside.core.errors import BedsideError


class RelayedError(msgspec.Struct, frozen=True):
    """What a child says of the error that ended it.

    Attributes:
        kind: name of its class.
        code: as of the error, and so are the others.
    """

    kind: str
    code: str
    sentence: str
    remedy: str

    @classmethod
    def of(cls, error: BedsideError) -> RelayedError:
        """That of an error."""
        return cls(type(error).__name__, error.code, error.sentence, error.remedy)

    def revive(self) -> BedsideError:
        """The error again; of a class that is none of ours only a `BedsideError`, as a child is not believed."""
        kind = getattr(errors, self.kind, None)
        if not (isinstance(kind, type) and issubclass(kind, BedsideError)):
            kind = BedsideError
        return kind(self.code, self.sentence, remedy=self.remedy)
