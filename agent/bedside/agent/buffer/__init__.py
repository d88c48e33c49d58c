"""The device's store of signals, labels, sessions and predictions: SQLite, one sealed blob per stream and second."""
