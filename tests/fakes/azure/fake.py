"""The fake as a test sees it: one object that starts everything, tells how to reach it, and shows what happened."""

import os
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from tests.fakes.azure import assets
from tests.fakes.azure.azurite import Azurite
from tests.fakes.azure.batch import BatchEndpoints
from tests.fakes.azure.certificates import CertificateAuthority
from tests.fakes.azure.datastores import Datastores
from tests.fakes.azure.deploying import Serve
from tests.fakes.azure.endpoints import LOCATION, SCORING_DOMAIN, Deployment, Endpoint
from tests.fakes.azure.faults import Fault, Faults
from tests.fakes.azure.identity import HOST as IDENTITY_HOST
from tests.fakes.azure.identity import Identity
from tests.fakes.azure.images import Images
from tests.fakes.azure.jobs import Job, Jobs
from tests.fakes.azure.long_running import LongRunningOperations
from tests.fakes.azure.messages import Request, Response, ServiceError
from tests.fakes.azure.online import OnlineEndpoints
from tests.fakes.azure.packages import ModelPackages
from tests.fakes.azure.proxy import Proxy
from tests.fakes.azure.resource_manager import HOST as MANAGEMENT_HOST
from tests.fakes.azure.resource_manager import ResourceManager
from tests.fakes.azure.resources import Call, resource
from tests.fakes.azure.run_history import HOST as HISTORY_HOST
from tests.fakes.azure.run_history import RunHistory
from tests.fakes.azure.scoring import Scoring

ACCOUNT = "packhousefake"
JOIN_TIMEOUT_S = 30
BLOB_TIMEOUT_S = 120
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}


