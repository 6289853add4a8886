"""The log of Microsoft's inference server."""

import re

from packhouse.packaging.inference_client import last_lines

# What Python writes last of an exception, which the server puts its own words around.
EXCEPTION = re.compile(r"^(?:.*? - )?((?:\w+\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Unservable)\b.*)$", re.MULTILINE)
LOG_LINES = 500  # that are kept of what a deployment or a job wrote
OF_SERVER = "azureml_inference_server_http."  # its own exception around that of the script


def last_words(log: str) -> str:
    """Return why a scoring script ended, as its log has it: the exception that it raised, or else the last lines, in one."""
    raised = [str(line).strip() for line in EXCEPTION.findall(log) if not line.startswith(OF_SERVER)]
    if raised:
        return raised[-1]
    return last_lines(log)
