"""Benchmarks: each compares two ways of doing the same, side by side in one run, and its result is a ratio."""
