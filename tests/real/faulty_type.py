"""A packaging type whose runs fail where the environment variable ``FAULT`` says.

It is installed in a child process as a third party's type is, by an entry point; ``FAULT_LOG`` is a file that has every step
that was begun.
"""

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from prefect.context import TaskRunContext

from packhouse.errors import Problem
from packhouse.packaging import PackagingJob, Workplace
from packhouse.packaging.zipfile import Zipfile
from packhouse.verification.opened import OpenPackage


class Faulty(Zipfile):
    """A ZIP file without wheels."""

    type: Literal["Faulty"] = "Faulty"  # type: ignore[assignment]
    include_runtime_packages: bool = False

    def create(self, job: PackagingJob, workplace: Workplace) -> Path:
        with self._step():
            return super().create(job, workplace)

    @contextmanager
    def open(self, package: Path, job: PackagingJob, workplace: Workplace) -> Iterator[OpenPackage]:
        with self._step(), super().open(package, job, workplace) as opened:
            yield opened

    def register(self, package: Path, job: PackagingJob, workplace: Workplace) -> Sequence[str]:  # noqa: ARG002
        with self._step():
            return ()

    def problems(self) -> Sequence[Problem]:
        """Put the faults in place, before any work starts."""
        importlib.import_module("tests.real.faults")
        return ()

    @contextmanager
    def _step(self) -> Iterator[None]:
        from tests.real import faults

        context = TaskRunContext.get()
        assert context
        step = f"{context.task.name.removesuffix('_package')} {self.name}"
        faults.steps.append(step)
        with Path(os.environ["FAULT_LOG"]).open("a", encoding="utf-8") as log:
            log.write(f"{step}\n")
        faults.wait_if(f"waiting before {step}")
        faults.die_if(f"before {step}")
        with faults.full_disk_if(f"full disk in {step}"):
            yield
        faults.die_if(f"after {step}")
