"""Answer requests about a workspace: one of JSON comes per line of standard input, and one answer per line is written.

Answers go to what was standard output at the start. What is asked is ``<part>.<method>``, but first of all ``connect``.
"""

import json
import logging
import os
import sys
from typing import Any

from azure.ai.ml.exceptions import MlException
from azure.core.exceptions import AzureError

from packhouse.packaging.azureml.client.assets import Assets
from packhouse.packaging.azureml.client.batch import BatchEndpoints
from packhouse.packaging.azureml.client.changes import Changes
from packhouse.packaging.azureml.client.failure import failure, is_of_azure
from packhouse.packaging.azureml.client.login import client_of
from packhouse.packaging.azureml.client.online import OnlineEndpoints


class Workspace:
    """A workspace that is there and lets us in."""

    def __init__(self, scope: list[str], **login: Any) -> None:
        """Log in and look whether the workspace is there."""
        client = client_of(scope, **login)
        self.location = client.workspaces.get(scope[2]).location
        changes = Changes()
        self.parts = {
            "assets": Assets(client),
            "batch": BatchEndpoints(client, changes),
            "changes": changes,
            "online": OnlineEndpoints(client, changes),
        }


def answer(request: dict[str, Any], workspace: Workspace | None) -> tuple[dict[str, Any], Workspace | None]:
    """Do what is asked; what Azure refuses is an answer too, with all that is needed to judge it."""
    do = request.pop("do")
    try:
        if do == "connect":
            workspace = Workspace(**request)
            return {"ok": {"location": workspace.location}}, workspace
        assert workspace
        part, _, method = do.partition(".")
        return {"ok": getattr(workspace.parts[part], method)(**request)}, workspace
    except (AzureError, MlException, OSError, ValueError) as error:
        return {"failed": failure(error)}, workspace
    except Exception as error:
        if not is_of_azure(error):  # the SDK hides some in plain exceptions
            raise
        return {"failed": failure(error)}, workspace


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    logging.disable(logging.INFO)  # urllib3 would write the signatures of storage addresses
    workspace = None
    for line in sys.stdin:
        told, workspace = answer(json.loads(line), workspace)
        answers.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
