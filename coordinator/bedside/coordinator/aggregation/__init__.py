"""From masked uploads and answers to one opened sum, and from sums to the next checkpoint."""