class FakeAzure:
    """One subscription with one workspace, on loopback, for as long as the ``with`` block lasts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # A test may point its own process at the fake later; what the fake itself starts must not go through the fake.
        self._outside = dict(os.environ)
        self.subscription_id = "7c1b1c52-9b1f-4d38-8a6f-3e6a2f3c4d33"
        self.resource_group = "packhouse-tests"
        self.workspace = "orchard"
        self.requests: list[Request] = []
        # Everything that broke the official contract, a sentence each.
        self.violations: list[str] = []
        self.faults = Faults()
        self.identity = Identity()

    def __enter__(self) -> Self:
        self._authority = CertificateAuthority(self._folder / "certificates")
        self._azurite = Azurite(self._folder / "blobs", ACCOUNT, self._authority.issue("127.0.0.1"), self._outside)
        self._datastores = Datastores(self._azurite, self._authority.certificate)
        self._blob_session = requests.Session()
        self._blob_session.trust_env = False
        self._assets = {
            "models": assets.models(),
            "data": assets.data(self._address),
            "environments": assets.environments(),
            "codes": assets.codes(),
        }
        self._long_running = LongRunningOperations(
            f"https://{MANAGEMENT_HOST}/subscriptions/{self.subscription_id}/providers"
            f"/Microsoft.MachineLearningServices/locations/{LOCATION}"
        )
        self._packages = ModelPackages(self._long_running, self._assets["environments"])
        images = Images(self._outside)
        self.serve = Serve(
            self._folder / "containers",
            images,
            self._datastores,
            self._assets["models"],
            self._assets["environments"],
            self._assets["codes"],
            self._packages,
        )
        self.on_deploy: Callable[[Deployment], None] = self.serve
        self._online = OnlineEndpoints(self._long_running, self._deploy)
        self.score = Scoring(
            self._folder / "jobs",
            images,
            self._datastores,
            self._assets["models"],
            self._assets["environments"],
            self._assets["codes"],
            self._assets["data"],
        )
        self.on_batch_deploy: Callable[[Deployment], None] = self.score.check
        self._jobs = Jobs(self._long_running, self.score)
        self._history = RunHistory(self._workspace_path, self.identity, self._jobs, self._datastores)
        self._batch = BatchEndpoints(
            self._long_running,
            self._deploy_batch,
            self._address,
            self.identity,
            self._jobs,
            self.violations,
        )
        self._manager = ResourceManager(
            self.subscription_id,
            self.resource_group,
            self.workspace,
            self.identity,
            self._long_running,
            self._handlers(),
            violations=self.violations,
        )
        self._proxy = Proxy(self._authority, self._answer)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._proxy.stop()
        self._jobs.stop(JOIN_TIMEOUT_S)
        self._long_running.join(JOIN_TIMEOUT_S)
        self._online.stop()
        self._blob_session.close()
        self._azurite.stop()

    @property
    def tenant_id(self) -> str:
        """The tenant of the service principal."""
        return self.identity.tenant_id

    @property
    def client_id(self) -> str:
        """The service principal; also the client id of the managed identity."""
        return self.identity.client_id

    @property
    def client_secret(self) -> str:
        """The service principal's secret, new for every fake."""
        return self.identity.client_secret

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to take the fake for Azure, signed in as the service principal."""
        bundle = str(self._authority.bundle)
        trust = dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"), bundle)
        direct = ",".join(filter(None, ["127.0.0.1", "localhost", self._outside.get("NO_PROXY", "")]))
        return {
            **trust,
            "HTTPS_PROXY": self._proxy.url,
            "https_proxy": self._proxy.url,
            "NO_PROXY": direct,
            "no_proxy": direct,
            "AZURE_TENANT_ID": self.tenant_id,
            "AZURE_CLIENT_ID": self.client_id,
            "AZURE_CLIENT_SECRET": self.client_secret,
            "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
        }

    @property
    def managed_identity_environment(self) -> dict[str, str]:
        """The same for a process on App Service: no secret, an endpoint that gives tokens to the managed identity."""
        kept = {name: value for name, value in self.environment.items() if not name.startswith("AZURE_")}
        endpoint = {"IDENTITY_ENDPOINT": f"{self._proxy.url}/msi/token", "IDENTITY_HEADER": self.identity.identity_header}
        return {**kept, **endpoint, "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential"}

    @property
    def tunnelled(self) -> set[str]:
        """The hosts that were reached through the proxy and are not Azure's."""
        return self._proxy.tunnelled

    @property
    def secrets(self) -> set[str]:
        """Everything secret that the fake handed out: tests look for it in what a run wrote."""
        keys = self._online.keys | self._batch.keys
        return {self.client_secret, *self.identity.issued, *self._datastores.signatures, *keys}

    @property
    def models(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Registered models: name, version, properties."""
        return self._assets["models"].versions

    @property
    def data(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Registered data assets: name, version, properties."""
        return self._assets["data"].versions

    @property
    def environments(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Registered environments: name, version, properties."""
        return self._assets["environments"].versions

    @property
    def codes(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Registered code: name, version, properties."""
        return self._assets["codes"].versions

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        """Online endpoints by name, with their deployments, traffic and states."""
        return self._online.endpoints

    @property
    def batch_endpoints(self) -> dict[str, Endpoint]:
        """Batch endpoints by name."""
        return self._batch.endpoints

    @property
    def batch_jobs(self) -> dict[str, Job]:
        """The jobs of batch endpoints, by name."""
        return self._jobs.jobs

    def on_endpoint(self, action: Callable[[Endpoint], None]) -> None:
        """Run `action` whenever an online endpoint is made or changed; what it raises leaves the endpoint in state Failed."""
        self._online.on_endpoint = action

    def blobs(self) -> list[str]:
        """Return the names of all blobs in the default datastore."""
        return self._datastores.names()

    def blob(self, name: str) -> bytes:
        """Return a blob of the default datastore."""
        return self._datastores.read(name)

    def download(self, uri: str, folder: Path) -> Path:
        """Fetch an asset by its address into `folder`, and return the file or folder that the address names."""
        return self._datastores.download(uri, folder)

    def use_identity_for_blobs(self) -> None:
        """Make the default datastore identity-based: no SAS is handed out, blobs are reached with the caller's token."""
        self._datastores.identity_based = True

    def use_signatures_for_blobs(self) -> None:
        """Make the default datastore hand out a SAS again, which is what it does at first."""
        self._datastores.identity_based = False

    def fail(
        self,
        method: str,
        path: str,
        *,
        status: int = 500,
        code: str = "InternalServerError",
        message: str = "The fake was told to fail.",
        times: int = 1,
        retry_after: float | None = None,
        drop_connection: bool = False,
        delay_s: float = 0.0,
        loses_answer: bool = False,
    ) -> None:
        """Make the next `times` requests fail, `delay_s` late, whose host and path contain the regular expression `path`.

        What they ask for is not done, unless only the answer is lost.
        """
        pattern = re.compile(path, re.IGNORECASE)
        fault = Fault(method, pattern, status, code, message, times, retry_after, drop_connection, delay_s, loses_answer)
        self.faults.add(fault)

    @property
    def _workspace_path(self) -> str:
        group = f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
        return f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace}"

    @property
    def _address(self) -> str:
        """What leads to the workspace in long addresses of blobs."""
        return f"subscriptions/{self.subscription_id}/resourcegroups/{self.resource_group}/workspaces/{self.workspace}"

    def _handlers(self) -> dict[str, Any]:
        handlers = {"Workspaces_Get": self._get_workspace, **self._datastores.operations(), **self._packages.operations()}
        for kind in self._assets.values():
            handlers |= kind.operations()
        handlers |= {**self._online.operations(), **self._batch.operations(), **self._jobs.operations()}
        return handlers

    def _deploy(self, deployment: Deployment) -> None:
        self.on_deploy(deployment)

    def _deploy_batch(self, deployment: Deployment) -> None:
        self.on_batch_deploy(deployment)

    def _get_workspace(self, call: Call) -> Response:
        properties = {
            "workspaceId": str(uuid.uuid5(uuid.NAMESPACE_URL, self._workspace_path)),
            "friendlyName": self.workspace,
            "discoveryUrl": f"https://{HISTORY_HOST}/discovery",
            "mlFlowTrackingUri": f"azureml://{HISTORY_HOST}/mlflow/v1.0{self._workspace_path}",
            "provisioningState": "Succeeded",
        }
        return Response(200, resource(call.path, properties, location=LOCATION, identity={"type": "SystemAssigned"}, tags={}))

    def _answer(self, request: Request) -> Response | None:
        self.requests.append(request)
        fault = self.faults.take(request.method, f"{request.host}{request.path}")
        if fault is not None and fault.delay_s:
            time.sleep(fault.delay_s)
        if fault is not None and fault.loses_answer:
            self._route(request)
        if fault is not None and (fault.drop_connection or fault.loses_answer):
            return None
        if fault is not None:
            response = ServiceError(fault.status, fault.code, fault.message).response()
            if fault.retry_after is not None:
                # As in Azure, Retry-After has whole seconds; the SDK's own reader of it fails on others.
                whole = fault.retry_after == int(fault.retry_after)
                name, unit = ("Retry-After", 1) if whole else ("Retry-After-Ms", 1000)
                response.headers[name] = str(int(fault.retry_after * unit))
        else:
            try:
                response = self._route(request)
            except Exception as error:
                self.violations.append(f"the fake could not answer {request}: {error!r}")
                raise
        request.status = response.status
        return response

    def _route(self, request: Request) -> Response:
        services: dict[str, Callable[[Request], Response]] = {
            MANAGEMENT_HOST: self._manager.answer,
            HISTORY_HOST: self._history.answer,
            IDENTITY_HOST: self.identity.answer,
            self._datastores.host: self._forward_to_blobs,
            "127.0.0.1": self.identity.answer_machine,
        }
        if request.host.endswith(SCORING_DOMAIN):
            return self._score(request)
        if request.host in services:
            return services[request.host](request)
        return Response(502, {"error": {"code": "NoSuchHost", "message": f"The fake is not {request.host}."}})

    def _score(self, request: Request) -> Response:
        for kind in (self._online, self._batch):
            if endpoint := kind.named_by(request.host):
                return kind.invoke(endpoint, request)
        return Response(404, {"error": {"code": "NotFound", "message": f"There is no endpoint at {request.host}."}})

    def _forward_to_blobs(self, request: Request) -> Response:
        headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
        answer = self._blob_session.request(
            request.method,
            f"https://127.0.0.1:{self._azurite.port}{request.target}",
            data=request.content,
            headers=headers,
            verify=str(self._authority.certificate),
            timeout=BLOB_TIMEOUT_S,
            stream=True,
        )
        content = answer.raw.read(decode_content=False)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
        if request.method == "HEAD":
            kept["Content-Length"] = answer.headers.get("content-length", "0")
        return Response(answer.status_code, headers=kept, content=content)
