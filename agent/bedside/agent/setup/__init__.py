"""The first run of a device: `bedside agent setup`, and the parts of it that `init` and `enrol` share."""
