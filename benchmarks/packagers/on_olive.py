"""Olive's packaging alone, in its own environment: ``on_olive.py TASK OUTCOME FOLDER``. It packs into the working directory."""

import json
import os
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

from olive.engine.footprint import Footprint, FootprintNode, FootprintNodeMetric  # type: ignore[import-not-found]
from olive.engine.packaging.packaging_config import PackagingConfig, PackagingType  # type: ignore[import-not-found]
from olive.engine.packaging.packaging_generator import generate_output_artifacts  # type: ignore[import-not-found]
from olive.hardware.accelerator import DEFAULT_CPU_ACCELERATOR  # type: ignore[import-not-found]

from benchmarks.packagers.clock import Clock


def node(candidate: Path) -> Any:
    """Return what Olive knows of a candidate after its search, with a made-up accuracy."""
    value = {"accuracy-accuracy_score": {"value": 0.9, "priority": 1, "higher_is_better": True}}
    return FootprintNode(
        model_id=candidate.name,
        model_config={"type": "ONNXModel", "config": {"model_path": str(candidate), "inference_settings": {}}},
        is_pareto_frontier=True,
        metrics=FootprintNodeMetric(value=value),
    )


def main() -> None:
    """Pack all candidates as a Zipfile without wheels."""
    task, folder, clock = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[3]), Clock()
    os.chdir(folder)
    candidates = sorted(Path(task["candidates"]).iterdir())
    found = Footprint(nodes={candidate.name: node(candidate) for candidate in candidates})
    config = PackagingConfig(type=PackagingType.Zipfile, include_runtime_packages=False)
    (folder / "output").mkdir()
    with clock.step("create"):
        generate_output_artifacts(
            config, {DEFAULT_CPU_ACCELERATOR: found}, {DEFAULT_CPU_ACCELERATOR: deepcopy(found)}, folder / "output"
        )
    assert next((folder / "output").glob("*.zip")).stat().st_size
    clock.save(Path(sys.argv[2]))


if __name__ == "__main__":
    main()
