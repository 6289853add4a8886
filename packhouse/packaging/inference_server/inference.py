"""One inference: a request of the Open Inference Protocol v2 in, its answer out."""

from .messages import Wanted, read_request, write_answer
from .model import Model
from .tensors import BadRequest


def answer(model: Model, body: bytes, json_length: str | None) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of the answer to a request; `json_length` is its header that says where its bytes begin.

    Raises:
        BadRequest: it cannot be answered, and the message says why.
    """
    request = read_request(body, json_length)
    model.check_feed(request.feed)
    outputs = request.outputs or tuple(Wanted(name, request.as_bytes) for name in model.outputs)
    names = [output.name for output in outputs]
    if unknown := [name for name in names if name not in model.outputs]:
        raise BadRequest(f"there is no output {unknown[0]!r}; there are {', '.join(map(repr, model.outputs))}")
    return write_answer(model.name, model.version, request, names, model.infer(request.feed, names))
