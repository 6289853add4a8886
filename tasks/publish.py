"""Publish: put the report and the release record beside the packages in the output folder, each in one step."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.runtime import flow_run

from packhouse.errors import InputError
from packhouse.output import OutputFolder
from packhouse.packaging.job import PackagingJob
from packhouse.provenance.config import Publishing
from packhouse.release import RELEASE_NAME, REPORT_NAME, Delivery, Release, read_release
from packhouse.report.page import report_html
from tasks.storage import artifact_store


@task(task_run_name="publish", persist_result=True, result_serializer="json")
def publish_release(job: PackagingJob, deliveries: Sequence[Delivery], publishing: Publishing) -> Release:
    """Publish what was decided and made, and return the release record; what was published before stays whole until then.

    Raises:
        ArtifactError: the output folder cannot be written.
    """
    release = Release(
        job=job,
        deliveries=tuple(deliveries),
        configuration=publishing.configuration,
        signing=publishing.signing,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        flow_run=flow_run.id,
    )
    folder, report = OutputFolder(publishing.output_dir), _report(release)
    with folder.exclusive():
        places = _publish(release, report, folder)
    _link(places)
    return release


@task(task_run_name="publish", persist_result=False)
def publish_again(release: Release, deliveries: Sequence[Delivery], output_dir: Path) -> Release:
    """Publish a release some of whose packages were registered later, and return it. Raises ArtifactError.

    What others registered of it since it was read stays in it.
    """
    folder = OutputFolder(output_dir)
    with folder.exclusive():
        release = _as_it_is_now(release, output_dir).with_deliveries(deliveries)
        places = _publish(release, _report(release), folder)
    _link(places)
    return release


def _as_it_is_now(release: Release, output_dir: Path) -> Release:
    try:
        there = read_release(output_dir)
    except InputError:  # it was read from elsewhere
        return release
    return there if there.flow_run == release.flow_run else release


def _report(release: Release) -> bytes:
    return report_html(release, artifact_store()).encode()


def _publish(release: Release, report: bytes, folder: OutputFolder) -> list[Path]:
    """Write report and record, and return where everything is; the folder is held.

    Where another run put a package of its own there since, that of this release is put back with all that lies beside it, so
    that everything there goes together.
    """
    store = artifact_store()
    for delivery in release.delivered:
        if delivery.package and not folder.has(delivery.package, store, delivery.beside):
            folder.publish(delivery.package, store, delivery.beside)
    report_place = folder.write(REPORT_NAME, report)
    folder.write(RELEASE_NAME, release.model_dump_json(indent=2).encode())
    return [*(folder.path / package.name for package in release.packages), report_place]


def _link(places: Sequence[Path]) -> None:
    """Link to what is there in Prefect's UI."""
    for place in places:
        create_link_artifact(key=_artifact_key(place.name), link=place.as_uri(), link_text=str(place), description=str(place))


def _artifact_key(name: str) -> str:
    """Return a key in the letters that Prefect allows: ``digits.zip`` is ``package-digits-zip``."""
    letters = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return "report" if name == REPORT_NAME else f"package-{letters}"
