"""The device: sources, buffer, windows, inference, training, rounds."""
