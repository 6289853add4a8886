"""What the inference server needs beside a model: its own modules, and what the model is called and runs on."""

from collections.abc import Collection
from importlib import resources

from packhouse.packaging import inference_server
from packhouse.packaging.contents import Content
from packhouse.packaging.job import PackagingJob
from packhouse.ranking import Ranked

# The modules that answer a request, whatever brings it.
INFERENCE_MODULES = frozenset({"__init__.py", "inference.py", "messages.py", "model.py", "tensors.py"})


def serving(name: str, job: PackagingJob, ranked: Ranked, model_path: str) -> Content:
    """Return ``serving.json`` of a ranked model that is served under a name, and lies at a path beside it."""
    candidate, accelerator = job.candidate(ranked.candidate), job.accelerator(ranked.accelerator)
    described = {
        "name": name,
        "version": candidate.digest,
        "model_path": model_path,
        "accelerator": ranked.accelerator,
        "device": accelerator.device,
        "plugin": accelerator.plugin,
        "dimensions": accelerator.dimensions,
    }
    return Content.of_json(described)


def server_modules(wanted: Collection[str] | None = None) -> dict[str, Content]:
    """Return the modules of the server, or those that are wanted, by file name."""
    modules = resources.files(inference_server).iterdir()
    return {
        file.name: Content.of(file.read_bytes())
        for file in modules
        if file.name.endswith(".py") and (wanted is None or file.name in wanted)
    }
