"""Packhouse grades trained model candidates on the accelerators they will run on, and packs the winners.

The stages, in the order in which data flows: `config` → `candidates` → `evaluation` (on `accelerators`) → `ranking` →
`packaging` → `verification` and `report`. Nothing in here knows the orchestrator: Prefect starts in `tasks` and `flows`.
"""

__version__ = "0.1.0"
