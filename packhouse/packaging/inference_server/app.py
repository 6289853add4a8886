"""The HTTP interface: paths, status codes and errors of the Open Inference Protocol v2 (REST), for one model.

Errors are ``{"error": <message>}``. Inference runs in threads, of which there are as many as sessions may run at once; who
comes when too many wait already is told so (503) before their request is read.
"""

from functools import partial

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .inference import answer
from .messages import JSON_LENGTH
from .model import Model
from .tensors import BadRequest

SERVER = "packhouse-inference-server"
EXTENSIONS = ["binary_tensor_data"]
MAX_BODY_BYTES = 64 << 20
MAX_WAITING = 64


def make_app(
    model: Model, *, concurrency: int = 1, max_body_bytes: int = MAX_BODY_BYTES, max_waiting: int = MAX_WAITING
) -> Starlette:
    """Return the application that serves a model, `concurrency` inferences at a time."""
    limiter = CapacityLimiter(concurrency)

    async def server(_: HttpRequest) -> Response:
        return JSONResponse({"name": SERVER, "version": model.version, "extensions": EXTENSIONS})

    async def live(_: HttpRequest) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: HttpRequest) -> Response:
        return JSONResponse({"ready": True})

    async def metadata(request: HttpRequest) -> Response:
        _require(model, request)
        return JSONResponse(model.metadata)

    async def model_ready(request: HttpRequest) -> Response:
        _require(model, request)
        return JSONResponse({"name": model.name, "ready": True})

    async def infer(request: HttpRequest) -> Response:
        _require(model, request)
        if limiter.statistics().tasks_waiting >= max_waiting:
            raise BadRequest("too many requests wait already; try again later", status=503)
        body = await _body(request, max_body_bytes)
        infer_one = partial(answer, model, body, request.headers.get(JSON_LENGTH))
        content, headers = await to_thread.run_sync(infer_one, limiter=limiter)
        return Response(content, headers=headers)

    named = "/v2/models/{name}"
    routes = [
        Route("/v2", server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        *(Route(f"{path}", metadata) for path in (named, f"{named}/versions/{{version}}")),
        *(Route(f"{path}/ready", model_ready) for path in (named, f"{named}/versions/{{version}}")),
        *(Route(f"{path}/infer", infer, methods=["POST"]) for path in (named, f"{named}/versions/{{version}}")),
    ]
    return Starlette(
        routes=routes,
        exception_handlers={BadRequest: _refused, HTTPException: _failed, Exception: _broken},
    )


def _require(model: Model, request: HttpRequest) -> None:
    name, version = request.path_params["name"], request.path_params.get("version", model.version)
    if name != model.name:
        raise BadRequest(f"there is no model {name!r}; there is {model.name!r}", status=404)
    if version != model.version:
        raise BadRequest(f"there is no version {version!r} of {name!r}; there is {model.version!r}", status=404)


async def _body(request: HttpRequest, limit: int) -> bytes:
    """Return the body, of which no more than `limit` bytes are read."""
    if encoding := request.headers.get("Content-Encoding"):
        raise BadRequest(f"the content encoding {encoding!r} is not known here; send the body as it is", status=415)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise BadRequest(f"the body has more than {limit} bytes", status=413)
        parts.append(part)
    return b"".join(parts)


async def _refused(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, BadRequest)
    return JSONResponse({"error": str(error)}, error.status)


async def _failed(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _broken(_: HttpRequest, error: Exception) -> Response:
    return JSONResponse({"error": f"the inference failed: {type(error).__name__}"}, 500)
