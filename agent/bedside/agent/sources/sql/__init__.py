"""A query of a hospital's database, read-only."""
