"""What every package has, whatever its type: a program that checks it, the grading, a bill of materials, and a manifest."""

from importlib import resources

from packhouse.packaging.contents import Content, Contents, joined
from packhouse.packaging.job import PackagingJob
from packhouse.packaging.manifest import PackagedCandidate, with_manifest
from packhouse.provenance.ml_bom import ML_BOM_NAME, ml_bom
from packhouse.report.page import grading_html

VERIFY_NAME = "verify.py"
GRADING_NAME = "grading.html"


def sealed(name: str, contents: Contents, packaged: tuple[PackagedCandidate, ...], job: PackagingJob) -> dict[str, Content]:
    """Return the contents of the package `name`, complete. Raises PackagingFailed where names do not go together."""
    common = {
        VERIFY_NAME: Content.of((resources.files(__package__) / VERIFY_NAME).read_bytes()),
        GRADING_NAME: Content.of(grading_html(job).encode()),
        ML_BOM_NAME: Content.of_json(ml_bom(name, job, packaged, contents)),
    }
    return with_manifest(joined(common, contents), packaged)
