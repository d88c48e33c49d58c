"""Alembic steps; never edited after a release."""
