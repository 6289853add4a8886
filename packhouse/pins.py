"""Exactly pinned requirements, such as ``onnxruntime-openvino==1.24.1``: what an accelerator's own runtime is made of.

Exactly one of them is a distribution of onnxruntime. All distributions install the same import package, so two of them in one
environment overwrite each other's files; plug-in providers are packages of their own and go with any.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

EXAMPLE = "onnxruntime-openvino==1.24.1"

# Distributions that install the import package `onnxruntime`.
DISTRIBUTIONS = frozenset(
    {
        "onnxruntime",
        "onnxruntime-azure",
        "onnxruntime-cann",
        "onnxruntime-coreml",
        "onnxruntime-directml",
        "onnxruntime-gpu",
        "onnxruntime-gpu-extended",
        "onnxruntime-lite",
        "onnxruntime-migraphx",
        "onnxruntime-openvino",
        "onnxruntime-rocm",
        "onnxruntime-silicon",
        "onnxruntime-training",
        "onnxruntime-training-cpu",
        "onnxruntime-trt-rtx",
        "onnxruntime-vitisai",
        "onnxruntime-webgpu",
        "onnxruntime-windowsml",
        "ort-nightly",
        "ort-nightly-directml",
        "ort-nightly-gpu",
    }
)
QNN, FIRST_QNN_PLUGIN = "onnxruntime-qnn", Version("2")  # older releases are a distribution


@dataclass(frozen=True, order=True)
class Pin:
    """A requirement with one version: canonical name, version, sorted extras."""

    name: str
    version: str
    extras: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``name[extras]==version``. Raises ValueError with the remedy for all else."""
        remedy = f"write name==version, such as {EXAMPLE}"
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{text!r} is not a requirement ({reason}); {remedy}") from None
        if requirement.url:
            raise ValueError(f"{text!r} comes from an address, whose content may change; {remedy}, from a package index")
        if requirement.marker:
            raise ValueError(f"{text!r} has a condition ({requirement.marker}); leave it out, this runtime is for one machine")
        specifiers = list(requirement.specifier)
        if len(specifiers) != 1 or specifiers[0].operator != "==" or specifiers[0].version.endswith("*"):
            raise ValueError(f"{text!r} is not pinned to one version, so results could not be compared; {remedy}")
        return cls(canonicalize_name(requirement.name), str(Version(specifiers[0].version)), tuple(sorted(requirement.extras)))

    @property
    def is_distribution(self) -> bool:
        """Whether it installs the import package `onnxruntime`."""
        return self.name in DISTRIBUTIONS or (self.name == QNN and Version(self.version) < FIRST_QNN_PLUGIN)

    def __str__(self) -> str:
        """Return the requirement in its canonical form."""
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        return f"{self.name}{extras}=={self.version}"


def parse_runtime(texts: Sequence[str]) -> tuple[Pin, ...]:
    """Return the sorted pins of a runtime; equal runtimes give equal pins, however they are written.

    Raises:
        ValueError: one of them is not pinned, or they have not exactly one distribution of onnxruntime.
    """
    pins = tuple(sorted(map(Pin.parse, texts)))
    names = [pin.name for pin in pins]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} is listed twice; keep one of them")
    distributions = [pin.name for pin in pins if pin.is_distribution]
    if pins and not distributions:
        raise ValueError(f"there is no distribution of onnxruntime in {', '.join(names)}; add one, such as {EXAMPLE}")
    if len(distributions) > 1:
        raise ValueError(
            f"{' and '.join(distributions)} are both distributions of onnxruntime and overwrite each other's files; "
            "keep one, and give the other an accelerator of its own"
        )
    return pins


def distribution_of(pins: Sequence[Pin]) -> Pin:
    """Return the distribution of onnxruntime among the pins of a runtime."""
    return next(pin for pin in pins if pin.is_distribution)
