"""How long a trustee keeps large files: sets of headers while a round is unfinished, answers for an audit's time."""

from __future__ import annotations

from typing import Final

from bedside.trustee.paths import SitePaths
from bedside.trustee.store import UNFINISHED, TrusteeStore

ANSWER_DAYS: Final = 90
"""Days that the words of an answer stay: the coordinator may ask for them again, and an auditor may compare them."""

_DAY_NS: Final = 86_400 * 10**9


def prune_files(paths: SitePaths, store: TrusteeStore, *, now_ns: int) -> int:
    """Remove what has had its time; returns how many files went. Signed words stay in the store."""
    wanted = {stored.seal.headers.digest.hex() for stored in store.rounds(*UNFINISHED) if stored.seal is not None}
    old = [file for file in paths.headers.iterdir() if file.name not in wanted]
    old += [file for file in paths.answers.iterdir() if now_ns - file.stat().st_mtime_ns > ANSWER_DAYS * _DAY_NS]
    for file in old:
        file.unlink()
    return len(old)
