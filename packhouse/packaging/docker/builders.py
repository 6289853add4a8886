"""Programs that build container images, run them and push them: docker, buildah and podman, by their command lines.

A builder is a class with the commands that are its own. Images are built with the time of every file fixed, and run without a
network, as no user of the system, on a file system that is read-only where the builder can. No builder outlives who asked it.
"""

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from packhouse.errors import PackhouseError
from packhouse.packaging.docker.text import SERVE
from packhouse.packaging.tied import tied
from packhouse.transient import is_said_to_pass

TIMEOUT_S = 3600.0
ASK_TIMEOUT_S = 60.0
SOCKET_FOLDER = "/run/packhouse"
EPOCH = 315532800  # 1980-01-01, the date of files in ZIP archives


class BuilderFailed(PackhouseError):
    """A builder did not do what it was asked; the message is its reason."""


def source_date_epoch() -> int:
    """Return the time that files in images have: ``SOURCE_DATE_EPOCH`` if it is set, else 1980-01-01. Raises ValueError."""
    stated = os.environ.get("SOURCE_DATE_EPOCH") or str(EPOCH)
    if not (stated.isascii() and stated.isdecimal()):
        raise ValueError(f"SOURCE_DATE_EPOCH is {stated!r}")
    return int(stated)


class Builder(ABC):
    """A program on this machine that makes images, and runs containers of them."""

    name: ClassVar[str]
    inspect: ClassVar[tuple[str, ...]] = ("image", "inspect")
    limits: ClassVar[tuple[str, ...]] = ("--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=1024")

    def unusable(self) -> str | None:
        """Return why it cannot be used here, or None."""
        if shutil.which(self.name) is None:
            return f"{self.name} is not installed"
        try:
            self._run("info", timeout_s=ASK_TIMEOUT_S)
        except BuilderFailed as error:
            return str(error)
        return None

    @property
    def version(self) -> str:
        """What it says that it is, such as ``buildah version 1.28.2``."""
        return self._run("--version", timeout_s=ASK_TIMEOUT_S).strip().splitlines()[0]

    @property
    def isolation(self) -> str:
        """In words, what keeps its containers apart from this machine."""
        return "in a container without a network"

    def build(self, folder: Path, tag: str, options: Sequence[str]) -> str:
        """Build the Dockerfile in a folder, give the image a tag, and return its id. Raises BuilderFailed."""
        with tempfile.TemporaryDirectory(prefix="packhouse-build-") as scratch:
            answer = Path(scratch, "id")
            self._run(*self._build_command(), *options, f"--iidfile={answer}", f"--tag={tag}", str(folder))
            return answer.read_text(encoding="utf-8").strip()

    def has(self, image: str) -> bool:
        """Whether an image of this id is here."""
        return self._try(*self.inspect, image)

    @contextmanager
    def run(
        self, image: str, shared: Path, arguments: Sequence[str], options: Sequence[str], log: Path
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run the server of an image for as long as the context lasts, without a network; what it says goes to `log`.

        It sees the folder `shared` as `SOCKET_FOLDER`. Raises BuilderFailed where there is no container to start.
        """
        container = f"packhouse-{secrets.token_hex(8)}"
        command = self._prepared(image, container, shared, options)
        process = None
        try:
            with log.open("wb") as sink:
                process = subprocess.Popen(
                    tied([self.name, *command, *arguments]), stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT
                )
            yield process
        finally:
            if process:
                process.terminate()
            self._remove(container)
            if process:
                process.wait(ASK_TIMEOUT_S)

    @abstractmethod
    def push(self, image: str, reference: str) -> str:
        """Push an image under ``repository:tag`` and return its digest in the registry. Raises BuilderFailed."""

    @abstractmethod
    def _build_command(self) -> Sequence[str]:
        """Return what to build with."""

    def _prepared(self, image: str, container: str, shared: Path, options: Sequence[str]) -> Sequence[str]:
        """Return the command that runs the image's entry point in a container of a name."""
        volume = f"--volume={shared}:{SOCKET_FOLDER}"
        return ["run", "--rm", f"--name={container}", "--network=none", "--read-only", *self.limits, volume, *options, image]

    def _remove(self, container: str) -> None:
        """Stop and remove a container."""
        self._try("rm", "--force", container)

    def _try(self, *arguments: str) -> bool:
        done = subprocess.run([self.name, *arguments], check=False, stdin=subprocess.DEVNULL, capture_output=True)
        return done.returncode == 0

    def _run(self, *arguments: str, timeout_s: float = TIMEOUT_S) -> str:
        """Run a command to its end and return its standard output. Raises BuilderFailed."""
        try:
            done = subprocess.run(
                tied([self.name, *arguments]),
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout_s,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuilderFailed(f"{self.name} {arguments[0]} did not end: {error}") from error
        if done.returncode:
            reason = f"{self.name} {arguments[0]} failed: {_reason(done.stderr, done.stdout)}"
            raise BuilderFailed(reason, is_transient=is_said_to_pass(reason))
        return done.stdout


class Docker(Builder):
    """Docker. Only BuildKit with an exporter that rewrites times fixes those of files; by default they are of each build."""

    name = "docker"

    def push(self, image: str, reference: str) -> str:
        """Tag the image, push it, and read the digest that the registry gave it."""
        self._run("tag", image, reference)
        self._run("push", "--quiet", reference)
        repository = _shortened(reference.rpartition(":")[0])
        digests: list[str] = json.loads(self._run("image", "inspect", "--format={{json .RepoDigests}}", reference))
        return next(digest.partition("@")[2] for digest in digests if _shortened(digest).startswith(f"{repository}@"))

    def _build_command(self) -> Sequence[str]:
        return "build", f"--build-arg=SOURCE_DATE_EPOCH={source_date_epoch()}"


class Podman(Builder):
    """Podman, which needs no daemon."""

    name = "podman"

    def push(self, image: str, reference: str) -> str:
        """Push the image, which prints nothing of use, but writes the digest."""
        with tempfile.TemporaryDirectory(prefix="packhouse-push-") as scratch:
            answer = Path(scratch, "digest")
            self._run("push", f"--digestfile={answer}", image, f"docker://{reference}")
            return answer.read_text(encoding="utf-8").strip()

    def _build_command(self) -> Sequence[str]:
        # Docker's format has the health check, but also the random name of a container; layers have ids of what lies between.
        return "build", "--format=oci", "--layers=false", "--force-rm", "--pull=false", f"--timestamp={source_date_epoch()}"


class Buildah(Podman):
    """Buildah, which builds without a daemon, and runs commands in what it builds.

    Where it has to isolate by chroot, as inside other containers, its processes share the network of this machine, and limits
    of memory have no effect. `isolation` says so.
    """

    name = "buildah"
    inspect = ("inspect", "--type=image")

    @property
    def isolation(self) -> str:
        """In words, what keeps its containers apart from this machine."""
        if os.environ.get("BUILDAH_ISOLATION") == "chroot":
            return "in a chroot, which shares this machine's network and knows no limits of memory"
        return super().isolation

    def _prepared(self, image: str, container: str, shared: Path, options: Sequence[str]) -> Sequence[str]:
        self._run("from", f"--name={container}", "--pull-never", "--cap-drop=ALL", *options, image)
        return ["run", "--network=none", f"--volume={shared}:{SOCKET_FOLDER}", container, "--", *SERVE]

    def _remove(self, container: str) -> None:
        self._try("rm", container)


BUILDERS: dict[str, Builder] = {builder.name: builder for builder in (Docker(), Buildah(), Podman())}


def find_builder(name: str | None = None) -> Builder:
    """Return the first builder that works here, or the one of this name.

    Raises:
        BuilderFailed: there is none, and why each of them does not work.
    """
    reasons = []
    for builder in BUILDERS.values() if name is None else [BUILDERS[name]]:
        if not (reason := builder.unusable()):
            return builder
        reasons.append(reason)
    raise BuilderFailed("; ".join(reasons))


def why_no_builder(name: str | None = None) -> str | None:
    """Return why no builder works here, or the one of this name does not; None where one does."""
    try:
        find_builder(name)
    except BuilderFailed as error:
        return str(error)
    return None


def _shortened(name: str) -> str:
    """Return the name of an image without what Docker leaves out when it tells it."""
    return name.removeprefix("docker.io/").removeprefix("library/")


def _reason(errors: str, output: str) -> str:
    """Return the last lines that it said, in one line."""
    lines = [line.strip() for line in (errors or output).splitlines() if line.strip()]
    stated = [line for line in lines if line.lower().startswith(("error", "cannot"))]
    return " ".join((stated or lines or ["it said nothing"])[-2:])
