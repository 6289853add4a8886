import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from packhouse.packaging import sample_code
from packhouse.packaging.runtime_packages import REQUIREMENTS, fetch

BEST, SECOND = (
    "CandidateModels/cpu-cpu/BestCandidateModel_1/model.onnx",
    "CandidateModels/cpu-cpu/BestCandidateModel_2/model.onnx",
)
PYTHON_SAMPLE = Path("SampleCode", "python", "sample.py")
INPUT = {"dtype": "float32", "shape": [1, 4], "data": [1.0, -2.0, 0.5, 0.25]}
SCORES = {"dtype": "float32", "shape": [1, 3], "data": [1.0, -2.0, 1.5]}
TYPES = {
    "bool": (TensorProto.BOOL, [True, False]),
    "float16": (TensorProto.FLOAT16, [0.0999755859375, -65504.0]),
    "float32": (TensorProto.FLOAT, [0.1, -1e30]),
    "float64": (TensorProto.DOUBLE, [0.1, -1e300]),
    "int32": (TensorProto.INT32, [-(2**31), 7]),
    "int64": (TensorProto.INT64, [-(2**53), 7]),
    "int8": (TensorProto.INT8, [-128, 127]),
    "str": (TensorProto.STRING, ["Grüße", ""]),
    "uint8": (TensorProto.UINT8, [0, 255]),
}
# Ships the headers of ONNX Runtime's C++ API as they are; the library is that of the Python wheel, which must not be older.
HEADERS_PACKAGE, HEADERS_SINCE = "com.github.asus4.onnxruntime@0.4.9", (1, 29)


@dataclass(frozen=True)
class Package:
    """An unpacked package with two models: scores = x @ weights, where the second model's weights are other ones."""

    root: Path

    def run(self, command: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, str(self.root), *arguments], check=False, capture_output=True, encoding="utf-8")

    def set_settings(self, **settings: Any) -> None:
        """Change the inference settings of the best model."""
        path = self.root / "models_rank.json"
        entries = json.loads(path.read_text())
        entries[0]["model_config"]["config"]["inference_settings"].update(settings)
        path.write_text(json.dumps(entries))

    def set_sample(self, **parts: Any) -> None:
        """Change the sample input, its outputs or the tolerance."""
        path = self.root / "SampleCode" / "sample_input.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def save_model(path: Path, weights: list[list[float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])
    constant = numpy_helper.from_array(np.array(weights, np.float32), "weights")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "weights"], ["scores"])], "graph", [x], [scores], [constant])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def save_identity_of_every_type(path: Path) -> None:
    inputs = [helper.make_tensor_value_info(f"{name}_in", kind, [2, 1]) for name, (kind, _) in TYPES.items()]
    outputs = [helper.make_tensor_value_info(f"{name}_out", kind, [2, 1]) for name, (kind, _) in TYPES.items()]
    nodes = [helper.make_node("Identity", [f"{name}_in"], [f"{name}_out"]) for name in TYPES]
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def entry(rank: int, model_path: str) -> dict[str, Any]:
    settings = {
        "execution_provider": ["CPUExecutionProvider"],
        "provider_options": [{}],
        "io_bind": False,
        "session_options": {
            "execution_mode": 0,
            "graph_optimization_level": 99,
            "extra_session_config": {"session.intra_op.allow_spinning": "0"},
            "inter_op_num_threads": None,
            "intra_op_num_threads": 1,
        },
    }
    config = {"model_path": model_path, "onnx_file_name": None, "inference_settings": settings}
    return {"rank": rank, "model_config": {"type": "ONNXModel", "config": config}, "metrics": {}}


@pytest.fixture
def package(tmp_path: Path) -> Package:
    root = tmp_path / "a package"
    for name, content in sample_code.files().items():
        (root / "SampleCode" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "SampleCode" / name).write_bytes(content)
    save_model(root / BEST, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 4]])
    save_model(root / SECOND, [[0, 0, 0]] * 4)
    (root / "models_rank.json").write_text(json.dumps([entry(1, BEST), entry(2, SECOND)]))
    sample = {"inputs": {"x": INPUT}, "outputs": {"scores": SCORES}, "tolerance": {"atol": 1e-3, "rtol": 1e-3}}
    (root / "SampleCode" / "sample_input.json").write_text(json.dumps(sample))
    return Package(root)


def make_python(folder: Path) -> list[str]:
    shutil.copyfile(Path(sample_code.__file__).parent / "python" / "sample.py", folder / "sample.py")
    return [sys.executable, str(folder / "sample.py")]


def make_javascript(folder: Path) -> list[str]:
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed")
    shutil.copytree(Path(sample_code.__file__).parent / "javascript", folder, dirs_exist_ok=True)
    subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True)
    return ["node", str(folder / "sample.js")]


