"""One registration with a real workspace, for whoever has one; nothing else in the tests needs Azure.

``PACKHOUSE_AZUREML`` is the resource id of the workspace. Azure's default credential logs in, so set AZURE_TOKEN_CREDENTIALS. A
model `packhouse_smoke_cpu-cpu_1` gets a version, and keeps it: Azure ML deletes none.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from packhouse.packaging.azureml.models import AzureMLModels
from packhouse.packaging.azureml.workspace import AzureMLConnection
from tests.packaging_jobs import ONE, make_packing

WORKSPACE = os.environ.get("PACKHOUSE_AZUREML", "")

pytestmark = [pytest.mark.real, pytest.mark.skipif(not WORKSPACE, reason="PACKHOUSE_AZUREML names no workspace")]


def test_a_model_is_registered_once_however_often_it_is_done(tmp_path: Path) -> None:
    parts = WORKSPACE.strip("/").split("/")
    connection = AzureMLConnection(subscription_id=parts[1], resource_group=parts[3], workspace=parts[-1])
    packing, packaging = make_packing(tmp_path, ONE), AzureMLModels(name="packhouse_smoke", version="auto")
    workplace = replace(packing.workplace, connect=lambda _: connection)
    folder = packing.create(packaging)
    (place,) = packaging.register(folder, packing.job, workplace)
    assert place.lower().startswith(connection.resource_id.lower())
    assert packaging.register(folder, packing.job, workplace) == (place,)
