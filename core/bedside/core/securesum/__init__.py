"""The secure sum: one upload, sums only (DESIGN section 5)."""
