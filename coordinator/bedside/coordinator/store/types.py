"""What a column is in either dialect: the same values, in the same order.

SQLite's integers have 64 bits and its text is ordered by bytes; PostgreSQL is told to do the same. Text by bytes also
keeps its indexes whole when the operating system sorts words of a language differently after an update.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Dialect, Integer, String
from sqlalchemy.types import TypeDecorator, TypeEngine

Whole: Final = Integer().with_variant(BigInteger(), "postgresql")
"""A whole number of 64 bits."""


class Text(TypeDecorator[str]):
    """Text; a NUL, which PostgreSQL cannot hold and nobody means, is replaced before it is stored or looked for."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """Text that is compared and ordered by bytes."""
        return String(collation="C") if dialect.name == "postgresql" else String()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """The text as both can hold it."""
        return value if value is None else value.replace("\0", "\N{REPLACEMENT CHARACTER}")
