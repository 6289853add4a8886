"""Publish: put provenance, report and release record beside the packages in the output folder, each in one step."""

import re
from datetime import UTC, datetime
from pathlib import Path

from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.runtime import flow_run

from packhouse.config import PackhouseConfig
from packhouse.output import OutputFolder
from packhouse.packaging.job import PackagingJob
from packhouse.provenance.config import RUN_SUFFIX
from packhouse.release import RELEASE_NAME, REPORT_NAME, Delivery, Release, run_record
from packhouse.report.page import report_html
from tasks.provenance import signing_key, write_provenance
from tasks.storage import artifact_store


@task(task_run_name="publish", persist_result=True, result_serializer="json")
def publish_release(job: PackagingJob, deliveries: list[Delivery], config: PackhouseConfig) -> Release:
    """Publish what was decided and made, and return the release record; what was published before stays whole until then.

    Where another run put a package of its own there since, this one's is put back, so that all that is there goes together.
    Where packages cannot be signed, that is a failure of the release.

    Raises:
        ArtifactError: the output folder cannot be written.
    """
    store, folder = artifact_store(), OutputFolder(config.output_dir)
    key, unsigned = signing_key(config.signing)
    release = Release(
        job=job,
        deliveries=tuple(deliveries),
        unsigned=unsigned,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        flow_run=flow_run.id,
    )
    report = report_html(release, store).encode()
    with folder.exclusive():
        for package in release.packages:
            if not folder.has(package, store):
                folder.publish(package, store)
        for delivery in release.delivered:
            folder.write(f"{delivery.name}{RUN_SUFFIX}", run_record(release, delivery).model_dump_json(indent=2).encode())
        write_provenance(release, config, folder, key)
        places = [folder.path / package.name for package in release.packages]
        places.append(folder.write(REPORT_NAME, report))
        folder.write(RELEASE_NAME, release.model_dump_json(indent=2).encode())
    for place in places:
        create_link_artifact(key=_artifact_key(place.name), link=place.as_uri(), link_text=str(place), description=str(place))
    return release


@task(task_run_name="publish", persist_result=False)
def publish_again(release: Release, deliveries: list[Delivery], output_dir: Path) -> Release:
    """Write the record of a release some of whose packages were registered later, and return it."""
    folder = OutputFolder(output_dir)
    with folder.exclusive():
        for delivery in deliveries:
            if delivery.registration:
                record = run_record(release, delivery).model_copy(update={"flow_run": flow_run.id})
                folder.write(f"{delivery.name}{RUN_SUFFIX}", record.model_dump_json(indent=2).encode())
        folder.write(RELEASE_NAME, release.model_dump_json(indent=2).encode())
    return release


def _artifact_key(name: str) -> str:
    """Return a key in the letters that Prefect allows: ``digits.zip`` is ``package-digits-zip``."""
    letters = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return "report" if name == REPORT_NAME else f"package-{letters}"
