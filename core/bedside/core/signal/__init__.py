"""Filters: their design, which authors and devices share, and what is said of their stability."""
