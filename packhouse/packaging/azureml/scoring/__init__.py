"""The scoring scripts that deployments get where the user gives none; each is shipped as ``score.py``."""
