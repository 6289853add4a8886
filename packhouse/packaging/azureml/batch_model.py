"""A model that jobs run over files, on this machine or in Azure ML."""

from collections.abc import Callable
from pathlib import Path

from packhouse.candidates import Candidate
from packhouse.errors import VerificationFailed
from packhouse.evaluation.data import Array
from packhouse.packaging.inference_server.messages import read_answer, write_request
from packhouse.packaging.inference_server.tensors import BadRequest
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.verification.opened import Predictions
from packhouse.verification.payload import Payload
from packhouse.verification.served import batches, joined, tensors


class BatchModel:
    """A model that is run by a job over files: what it will be asked is written first, so that one job answers all.

    `run` takes a folder of requests and an empty one, which it fills with the answers, by the same names.
    """

    def __init__(
        self,
        packaged: PackagedCandidate,
        environment: str,
        candidate: Candidate,
        run: Callable[[Path, Path], None],
        scratch: Path,
    ) -> None:
        """Use a scratch folder of its own."""
        self.packaged, self.environment = packaged, environment
        self._candidate, self._run, self._scratch = candidate, run, scratch
        self._answered: set[tuple[int, int | None]] = set()

    def prepare(self, payload: Payload, *asked: tuple[int, int | None]) -> None:
        """Run one job for all that will be asked: batch sizes, with numbers of samples.

        Raises:
            VerificationFailed: the job did not run, or the samples cannot be written for it.
        """
        number = len(self._answered)
        requests, self._answers = self._scratch / f"requests-{number}", self._scratch / "answers"
        requests.mkdir()
        self._answers.mkdir(exist_ok=True)
        for size, samples in asked:
            for index, batch in enumerate(batches(self._candidate, payload, size, samples)):
                try:
                    body, _ = write_request(batch.feed, tensors(self._candidate), as_bytes=False)
                except ValueError as error:
                    raise VerificationFailed(
                        "the files of a batch job are JSON, and there are samples with values that are not finite, which it "
                        "cannot hold → deploy online, or set code_folder to a scoring script of your own"
                    ) from error
                (requests / _name(size, samples, index)).write_bytes(body)
        self._run(requests, self._answers)
        self._answered |= set(asked)

    def predict(self, payload: Payload, batch_size: int, samples: int | None = None) -> Predictions:
        """Return what the job answered. Raises VerificationFailed where it did not."""
        if (batch_size, samples) not in self._answered:
            self.prepare(payload, (batch_size, samples))
        cut = list(batches(self._candidate, payload, batch_size, samples))
        answers = [self._answer(_name(batch_size, samples, index)) for index in range(len(cut))]
        return Predictions(*joined(payload, cut, answers))

    def _answer(self, name: str) -> dict[str, Array]:
        path = self._answers / name
        if not path.is_file():
            raise VerificationFailed(f"the job gave no answer to {name}; its log says why")
        try:
            return read_answer(path.read_bytes(), None)
        except BadRequest as error:
            raise VerificationFailed(
                f"{name} was answered with something else than the Open Inference Protocol v2 ({error}) → if your "
                "scoring script has a format of its own, give smoke_test.payload"
            ) from error


def _name(size: int, samples: int | None, index: int) -> str:
    return f"{'all' if samples is None else samples}-by-{size}-{index:06}.json"
