"""The block of an Azure ML workspace, and the ways to log in to Azure."""

from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from prefect.blocks.core import Block
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr

from packhouse.packaging.azureml.workspace import AzureMLConnection


class Login(BaseModel):
    """A way to log in to Azure."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    type: str

    @property
    def credential(self) -> dict[str, str | None]:
        """Type and arguments of the credential, secrets in clear."""
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else None if value is None else str(value)
            for name, value in self
        }

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be told."""
        return tuple(value.get_secret_value() for _, value in self if isinstance(value, SecretStr))


class DefaultLogin(Login):
    """Whatever Azure finds first on the machine of the worker; for a laptop, with AZURE_TOKEN_CREDENTIALS set."""

    type: Literal["default"] = "default"


class ServicePrincipal(Login):
    """An application with a secret."""

    type: Literal["service_principal"] = "service_principal"
    tenant_id: UUID = Field(description="Tenant of the application.")
    client_id: UUID = Field(description="Id of the application.")
    client_secret: SecretStr = Field(min_length=1, description="Secret of the application.")


class Certificate(Login):
    """An application with a certificate, whose private key lies in a file on the machine of the worker."""

    type: Literal["certificate"] = "certificate"
    tenant_id: UUID = Field(description="Tenant of the application.")
    client_id: UUID = Field(description="Id of the application.")
    certificate_path: Path = Field(description="File of certificate and private key, PEM or PKCS#12.")
    password: SecretStr | None = Field(default=None, description="Password of the file.")


class ManagedIdentity(Login):
    """The identity that Azure gives the machine of the worker."""

    type: Literal["managed_identity"] = "managed_identity"
    client_id: UUID | None = Field(default=None, description="Id of a user-assigned identity; by default the system's.")


class WorkloadIdentity(Login):
    """A federated identity, as Kubernetes and CI systems give their jobs; what is not set comes from the environment."""

    type: Literal["workload_identity"] = "workload_identity"
    tenant_id: UUID | None = Field(default=None, description="Tenant; by default AZURE_TENANT_ID.")
    client_id: UUID | None = Field(default=None, description="Id of the application; by default AZURE_CLIENT_ID.")
    token_file_path: Path | None = Field(
        default=None, description="File of the job's token; by default AZURE_FEDERATED_TOKEN_FILE."
    )


AnyLogin = Annotated[
    DefaultLogin | ServicePrincipal | Certificate | ManagedIdentity | WorkloadIdentity, Field(discriminator="type")
]


class AzureMLWorkspace(Block):
    """A workspace of Azure Machine Learning that packages are registered with.

    Attributes:
        subscription_id: Subscription that the workspace is in.
        resource_group: Resource group that the workspace is in.
        workspace_name: Name of the workspace.
        cloud: Cloud that the workspace is in.
        auth: How to log in.
        timeout_s: Seconds that one operation may take, uploads included.
        read_timeout_s: Seconds that one answer of Azure may take.
        retry_total: Times that one request is repeated.
        polling_interval_s: Seconds between questions whether an operation is finished.

    Example:
        Save a block, and name it in the configuration as `workspace: azureml-workspace/production`:

        ```python
        from blocks.azureml import AzureMLWorkspace, ServicePrincipal

        AzureMLWorkspace(
            subscription_id="11111111-1111-1111-1111-111111111111",
            resource_group="models",
            workspace_name="production",
            auth=ServicePrincipal(tenant_id="...", client_id="...", client_secret="..."),
        ).save("production")
        ```

        Load it:

        ```python
        from blocks.azureml import AzureMLWorkspace

        workspace = AzureMLWorkspace.load("BLOCK_NAME")
        workspace.get_client().resource_id
        ```
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # there may be a secret in it

    _block_type_name = "Azure ML Workspace"
    _block_type_slug = "azureml-workspace"
    _logo_url = HttpUrl("https://avatars.githubusercontent.com/u/6844498?s=200")
    _documentation_url = HttpUrl("https://learn.microsoft.com/azure/machine-learning/concept-workspace")

    subscription_id: UUID = Field(description="Subscription that the workspace is in.")
    resource_group: str = Field(pattern=r"^[-\w.()]{1,90}$", description="Resource group that the workspace is in.")
    workspace_name: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]{2,32}$", description="Name of the workspace.")
    cloud: Literal["AzureCloud", "AzureChinaCloud", "AzureUSGovernment"] = Field(
        default="AzureCloud", description="Cloud that the workspace is in."
    )
    auth: AnyLogin = Field(default=DefaultLogin(), description="How to log in.")
    timeout_s: float = Field(default=3600.0, gt=0, description="Seconds that one operation may take, uploads included.")
    read_timeout_s: float = Field(default=120.0, gt=0, description="Seconds that one answer of Azure may take.")
    retry_total: int = Field(default=3, ge=0, description="Times that one request is repeated.")
    polling_interval_s: int = Field(default=30, ge=1, description="Seconds between questions whether an operation is finished.")

    def get_client(self) -> AzureMLConnection:
        """Return the workspace as packaging types use it."""
        return AzureMLConnection(
            subscription_id=str(self.subscription_id),
            resource_group=self.resource_group,
            workspace=self.workspace_name,
            credential=self.auth.credential,
            secrets=self.auth.secrets,
            cloud=self.cloud,
            timeout_s=self.timeout_s,
            read_timeout_s=self.read_timeout_s,
            retries=self.retry_total,
            polling_interval_s=self.polling_interval_s,
        )
