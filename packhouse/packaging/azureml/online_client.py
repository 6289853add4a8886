"""Asking a deployment of an online endpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packhouse.errors import VerificationFailed
from packhouse.evaluation.data import Array
from packhouse.packaging.azureml.failures import AzureFailed
from packhouse.packaging.azureml.workspace import AzureMLSession
from packhouse.packaging.inference_server.messages import JSON_LENGTH, read_answer, write_request
from packhouse.packaging.inference_server.tensors import BadRequest
from packhouse.packaging.job import PackagingJob
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.verification.opened import Predictions
from packhouse.verification.payload import Payload
from packhouse.verification.served import ServedModel, batches, tensors

MAX_REQUEST_BYTES = 1_500_000  # to a managed online endpoint
NOT_IN_JSON = 422  # what the model answers where an output has values that JSON cannot hold


@dataclass(frozen=True)
class OnlineClient:
    """What asks a deployment of an online endpoint; without a deployment, the one that the traffic leads to.

    A single sample is sent by `invoke` of the SDK, as anybody would. More are sent to the address, which is looked up once: as
    JSON too, or as bytes where that is too large for an endpoint or cannot hold the values.
    """

    session: AzureMLSession
    endpoint: str
    deployment: str | None
    scratch: Path

    def infer(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return these outputs for the feed. Raises VerificationFailed."""
        try:
            return self._infer(feed, outputs)
        except AzureFailed as error:
            raise VerificationFailed(str(error), is_transient=error.is_transient) from error
        except BadRequest as error:
            raise VerificationFailed(
                f"it answers with something else than the Open Inference Protocol v2 ({error}) → if your scoring script has a "
                "format of its own, give smoke_test.payload"
            ) from error

    def placement(self) -> None:
        """Where nodes run is not told; a model does not start where they do not run as they should."""
        return

    def _infer(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        if (body := _as_json(feed, outputs)) is not None:
            try:
                return self._answer_to_json(body, is_single=all(len(array) == 1 for array in feed.values() if array.ndim))
            except AzureFailed as error:
                if error.failure.model_status != NOT_IN_JSON:
                    raise
        body, headers = write_request(feed, outputs)
        return self._post(body, headers)

    def _answer_to_json(self, body: bytes, *, is_single: bool) -> dict[str, Array]:
        if not (self.deployment and is_single):
            return self._post(body, {"Content-Type": "application/json"})
        path = self.scratch / "request"
        path.write_bytes(body)
        told = self.session.ask("online.invoke", endpoint=self.endpoint, deployment=self.deployment, path=str(path))
        return read_answer(told.encode(), None)

    def _post(self, body: bytes, headers: Mapping[str, str]) -> dict[str, Array]:
        path, answer = self.scratch / "request", self.scratch / "answer"
        path.write_bytes(body)
        told = self.session.ask(
            "online.post",
            endpoint=self.endpoint,
            deployment=self.deployment,
            headers=headers,
            path=str(path),
            answer_path=str(answer),
        )
        return read_answer(answer.read_bytes(), told.get(JSON_LENGTH.lower()))


def _as_json(feed: Mapping[str, Array], outputs: Sequence[str]) -> bytes | None:
    """Return a request as JSON; None where that is too large for an endpoint, or cannot hold the values."""
    if sum(array.nbytes for array in feed.values()) > MAX_REQUEST_BYTES:
        return None
    try:
        body, _ = write_request(feed, outputs, as_bytes=False)
    except ValueError:  # not finite
        return None
    return body if len(body) <= MAX_REQUEST_BYTES else None


class OnlineModel(ServedModel):
    """A model that a managed online endpoint serves, in batches that are no larger than a request to it may be."""

    def predict(self, payload: Payload, batch_size: int, samples: int | None = None) -> Predictions:
        """Ask for the samples in batches. Raises VerificationFailed where they are not answered as the protocol says."""
        first = next(iter(batches(self.candidate, payload, 1, 1)))
        body, _ = write_request(first.feed, tensors(self.candidate))
        return super().predict(payload, max(1, min(batch_size, MAX_REQUEST_BYTES // len(body))), samples)


def online_model(packaged: PackagedCandidate, job: PackagingJob, client: OnlineClient) -> ServedModel:
    """Return the model of a deployment, to be run by asking it."""
    where = f"the deployment {client.deployment} of the online endpoint {client.endpoint}"
    return OnlineModel(packaged, where, client, job.candidate_on(packaged.digest, packaged.accelerator))
