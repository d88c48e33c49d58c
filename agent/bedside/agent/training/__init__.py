"""Local training: one child per plan, on the ordinary onnxruntime, with its memory given back when it ends."""