def make_cpp(folder: Path) -> list[str]:
    if missing := [tool for tool in ("cmake", "g++", "npm") if not shutil.which(tool)]:
        pytest.skip(f"{', '.join(missing)} not installed")
    if not Path("/usr/include/nlohmann/json.hpp").exists():
        pytest.skip("nlohmann-json3-dev is not installed")
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < HEADERS_SINCE:
        pytest.skip(f"onnxruntime {onnxruntime.__version__} is older than the C++ headers that can be had")
    prefix, build = folder / "onnxruntime", folder / "build"
    (prefix / "include").mkdir(parents=True)
    (prefix / "lib").mkdir()
    subprocess.run(["npm", "pack", HEADERS_PACKAGE], cwd=folder, check=True)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        for member in archive:
            if re.search(r"/ios-arm64/.*/Headers/\w+\.h$", member.name) and (file := archive.extractfile(member)):
                (prefix / "include" / Path(member.name).name).write_bytes(file.read())
    library = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (prefix / "lib" / name).symlink_to(library)
    source = Path(sample_code.__file__).parent / "cpp"
    options = [f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror"]
    subprocess.run(["cmake", "-S", source, "-B", build, *options], check=True)
    subprocess.run(["cmake", "--build", build], check=True)
    return [str(build / "sample")]


def make_cs(folder: Path) -> list[str]:
    if not shutil.which("dotnet"):
        pytest.skip("the .NET SDK is not installed")
    shutil.copytree(Path(sample_code.__file__).parent / "cs", folder, dirs_exist_ok=True)
    subprocess.run(["dotnet", "build", "--output", folder / "build"], cwd=folder, check=True)
    return ["dotnet", str(folder / "build" / "Sample.dll")]


MAKERS: dict[str, Callable[[Path], list[str]]] = {
    "python": make_python,
    "javascript": make_javascript,
    "cpp": make_cpp,
    "cs": make_cs,
}


@pytest.fixture(
    scope="module", params=["python", *(pytest.param(name, marks=pytest.mark.real) for name in ("javascript", "cpp", "cs"))]
)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs the sample of one language, built once."""
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


def test_best_model_runs_and_its_outputs_are_as_expected(package: Package, program: list[str]) -> None:
    done = package.run(program)
    assert done.returncode == 0, done.stderr
    assert re.match(rf"{BEST} on .*cpu.*, onnxruntime.* \d+\.\d+", done.stdout, re.IGNORECASE)
    assert re.search(r"^scores: .*\[1, ?3\] \[1(\.0)?, ?-2(\.0)?, ?1\.5\]: as expected$", done.stdout, re.MULTILINE)


def test_wrong_output_is_said_and_ends_with_1(package: Package, program: list[str]) -> None:
    package.set_sample(outputs={"scores": SCORES | {"data": [1.0, -2.0, 1.75]}})
    done = package.run(program)
    assert done.returncode == 1
    assert "not as expected: 1.5 should be 1.75" in done.stdout


def test_output_within_the_tolerance_is_as_expected(package: Package, program: list[str]) -> None:
    package.set_sample(outputs={"scores": SCORES | {"data": [1.0015, -2.0025, 1.5]}})
    assert package.run(program).returncode == 0


def test_output_of_another_shape_is_not_as_expected(package: Package, program: list[str]) -> None:
    package.set_sample(outputs={"scores": SCORES | {"shape": [3]}})
    done = package.run(program)
    assert done.returncode == 1
    assert "the shape should be [3]" in done.stdout


def test_missing_output_ends_with_1(package: Package, program: list[str]) -> None:
    package.set_sample(outputs={"scores": SCORES, "other": SCORES})
    done = package.run(program)
    assert done.returncode == 1
    assert "other" in done.stderr


def test_without_expected_outputs_the_model_just_runs(package: Package, program: list[str]) -> None:
    package.set_sample(outputs={})
    done = package.run(program)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^scores: .*: nothing to compare with$", done.stdout, re.MULTILINE)


def test_another_model_is_named_by_its_path(package: Package, program: list[str]) -> None:
    package.set_sample(outputs={"scores": SCORES | {"data": [0, 0, 0]}})
    assert package.run(program).returncode == 1
    assert package.run(program, SECOND).returncode == 0
    unknown = package.run(program, "CandidateModels/model.onnx")
    assert unknown.returncode == 1
    assert "models_rank.json has no model CandidateModels/model.onnx" in unknown.stderr


def test_every_type_of_tensor_goes_in_and_out(package: Package, program: list[str]) -> None:
    save_identity_of_every_type(package.root / BEST)
    tensors = {name: {"dtype": name, "shape": [2, 1], "data": data} for name, (_, data) in TYPES.items()}
    package.set_sample(
        inputs={f"{name}_in": tensor for name, tensor in tensors.items()},
        outputs={f"{name}_out": tensor for name, tensor in tensors.items()},
    )
    done = package.run(program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": as expected") == len(TYPES)


def test_strings_must_be_the_same(package: Package, program: list[str]) -> None:
    save_identity_of_every_type(package.root / BEST)
    tensors = {f"{name}_in": {"dtype": name, "shape": [2, 1], "data": data} for name, (_, data) in TYPES.items()}
    tensors["str_in"]["data"] = ["1", "2"]
    package.set_sample(inputs=tensors, outputs={"str_out": tensors["str_in"] | {"data": ["1", "2.0"]}})
    done = package.run(program)
    assert done.returncode == 1
    assert re.search(r'not as expected: "?2"? should be "?2\.0"?', done.stdout)


def test_type_that_is_not_handled_is_said(package: Package, program: list[str]) -> None:
    package.set_sample(inputs={"x": INPUT | {"dtype": "complex64"}})
    done = package.run(program)
    assert done.returncode == 1
    assert re.search("this sample cannot handle a tensor of complex64; it can handle .*float16", done.stderr)


@pytest.mark.parametrize("settings", [None, {}, {"session_options": None, "provider_options": None}])
def test_settings_may_be_missing(package: Package, program: list[str], settings: dict[str, Any] | None) -> None:
    ranked = entry(1, BEST)
    ranked["model_config"]["config"]["inference_settings"] = settings
    (package.root / "models_rank.json").write_text(json.dumps([ranked]))
    done = package.run(program)
    assert done.returncode == 0, done.stderr


def test_all_session_options_can_be_set(package: Package, program: list[str]) -> None:
    options = {"execution_mode": 1, "graph_optimization_level": 3, "inter_op_num_threads": 2, "intra_op_num_threads": 2}
    package.set_settings(session_options=options)
    done = package.run(program)
    assert done.returncode == 0, done.stderr


def test_extra_session_configuration_reaches_the_session(package: Package, program: list[str]) -> None:
    package.set_settings(session_options={"extra_session_config": {"session.disable_cpu_ep_fallback": "1"}})
    done = package.run(program)
    assert done.returncode == 1
    assert "fallback to" in done.stderr


@pytest.mark.parametrize("providers", [["QNNExecutionProvider"], ["QNNExecutionProvider", "CPUExecutionProvider"]])
def test_model_for_a_provider_that_is_not_there_is_refused(package: Package, program: list[str], providers: list[str]) -> None:
    package.set_settings(execution_provider=providers, provider_options=[{}] * len(providers))
    done = package.run(program)
    assert done.returncode == 1
    assert re.search("this onnxruntime.* has no QNNExecutionProvider", done.stderr)


def test_model_that_would_fall_back_to_the_cpu_is_refused(package: Package, program: list[str]) -> None:
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no provider that loads and takes no node of the model")
    package.set_settings(execution_provider=["AzureExecutionProvider"])
    done = package.run(program)
    assert done.returncode == 1
    assert re.search("fallback to CPU EP has been explicitly disabled|has no AzureExecutionProvider", done.stderr)


def test_python_sample_finds_the_package_around_it(package: Package, tmp_path: Path) -> None:
    command = [sys.executable, str(package.root / PYTHON_SAMPLE)]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_python_sample_is_short_and_needs_only_numpy_and_onnxruntime() -> None:
    source = sample_code.files()["python/sample.py"].decode()
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported - sys.stdlib_module_names == {"numpy", "onnxruntime"}
    assert len(source.splitlines()) < 80


def test_files_are_sorted_and_complete() -> None:
    assert list(sample_code.files()) == [
        "README.md",
        "cpp/CMakeLists.txt",
        "cpp/sample.cpp",
        "cs/Program.cs",
        "cs/Sample.csproj",
        "javascript/package.json",
        "javascript/sample.js",
        "python/sample.py",
    ]


@pytest.mark.real
def test_packed_wheels_alone_run_the_python_sample_in_a_fresh_environment(package: Package, tmp_path: Path) -> None:
    version = metadata.version("onnxruntime")
    wheels = package.root / "ONNXRuntimePackages" / "python"
    shutil.copytree(fetch("onnxruntime", version, tmp_path / "cache")[0].parent, wheels)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "fresh"], check=True)
    python = str(tmp_path / "fresh" / "bin" / "python")
    isolated = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    isolated["PIP_CONFIG_FILE"] = os.devnull
    install = [python, "-m", "pip", "install", "--no-index", "--find-links", ".", "--require-hashes", "-r", REQUIREMENTS]
    subprocess.run(install, cwd=wheels, env=isolated, check=True)
    command = [python, str(package.root / PYTHON_SAMPLE)]
    done = subprocess.run(command, env=isolated, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"onnxruntime {version}" in done.stdout
