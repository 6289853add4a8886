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

A batch deployment is real in the same way: ``batch_endpoints.invoke`` starts a job that fetches code, model and input from
Azurite, calls ``init()`` and ``run(mini_batch)`` of the scoring script in a process of the deployment's environment, and stores
``predictions.csv`` and a log in Azurite, from where ``jobs.download`` and ``jobs.stream`` bring them. Retries, and the errors
that it may have, are the deployment's settings. Assign ``on_batch_deploy`` to have the deployment itself fail.

``fail`` makes chosen requests fail, late or never answered, blobs and tokens included. Every secret that was handed out is in
``secrets``, to be looked for in what a run wrote.

Assumed, because no recording shows them: the status 400 for another content under the same model or data version, 409 for a
change during a change, 400 for a deployment to an endpoint that failed, and that a batch job of which no item succeeded fails.
The packages that Azure's own program needs in a batch deployment's conda file must be listed, and are not installed. What
scoring addresses and the run history are asked has no published contract: it is held to what the SDK sends and reads. There is
no registry, for the same reason.

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
