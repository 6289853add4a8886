"""Versioned assets: models, data, environments and code. A version, once registered, keeps its content."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.azure.messages import Response, ServiceError, not_found
from tests.fakes.azure.resources import Call, Handler, listed, resource


@dataclass
class Assets:
    """All assets of one kind, by name and version. `content` names the members that a version never changes."""

    kind: str
    segment: str
    content: tuple[str, ...]
    conflict: ServiceError
    versions: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def operations(self) -> dict[str, Handler]:
        """The operations that this kind answers."""
        return {
            f"{self.kind}Versions_CreateOrUpdate": self._create_or_update,
            f"{self.kind}Versions_Get": self._get,
            f"{self.kind}Versions_List": self._list,
            f"{self.kind}Containers_Get": self._get_container,
            f"{self.kind}Containers_List": self._list_containers,
        }

    def properties(self, path: str) -> dict[str, Any]:
        """Return what is registered under a resource id, of any form that the service reads."""
        _, _, tail = path.lower().rpartition(f"/{self.segment.lower()}/")
        name, _, version = tail.partition("/versions/")
        for known, versions in self.versions.items():
            if known.lower() == name and version in versions:
                return versions[version]
        raise ServiceError(400, "BadArgument", f"The asset {path} does not exist.")

    def _create_or_update(self, call: Call) -> Response:
        versions = self.versions.setdefault(call.names["name"], {})
        version, properties = call.names["version"], deepcopy(call.body["properties"])
        existing = versions.get(version)
        if existing is not None and any(existing.get(member) != properties.get(member) for member in self.content):
            raise self.conflict
        versions[version] = {**(existing or {}), **properties}
        return Response(200 if existing else 201, self._resource(call.path, versions[version]))

    def _get(self, call: Call) -> Response:
        properties = self.versions.get(call.names["name"], {}).get(call.names["version"])
        if properties is None:
            raise not_found(f"{self.kind} {call.names['name']}:{call.names['version']}")
        return Response(200, self._resource(call.path, properties))

    def _list(self, call: Call) -> Response:
        if wanted := call.query.get("hash"):
            return listed(self._with_hash(call.path, wanted))
        versions = self.versions.get(call.names["name"])
        if versions is None:
            raise not_found(f"{self.kind} {call.names['name']}")
        newest_first = [
            (version, versions[version]) for version in reversed(versions) if not versions[version].get("isArchived")
        ]
        shown = newest_first[: int(call.query.get("$top", len(newest_first)))]
        return listed(self._resource(f"{call.path}/{version}", properties) for version, properties in shown)

    def _with_hash(self, path: str, wanted: str) -> Iterator[dict[str, Any]]:
        """Yield versions of any name with this content, as the service does."""
        base = path.rpartition(f"/{self.segment}/")[0]
        for name, versions in self.versions.items():
            for version, properties in versions.items():
                if properties.get("properties", {}).get("hash_sha256") == wanted:
                    yield self._resource(f"{base}/{self.segment}/{name}/versions/{version}", properties)

    def _get_container(self, call: Call) -> Response:
        versions = self.versions.get(call.names["name"])
        if versions is None:
            raise not_found(f"{self.kind} {call.names['name']}")
        return Response(200, self._container(call.path, versions))

    def _list_containers(self, call: Call) -> Response:
        return listed(self._container(f"{call.path}/{name}", versions) for name, versions in self.versions.items())

    def _container(self, path: str, versions: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        numbers = [int(version) for version in versions if version.isdecimal()]
        latest = list(versions)[-1]
        properties: dict[str, Any] = {
            "latestVersion": latest,
            "nextVersion": str(max(numbers, default=0) + 1),
            "isArchived": False,
        }
        if "dataType" in versions[latest]:
            properties["dataType"] = versions[latest]["dataType"]
        return resource(path, properties)

    def _resource(self, path: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        return resource(path, self.shown(properties))

    def shown(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Return the properties as the service shows them."""
        return dict(properties)


class ModelAssets(Assets):
    """Models; the SDK reads their flavours without asking whether there are any."""

    def shown(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Return the properties with flavours, none where none were given."""
        return {"flavors": {}, **properties}


class DataAssets(Assets):
    """Data assets, whose addresses the service completes."""

    prefix = ""

    def shown(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Return the long address, with a slash at the end of a folder's."""
        uri = str(properties["dataUri"]).replace("azureml://datastores/", f"azureml://{self.prefix}/datastores/", 1)
        if properties["dataType"] == "uri_folder" and not uri.endswith("/"):
            uri += "/"
        return {**properties, "dataUri": uri}


class CodeAssets(Assets):
    """Code; the SDK sends a number among its properties, which the service keeps as a text."""

    def shown(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Return the properties with texts only."""
        return {**properties, "properties": {name: str(value) for name, value in properties.get("properties", {}).items()}}


def models() -> ModelAssets:
    """Return the registry of models."""
    refusal = ServiceError(400, "UserError", "(UserError) Asset paths cannot be updated.")
    return ModelAssets("Model", "models", ("modelUri", "modelType"), refusal)


def data(prefix: str) -> DataAssets:
    """Return the registry of data assets; `prefix` leads to the workspace in long addresses."""
    refusal = ServiceError(400, "UserError", "(UserError) Asset paths cannot be updated.")
    assets = DataAssets("Data", "data", ("dataUri", "dataType"), refusal)
    assets.prefix = prefix
    return assets


def environments() -> Assets:
    """Return the registry of environments."""
    refusal = ServiceError(
        409, "UserError", "(UserError) The environment with this version is already registered and cannot be changed."
    )
    return Assets("Environment", "environments", ("image", "condaFile", "build", "inferenceConfig"), refusal)


def codes() -> CodeAssets:
    """Return the registry of code assets."""
    refusal = ServiceError(400, "UserError", "(UserError) Asset paths cannot be updated.")
    return CodeAssets("Code", "codes", ("codeUri",), refusal)
