"""Layer lists to bundles; the only part where torch or onnx may live."""
