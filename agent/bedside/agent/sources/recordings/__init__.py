"""Recordings, played as if their sensors were here."""
