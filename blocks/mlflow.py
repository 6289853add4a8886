"""The block of an MLflow server."""

from typing import Self

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, HttpUrl, SecretStr, field_validator, model_validator

from packhouse.packaging.mlflow.registry import MLflowRegistry


class MLflowServer(Block):
    """An MLflow server that packages of the type MLflowModel are registered with.

    Attributes:
        tracking_uri: Address of the server.
        registry_uri: Address of its model registry, where that is another server.
        username: User name, where the server asks for one.
        password: Password of the user.
        token: Bearer token, in place of user name and password.
        timeout_s: Seconds that the server may take to answer one request.
        ca_file: File of the certificates that are trusted, in place of the system's.
        insecure: Whether any certificate is trusted.

    Example:
        Save a block, and name it in the configuration as `server: mlflow-server/production`:

        ```python
        from blocks.mlflow import MLflowServer

        MLflowServer(tracking_uri="https://mlflow.example.com", username="packer", password="...").save("production")
        ```

        Load it:

        ```python
        from blocks.mlflow import MLflowServer

        server = MLflowServer.load("BLOCK_NAME")
        server.get_client().tracking_uri
        ```
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # there is a password in it

    _block_type_name = "MLflow Server"
    _block_type_slug = "mlflow-server"
    _logo_url = HttpUrl("https://avatars.githubusercontent.com/u/39938107?s=200")
    _documentation_url = HttpUrl("https://mlflow.org/docs/latest/ml/tracking/server/")

    tracking_uri: str = Field(description="Address of the server.", examples=["https://mlflow.example.com"])
    registry_uri: str | None = Field(default=None, description="Address of its model registry, where that is another server.")
    username: str | None = Field(default=None, description="User name, where the server asks for one.")
    password: SecretStr | None = Field(default=None, description="Password of the user.")
    token: SecretStr | None = Field(default=None, description="Bearer token, in place of user name and password.")
    timeout_s: int = Field(default=120, ge=1, description="Seconds that the server may take to answer one request.")
    ca_file: str | None = Field(default=None, description="File of certificates that are trusted, in place of the system's.")
    insecure: bool = Field(default=False, description="Whether any certificate is trusted.")

    @field_validator("tracking_uri", "registry_uri")
    @classmethod
    def _is_the_address_of_a_server(cls, value: str | None) -> str | None:
        if value is None:
            return None
        scheme, _, rest = value.partition("://")
        if scheme not in ("http", "https") or not rest:
            raise ValueError("is no address of a server; write http://… or https://…")
        if "@" in rest.partition("/")[0]:
            raise ValueError("has a user name or password in it; use username and password")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _log_in_is_unambiguous(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together; give both, or neither")
        if self.username and self.token:
            raise ValueError("give either username and password, or token")
        if self.insecure and self.ca_file:
            raise ValueError("insecure trusts everybody, so ca_file has no meaning; give one of them")
        return self

    def get_client(self) -> MLflowRegistry:
        """Return the server as packaging types use it."""
        return MLflowRegistry(
            tracking_uri=self.tracking_uri,
            registry_uri=self.registry_uri,
            username=self.username,
            password=self.password.get_secret_value() if self.password else None,
            token=self.token.get_secret_value() if self.token else None,
            timeout_s=self.timeout_s,
            ca_file=self.ca_file,
            is_insecure=self.insecure,
        )
