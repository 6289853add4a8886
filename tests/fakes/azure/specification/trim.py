"""Cut the official OpenAPI files down to the operations that the fake answers.

``python trim.py SPECIFICATION`` reads a checkout's folder ``specification`` and writes one file per api-version beside itself.
What is kept is kept word for word, but for descriptions and examples; references into other files become local ones.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROVIDER = Path("machinelearningservices", "resource-manager", "Microsoft.MachineLearningServices")
# The groups of operations, or single operations, for which azure-ai-ml speaks each api-version.
GROUPS = {
    "preview/2022-02-01-preview": ("OnlineEndpoints", "OnlineDeployments"),
    "preview/2023-04-01-preview": (
        "DataContainers",
        "DataVersions",
        "EnvironmentContainers",
        "EnvironmentVersions",
        "OnlineEndpoints",
        "OnlineDeployments",
        "Jobs_Cancel",
    ),
    "preview/2023-08-01-preview": ("ModelContainers", "ModelVersions"),
    "preview/2024-01-01-preview": ("BatchEndpoints", "BatchDeployments", "Jobs_Get"),
    "preview/2024-10-01-preview": ("Workspaces", "Datastores"),
    "stable/2023-04-01": ("CodeContainers", "CodeVersions"),
    "stable/2023-10-01": ("BatchEndpoints", "BatchDeployments"),
}
# The only subtypes that the fake answers, where there are many.
SUBTYPES = {"JobBase": ("PipelineJob",)}
UNUSED = ("Registry", "Workspaces_List", "Workspaces_Diagnose", "Workspaces_CreateOrUpdate", "Workspaces_Update")
DROPPED = {
    "description",
    "summary",
    "tags",
    "x-ms-examples",
    "externalDocs",
    "x-ms-client-name",
    "title",
    "consumes",
    "produces",
}
# Stand in a file that Microsoft generates and does not publish; the workspace's pattern is that of workspaceRP.json.
UNPUBLISHED: dict[str, dict[str, Any]] = {
    "WorkspaceNameParameter": {
        "name": "workspaceName",
        "in": "path",
        "required": True,
        "type": "string",
        "pattern": "^[a-zA-Z0-9][a-zA-Z0-9_-]{2,32}$",
    },
    "PaginationParameter": {"name": "$skip", "in": "query", "type": "string"},
}


class Trimmer:
    """Collects operations of one api-version and every definition that they reach."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[Path, Any] = {}
        self.definitions: dict[str, Any] = {}

    def trim(self, groups: tuple[str, ...]) -> dict[str, Any]:
        """Return one OpenAPI document."""
        paths: dict[str, dict[str, Any]] = {}
        for file in (self.folder / "mfe.json", self.folder / "workspaceRP.json"):
            for path, method, operation in self._operations(file):
                group, _, action = operation["operationId"].partition("_")
                if (
                    (group in groups or operation["operationId"] in groups)
                    and not operation["operationId"].startswith(UNUSED)
                    and not (group == "Workspaces" and action != "Get")
                ):
                    paths.setdefault(path, {})[method] = self._localise(operation, file)
        document = {"swagger": "2.0", "info": {"version": self.folder.name}, "paths": paths}
        return {**document, "definitions": dict(sorted(self.definitions.items()))}

    def _operations(self, file: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
        if file.is_file():
            for path, methods in self._read(file)["paths"].items():
                yield from ((path, method, operation) for method, operation in methods.items() if method != "parameters")

    def _read(self, file: Path) -> Any:
        if file not in self.files:
            self.files[file] = json.loads(file.read_text(encoding="utf-8"))
        return self.files[file]

    def _localise(self, node: Any, file: Path, of_names: bool = False) -> Any:
        """Return a copy with parameters written out and definitions referred to by local names."""
        if isinstance(node, list):
            return [self._localise(item, file) for item in node]
        if not isinstance(node, dict):
            return node
        if isinstance(node.get("$ref"), str):
            return self._follow(node, file)
        return {
            key: self._localise(value, file, of_names=not of_names and key in {"properties", "responses"})
            for key, value in node.items()
            if of_names or key not in DROPPED
        }

    def _follow(self, node: dict[str, Any], file: Path) -> Any:
        where, _, pointer = node["$ref"].partition("#/")
        kind, name = pointer.split("/")
        if kind == "parameters" and name in UNPUBLISHED:
            return UNPUBLISHED[name]
        target = (file.parent / where).resolve() if where else file
        found = self._read(target)[kind][name]
        if kind == "parameters":
            return self._localise(found, target)
        if name not in self.definitions:
            self.definitions[name] = None
            self.definitions[name] = self._localise(found, target)
            self._add_subtypes(name, target)
        return {**{key: value for key, value in node.items() if key.startswith("x-")}, "$ref": f"#/definitions/{name}"}

    def _add_subtypes(self, name: str, file: Path) -> None:
        has_subtypes = "discriminator" in self._read(file)["definitions"][name]
        for subtype, schema in self._read(file)["definitions"].items():
            inherits = any(parent.get("$ref") == f"#/definitions/{name}" for parent in schema.get("allOf", ()))
            if inherits and has_subtypes and subtype in SUBTYPES.get(name, (subtype,)):
                self._follow({"$ref": f"#/definitions/{subtype}"}, file)


def main(specification: Path) -> None:
    """Write all files."""
    for version, groups in GROUPS.items():
        document = Trimmer((specification / PROVIDER / version).resolve()).trim(groups)
        target = HERE / f"{Path(version).name}.json"
        target.write_text(
            json.dumps(document, separators=(",", ":"), sort_keys=False).replace('},"', '},\n"') + "\n", encoding="utf-8"
        )
        sys.stdout.write(f"{target.name}: {len(document['definitions'])} definitions, {target.stat().st_size} bytes\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
