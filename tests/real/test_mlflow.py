"""A real MLflow server: packages are registered in it, and clients that know nothing of us load them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from uv import find_uv_bin

from packhouse.errors import RegistrationFailed
from packhouse.packaging import Workplace
from packhouse.packaging.mlflow.model import MLflowModel
from packhouse.packaging.mlflow.registry import CLIENT, MLflowRegistry
from packhouse.verification.payload import Payload
from tests.classifiers import write_classifier
from tests.jobs import write_job
from tests.packaging_jobs import CPU, ONE, Packing, make_packing, predict
from tests.real.breaking_proxy import CUT, proxy
from tests.real.conftest import ROOT, Packhouse
from tests.real.test_runs import wait_until

pytestmark = pytest.mark.real

GIB = 1 << 30
LIMIT_BYTES = 300_000_000
SECRET = "planted-4711"
READ = """
import json, sys
import mlflow, numpy, onnxruntime
uri, samples = sys.argv[1], numpy.load(sys.argv[2])["x"]
loaded = mlflow.pyfunc.load_model(uri)
model = mlflow.onnx.load_model(uri)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
outputs = {"pyfunc": loaded.predict(samples)["y"], "onnx": session.run(["y"], {"x": samples})[0]}
outputs["example"] = loaded.predict(loaded.input_example)["y"]
print(json.dumps({name: output.tolist() for name, output in outputs.items()}))
"""
LOAD = """
import json, sys
import mlflow, numpy
samples = numpy.load(sys.argv[2])["x"]
print(json.dumps(mlflow.pyfunc.load_model(sys.argv[1]).predict(samples)["y"].tolist()))
"""


@dataclass(frozen=True)
class MLflow:
    """A running server, the folder of its artifacts, and a Python that has MLflow and nothing of ours."""

    uri: str
    artifacts: Path
    python: str

    @property
    def registry(self) -> MLflowRegistry:
        """The server as packages are registered with it."""
        return MLflowRegistry(self.uri)

    def get(self, path: str, **query: str) -> Any:
        """Return the answer of the REST API."""
        response = httpx.get(f"{self.uri}/api/2.0/mlflow/{path}", params=query, timeout=60)
        response.raise_for_status()
        return response.json()

    def versions(self, name: str) -> list[Any]:
        """Return the versions of a model."""
        found: list[Any] = self.get("model-versions/search", filter=f"name = '{name}'").get("model_versions", [])
        return found

    def aliased(self, name: str, alias: str = "champion") -> str:
        """Return the version that an alias names."""
        return str(self.get("registered-models/alias", name=name, alias=alias)["model_version"]["version"])

    def runs(self, name: str) -> list[Any]:
        """Return the runs of an experiment that are not deleted."""
        experiment = self.get("experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"]
        response = httpx.post(f"{self.uri}/api/2.0/mlflow/runs/search", json={"experiment_ids": [experiment]}, timeout=60)
        found: list[Any] = response.json().get("runs", [])
        return found

    def run(self, code: str, *arguments: str | Path) -> Any:
        """Run code in the Python that has nothing of ours, and return what it prints."""
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "MLFLOW_TRACKING_URI": self.uri}
        command = [self.python, "-I", "-c", code, *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def mlflow_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An environment with all of MLflow in the version that packages require."""
    python = str(tmp_path_factory.mktemp("mlflow") / "bin" / "python")
    subprocess.run([find_uv_bin(), "venv", "--quiet", "--python", sys.executable, str(Path(python).parents[1])], check=True)
    versions = {name: metadata.version(name) for name in ("onnx", "onnxruntime", "numpy", "pandas")}
    versions["mlflow"] = metadata.version("mlflow-skinny")
    pins = [f"{name}=={version}" for name, version in versions.items()]
    subprocess.run([find_uv_bin(), "pip", "install", "--quiet", "--python", python, *pins], check=True)
    return python


