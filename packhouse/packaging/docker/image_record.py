"""Which image was built from a package: kept for every package, so that it is built once, and no other one is pushed for it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from packhouse.artifacts import measure, owned_suffix, remove_orphans
from packhouse.packaging.docker.builders import Builder, source_date_epoch
from packhouse.packaging.manifest import MANIFEST_NAME
from packhouse.records import digest_of

if TYPE_CHECKING:
    from packhouse.packaging.docker.dockerfile import Dockerfile

FOLDER = "images"


class ImageRecord:
    """The image of the package in a folder, made by a builder with the options of a configuration."""

    def __init__(self, package: Path, packaging: "Dockerfile", builder: Builder, cache: Path) -> None:
        """Name the record by the digest of the manifest, which covers all files, and by how the image is built."""
        made_of = [measure(package / MANIFEST_NAME).sha256, builder.name, source_date_epoch(), *packaging.build_options]
        self._package, self._packaging, self._builder = package, packaging, builder
        self._path = cache / FOLDER / f"{digest_of(made_of)}.json"

    def image(self) -> str:
        """Return the id of the image, which is built where it is not here. Raises BuilderFailed."""
        if found := self.kept():
            return found
        packaged = json.loads((self._package / MANIFEST_NAME).read_text(encoding="utf-8"))["candidates"][0]
        tag = self._packaging.image_name(packaged["digest"])
        image = self._builder.build(self._package, tag, self._packaging.build_options)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        remove_orphans(self._path.parent)
        fresh = self._path.with_name(f".{owned_suffix()}")
        fresh.write_text(json.dumps({"image": image}) + "\n", encoding="utf-8")
        fresh.replace(self._path)
        return image

    def kept(self) -> str | None:
        """Return the id of the image if it was built and is still here."""
        try:
            image = str(json.loads(self._path.read_text(encoding="utf-8"))["image"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # there is none, or what a power cut left of one
            return None
        return image if self._builder.has(image) else None
