"""Prefect blocks: connections and secrets that configurations refer to by name."""
