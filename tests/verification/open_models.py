"""Open packages for tests: models that answer as their candidates did when they were evaluated, changed as a test wants."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from packhouse.artifacts import ArtifactStore
from packhouse.evaluation.data import Array
from packhouse.packaging.job import PackagingJob
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.verification.opened import OpenPackage, Predictions
from packhouse.verification.payload import Payload
from tests.packaging_jobs import CPU, EXACT, Grades

NEXT = "turned-0.5"
# What the two classifiers really reach on the points that they are evaluated on.
TRUE: Grades = {CPU: {EXACT: (1.0, 3.0), NEXT: (85 / 90, 2.0)}}
Change = Callable[[Predictions], Predictions]


@dataclass
class Answering:
    """A model of an open package; `asked` counts how often it was run."""

    packaged: PackagedCandidate
    outputs: Mapping[str, Array]
    change: Change
    environment: str = "memory"
    asked: int = 0

    def predict(self, payload: Payload, batch_size: int, samples: int | None = None) -> Predictions:  # noqa: ARG002
        """Give the predictions of the evaluation, changed."""
        self.asked += 1
        given = {name: array[:samples] for name, array in self.outputs.items()}
        return self.change(Predictions(payload.ids[:samples], given, {"CPUExecutionProvider": 2}))


def opened(job: PackagingJob, store: ArtifactStore, change: Change = lambda predictions: predictions) -> OpenPackage:
    """Return an open package of all ranked candidates, whose predictions are changed."""
    models = []
    for ranked in job.overall.ranked:
        places = {"model_path": f"{ranked.rank}/model.onnx", "settings_path": "settings.json", "golden_path": "golden.npz"}
        packaged = PackagedCandidate.of(job, ranked, ranked, **places)
        predictions = job.evaluation(ranked).predictions
        assert predictions
        with np.load(store.path(predictions.sha256)) as arrays:
            models.append(Answering(packaged, dict(arrays), change))
    return OpenPackage(files=7, models=models)


def with_output(change: Callable[[Array], Any], name: str = "y") -> Change:
    """Return a change of one output."""
    return lambda found: replace(found, outputs={**found.outputs, name: change(found.outputs["y"])})
