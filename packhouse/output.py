"""The output folder: whatever appears there is complete, and replaces what was there in one step."""

import os
import shutil
from pathlib import Path

from packhouse.artifacts import ArtifactStore
from packhouse.release import Package


class OutputFolder:
    """A folder that people look into while runs write to it, maybe several at once."""

    def __init__(self, path: Path) -> None:
        """Use the folder at `path`; it is made if needed."""
        self.path = path.absolute()
        self.path.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, content: bytes) -> Path:
        """Write a file and return its path."""
        beside = self._beside(name)
        try:
            beside.write_bytes(content)
            beside.replace(self.path / name)
        finally:
            beside.unlink(missing_ok=True)
        return self.path / name

    def publish(self, package: Package, store: ArtifactStore) -> Path:
        """Put a package there, checked against its digests, and return its path.

        Raises:
            ArtifactError: the store has lost or changed its bytes.
        """
        for artifact in package.files.values():
            store.check(artifact)
        if list(package.files) == [package.name]:
            store.place(package.files[package.name], self.path / package.name)
        else:
            self._publish_folder(package, store)
        return self.path / package.name

    def _publish_folder(self, package: Package, store: ArtifactStore) -> None:
        beside, aside = self._beside(package.name), self._beside(package.name)
        try:
            for name, artifact in package.files.items():
                target = beside / Path(name).relative_to(package.name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(store.path(artifact.sha256), target)
            if (self.path / package.name).exists():
                (self.path / package.name).replace(aside)
            beside.replace(self.path / package.name)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
            shutil.rmtree(aside, ignore_errors=True)

    def _beside(self, name: str) -> Path:
        return self.path / f".{name}.{os.getpid()}-{os.urandom(4).hex()}"
