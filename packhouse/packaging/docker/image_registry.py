"""Push the image of a package to a registry: the one that was validated, and no other."""

from pathlib import Path
from typing import TYPE_CHECKING

from packhouse.errors import RegistrationFailed
from packhouse.packaging.docker.builders import BuilderFailed, find_builder
from packhouse.packaging.docker.image_record import ImageRecord
from packhouse.packaging.job import PackagingJob, Workplace

if TYPE_CHECKING:
    from packhouse.packaging.docker.dockerfile import Dockerfile


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
        raise RegistrationFailed(f"{reference} is not pushed: {error}", is_transient=error.is_transient) from error
    return f"{reference.rpartition(':')[0]}@{digest}"
