"""The image that a Dockerfile begins with, for each execution provider.

It has the Python that the runtime's wheels are for. What else a provider needs comes with the wheels, that of CUDA as well; a
provider that needs more has no default here, and its image is to be named.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from packhouse.errors import PackagingFailed

PYTHON_IMAGE = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
# After the grammar of github.com/distribution/reference; the repository is lower case, and there is a tag or a digest.
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"[A-Za-z0-9]+(?:[.-][A-Za-z0-9]+)*(?::[0-9]+)?"
REPOSITORY = re.compile(rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*")
TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class BaseImage:
    """An image, the variables that containers of it need, and the extras of the runtime that bring its libraries."""

    name: str = PYTHON_IMAGE
    environment: Mapping[str, str] = field(default_factory=dict)
    extras: tuple[str, ...] = ()


# What the NVIDIA container runtime reads to give a container the driver; the rest of CUDA is in wheels.
NVIDIA = {"NVIDIA_DRIVER_CAPABILITIES": "compute,utility", "NVIDIA_VISIBLE_DEVICES": "all"}
BASE_IMAGES = {
    "CPUExecutionProvider": BaseImage(),
    "CUDAExecutionProvider": BaseImage(environment=NVIDIA, extras=("cuda", "cudnn")),
    "DnnlExecutionProvider": BaseImage(),
    "OpenVINOExecutionProvider": BaseImage(),
    "XnnpackExecutionProvider": BaseImage(),
}


def base_image_for(provider: str, plugin: str | None, chosen: str | None) -> BaseImage:
    """Return the image for a provider: the `chosen` one, which then has the provider's libraries; else the default.

    Raises:
        PackagingFailed: there is no default.
    """
    default = BASE_IMAGES.get(provider) or (BaseImage() if plugin else None)
    if chosen:
        return BaseImage(chosen, default.environment if default else {})
    if default is None:
        raise PackagingFailed(f"no image is known that has what {provider} needs; set base_image to one that does")
    return default


def check_image(name: str) -> str:
    """Return the name of an image. Raises ValueError with the remedy where it is none, or has neither tag nor digest."""
    repository, tag, digest = split_image(name)
    is_name = REPOSITORY.fullmatch(repository) and (tag is None or TAG.fullmatch(tag))
    if not is_name or (digest is not None and not DIGEST.fullmatch(digest)):
        raise ValueError(f"{name!r} is no name of an image; write it as {PYTHON_IMAGE}, or with @sha256: and its digest")
    if digest is None and tag in (None, "latest"):
        raise ValueError(f"{name!r} can be another image tomorrow; add a tag, or @sha256: and the digest")
    return name


def split_image(name: str) -> tuple[str, str | None, str | None]:
    """Return repository, tag and digest of an image's name."""
    rest, _, digest = name.partition("@")
    folder, slash, last = rest.rpartition("/")
    last, _, tag = last.partition(":")
    return folder + slash + last, tag or None, digest or None
