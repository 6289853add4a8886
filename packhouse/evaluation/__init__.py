"""Evaluation: what each candidate is worth on each accelerator.

Kept free of imports, because `worker.py` in this folder runs in environments that have only numpy and onnxruntime.
"""
