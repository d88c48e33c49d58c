"""The site authority's desk: who belongs to this hospital."""
