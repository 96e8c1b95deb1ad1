"""Speed and memory of this project beside its peers, one command: ``python -m benchmarks``."""
