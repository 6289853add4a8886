"""What happens when a deployment is made: a real container in all but the container, or one of the ways in which Azure fails.

Each is a function of the deployment that returns when it runs and raises what went wrong.
"""

import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.fakes.azure.assets import Assets
from tests.fakes.azure.datastores import Datastores
from tests.fakes.azure.endpoints import Deployment
from tests.fakes.azure.images import Images, requirements
from tests.fakes.azure.messages import ServiceError
from tests.fakes.azure.packages import ModelPackages

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 20
POLL_S = 0.1
SERVER = ("azureml-inference-server-http", "azureml-defaults")
# What Microsoft's prebuilt inference images have, near enough: the server and ONNX Runtime.
OF_THE_IMAGE = ("azureml-inference-server-http", "onnxruntime", "numpy")
CRASHED = "User container has crashed or terminated. Please see troubleshooting guide, available here: https://aka.ms/oe-tsg"


def accept(_deployment: Deployment) -> None:
    """Say that the deployment runs, without a container; invoking it is answered by 424."""


def image_build_failure(_deployment: Deployment) -> None:
    """Fail as when the conda file cannot be solved."""
    raise ServiceError(400, "ImageBuildFailure", "Image build failed. See the log at azureml/ImageLogs/build.log.")


def out_of_quota(_deployment: Deployment) -> None:
    """Fail as when the subscription has no cores left of this family."""
    message = "Not enough quota available for the instance type in this subscription. Current usage/limit: 24/24."
    raise ServiceError(400, "OutOfQuota", message, (("OutOfQuota", "Additional needed: 4"),))


def container_crash(log: str) -> Callable[[Deployment], None]:
    """Fail as when the scoring script ends its process, with `log` as what it wrote."""

    def crash(deployment: Deployment) -> None:
        deployment.logs = {"InferenceServer": log, "StorageInitializer": "model downloaded\n"}
        raise ServiceError(400, "ResourceNotReady", CRASHED)

    return crash


@dataclass(frozen=True)
class Serve:
    """Fetch code and model from blob storage and serve them with Microsoft's inference server, in an own environment."""

    folder: Path
    images: Images
    datastores: Datastores
    models: Assets
    environments: Assets
    codes: Assets
    packages: ModelPackages

    def __call__(self, deployment: Deployment) -> None:
        """Start the server; a deployment without code has none to start."""
        asset, code, environment_id = self._parts(deployment.properties)
        place = self.folder / deployment.endpoint / f"{deployment.name}-{time.monotonic_ns()}"
        environment = self.environments.properties(environment_id) if environment_id else None
        variables = dict(deployment.properties.get("environmentVariables") or {})
        if asset:
            variables["AZUREML_MODEL_DIR"] = str(self._fetch_model(deployment, asset, place / "azureml-models"))
        if code is None or environment is None:
            return
        sources = self.datastores.download(self.codes.properties(code["codeId"])["codeUri"], place / "code")
        script = sources / code["scoringScript"]
        if not script.is_file():
            deployment.logs["InferenceServer"] = f"{code['scoringScript']}: no such file\n"
            raise ServiceError(400, "ResourceNotReady", CRASHED)
        python = self.images.build(_requirements(environment.get("condaFile")))
        self._start(deployment, python, script, variables, place / "server.log")

    def _parts(self, properties: Mapping[str, Any]) -> tuple[str | None, Mapping[str, str] | None, str | None]:
        """Return model, code and environment: those of the deployment, or those that went into its image."""
        environment = properties.get("environmentId")
        package = self.packages.find(environment) if environment else None
        if package is not None:
            return package.model, package.code, package.environment
        return properties.get("model"), properties.get("codeConfiguration"), environment

    def _fetch_model(self, deployment: Deployment, asset: str, folder: Path) -> Path:
        """Fetch a model; as in Azure, what was registered lies one level below the folder that the script is told."""
        found = self.datastores.download(self.models.properties(asset)["modelUri"], folder)
        deployment.logs["StorageInitializer"] = f"{asset} downloaded to {found.name}\n"
        return folder

    def _start(self, deployment: Deployment, python: Path, script: Path, variables: Mapping[str, str], log: Path) -> None:
        port = _free_port()
        command = [
            str(python),
            "-m",
            "azureml_inference_server_http.amlserver",
            "--entry_script",
            str(script),
            "--port",
            str(port),
        ]
        with log.open("w") as stream:
            process = subprocess.Popen(
                command,
                env={**self.images.variables(), **variables},
                cwd=script.parent,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

        def stop() -> None:
            process.terminate()
            try:
                process.wait(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            deployment.url = None

        deployment.stop, deployment.server_log = stop, log
        url = f"http://127.0.0.1:{port}"
        healthy = _wait_until_healthy(url, process)
        if not healthy:
            stop()
            raise ServiceError(400, "ResourceNotReady", CRASHED)
        deployment.url = url


def _requirements(conda_file: str | None) -> Sequence[str]:
    """Return what pip is to install for an online deployment."""
    if conda_file is None:
        return OF_THE_IMAGE
    wanted = requirements(conda_file)
    if not any(requirement.startswith(SERVER) for requirement in wanted):
        raise ServiceError(400, "ResourceNotReady", f"{CRASHED} The conda file lists none of {', '.join(SERVER)}.")
    return wanted


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if session.get(url, timeout=5).ok:
                    return True
            except requests.RequestException:
                time.sleep(POLL_S)
    return False
