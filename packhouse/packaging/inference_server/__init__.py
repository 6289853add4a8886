"""Serve one ONNX model over HTTP with the Open Inference Protocol v2: ``python -m inference_server --model FOLDER``.

It is shipped in packages of the type Dockerfile, and needs onnxruntime, starlette and uvicorn, but nothing of Packhouse.
"""

SETTINGS_NAME, SERVING_NAME = "inference_config.json", "serving.json"
