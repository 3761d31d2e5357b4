"""Measurements of this project's own parts: `python -m benchmarks <name>` prints a table, then the same as a line of JSON."""
