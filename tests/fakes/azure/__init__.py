"""A fake Azure, for the unmodified azure-ai-ml SDK.

``FakeAzure`` starts a CONNECT proxy on loopback, to which the SDK comes by ``HTTPS_PROXY``. Behind the real host names
answer, with certificates of a throw-away authority: Microsoft Entra ID, Azure Resource Manager for one workspace, Azurite
for blobs, and the scoring addresses of endpoints. Every request to the Resource Manager is checked against the official
OpenAPI files; what broke them is in ``violations``.

    with FakeAzure(tmp_path) as azure:
        subprocess.run(command, env={**os.environ, **azure.environment})
        assert azure.models["digits_cpu-cpu_1"]["1"]["modelType"] == "custom_model"
        assert azure.violations == []

A deployment is real as well: its code and its model are fetched from Azurite and served by azureml-inference-server-http in an
environment made from its conda file, so that ``invoke`` returns predictions. Assign ``on_deploy`` to have it fail instead.

What it cannot show: permissions by role, quota as it is, image builds, private networks, and what the service checks beyond its
OpenAPI.
"""

from tests.fakes.azure.azurite import why_unavailable
from tests.fakes.azure.deploying import accept, container_crash, image_build_failure, out_of_quota
from tests.fakes.azure.endpoints import Deployment, Endpoint
from tests.fakes.azure.fake import FakeAzure
from tests.fakes.azure.messages import Request, ServiceError

__all__ = [
    "Deployment",
    "Endpoint",
    "FakeAzure",
    "Request",
    "ServiceError",
    "accept",
    "container_crash",
    "image_build_failure",
    "out_of_quota",
    "why_unavailable",
]
