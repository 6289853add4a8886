"""Score with ONNX Runtime behind Azure ML's inference server, which calls `init` once, and `run` for every request.

Requests and answers are those of inference in the Open Inference Protocol v2, as JSON or with binary tensor data; GET tells
what the model takes. What cannot be answered gets the status 400, and why.
"""

import json
import os
import sys
from pathlib import Path

from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

sys.path.insert(0, str(Path(__file__).parent))

from inference_server import SERVING_NAME
from inference_server.inference import answer
from inference_server.messages import JSON_LENGTH
from inference_server.model import Model
from inference_server.tensors import BadRequest

served: list[Model] = []


def init() -> None:
    """Load the model, which lies somewhere below the folder that Azure ML names."""
    (serving,) = Path(os.environ["AZUREML_MODEL_DIR"]).rglob(SERVING_NAME)
    served.append(Model(serving.parent))


@rawhttp  # type: ignore[untyped-decorator]
def run(request: AMLRequest) -> AMLResponse:
    """Answer a request."""
    (model,) = served
    if request.method == "GET":
        return AMLResponse(model.metadata, 200, json_str=True)
    try:
        content, headers = answer(model, request.get_data(), request.headers.get(JSON_LENGTH))
    except BadRequest as error:
        return AMLResponse(json.dumps({"error": str(error)}), error.status, {"Content-Type": "application/json"})
    return AMLResponse(content, 200, headers)
