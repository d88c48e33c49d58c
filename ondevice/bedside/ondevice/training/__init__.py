"""Local training on the ordinary onnxruntime."""
