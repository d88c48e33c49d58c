"""Real sets, their recipes, and federations of them in one process."""
