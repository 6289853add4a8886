"""The AzureMLDeployment package: the best candidate, deployed to an endpoint of an Azure ML workspace."""

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator

from packhouse.candidates import MODEL_NAME
from packhouse.errors import PackagingFailed, Problem
from packhouse.packaging import PackagingJob, Workplace
from packhouse.packaging.archive import write_folder
from packhouse.packaging.azureml import environment as environments
from packhouse.packaging.azureml import scoring
from packhouse.packaging.azureml.asset_folders import asset_folder
from packhouse.packaging.azureml.base import AzureMLPackaging
from packhouse.packaging.azureml.deployment_settings import TARGET_WITH_VERSION, DeploymentConfig, ModelPackage, SmokeTest
from packhouse.packaging.azureml.environment import EnvironmentSource, files_below
from packhouse.packaging.azureml.layout import CODE_FOLDER, DEPLOYMENT_NAME, ENVIRONMENT_FOLDER, MODEL_FOLDER, SCRIPT
from packhouse.packaging.azureml.names import ASSET_NAME, MAX_ASSET_NAME, asset_version
from packhouse.packaging.azureml.opened import opened_deployment
from packhouse.packaging.azureml.rollout import roll_out
from packhouse.packaging.azureml.versions import AUTO
from packhouse.packaging.contents import Content, below
from packhouse.packaging.inference_server import SERVING_NAME
from packhouse.packaging.seal import sealed
from packhouse.packaging.serving import INFERENCE_MODULES, server_modules, serving
from packhouse.ranking import Ranked

if TYPE_CHECKING:
    from packhouse.verification.opened import OpenPackage

NOT_IN_AZURE = "npu"
BASE = "-base"
PREVIEW = "models.package is a preview operation of Azure ML, without a service level, that newer interfaces no longer have"


