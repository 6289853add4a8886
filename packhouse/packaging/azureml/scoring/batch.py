"""Score files with ONNX Runtime in a batch job of Azure ML, which calls `init` in each process, and `run` for each mini batch.

Each file is one request of inference of the Open Inference Protocol v2, as JSON. Its answer is a file of the same name in the
output of the job.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from inference_server import SERVING_NAME
from inference_server.inference import answer
from inference_server.model import Model

served: list[Model] = []


def init() -> None:
    """Load the model, which lies somewhere below the folder that Azure ML names."""
    (serving,) = Path(os.environ["AZUREML_MODEL_DIR"]).rglob(SERVING_NAME)
    served.append(Model(serving.parent))


def run(mini_batch: list[str]) -> list[str]:
    """Answer the requests in these files, and return their names."""
    (model,) = served
    output = Path(os.environ["AZUREML_BI_OUTPUT_PATH"])
    for path in map(Path, mini_batch):
        content, _ = answer(model, path.read_bytes(), None)
        (output / path.name).write_bytes(content)
    return [Path(path).name for path in mini_batch]
