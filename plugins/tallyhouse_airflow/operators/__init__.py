"""Operators: thin; the work is done by the package under `include/`."""
