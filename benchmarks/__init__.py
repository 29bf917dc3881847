"""Benchmarks: mdvp beside the engine's own driver and rclone's, measured in one run.

`scripts/bench.sh volumes` runs them and writes the tables of docs/benchmarks.md.
"""
