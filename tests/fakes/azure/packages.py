"""The preview operation that packs a model, its code and an environment into an image, which is then an environment itself."""

import re
import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.fakes.azure.assets import Assets
from tests.fakes.azure.long_running import LongRunningOperations
from tests.fakes.azure.messages import Response, ServiceError
from tests.fakes.azure.resources import Call, Handler

TARGET = re.compile(r"/environments/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?$")


@dataclass(frozen=True)
class Package:
    """What went into an image."""

    model: str
    code: dict[str, str] | None
    environment: str


@dataclass
class ModelPackages:
    """The images of a workspace, by the name and version of the environment that stands for each."""

    long_running: LongRunningOperations
    environments: Assets
    packages: dict[tuple[str, str], Package] = field(default_factory=dict)

    def operations(self) -> dict[str, Handler]:
        """The one operation."""
        return {"ModelVersions_Package": self._pack}

    def find(self, environment: str) -> Package | None:
        """Return the package behind an environment, if it is one."""
        found = TARGET.search(environment)
        return self.packages.get((found["name"], found["version"])) if found else None

    def _pack(self, call: Call) -> Response:
        target = TARGET.search(call.body["targetEnvironmentId"])
        if target is None:
            raise ServiceError(400, "BadArgument", f"{call.body['targetEnvironmentId']} is not an environment.")
        base = call.body["baseEnvironmentSource"]["resourceId"]
        self.environments.properties(base)
        package = Package(call.path.removesuffix("/package"), call.body["inferencingServer"].get("codeConfiguration"), base)
        work = partial(self._build, package, target["name"], target["version"], call.body)
        return Response(202, headers=self.long_running.start(work))

    def _build(self, package: Package, name: str, wanted: str | None, request: dict[str, Any]) -> dict[str, Any]:
        versions = self.environments.versions.setdefault(name, {})
        version = wanted or str(len(versions) + 1)
        if version in versions:
            raise ServiceError(
                409, "UserError", f"(UserError) Environment {name} with version {version} is already registered."
            )
        versions[version] = {"image": f"packhouse.azurecr.io/packages/{name}:{version}", "environmentType": "UserCreated"}
        self.packages[name, version] = package
        target = f"{TARGET.sub('', request['targetEnvironmentId'])}/environments/{name}/versions/{version}"
        answer = {"buildId": str(uuid.uuid4()), "buildState": "Succeeded", "targetEnvironmentId": target}
        return {**{key: value for key, value in request.items() if key != "modelConfiguration"}, **answer}