@pytest.fixture(scope="session")
def mlflow(mlflow_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflow]:
    """A server with SQLite that hands artifacts through."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--backend-store-uri": f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination": str(folder / "artifacts"),
        "--workers": "1",
    }
    command = [mlflow_python, "-m", "mlflow", "server", *(part for option in options.items() for part in option)]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 240
        while not _is_up(uri):
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.5)
        yield MLflow(uri, folder / "artifacts", mlflow_python)
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def _is_up(uri: str) -> bool:
    try:
        return httpx.get(f"{uri}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False


@dataclass(frozen=True)
class Made:
    """A package that is to be registered."""

    packing: Packing
    packaging: MLflowModel
    folder: Path

    def register(self, registry: MLflowRegistry, scratch: str = "register") -> str:
        """Register it and return where."""
        workplace = self.packing.workplace
        (workplace.scratch / scratch).mkdir(exist_ok=True)
        connected = Workplace(workplace.store, workplace.scratch / scratch, workplace.cache, lambda _: registry)
        (place,) = self.packaging.register(self.folder, self.packing.job, connected)
        return place

    def asked(self, **changes: Any) -> dict[str, Any]:
        """Return what is asked of the server's client when it is uploaded."""
        sizes = {path.name: path.stat().st_size for path in self.folder.iterdir()}
        request = {
            "do": "upload",
            "name": self.packaging.name,
            "digest": self.digest,
            "folder": str(self.folder),
            "sizes": sizes,
        }
        return {**request, **changes}

    @property
    def digest(self) -> str:
        """The digest that a package of this folder has in a release."""
        from packhouse.packaging.manifest import Manifest
        from packhouse.packaging.mlflow.registry import _digest

        return _digest(self.folder, Manifest.model_validate_json((self.folder / "manifest.json").read_bytes()))


def make(tmp_path: Path, name: str, **changes: Any) -> Made:
    packing = make_packing(tmp_path, changes.pop("grades", {CPU: {"turned-0.0": (1.0, 3.0)}}), **changes)
    packaging = MLflowModel(name=name, server="test")
    return Made(packing, packaging, packing.create(packaging))


@pytest.mark.timeout(1500)
def test_a_flow_registers_a_model_that_a_client_without_us_loads_and_a_second_run_changes_nothing(
    mlflow: MLflow, packhouse_alone: Packhouse, tmp_path: Path
) -> None:
    save = f"from blocks.mlflow import MLflowServer as S; S(tracking_uri={mlflow.uri!r}, token={SECRET!r}).save('real')"
    patient = {**packhouse_alone.environment, "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "240"}
    subprocess.run([sys.executable, "-c", save], env=patient, cwd=ROOT, check=True, capture_output=True)
    packaging = {"type": "MLflowModel", "name": "flown", "server": "real"}
    config = write_job(tmp_path, packaging=packaging, output_dir=str(tmp_path / "packages"))
    first = packhouse_alone.release(config)
    (registration,) = [delivery["registration"] for delivery in first["deliveries"]]
    assert f"{mlflow.uri}/#/models/flown/versions/1" in registration["places"]
    (version,), (run,) = mlflow.versions("flown"), mlflow.runs("flown")
    tags = {tag["key"]: tag["value"] for tag in version["tags"]}
    assert tags["packhouse.digest"] == registration["digest"]
    assert tags["packhouse.accelerator"] == CPU
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert float(tags["packhouse.scored.accuracy-accuracy_score"]) == metrics["accuracy-accuracy_score"]
    assert metrics["latency-p50.low"] <= metrics["latency-p50"] <= metrics["latency-p50.high"]
    outputs = mlflow.run(READ, "models:/flown@champion", tmp_path / "points.npz")
    samples = np.load(tmp_path / "points.npz")["x"]
    expected = predict(tmp_path / "packages" / "flown" / "model.onnx", samples)["y"]
    for name in ("pyfunc", "onnx"):
        np.testing.assert_allclose(outputs[name], expected, atol=1e-6)
    np.testing.assert_allclose(outputs["example"], expected[:1], atol=1e-6)
    second = packhouse_alone.release(config)
    assert second["deliveries"][0]["registration"] == registration
    assert [found["version"] for found in mlflow.versions("flown")] == ["1"]
    assert len(mlflow.runs("flown")) == 1
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 20
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]


@pytest.mark.timeout(1500)
def test_a_model_of_1_gib_passes_in_less_than_300_mb_and_loads_back(mlflow: MLflow, tmp_path: Path) -> None:
    original = write_classifier(
        tmp_path / "candidates" / "large" / "model.onnx", error=0.0, padding_bytes=GIB, external="weights.bin"
    )
    made = make(tmp_path, "large", grades={CPU: {"large": (1.0, 3.0)}})
    assert (made.folder / "weights.bin").stat().st_size >= GIB
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    copied, peak_bytes = peak_of(mlflow, made.asked(copy_to=str(fetched)))
    assert (Path(copied["copy"]) / "weights.bin").stat().st_size >= GIB
    shutil.rmtree(fetched)
    assert peak_bytes < LIMIT_BYTES
    made.register(mlflow.registry)
    samples = np.load(tmp_path / "points.npz")["x"]
    loaded = mlflow.run(LOAD, "models:/large@champion", tmp_path / "points.npz")
    np.testing.assert_allclose(loaded, predict(original, samples)["y"], atol=1e-6)


