"""What a deployment to Azure ML is configured with. Names and defaults are Olive's where Olive has them."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from packhouse.errors import Problem
from packhouse.packaging.azureml.config_path import ConfigPath
from packhouse.packaging.azureml.names import ASSET_NAME, IGNORE_FILES, asset_version
from packhouse.packaging.azureml.scoring_script import problems_of
from packhouse.packaging.azureml.versions import AUTO
from packhouse.records import Record

ServerType = Literal["AzureMLOnline", "AzureMLBatch"]
ENVIRONMENT_ID = re.compile(r"azureml:(?P<name>[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}):(?P<version>[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254})")
CURATED_ID = re.compile(r"azureml://registries/[^/]+/environments/[^/]+/(versions|labels)/[^/]+")
ENDPOINT_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{1,30}[a-zA-Z0-9]")  # of endpoints and of deployments
TARGET_WITH_VERSION = re.compile(r"\w+")
VARIABLE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.-]*")
MACHINE = r"^\S+$"  # a size or a cluster


class InferencingServer(Record):
    """The server that a deployment runs, and the scoring script in it; by default one that serves the model is generated."""

    type: ServerType = Field(
        default="AzureMLOnline", description="Kind of endpoint: online, asked over HTTP, or batch, for jobs over files."
    )
    code_folder: ConfigPath | None = Field(
        default=None, description="Folder of your own scoring script; by default a script is generated."
    )
    scoring_script: str | None = Field(
        default=None, description="Your own scoring script in `code_folder`: a Python file with `init` and `run`."
    )

    @model_validator(mode="after")
    def _has_both_or_none(self) -> Self:
        if (self.code_folder is None) != (self.scoring_script is None):
            raise ValueError("code_folder and scoring_script go together; set both, or none to have a script generated")
        return self

    @field_validator("scoring_script")
    @classmethod
    def _script_lies_in_its_folder(cls, value: str | None) -> str | None:
        if value is None:
            return None
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or path.suffix != ".py":
            raise ValueError(f"{value!r} is no Python file in code_folder; write its path from there")
        return str(path)

    def problems(self) -> Iterator[Problem]:
        """Say what is wrong with the scoring script."""
        if self.code_folder is None or self.scoring_script is None:
            return
        if not self.code_folder.is_dir():
            yield Problem("code_folder", f"{self.code_folder} is not a folder", "name the folder of your scoring script")
            return
        for name in IGNORE_FILES:
            if (self.code_folder / name).exists():
                yield Problem("code_folder", f"has a file {name}, by which Azure's SDK leaves files out", "remove it")
        yield from problems_of(self.code_folder / self.scoring_script)


class ModelConfiguration(Record):
    """How a model package gets its model (Olive's `model_configurations`; for `strategy: model_package` only)."""

    mode: Literal["download", "copy"] = Field(
        default="download", description="Download it at start, or copy it into the image."
    )
    mount_path: str | None = Field(default=None, description="Where it lies in the image.")


class ModelPackage(Record):
    """The environment of a deployment, and the code in it."""

    target_environment: str = Field(
        default="olive-target-environment",
        description="Name of the environment that is made, unless `base_environment_id` is used.",
    )
    target_environment_version: str | None = Field(
        default=None,
        description="Version of the environment that is made. Where it is taken by another one, the next free version is; "
        "by default that which has this content, or the next.",
    )
    inferencing_server: InferencingServer = Field(
        default=InferencingServer(), description="The server, and the scoring script."
    )
    base_environment_id: str | None = Field(
        default=None,
        description="Environment of the workspace to deploy in, `azureml:<name>:<version>`, or one of a registry; "
        "by default one is made of an image and a conda file.",
        examples=["azureml:olive-aml-packaging:1"],
    )
    environment_variables: dict[str, str] = Field(
        default={}, description="Environment variables of the deployment; they are no place for secrets."
    )
    model_configurations: ModelConfiguration = Field(
        default=ModelConfiguration(), description="How the model gets into a model package."
    )

    @field_validator("target_environment")
    @classmethod
    def _target_is_a_name(cls, value: str) -> str:
        if not ASSET_NAME.fullmatch(value):
            raise ValueError(f"{value!r} cannot be the name of an environment; use letters, digits, dashes, underscores")
        return value

    @field_validator("target_environment_version", mode="before")
    @classmethod
    def _version_is_one_of_azures(cls, value: Any) -> Any:
        return None if value == AUTO else asset_version(value)

    @field_validator("base_environment_id")
    @classmethod
    def _base_is_an_id(cls, value: str | None) -> str | None:
        if value is not None and not (ENVIRONMENT_ID.fullmatch(value) or CURATED_ID.fullmatch(value)):
            raise ValueError(f"{value!r} is no id of an environment; write azureml:<name>:<version>")
        return value

    @field_validator("environment_variables", mode="before")
    @classmethod
    def _may_be_null(cls, value: Any) -> Any:
        return value or {}

    @field_validator("environment_variables")
    @classmethod
    def _variables_have_names(cls, value: dict[str, str]) -> dict[str, str]:
        if wrong := [name for name in value if not VARIABLE.fullmatch(name)]:
            raise ValueError(f"{wrong[0]!r} cannot be the name of a variable; use letters, digits, underscores")
        return value


class Settings(BaseModel):
    """Further settings of a deployment entity of Azure's SDK; none that is not there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str | None = None
    properties: dict[str, str] | None = None
    tags: dict[str, str] | None = None


class RequestSettings(BaseModel):
    """How requests are queued."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_timeout_ms: int | None = Field(default=None, ge=1, le=180_000)
    max_concurrent_requests_per_instance: int | None = Field(default=None, ge=1)
    max_queue_wait_ms: int | None = Field(default=None, ge=1)


class Probe(BaseModel):
    """How it is found out whether a container lives, or is ready; times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    initial_delay: int | None = Field(default=None, ge=1)
    period: int | None = Field(default=None, ge=1)
    timeout: int | None = Field(default=None, ge=1)
    success_threshold: int | None = Field(default=None, ge=1)
    failure_threshold: int | None = Field(default=None, ge=1)


class OnlineSettings(Settings):
    """Further settings of a managed online deployment."""

    app_insights_enabled: bool = False
    egress_public_network_access: Literal["enabled", "disabled"] | None = None
    request_settings: RequestSettings | None = None
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None


class RetrySettings(BaseModel):
    """How often a mini batch is tried again, and how many seconds it may take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_retries: int | None = Field(default=None, ge=0)
    timeout: int | None = Field(default=None, ge=1)


class BatchSettings(Settings):
    """Further settings of a batch deployment."""

    error_threshold: int | None = Field(default=None, ge=-1)
    logging_level: Literal["warning", "info", "debug"] | None = None
    max_concurrency_per_instance: int | None = Field(default=None, ge=1)
    output_action: Literal["append_row", "summary_only"] | None = None
    output_file_name: str | None = None
    retry_settings: RetrySettings | None = None


class DeploymentConfig(Record):
    """The endpoint and the deployment, and the machines that it runs on."""

    endpoint_name: str = Field(
        default="olive-default-endpoint", description="Endpoint of the deployment; it is made where it is not there."
    )
    deployment_name: str = Field(
        default="olive-default-deployment",
        description="Name of the deployment. Where it is taken by another content, the name ends in some of its digest.",
    )
    instance_type: str | None = Field(
        default=None,
        pattern=MACHINE,
        description="Machine of an online deployment, which needs one.",
        examples=["Standard_DS3_v2"],
    )
    compute: str | None = Field(
        default=None, pattern=MACHINE, description="Name of the compute cluster of a batch deployment, which needs one."
    )
    instance_count: int = Field(default=1, ge=1, description="Number of machines.")
    mini_batch_size: int = Field(default=10, ge=1, description="Files that a batch deployment scores at a time.")
    extra_config: dict[str, Any] | None = Field(
        default=None,
        description="Further settings, by the names of Azure's SDK. Online: app_insights_enabled, "
        "egress_public_network_access, liveness_probe, readiness_probe, request_settings; batch: error_threshold, "
        "logging_level, max_concurrency_per_instance, output_action, output_file_name, retry_settings; both: description, "
        "properties, tags.",
    )

    @field_validator("endpoint_name", "deployment_name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not ENDPOINT_NAME.fullmatch(value):
            rule = "use 3 to 32 letters, digits and dashes, begin with a letter, and do not end with a dash"
            raise ValueError(f"{value!r} is no name for it: {rule}")
        return value

    def settings(self, server: ServerType) -> OnlineSettings | BatchSettings:
        """Return the further settings for a kind of endpoint. Raises ValidationError, which is a ValueError."""
        kind = OnlineSettings if server == "AzureMLOnline" else BatchSettings
        return kind.model_validate(self.extra_config or {})


class SmokeTest(Record):
    """What a deployment is asked before it gets traffic."""

    payload: ConfigPath | None = Field(
        default=None,
        description="JSON file to send to your own scoring script, which passes with any answer that is no error. "
        "By default golden samples are sent as the Open Inference Protocol v2 has them, and answers compared.",
    )
    scores: bool = Field(
        default=True, description="Predict all samples too, and compare the quality metrics with those of the evaluation."
    )
