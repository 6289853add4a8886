"""Packaging types for Packhouse: the best model as a folder, and as a tar archive on a shared drive."""

import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field

from packhouse.errors import RegistrationFailed
from packhouse.packaging import OpenPackage, Packaging, PackagingJob, Workplace, packed_model, sealed, write_folder


class BestModel(Packaging):
    """A folder with the best model of all accelerators."""

    type: Literal["BestModel"] = "BestModel"

    def plan(self) -> str:
        """Say what will be made."""
        return f"{self.output_name}/: the best candidate"

    def create(self, job: PackagingJob, workplace: Workplace) -> Path:
        """Write the folder."""
        contents, packaged = packed_model(job, job.best, workplace.store)
        folder = workplace.scratch / self.output_name
        write_folder(folder, sealed(self.output_name, contents, (packaged,), job))
        return folder


class Tarball(Packaging):
    """A tar archive of the best models of an accelerator, copied to a shared folder if one is named."""

    type: Literal["Tarball"] = "Tarball"
    top_k: int = Field(default=1, ge=1, description="How many of the best models.")
    copy_to: Path | None = Field(default=None, title="Copy to", description="Folder that the archive is copied to.")

    @property
    def output_name(self) -> str:
        """Name of the package, with its suffix."""
        return f"{self.name}.tar"

    def plan(self) -> str:
        """Say what will be made, and where it goes."""
        where = f", copied to {self.copy_to}" if self.copy_to else ""
        return f"{self.output_name}: the best {self.top_k} of the winner's accelerator{where}"

    def create(self, job: PackagingJob, workplace: Workplace) -> Path:
        """Write the archive."""
        ranked = job.by_accelerator[job.best.accelerator].ranked[: self.top_k]
        models = [packed_model(job, item, workplace.store, folder=f"{item.rank}") for item in ranked]
        contents = {name: content for files, _ in models for name, content in files.items()}
        folder = workplace.scratch / "files"
        write_folder(folder, sealed(self.output_name, contents, tuple(packaged for _, packaged in models), job))
        path = workplace.scratch / self.output_name
        with tarfile.open(path, "x") as archive:
            for file in sorted(file for file in folder.rglob("*") if file.is_file()):
                archive.add(file, file.relative_to(folder).as_posix(), filter=_anonymous)
        return path

    @contextmanager
    def open(self, package: Path, job: PackagingJob, workplace: Workplace) -> Iterator[OpenPackage]:
        """Unpack the archive, and open it as a folder with a manifest."""
        with tempfile.TemporaryDirectory(dir=workplace.scratch) as folder:
            with tarfile.open(package) as archive:
                archive.extractall(folder, filter="data")
            with super().open(Path(folder), job, workplace) as opened:
                yield opened

    def register(self, package: Path, job: PackagingJob, workplace: Workplace) -> Sequence[str]:
        """Copy the archive to the shared folder."""
        if self.copy_to is None:
            return ()
        place = self.copy_to / package.name
        beside = place.with_suffix(".part")
        try:
            self.copy_to.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(package, beside)
            beside.replace(place)
        except OSError as error:
            reason = f"{place} cannot be written ({error}); see whether the drive is mounted and has room"
            raise RegistrationFailed(reason, is_transient=True) from error
        return (str(place),)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return an entry without what differs from one machine and day to the next: the same files give the same bytes."""
    return member.replace(mtime=0, mode=0o644, uid=0, gid=0, uname="", gname="", deep=False)
