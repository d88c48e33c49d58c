"""What `edge.py` measures with: signals, device directories, a loaded agent, and layouts of the buffer."""
