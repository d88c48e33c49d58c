"""What `benchmarks/install.py` measures: our package on a clean Debian, and its peers in environments of their own."""
