"""One error root; one class per decision a caller makes.

Every error carries a stable `code` (it may be matched, logged and counted; it is never reworded), a sentence for a
person, and a remedy where one is known. Only the command line prints them and chooses the exit status.
"""

from __future__ import annotations


class BedsideError(Exception):
    """Base of every error that Bedside raises on purpose.

    Attributes:
        code: stable identifier such as `token-expired`.
        remedy: what the operator can do about it; empty when nothing is known.
    """

    exit_status = 1

    def __init__(self, code: str, sentence: str, *, remedy: str = "") -> None:
        super().__init__(sentence)
        self.code = code
        self.remedy = remedy

    def __str__(self) -> str:
        """As `diagnostics`: what a traceback shows should say what to do."""
        return self.diagnostics()

    @property
    def sentence(self) -> str:
        """The error in one sentence."""
        return str(self.args[0])

    def diagnostics(self) -> str:
        """One line for an operator: code, sentence and remedy."""
        stop = "" if self.sentence.endswith((".", "!", "?")) else "."
        tail = f"{stop} Remedy: {self.remedy}" if self.remedy else ""
        return f"{self.code}: {self.sentence}{tail}"


class MalformedError(BedsideError):
    """Bytes that are not what they claim to be. The only error a parser raises."""

    exit_status = 65  # EX_DATAERR


class TrustError(BedsideError):
    """A signature, credential, roster, chain or golden vector does not hold."""

    exit_status = 77  # EX_NOPERM


class ProtocolError(BedsideError):
    """A well-formed message at the wrong time, or one that breaks a rule of the round."""

    exit_status = 76  # EX_PROTOCOL


class RefusedError(BedsideError):
    """A site's policy, or a trustee's rule, says no. The sentence reaches the operator."""

    exit_status = 77  # EX_NOPERM


class ConfigError(BedsideError):
    """A configuration, policy or key file cannot be used as it is."""

    exit_status = 78  # EX_CONFIG


class StoreError(BedsideError):
    """A database or blob on this machine cannot be read or written."""

    exit_status = 74  # EX_IOERR


class UnavailableError(BedsideError):
    """A peer, port or device that may come back by itself."""

    exit_status = 69  # EX_UNAVAILABLE
