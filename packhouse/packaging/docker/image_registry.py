"""Push the image of a package to a registry: the one that was validated, and no other."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from packhouse.errors import RegistrationFailed
from packhouse.packaging.docker.builders import BuilderFailed, find_builder
from packhouse.packaging.docker.image_record import ImageRecord
from packhouse.packaging.job import PackagingJob, Workplace

if TYPE_CHECKING:
    from packhouse.packaging.docker.dockerfile import Dockerfile

# What the builders say when the network or the registry is in trouble, which may pass: Go's words, and statuses of HTTP.
MAY_PASS = re.compile(
    "broken pipe|connection refused|connection reset|deadline exceeded|i/o timeout|no such host|temporary failure|timed out"
    r"|tls handshake|toomanyrequests|use of closed network connection|\beof\b|status(?: code)?:? (?:429|500|502|503|504)\b",
    re.IGNORECASE,
)


def push_validated(package: Path, packaging: "Dockerfile", job: PackagingJob, workplace: Workplace) -> str:
    """Push the image of a package to its repository, and return its name there by digest. Doing it again changes nothing.

    Raises:
        RegistrationFailed: the image that was validated is not here any more; or the registry does not take it.
    """
    reference = packaging.image_name(job.best.candidate)
    try:
        builder = find_builder(packaging.builder)
        image = ImageRecord(package, packaging, builder, workplace.cache).kept()
        if image is None:
            raise RegistrationFailed(
                "the image that was validated is not here, so none is pushed; run again with PREFECT_TASKS_REFRESH_CACHE=true"
            )
        digest = builder.push(image, reference)
    except BuilderFailed as error:
        may_pass = MAY_PASS.search(str(error)) is not None
        raise RegistrationFailed(f"{reference} is not pushed: {error}", is_transient=may_pass) from error
    return f"{reference.rpartition(':')[0]}@{digest}"
