"""Bundles that were imported; their files are blobs."""
