"""What every package has, whatever its type: a program that checks it, the grading, and the manifest, which comes last."""

from importlib import resources

from packhouse.packaging.contents import Content, Contents
from packhouse.packaging.job import PackagingJob
from packhouse.packaging.manifest import PackagedCandidate, with_manifest
from packhouse.report.page import grading_html

VERIFY_NAME = "verify.py"
GRADING_NAME = "grading.html"


def sealed(contents: Contents, packaged: tuple[PackagedCandidate, ...], job: PackagingJob) -> dict[str, Content]:
    """Return the contents of a package, complete. Raises PackagingFailed where names do not go together."""
    common = {
        VERIFY_NAME: Content.of((resources.files(__package__) / VERIFY_NAME).read_bytes()),
        GRADING_NAME: Content.of(grading_html(job).encode()),
    }
    return with_manifest({**contents, **common}, packaged)
