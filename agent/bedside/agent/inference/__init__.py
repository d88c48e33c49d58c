"""From a window to a decision: runtimes, int8 refresh, the engine, and the replay of golden vectors."""
