"""What computes on a device: runtimes, the training step, golden replay, in children that are limited.

Authors use the same code to see what a device will do (`bedside model verify`, `bench`, `simulate`).

Invariant: no module outside this package imports onnxruntime, whose released builds give the machine
an identifier and send what they compute to their maker unless the variable below is set before their first import
(`Privacy.md` in the wheel). Nothing leaves a device but what docs/hospital-it.md names.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