def peak_of(mlflow: MLflow, request: dict[str, Any]) -> tuple[Any, int]:
    """Return what the process that speaks to the server answers, and the peak of its resident memory."""
    client = start_client(mlflow, request)
    peak = 0
    while client.poll() is None:
        status = Path(f"/proc/{client.pid}/status").read_text()
        peak = max([peak, *(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.02)
    assert client.stdout
    return json.loads(client.stdout.read())["ok"], peak


def start_client(mlflow: MLflow, request: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", str(CLIENT)]
    pipe = subprocess.PIPE
    client = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=mlflow.registry.environment, text=True)
    assert client.stdin
    client.stdin.write(json.dumps(request))
    client.stdin.close()
    return client


def test_what_was_interrupted_shows_no_version_and_is_gone_on_with(mlflow: MLflow, tmp_path: Path) -> None:
    made = make(tmp_path, "interrupted")
    sizes = dict(list(made.asked()["sizes"].items())[:5])
    mlflow.registry.ask(**made.asked(sizes=sizes))
    assert mlflow.versions("interrupted") == []
    left = mlflow.runs("interrupted")[0]["info"]["run_id"]
    made.register(mlflow.registry)
    (version,) = mlflow.versions("interrupted")
    assert version["run_id"] == left
    assert len(mlflow.runs("interrupted")) == 1


def test_a_metric_whose_name_mlflow_does_not_take_is_registered_under_one_that_it_takes(mlflow: MLflow, tmp_path: Path) -> None:
    packing, packaging = make_packing(tmp_path, ONE), MLflowModel(name="named", server="test")
    old, new = "accuracy-accuracy_score", "recall@10-score (mean)"
    metrics = [item.model_copy(update={"name": item.name.replace(old, new)}) for item in packing.job.metrics]
    (evaluation,) = packing.job.evaluations
    measured = {name.replace(old, new): value for name, value in evaluation.metrics.items()}
    renamed = evaluation.model_copy(update={"metrics": measured | {new: measured[new].model_copy(update={"value": 1.0})}})
    job = packing.job.model_copy(update={"metrics": tuple(metrics), "evaluations": (renamed,)})
    packing = replace(packing, job=job)
    Made(packing, packaging, packing.create(packaging)).register(mlflow.registry)
    ((version,), (run,)) = mlflow.versions("named"), mlflow.runs("named")
    assert {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}["recall_10-score _mean_"] == 1.0
    assert {tag["key"]: tag["value"] for tag in version["tags"]}["packhouse.scored.recall_10-score _mean_"] == "1.0"


def test_a_process_that_is_killed_while_it_uploads_leaves_nothing_in_the_way(mlflow: MLflow, tmp_path: Path) -> None:
    write_classifier(tmp_path / "candidates" / "killed" / "model.onnx", padding_bytes=100 << 20, external="weights.bin")
    made = make(tmp_path, "killed", grades={CPU: {"killed": (1.0, 3.0)}})
    client = start_client(mlflow, made.asked())
    wait_until(lambda: has_run(mlflow, "killed"))
    client.kill()
    client.wait()
    assert mlflow.versions("killed") == []
    made.register(mlflow.registry)
    assert len(mlflow.versions("killed")) == 1
    assert len(mlflow.runs("killed")) == 1


def has_run(mlflow: MLflow, name: str) -> bool:
    try:
        return bool(mlflow.runs(name))
    except httpx.HTTPStatusError:
        return False


def test_a_damaged_copy_is_refused_and_thrown_away(mlflow: MLflow, tmp_path: Path) -> None:
    made = make(tmp_path, "damaged")
    run = mlflow.registry.ask(**made.asked())["run"]
    (stored,) = mlflow.artifacts.rglob(f"{run}/artifacts/model/model.onnx")
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(content)
    with pytest.raises(RegistrationFailed, match=r"not the package: model\.onnx is not what it was") as caught:
        made.register(mlflow.registry)
    assert caught.value.is_transient
    assert mlflow.versions("damaged") == []
    made.register(mlflow.registry)
    (version,) = mlflow.versions("damaged")
    assert version["run_id"] != run


def test_two_that_register_the_same_at_once_leave_one_version(mlflow: MLflow, tmp_path: Path) -> None:
    made = make(tmp_path, "twice")
    with ThreadPoolExecutor(2) as pool:
        places = list(pool.map(lambda scratch: made.register(mlflow.registry, scratch), ["one", "two"]))
    (version,) = mlflow.versions("twice")
    assert places[0].endswith(f"/versions/{mlflow.aliased('twice')}")
    assert version["version"] == mlflow.aliased("twice")


def test_the_alias_moves_to_a_package_that_is_registered_again(mlflow: MLflow, tmp_path: Path) -> None:
    first = make(tmp_path / "first", "moved")
    second = make(tmp_path / "second", "moved", grades={CPU: {"turned-0.0": (1.0, 2.0)}})
    for made, expected in ((first, "1"), (second, "2"), (first, "1")):
        made.register(mlflow.registry)
        assert mlflow.aliased("moved") == expected
    assert len(mlflow.versions("moved")) == 2


def test_a_server_that_fails_once_is_asked_again_and_nothing_is_made_twice(mlflow: MLflow, tmp_path: Path) -> None:
    made = make(tmp_path, "shaky")
    with proxy(mlflow.uri, [("/model-versions/create", 500, True)]) as uri:
        made.register(replace(mlflow.registry, tracking_uri=uri))
    assert len(mlflow.versions("shaky")) == 1


BREAKS = {
    "the upload is cut": ("PUT .*/model.onnx", CUT),
    "the upload is refused": ("PUT .*/model.onnx", 500),
    "the copy that is fetched back is cut": ("GET .*/model.onnx", CUT),
    "measurements are refused": ("POST .*/runs/log-batch", 500),
    "the version is refused": ("POST .*/model-versions/create", 500),
    "the alias is refused": ("POST .*/registered-models/alias", 500),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_what_breaks_off_in_the_middle_shows_nothing_half_done_and_is_made_good_by_the_next(
    mlflow: MLflow, tmp_path: Path, kind: str
) -> None:
    made = make(tmp_path, kind.replace(" ", "-"))
    name, (request, status) = made.packaging.name, BREAKS[kind]
    with proxy(mlflow.uri, [(request, status, False)]) as uri, pytest.raises(RegistrationFailed) as caught:
        made.register(replace(mlflow.registry, tracking_uri=uri))
    assert caught.value.is_transient
    assert len(mlflow.versions(name)) == (1 if "alias" in kind else 0)  # which has all its files and measurements then
    with pytest.raises(httpx.HTTPStatusError):
        mlflow.aliased(name)

    made.register(mlflow.registry)

    (version,), (run,) = mlflow.versions(name), mlflow.runs(name)
    assert mlflow.aliased(name) == version["version"] == "1"
    assert version["run_id"] == run["info"]["run_id"]
    stored = next(mlflow.artifacts.rglob(f"{run['info']['run_id']}/artifacts/model"))
    assert {path.name: path.read_bytes() for path in stored.iterdir()} == {
        path.name: path.read_bytes() for path in made.folder.iterdir()
    }
    assert {metric["key"] for metric in run["data"]["metrics"]} >= {"accuracy-accuracy_score", "latency-p50"}


@pytest.mark.parametrize(
    ("status", "is_transient", "remedy"),
    [
        (401, False, "check the user name and password"),
        (403, False, "give the block's user the right"),
        (500, True, "check that"),
    ],
)
def test_what_a_server_refuses_is_said_with_the_remedy_and_without_the_secret(
    mlflow: MLflow, tmp_path: Path, status: int, is_transient: bool, remedy: str
) -> None:
    made = make(tmp_path, "refused")
    with (
        proxy(mlflow.uri, [("/mlflow/", status, False)], SECRET) as uri,
        pytest.raises(RegistrationFailed, match=remedy) as caught,
    ):
        made.register(MLflowRegistry(uri, username="me", password=SECRET))
    assert caught.value.is_transient == is_transient
    assert uri in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_server_that_is_not_there_is_a_failure_that_may_pass(tmp_path: Path) -> None:
    with pytest.raises(RegistrationFailed, match="check that the server runs") as caught:
        make(tmp_path, "nowhere").register(MLflowRegistry("http://127.0.0.1:9"))
    assert caught.value.is_transient


def test_a_model_of_another_runtime_is_opened_in_an_environment_of_its_requirements(tmp_path: Path) -> None:
    accelerators = [{"device": "cpu", "runtime": "onnxruntime==1.30.0"}]
    packing = make_packing(tmp_path, ONE, accelerators=accelerators)
    packaging = MLflowModel(name="other")
    folder = packing.create(packaging)
    with packaging.open(folder, packing.job, packing.workplace) as package:
        predictions = package.models[0].predict(Payload.of(packing.job, packing.workplace.store), 32)
    samples = np.load(tmp_path / "points.npz")["x"]
    np.testing.assert_allclose(predictions.outputs["y"], predict(folder / "model.onnx", samples)["y"], atol=1e-6)
    (marker,) = packing.workplace.runtimes.glob("*/packhouse.json")
    made = json.loads(marker.read_text())
    assert made["onnxruntime"] == "1.30.0"
    assert made["requirements"] == (folder / "requirements.txt").read_text().splitlines()
