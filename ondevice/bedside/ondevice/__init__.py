"""What computes on a device: runtimes, the training step, golden replay, in children that are limited.

Authors use the same code to see what a device will do (`bedside model verify`, `bench`, `simulate`).
"""
