"""Images of Dockerfile packages, really built and run: by a builder that works here, from a base image that is here.

`.ci/containers` makes both where that is possible; it says in `PACKHOUSE_TEST_PYTHON_IMAGE` which base image there is. That
image has the Python of Debian, and is not the official one.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from packhouse.demo import make_demo
from packhouse.errors import RegistrationFailed, VerificationFailed
from packhouse.packaging.docker.base_images import PYTHON_IMAGE
from packhouse.packaging.docker.builders import SOCKET_FOLDER, Builder, BuilderFailed, find_builder
from packhouse.packaging.docker.dockerfile import Dockerfile
from packhouse.release import read_release
from packhouse.verification.validate import validate
from tests.inference_servers import free_port
from tests.jobs import write_job
from tests.packaging_jobs import ONE, Packing, make_packing
from tests.real.conftest import Packhouse
from tests.real.faulty_relay import Fault, relaying

pytestmark = pytest.mark.real

READY_S = 120
RUN_S = 400
REGISTRY = "docker-registry"


@pytest.fixture(scope="module")
def builder() -> Builder:
    """A builder that works here, with a base image for this Python."""
    image = os.environ.get("PACKHOUSE_TEST_PYTHON_IMAGE")
    if not image:
        pytest.skip("there is no base image: .ci/containers makes one, on Debian and as root")
    if not image.endswith(f"/{PYTHON_IMAGE}"):
        pytest.skip(f"the base image {image} has another Python than this one, which needs {PYTHON_IMAGE}")
    try:
        return find_builder()
    except BuilderFailed as error:
        pytest.skip(f"no container builder works here: {error}")


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory) -> Packing:
    return make_packing(tmp_path_factory.mktemp("job"), ONE)


def packaging_with(builder: Builder, **settings: object) -> Dockerfile:
    return Dockerfile.model_validate({"name": "points", "build": True, "builder": builder.name, **settings})


@pytest.mark.parametrize("in_mlflow_format", [False, True], ids=["plain", "mlflow"])
def test_the_image_of_the_example_is_validated_scored_and_answers_a_standard_request(
    builder: Builder, packhouse_alone: Packhouse, tmp_path: Path, in_mlflow_format: bool
) -> None:
    config = make_demo(tmp_path / "example", print)
    document = yaml.safe_load(config.read_text())
    packaging = {"type": "Dockerfile", "name": "digits", "build": True, "builder": builder.name}
    document["packaging"] = [{**packaging, "export_in_mlflow_format": in_mlflow_format}]
    config.write_text(yaml.safe_dump(document))

    (delivery,) = packhouse_alone.release(config)["deliveries"]

    assert delivery["failure"] is None
    assert [metric["metric"] for metric in delivery["score"]["metrics"]] == ["accuracy-accuracy_score", "accuracy-f1"]
    (model,) = delivery["validation"]["models"]
    assert model["placement"].keys() == {"CPUExecutionProvider"}
    assert f"built and run by {builder.name}" in model["environment"]
    assert ("mlflow_model" in model["model_path"]) == in_mlflow_format
    image = model["environment"].split()[2].removesuffix(",")
    package = tmp_path / "example" / "packages" / "digits"
    with np.load(package / "docker_content" / "golden_samples.npz") as golden:
        samples, expected = golden["input_0"], golden["output_0"]
        names = [str(golden["input_names"][0]), str(golden["output_names"][0])]
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    arguments = ["--uds", f"{SOCKET_FOLDER}/socket"]
    with (
        builder.run(image, shared, arguments, (), tmp_path / "log"),
        httpx.Client(transport=httpx.HTTPTransport(uds=str(shared / "socket")), base_url="http://image") as client,
    ):
        wait_for(client)
        tensor = {"name": names[0], "shape": samples.shape, "datatype": "FP32", "data": samples.ravel().tolist()}
        answer = client.post("/v2/models/digits/infer", json={"id": "1", "inputs": [tensor]}).json()
    (output,) = [output for output in answer["outputs"] if output["name"] == names[1]]
    np.testing.assert_allclose(np.reshape(output["data"], output["shape"]), expected, atol=1e-3)
    assert answer["id"] == "1"


def test_a_package_that_was_made_without_a_builder_is_the_same_with_one_and_then_its_image_is_validated(
    builder: Builder, packhouse_alone: Packhouse, tmp_path: Path
) -> None:
    config = write_job(tmp_path, packaging=[{"type": "Dockerfile", "name": "points", "build": True}])
    path = packhouse_alone.environment["PATH"]

    packhouse_alone.environment["PATH"] = str(Path(sys.executable).parent)
    printed = packhouse_alone.run("run", config)
    without = read_release(tmp_path / "packages").deliveries[0]
    packhouse_alone.environment["PATH"] = path
    assert planned(packhouse_alone, config) == (False, None)
    packhouse_alone.run("run", config)
    built = read_release(tmp_path / "packages").deliveries[0]
    packhouse_alone.environment["PATH"] = str(Path(sys.executable).parent)
    assert planned(packhouse_alone, config) == (True, None)

    assert without.caveat
    assert f"Dockerfile: packages/points, {without.caveat}\n" in printed.replace(f"{tmp_path}/", "")
    assert str(without.caveat).startswith("not built: no builder works here (docker is not installed; buildah is not")
    assert without.registration
    assert built.validation
    assert built.caveat is None
    assert f"built and run by {builder.name}" in built.validation.models[0].environment
    assert built.package == without.package


def test_two_builds_in_other_folders_at_other_times_by_other_users_give_the_same_digest(
    builder: Builder, packing: Packing, tmp_path: Path
) -> None:
    packaging = packaging_with(builder)
    images = []
    for name, mode, owner, age_s in (("a", 0o644, 0, 0), ("somewhere-else", 0o600, 65534, 86_400)):
        folder = tmp_path / name
        packing.create(packaging).rename(folder)
        for path in (folder, *folder.rglob("*")):
            path.chmod(mode | 0o100 if path.is_dir() else mode)
            os.chown(path, owner, owner)
            os.utime(path, (time.time() - age_s,) * 2)
        images.append(builder.build(folder, f"packhouse-test:{name}", ["--no-cache", "--network=none"]))
    assert images[0].startswith("sha256:")
    assert images[0] == images[1]


def test_an_image_that_does_not_do_what_was_evaluated_is_refused(builder: Builder, packing: Packing) -> None:
    packaging = packaging_with(builder, run_options=[])
    package = packing.create(packaging)
    other = make_packing(package.parent, {"cpu-cpu": {"turned-0.9": (0.6, 1.0)}}, accelerators=[{"device": "cpu"}])
    packaged = other.create(packaging)
    digest = other.candidate("turned-0.9").digest
    job = packing.job.model_copy(update={"candidates": other.job.candidates})
    evaluations = [item.model_copy(update={"candidate": digest}) for item in packing.job.evaluations]
    wrong = job.model_copy(update={"evaluations": tuple(evaluations)})
    with (
        packaging.open(packaged, wrong, packing.workplace) as opened,
        pytest.raises(VerificationFailed, match="the output 'y' differs by up to"),
    ):
        validate(opened, wrong, packing.workplace.store)


def test_an_image_that_cannot_be_built_is_a_reason(builder: Builder, packing: Packing) -> None:
    packaging = packaging_with(builder, base_image="localhost/packhouse-test-missing:1", build_options=["--pull=false"])
    with (
        pytest.raises(VerificationFailed, match=r"the image is not built: .*packhouse-test-missing"),
        packaging.open(packing.create(packaging), packing.job, packing.workplace),
    ):
        pass


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry on this machine, by host and port."""
    address = f"localhost:{free_port()}"
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": address},
    }
    (tmp_path / "registry.yml").write_text(yaml.safe_dump(config))
    try:
        process = subprocess.Popen([REGISTRY, "serve", str(tmp_path / "registry.yml")], stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        pytest.skip(f"{REGISTRY} is not installed")
    try:
        deadline = time.monotonic() + READY_S
        while not _listens(address) and time.monotonic() < deadline:
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


def test_what_was_validated_is_pushed_and_pushing_again_changes_nothing(
    builder: Builder, packing: Packing, registry: str
) -> None:
    packaging = packaging_with(builder, push=True, repository=f"{registry}/models/points", tag="1.0")
    package = packing.create(packaging)
    with packaging.open(package, packing.job, packing.workplace) as opened:
        validate(opened, packing.job, packing.workplace.store)

    (place,) = packaging.register(package, packing.job, packing.workplace)
    assert packaging.register(package, packing.job, packing.workplace) == (place,)

    manifest = httpx.get(
        f"http://{registry}/v2/models/points/manifests/{place.rpartition('@')[2]}",
        headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
    )
    blob = httpx.get(f"http://{registry}/v2/models/points/blobs/{manifest.json()['config']['digest']}")
    labels = json.loads(blob.content)["config"]["Labels"]
    assert labels["packhouse.candidate.digest"] == f"sha256:{packing.job.best.candidate}"


def test_another_image_than_the_validated_one_is_not_pushed(builder: Builder, packing: Packing, registry: str) -> None:
    packaging = packaging_with(builder, push=True, repository=f"{registry}/models/points")
    package = packing.create(packaging)
    with packaging.open(package, packing.job, packing.workplace):
        pass
    changed = packaging.model_copy(update={"build_options": ("--label=more=1",)})
    with pytest.raises(RegistrationFailed, match="the image that was validated is not here"):
        changed.register(package, packing.job, packing.workplace)
    assert httpx.get(f"http://{registry}/v2/_catalog").json()["repositories"] == []


def test_a_registry_that_does_not_answer_may_answer_later(builder: Builder, packing: Packing) -> None:
    packaging = packaging_with(builder, push=True, repository=f"localhost:{free_port()}/points")
    package = packing.create(packaging)
    with packaging.open(package, packing.job, packing.workplace):
        pass
    with pytest.raises(RegistrationFailed, match="connection refused") as caught:
        packaging.register(package, packing.job, packing.workplace)
    assert caught.value.is_transient


@pytest.mark.parametrize("fault", ["cut", "error"])
def test_a_push_that_fails_midway_registers_nothing_and_the_next_one_completes(
    builder: Builder, packing: Packing, registry: str, fault: Fault
) -> None:
    with relaying(registry, fault) as relay:
        packaging = packaging_with(builder, push=True, repository=f"{relay.address}/models/points")
        package = packing.create(packaging)
        with packaging.open(package, packing.job, packing.workplace):
            pass
        with pytest.raises(RegistrationFailed, match="is not pushed") as caught:
            packaging.register(package, packing.job, packing.workplace)
        assert caught.value.is_transient, caught.value
        assert tags_in(registry) == []

        relay.mend()
        (place,) = packaging.register(package, packing.job, packing.workplace)

    assert tags_in(registry) == [packing.job.best.candidate[:12]]
    assert digest_in(registry, packing.job.best.candidate[:12]) == place.rpartition("@")[2]


def test_a_run_that_is_killed_while_it_pushes_registers_nothing_and_the_next_one_completes(
    builder: Builder, packhouse_alone: Packhouse, registry: str, tmp_path: Path
) -> None:
    with relaying(registry, "hold") as relay:
        packaging = {"type": "Dockerfile", "name": "points", "build": True, "builder": builder.name, "push": True}
        repository = f"{relay.address}/models/points"
        config = write_job(tmp_path, packaging=[{**packaging, "repository": repository, "tag": "1.0"}])
        killed = packhouse_alone.start("run", config)
        assert relay.held.wait(RUN_S), "nothing was pushed"
        killed.kill()
        assert relay.left.wait(READY_S), "the builder goes on without the run"
        relay.mend()
        assert tags_in(registry) == []
        assert not (tmp_path / "packages" / "points").exists()

        (delivery,) = packhouse_alone.release(config)["deliveries"]

    assert delivery["registration"]["places"][0] == f"{repository}@{digest_in(registry, '1.0')}"
    assert (tmp_path / "packages" / "points" / "Dockerfile").exists()


def planned(packhouse: Packhouse, config: Path) -> tuple[bool, str | None]:
    """Return whether the package is cached, and what could not be checked of it."""
    (package,) = json.loads(packhouse.run("plan", config, "--json"))["packages"]
    return package["is_cached"], package["caveat"]


def tags_in(registry: str) -> list[str]:
    """Return the tags that the registry has of the image."""
    found = httpx.get(f"http://{registry}/v2/models/points/tags/list")
    return [] if found.status_code == 404 else found.raise_for_status().json()["tags"] or []


def digest_in(registry: str, tag: str) -> str:
    """Return the digest of the image of a tag."""
    accepted = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    found = httpx.head(f"http://{registry}/v2/models/points/manifests/{tag}", headers={"Accept": accepted})
    return found.raise_for_status().headers["Docker-Content-Digest"]


def wait_for(client: httpx.Client) -> None:
    """Return when the server is ready."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        try:
            if client.get("/v2/health/ready").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the server in the image was not ready in time")


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
