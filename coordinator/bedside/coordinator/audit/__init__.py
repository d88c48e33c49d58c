"""The log's desk and the records from which rounds are recomputed."""
