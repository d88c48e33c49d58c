"""MIT-BIH records through the device: what is trained on, the device that is run, and how its answers are scored."""
