"""Thin Prefect tasks around the domain: caching, storage, retries and what the Prefect UI shows."""
