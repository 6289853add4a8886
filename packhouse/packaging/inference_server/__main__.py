"""Serve the model in a folder until a signal ends it; or ask a server on this machine whether it is ready (``--check``)."""

import argparse
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

import uvicorn

from .app import MAX_BODY_BYTES, make_app
from .model import Model, Unservable

GRACE_S = 10
CHECK_TIMEOUT_S = 4


def main() -> int:
    """Do what the arguments say, and return the exit code."""
    parser = argparse.ArgumentParser(prog="inference_server", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("/opt/model"), help="folder of the model and its settings")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8080")), help="port to listen on")
    parser.add_argument("--uds", help="listen on this Unix socket instead")
    parser.add_argument("--concurrency", type=int, default=1, help="inferences at a time")
    parser.add_argument("--max-body-bytes", type=int, default=MAX_BODY_BYTES, help="largest request")
    parser.add_argument("--check", action="store_true", help="only ask whether the server on the port is ready")
    given = parser.parse_args()
    if given.check:
        return _check(given.port)
    try:
        model = Model(given.model)
    except Unservable as error:
        print(f"not served: {error}", file=sys.stderr)
        return 1
    app = make_app(model, concurrency=given.concurrency, max_body_bytes=given.max_body_bytes)
    uvicorn.run(
        app,
        host=given.host,
        port=given.port,
        uds=given.uds,
        lifespan="off",
        ws="none",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    return 0


def _check(port: int) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/v2/health/ready", timeout=CHECK_TIMEOUT_S) as answer:
            return 0 if answer.status == 200 else 1
    except (OSError, urllib.error.URLError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
