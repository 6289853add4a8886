"""Publish: put packages with their provenance, report and release record into the output folder, each file in one step."""

import re
from datetime import UTC, datetime

from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from packhouse.config import PackhouseConfig
from packhouse.errors import InputError, PackagingFailed
from packhouse.output import OutputFolder
from packhouse.packaging.job import PackagingJob
from packhouse.provenance.config import ENVELOPE_SUFFIX, PROVENANCE_SUFFIX
from packhouse.provenance.keys import SigningKey
from packhouse.provenance.signing import sign_payload
from packhouse.provenance.statement import Run, provenance
from packhouse.release import RELEASE_NAME, REPORT_NAME, Package, Release
from packhouse.report.page import report_html
from tasks.signing import load_signing_key
from tasks.storage import artifact_store


@task(task_run_name="publish", persist_result=True, result_serializer="json")
def publish_release(job: PackagingJob, packed: list[Package | PackagingFailed], config: PackhouseConfig) -> Release:
    """Publish what was made and return the release record; what was published before stays whole until then.

    Where packages cannot be signed, they are published unsigned, and that is a failure of the release.
    """
    store, folder = artifact_store(), OutputFolder(config.output_dir)
    key, unsigned = _signing_key(config)
    release = Release(
        job=job,
        packages=tuple(item for item in packed if not isinstance(item, PackagingFailed)),
        failures=(*(str(item) for item in packed if isinstance(item, PackagingFailed)), *unsigned),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        flow_run=flow_run.id,
    )
    report = report_html(release, store).encode()
    with folder.exclusive():
        places = [folder.publish(package, store) for package in release.packages]
        for package in release.packages:
            _write_provenance(package, release, config, folder, key)
        places.append(folder.write(REPORT_NAME, report))
        folder.write(RELEASE_NAME, release.model_dump_json(indent=2).encode())
    for place in places:
        create_link_artifact(key=_artifact_key(place.name), link=place.as_uri(), link_text=str(place), description=str(place))
    return release


def _signing_key(config: PackhouseConfig) -> tuple[SigningKey | None, tuple[str, ...]]:
    """Return the key to sign with, or why there is none though there should be."""
    try:
        return (load_signing_key(config.signing) if config.signing else None), ()
    except InputError as error:
        return None, (f"the packages are not signed: {error}",)


def _write_provenance(
    package: Package, release: Release, config: PackhouseConfig, folder: OutputFolder, key: SigningKey | None
) -> None:
    """Put the provenance of a published package beside it, signed if there is a key; a signature of earlier is removed."""
    packaging = next(item for item in config.packaging if item.output_name == package.name)
    context = FlowRunContext.get()
    run = Run(
        flow_run=release.flow_run,
        started_on=context.start_time.isoformat(timespec="seconds") if context else None,
        finished_on=release.created_at,
    )
    statement = provenance(package, packaging, config, release.job, run).to_json()
    folder.remove(package.name + ENVELOPE_SUFFIX)
    folder.write(package.name + PROVENANCE_SUFFIX, statement)
    if key:
        folder.write(package.name + ENVELOPE_SUFFIX, sign_payload(statement, key).to_json())


def _artifact_key(name: str) -> str:
    """Return a key in the letters that Prefect allows: ``digits.zip`` is ``package-digits-zip``."""
    letters = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return "report" if name == REPORT_NAME else f"package-{letters}"
