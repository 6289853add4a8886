"""A Dockerfile package opened as its consumers would: its image is built and run, and asked over HTTP.

Where it is not to be built, its server runs in a fresh environment of what the image would have installed. Both listen on a
Unix socket only, so no port is opened, and the container needs no network.
"""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from packhouse.errors import VerificationFailed
from packhouse.evaluation.device_lock import device_locks
from packhouse.evaluation.runtimes import RuntimeEnvironments
from packhouse.packaging.caveat import Caveat
from packhouse.packaging.docker.builders import SOCKET_FOLDER, BuilderFailed, find_builder
from packhouse.packaging.docker.check import check_dockerfile
from packhouse.packaging.docker.image_content import CONTENT
from packhouse.packaging.docker.image_record import ImageRecord
from packhouse.packaging.inference_client import Addresses, InferenceClient, running, socket_folder
from packhouse.packaging.job import PackagingJob, Workplace
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.packaging.runtime_packages import REQUIREMENTS, RUNTIME_FOLDER
from packhouse.verification.opened import OpenPackage
from packhouse.verification.reader import unpack
from packhouse.verification.served import ServedModel
from packhouse.verification.unpacked import read_manifest, require_safe_model

if TYPE_CHECKING:
    from packhouse.packaging.docker.dockerfile import Dockerfile

SOCKET = "server.sock"
LOG = "server.log"
ANY_SIZE = ["--max-body-bytes", str(1 << 40)]  # batches are those of the evaluation, however large, and not those of clients
Server = Callable[[Path, Path], AbstractContextManager[subprocess.Popen[bytes]]]


@contextmanager
def opened_image(package: Path, job: PackagingJob, workplace: Workplace, packaging: "Dockerfile") -> Iterator[OpenPackage]:
    """Build the image of a copy of the package, if that is not done, and run it. Which it is is kept, for it to be pushed.

    Raises:
        VerificationFailed: the package is not what its manifest says, the image cannot be built, or its server does not start.
    """
    with _unpacked(package, workplace) as (folder, files, packaged):
        try:
            builder = find_builder(packaging.builder)
            image = ImageRecord(folder, packaging, builder, workplace.cache).image()
            environment = f"the image {image}, built and run by {builder.version} {builder.isolation}"
        except BuilderFailed as error:
            raise VerificationFailed(f"the image is not built: {error}", is_transient=error.is_transient) from error

        def run(shared: Path, log: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
            return builder.run(image, shared, ["--uds", f"{SOCKET_FOLDER}/{SOCKET}", *ANY_SIZE], packaging.run_options, log)

        with _served(packaging.name, packaged, job, environment, run) as model:
            yield OpenPackage(files=files, models=[model])


@contextmanager
def opened_server(
    package: Path, job: PackagingJob, workplace: Workplace, packaging: "Dockerfile", caveat: Caveat | None = None
) -> Iterator[OpenPackage]:
    """Run the server of a copy of the package in an environment of what its image would have installed.

    The `caveat` says why it is not built, where it should be.

    Raises:
        VerificationFailed: the package is not what its manifest says, or the server does not start.
        EvaluationFailed: the requirements cannot be installed.
    """
    with _unpacked(package, workplace) as (folder, files, packaged):
        content = folder / CONTENT
        wheels = content / RUNTIME_FOLDER
        environments = RuntimeEnvironments(workplace.runtimes)
        python = environments.python_from_lock(content / REQUIREMENTS, wheels if wheels.is_dir() else None)

        @contextmanager
        def run(shared: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
            arguments = ["-m", "inference_server", "--model", str(content), "--uds", str(shared / SOCKET), *ANY_SIZE]
            variables = {
                "PYTHONPATH": str(content / "server"),
                "PYTHONSAFEPATH": "1",
                "PYTHONNOUSERSITE": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
            }
            with running([python, *arguments], {**os.environ, **variables}, shared, log) as process:
                yield process

        environment = "not built; its server, in an environment of its pinned requirements"
        with _served(packaging.name, packaged, job, environment, run) as model:
            yield OpenPackage(files=files, models=[model], caveat=caveat)


@contextmanager
def _unpacked(package: Path, workplace: Workplace) -> Iterator[tuple[Path, int, PackagedCandidate]]:
    """Unpack and check a copy of the package; give its folder, how many files it has, and what is said of its model."""
    with tempfile.TemporaryDirectory(prefix="open-", dir=workplace.scratch) as scratch:
        folder = Path(scratch, "package")
        files = unpack(package, folder)
        manifest = read_manifest(folder, files)
        check_dockerfile(folder)
        (packaged,) = manifest.candidates
        require_safe_model(folder, packaged)
        yield folder, len(files), packaged


@contextmanager
def _served(name: str, packaged: PackagedCandidate, job: PackagingJob, environment: str, run: Server) -> Iterator[ServedModel]:
    """Run a server while the context lasts, on the device, and give the model that it serves."""
    accelerator, candidate = job.accelerator(packaged.accelerator), job.candidate_on(packaged.digest, packaged.accelerator)
    with (
        device_locks(accelerator.devices([candidate.settings]), exclusive=False),
        socket_folder() as folder,
    ):
        shared, log = folder / "shared", folder / LOG
        shared.mkdir()
        shared.chmod(0o777)  # who serves is another user; the folder around it is this one's only
        with run(shared, log) as process, InferenceClient(shared / SOCKET, Addresses.of_protocol(name)) as client:
            client.wait_until_ready(process, log)
            yield ServedModel(packaged, environment, client, candidate)
