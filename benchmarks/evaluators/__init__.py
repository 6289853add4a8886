"""The programs that `benchmarks.evaluation` compares. Each reads a task, does it, and writes what it found, both as JSON."""