class AzureMLDeployment(AzureMLPackaging):
    """The candidate that ranks first, registered and deployed to an online or batch endpoint of an Azure ML workspace."""

    type: Literal["AzureMLDeployment"] = "AzureMLDeployment"
    model_name: str = Field(default="olive-deployment-model", description="Name to register the model under.")
    model_version: str = Field(
        default="1", description="Version of the model, or `auto` for the next one.", examples=["1", "auto"]
    )
    description: str | None = Field(
        default=None,
        validation_alias=AliasChoices("description", "model_description"),
        description="Description of the model; `model_description` as well.",
    )
    accelerator: str | None = Field(
        default=None,
        description="Accelerator whose best candidate is deployed; by default that which ranks first across all.",
        examples=["cpu-cpu"],
    )
    strategy: Literal["direct", "model_package"] = Field(
        default="direct",
        description="Deploy model, environment and code as they are; or pack them into an image first, by an operation of "
        "Azure ML that never left preview.",
    )
    model_package: ModelPackage = Field(default=ModelPackage(), description="The environment, and the scoring script in it.")
    environment: EnvironmentSource = Field(
        default=EnvironmentSource(), description="What the environment is made of, where `base_environment_id` names none."
    )
    deployment_config: DeploymentConfig = Field(default=DeploymentConfig(), description="Endpoint, deployment and machines.")
    smoke_test: SmokeTest | None = Field(
        default=SmokeTest(), description="What the deployment is asked before it gets traffic; null for nothing."
    )
    traffic: Literal["all", "none"] | tuple[int, ...] = Field(
        default="all",
        description="Requests that the deployment gets when it passed: all, none, or rising percentages, one after the other. "
        "For a batch endpoint, all makes it the default deployment.",
        examples=["all", [10, 50, 100]],
    )
    step_interval_s: float = Field(
        default=60.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds between rising percentages; the endpoint is asked after each.",
    )
    old_deployments: Literal["keep", "delete"] = Field(
        default="keep", description="What becomes of deployments that had traffic, when this one has all of it."
    )
    failed_endpoint: Literal["report", "repair"] = Field(
        default="report", description="What to do about an endpoint in a failed state: say so, or make it anew as it is."
    )

    @field_validator("model_name")
    @classmethod
    def _model_has_a_name_of_azure(cls, value: str) -> str:
        if not ASSET_NAME.fullmatch(value):
            raise ValueError(f"{value!r} cannot be the name of a model; use letters, digits, dashes, underscores")
        return value

    @field_validator("model_version", mode="before")
    @classmethod
    def _version_is_one_of_azures(cls, value: Any) -> Any:
        return asset_version(value)

    @field_validator("traffic")
    @classmethod
    def _traffic_rises(cls, value: str | tuple[int, ...]) -> str | tuple[int, ...]:
        if isinstance(value, tuple) and (
            not value or list(value) != sorted(set(value)) or not all(0 < percent <= 100 for percent in value)
        ):
            raise ValueError("write rising percentages, as [10, 50, 100]")
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if contradiction := next(self._contradictions(), None):
            raise ValueError(contradiction)
        try:
            self.deployment_config.settings(self.model_package.inferencing_server.type)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, ("deployment_config", "extra_config", *first["loc"])))
            raise ValueError(f"{where}: {first['msg']} (for {self.model_package.inferencing_server.type})") from None
        return self

    def _contradictions(self) -> Iterator[str]:
        """Say what of the configuration does not go together."""
        package = self.model_package
        yield from self._contradictions_of_online() if self.is_online else self._contradictions_of_batch()
        if self.smoke_test and self.smoke_test.payload and not package.inferencing_server.code_folder:
            yield "smoke_test.payload is for a scoring script of your own; leave it out, or set code_folder"
        if package.base_environment_id and self.environment != EnvironmentSource():
            yield "base_environment_id names an environment; leave out environment, or that"
        if self.old_deployments == "delete" and not self._ends_with_all_traffic:
            yield "old_deployments are deleted when this one has all traffic; let traffic end with that, or keep them"

    def _contradictions_of_online(self) -> Iterator[str]:
        package = self.model_package
        if (
            self.strategy == "model_package"
            and package.target_environment_version
            and not TARGET_WITH_VERSION.fullmatch(package.target_environment)
        ):
            yield (
                f"Azure's SDK takes a version of {package.target_environment!r} only if its name has letters, digits and "
                "underscores alone; rename target_environment, or leave out target_environment_version"
            )

    def _contradictions_of_batch(self) -> Iterator[str]:
        if isinstance(self.traffic, tuple):
            yield "a batch endpoint has one default deployment, and no percentages; set traffic to all or none"
        if self.strategy == "model_package":
            yield "model packages are for online endpoints only; set strategy to direct"
        if self.model_package.inferencing_server.code_folder and self.smoke_test and not self.smoke_test.payload:
            yield (
                "nothing is known of what your own batch script scores; give smoke_test.payload, a file for it, or set "
                "smoke_test to null"
            )

    @property
    def _ends_with_all_traffic(self) -> bool:
        return self.traffic == "all" or (isinstance(self.traffic, tuple) and self.traffic[-1] == 100)

    @property
    def is_online(self) -> bool:
        """Whether it is asked over HTTP; otherwise by jobs."""
        return self.model_package.inferencing_server.type == "AzureMLOnline"

    @property
    def made_environment(self) -> str:
        """Name of the environment that is made; under `target_environment` itself, Azure ML puts the one of a model package."""
        target = self.model_package.target_environment
        return target if self.strategy == "direct" else f"{target[: MAX_ASSET_NAME - len(BASE)]}{BASE}"

    @property
    def made_environment_version(self) -> str:
        """Version of the environment that is made, or `auto`."""
        wanted = self.model_package.target_environment_version
        return wanted if wanted and self.strategy == "direct" else AUTO

    @property
    def output_name(self) -> str:
        """``<name>.azureml-deployment``."""
        return f"{self.name}.azureml-deployment"

    def depends_on(self) -> Any:
        """Return the digests of the user's own files, and the versions that a generated environment has."""
        try:
            own = {
                **self._own_code(),
                **below(ENVIRONMENT_FOLDER, {} if self._is_environment_generated else self._environment(())),
            }
        except PackagingFailed as error:
            return str(error)
        numpy = metadata.version("numpy")
        return {"files": {name: content.artifact.sha256 for name, content in own.items()}, "numpy": numpy}

    def accelerators(self) -> Sequence[str]:
        """Return the accelerator that is chosen, if one is."""
        return (self.accelerator,) if self.accelerator else ()

    def problems(self) -> Sequence[Problem]:
        """Say what is wrong with the user's own files, and whether something that is needed is not installed."""
        found = [*super().problems()]
        if self.is_online and self.deployment_config.instance_type is None:
            remedy = "name a machine such as Standard_DS3_v2, or set model_package.inferencing_server.type to AzureMLBatch"
            found.append(Problem("deployment_config.instance_type", "is missing, and an online deployment needs it", remedy))
        if not self.is_online and self.deployment_config.compute is None:
            found.append(Problem("deployment_config.compute", "is missing, and a batch deployment needs it", "name a cluster"))
        for where, problems in (
            ("model_package.inferencing_server", self.model_package.inferencing_server.problems()),
            ("environment", self.environment.problems()),
        ):
            found += [Problem(f"{where}.{item.where}", item.what, item.remedy) for item in problems]
        if self.smoke_test and (payload := self.smoke_test.payload):
            try:
                content = payload.read_bytes()
                json.loads(content) if self.is_online else None
            except OSError as error:
                found.append(Problem("smoke_test.payload", f"{payload} cannot be read ({error.strerror})", "name a file"))
            except ValueError as error:
                found.append(Problem("smoke_test.payload", f"{payload} is no JSON ({error})", "name a JSON file"))
        return found

    def plan(self) -> str:
        """Say what is deployed where, and what is not certain about it."""
        config = self.deployment_config
        which = f"the best candidate on {self.accelerator}" if self.accelerator else "the best candidate"
        kind = "online" if self.is_online else "batch"
        machines = f"{config.instance_count} × {config.instance_type if self.is_online else config.compute}"
        steps = f"{', '.join(map(str, self.traffic))} % of the traffic in steps"
        traffic = {"all": "all traffic", "none": "no traffic"}.get(str(self.traffic), steps)
        where = (
            f"deployed through {self.workspace} to the {kind} endpoint {config.endpoint_name} as {config.deployment_name} on "
            f"{machines}, {traffic}"
        )
        drifts = ""
        if self._is_environment_made and self.environment.image is None and self.environment.build_context is None:
            drifts = f"; {environments.IMAGE} may become another image, name environment.image by its digest to prevent that"
        warning = f"; warning: {PREVIEW}" if self.strategy == "model_package" else ""
        return f"{self.output_name}/: {which}, {where if self.workspace else 'not deployed'}{drifts}{warning}"

    def remote_calls(self) -> Sequence[str]:
        """Return the requests to Azure, in order."""
        if self.workspace is None:
            return ()
        config, package, kind = self.deployment_config, self.model_package, "online" if self.is_online else "batch"
        endpoint, model = f"{kind}Endpoints/{config.endpoint_name}", f"models/{self.model_name}/versions"
        version = "<next>" if self.model_version == "auto" else self.model_version
        calls = [f"POST to log in, and GET {self.workspace}: whether it is there"]
        calls += [f"GET {endpoint} and its deployments; if it is missing, PUT {endpoint}"]
        calls += [f"GET {model}; where the content is not registered, HEAD and PUT of its blobs, PUT {model}/{version}"]
        if package.base_environment_id:
            calls.append(f"GET {package.base_environment_id}")
        else:
            calls.append(f"GET environments/{self.made_environment}/versions; PUT its next version where the content is new")
        calls.append("GET codes by digest; where they are new, startPendingUpload, HEAD and PUT of their blobs, PUT codes/<id>")
        if self.strategy == "model_package":
            calls.append(f"POST {model}/{version}/package")
        calls.append(f"PUT {endpoint}/deployments/{config.deployment_name}, and GET how far it is")
        if self.smoke_test and self.is_online:
            calls.append(f"POST {endpoint}/listKeys, POST requests to its address for {config.deployment_name}")
        elif self.smoke_test:
            calls.append("HEAD and PUT of the requests' blobs, POST jobs to its address, GET the job and its output")
        if self.traffic != "none":
            steps = f", {len(self.traffic)} times" if isinstance(self.traffic, tuple) else ""
            calls.append(f"PUT {endpoint} with other traffic{steps}" if self.is_online else f"PUT {endpoint}: its default")
        if self.old_deployments == "delete":
            calls.append(f"DELETE {endpoint}/deployments/<those that had traffic>")
        calls.append("and where it fails: POST getLogs, DELETE of what was made")
        return calls

    def create(self, job: PackagingJob, workplace: Workplace) -> Path:
        """Write a folder of the model, the code, the environment, and what is asked of Azure ML."""
        best = self._best(job)
        if job.accelerator(best.accelerator).device == NOT_IN_AZURE:
            raise PackagingFailed(
                f"the best candidate is that on {best.accelerator}, and Azure ML has no {NOT_IN_AZURE.upper()}; set accelerator"
            )
        beside = {SERVING_NAME: serving(self.model_name, job, best, MODEL_NAME)}
        model, packaged = asset_folder(job, best, workplace.store, MODEL_FOLDER, beside)
        contents = {**below(MODEL_FOLDER, model), **below(CODE_FOLDER, self._code())}
        if self._is_environment_made:
            generated = self.environment.is_generated
            wanted = environments.requirements(job, best, is_online=self.is_online) if generated else ()
            contents |= below(ENVIRONMENT_FOLDER, self._environment(wanted))
        contents[DEPLOYMENT_NAME] = Content.of_json(self._described())
        folder = workplace.scratch / self.output_name
        write_folder(folder, sealed(self.output_name, contents, (packaged,), job))
        return folder

    def open(self, package: Path, job: PackagingJob, workplace: Workplace) -> "AbstractContextManager[OpenPackage]":
        """Run the generated scoring script of a copy; a model with a script of the user's is run without it."""
        if self.model_package.inferencing_server.code_folder:
            return super().open(package, job, workplace)
        return opened_deployment(package, job, workplace, is_online=self.is_online)

    def register(self, package: Path, job: PackagingJob, workplace: Workplace) -> Sequence[str]:
        """Register the model, deploy it without traffic, ask it, and give it its traffic; what is done already stays.

        Raises:
            RegistrationFailed: what this made besides versions of assets is deleted again, and traffic is as it was.
        """
        if self.workspace is None:
            return ()
        return roll_out(self, package, job, workplace, workplace.connect(self.workspace))

    @property
    def _is_environment_made(self) -> bool:
        return self.model_package.base_environment_id is None

    @property
    def _is_environment_generated(self) -> bool:
        return not self._is_environment_made or self.environment.is_generated

    def _best(self, job: PackagingJob) -> Ranked:
        spec = self.accelerator or job.best.accelerator
        ranking = job.by_accelerator.get(spec)
        if ranking is None or not ranking.ranked:
            ranked_on = ", ".join(sorted(spec for spec, found in job.by_accelerator.items() if found.ranked))
            raise PackagingFailed(f"nothing is ranked on the accelerator {spec!r}; choose one of {ranked_on}")
        if self.accelerator:
            return ranking.ranked[0]
        return next(item for item in ranking.ranked if item.candidate == job.best.candidate)

    def _own_code(self) -> dict[str, Content]:
        folder = self.model_package.inferencing_server.code_folder
        return files_below(folder) if folder else {}

    def _code(self) -> dict[str, Content]:
        """Return the scoring script with what it imports."""
        if own := self._own_code():
            return own
        script = resources.files(scoring) / ("online.py" if self.is_online else "batch.py")
        return {SCRIPT: Content.of(script.read_bytes()), **below("inference_server", server_modules(INFERENCE_MODULES))}

    def _environment(self, wanted: tuple[str, ...]) -> dict[str, Content]:
        return self.environment.contents(wanted) if self._is_environment_made else {}

    def _described(self) -> dict[str, Any]:
        """Return what of the configuration decides what is deployed; what is not in it may differ for the same deployment."""
        config, package = self.deployment_config, self.model_package
        settings = config.settings(package.inferencing_server.type).model_dump(exclude_none=True)
        machines = (
            {"instance_type": config.instance_type, "instance_count": config.instance_count}
            if self.is_online
            else {"compute": config.compute, "instance_count": config.instance_count, "mini_batch_size": config.mini_batch_size}
        )
        return {
            "inferencing_server": package.inferencing_server.type,
            "strategy": self.strategy,
            "scoring_script": package.inferencing_server.scoring_script or SCRIPT,
            "environment": package.base_environment_id or {"image": self._image, "files": ENVIRONMENT_FOLDER},
            "environment_variables": package.environment_variables,
            **machines,
            **settings,
        }

    @property
    def _image(self) -> str | None:
        return None if self.environment.build_context else self.environment.image or environments.IMAGE
