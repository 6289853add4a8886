"""Environments of accelerators' own runtimes, made by the real uv from wheels in a folder that is all that it can get."""

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest
from uv import find_uv_bin

from packhouse.errors import EvaluationFailed
from packhouse.evaluation import runtimes
from packhouse.evaluation.runtimes import RuntimeEnvironments
from tests.wheels import breaking_index, make_wheel

OPENVINO, STOCK = ["onnxruntime-openvino==9.1.0"], ["onnxruntime==9.2.0"]
NUMPY = metadata.version("numpy")
# What stands for uv: it notes what it is called with, does something, and goes on as the real one.
UV = """#!{python}
import fcntl, os, signal, sys, time
with open({log!r}, "a") as log:
    log.write(" ".join(sys.argv[1:3]) + "\\n")
{action}
os.execv({uv!r}, sys.argv)
"""
ASK = """
import sys
from pathlib import Path
from packhouse.evaluation import runtimes
runtimes.find_uv_bin = lambda: sys.argv[2]
print(runtimes.RuntimeEnvironments(Path(sys.argv[1])).python(sys.argv[3:]))
"""


def runtime_wheel(folder: Path, name: str, version: str, *requires: str, module: str | None = None) -> None:
    text = f"__version__ = {version!r}\n" if module is None else module
    make_wheel(folder, name, version, "numpy", *requires, modules={"onnxruntime/__init__.py": text})


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with wheels, and let uv know nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    make_wheel(folder, "numpy", NUMPY)
    make_wheel(folder, "numpy", "1.0")
    runtime_wheel(folder, "onnxruntime_openvino", "9.1.0")
    runtime_wheel(folder, "onnxruntime", "9.2.0")
    for name in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(name)
    settings = {"NO_CONFIG": "1", "OFFLINE": "1", "NO_INDEX": "1", "FIND_LINKS": folder, "CACHE_DIR": tmp_path / "uv-cache"}
    for name, value in settings.items():
        monkeypatch.setenv(f"UV_{name}", str(value))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runtimes"


@pytest.fixture
def environments(folder: Path) -> RuntimeEnvironments:
    return RuntimeEnvironments(folder)


def fake_uv(folder: Path, action: str) -> tuple[str, Path]:
    """Write a uv that does something first; return its path, and that of its log."""
    path, log = folder / "uv", folder / "uv.log"
    path.write_text(UV.format(python=sys.executable, log=str(log), action=action, uv=find_uv_bin()))
    path.chmod(0o755)
    return str(path), log


def imported(python: str, module: str = "onnxruntime") -> str:
    """Return the version of a module that an interpreter imports."""
    attribute = "__version__" if module == "onnxruntime" else "version"
    command = [python, "-I", "-c", f"import {module}; print({module}.{attribute})"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()]


def failure(environments: RuntimeEnvironments, *runtime: str) -> str:
    with pytest.raises(EvaluationFailed) as caught:
        environments.python(runtime)
    return str(caught.value)


def test_without_a_runtime_it_is_this_interpreter_and_nothing_is_written(
    environments: RuntimeEnvironments, folder: Path
) -> None:
    assert environments.installed(()) == environments.python(()) == sys.executable
    assert not folder.exists()


def test_a_runtime_is_installed_when_it_is_asked_for_and_not_when_it_is_looked_up(
    environments: RuntimeEnvironments, folder: Path
) -> None:
    said: list[str] = []

    assert environments.installed(OPENVINO) is None
    assert not folder.exists()
    python = environments.python(OPENVINO, said.append)

    assert environments.installed(OPENVINO) == python
    assert imported(python) == "9.1.0"
    assert said == ["installing onnxruntime-openvino==9.1.0"]


def test_numpy_is_the_one_that_is_here_unless_it_is_pinned(environments: RuntimeEnvironments) -> None:
    assert imported(environments.python(STOCK), "numpy") == NUMPY
    assert imported(environments.python([*STOCK, "numpy==1.0"]), "numpy") == "1.0"


def test_what_is_installed_is_used_again_without_uv_and_by_others(
    environments: RuntimeEnvironments, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = environments.python(STOCK)
    monkeypatch.setattr(runtimes, "find_uv_bin", lambda: pytest.fail("uv was asked for"))

    assert environments.python(STOCK) == python
    assert RuntimeEnvironments(folder).python(["OnnxRuntime == 9.2.0"]) == python


def test_two_distributions_have_two_environments(environments: RuntimeEnvironments, folder: Path) -> None:
    pythons = [environments.python(runtime) for runtime in (STOCK, OPENVINO)]

    assert [imported(python) for python in pythons] == ["9.2.0", "9.1.0"]
    assert len(entries(folder)) == 2


def test_the_order_of_the_packages_makes_no_other_environment(environments: RuntimeEnvironments, index: Path) -> None:
    make_wheel(index, "some_ep", "1.0")
    packages = [*STOCK, "some-ep==1.0"]

    assert environments.python(packages) == environments.python(packages[::-1]) != environments.python(STOCK)


def test_another_python_has_another_environment(environments: RuntimeEnvironments, monkeypatch: pytest.MonkeyPatch) -> None:
    environments.python(STOCK)
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")

    assert environments.installed(STOCK) is None


def test_an_environment_whose_interpreter_is_gone_is_made_anew(environments: RuntimeEnvironments) -> None:
    python = Path(environments.python(STOCK))
    python.unlink()
    python.symlink_to("/nowhere/python")

    assert environments.installed(STOCK) is None
    assert imported(environments.python(STOCK)) == "9.2.0"


class TestFailures:
    def test_tell_the_reason_of_uv_and_what_to_do_and_leave_nothing(
        self, environments: RuntimeEnvironments, folder: Path, index: Path
    ) -> None:
        reason = failure(environments, "onnxruntime==9.9.9")

        assert reason.startswith("the runtime onnxruntime==9.9.9 is not installed: uv pip install failed: No solution found")
        assert "there is no version of onnxruntime==9.9.9" in reason
        assert "hint" not in reason
        assert "check `runtime` of the accelerator, the package index that uv is configured with" in reason
        assert entries(folder) == []
        runtime_wheel(index, "onnxruntime", "9.9.9")
        assert imported(environments.python(["onnxruntime==9.9.9"])) == "9.9.9"

    def test_are_told_to_all_who_were_waiting_and_not_to_who_comes_later(
        self, environments: RuntimeEnvironments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uv, log = fake_uv(tmp_path, "")
        monkeypatch.setattr(runtimes, "find_uv_bin", lambda: uv)
        reason = failure(environments, "onnxruntime==9.9.9")
        calls = log.read_text()

        with monkeypatch.context() as earlier:
            earlier.setattr("time.time", lambda: 0.0)
            assert failure(environments, "onnxruntime==9.9.9") == reason
        assert log.read_text() == calls
        assert failure(environments, "onnxruntime==9.9.9") == reason
        assert log.read_text() == calls * 2

    def test_name_packages_that_bring_a_second_distribution(self, environments: RuntimeEnvironments, index: Path) -> None:
        make_wheel(index, "some_ep", "1.0", "onnxruntime")

        reason = failure(environments, *OPENVINO, "some-ep==1.0")

        assert "brings onnxruntime and onnxruntime-openvino, which overwrite each other's files; pin packages" in reason

    def test_tell_why_onnxruntime_cannot_be_imported(
        self, environments: RuntimeEnvironments, index: Path, folder: Path
    ) -> None:
        runtime_wheel(index, "onnxruntime_gpu", "9.0.0", module="raise ImportError('no libcuda.so')")

        reason = failure(environments, "onnxruntime-gpu==9.0.0")

        assert "import onnxruntime failed: ImportError: no libcuda.so; check `runtime`" in reason
        assert entries(folder) == []

    def test_name_the_version_that_is_imported_where_it_is_another(
        self, environments: RuntimeEnvironments, index: Path
    ) -> None:
        runtime_wheel(index, "onnxruntime_webgpu", "9.4.0", module="__version__ = '9.3.0'")

        assert "imports onnxruntime 9.3.0, which is not what was pinned" in failure(environments, "onnxruntime-webgpu==9.4.0")

    def test_a_later_packaging_of_the_same_version_is_none(self, environments: RuntimeEnvironments, index: Path) -> None:
        runtime_wheel(index, "onnxruntime_rocm", "9.3.0.post3", module="__version__ = '9.3.0'")

        assert imported(environments.python(["onnxruntime-rocm==9.3.0.post3"])) == "9.3.0"

    def test_of_time_are_told(self, environments: RuntimeEnvironments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        uv, _ = fake_uv(tmp_path, "time.sleep(600)")
        monkeypatch.setattr(runtimes, "find_uv_bin", lambda: uv)
        monkeypatch.setattr(runtimes, "TIMEOUT_S", 0.1)

        assert "is not installed: uv venv took over 0.1 s" in failure(environments, *STOCK)

    @pytest.mark.parametrize(
        ("output", "reason"),
        [
            ("error: A\n  cause: B\n         more\n  cause: C\n\nhint: D\n", "A: C"),
            ("  × No solution:\n  ╰─▶ Because a and\n      b.\n", "No solution:: Because a and b"),
            ("error: A.\n", "A"),
            ("killed\n", "killed"),
            ("Traceback (most recent call last):\n  File\nImportError: a: b\n", "ImportError: a: b"),
            ("", ""),
        ],
    )
    def test_have_the_first_and_the_last_of_what_uv_says(self, output: str, reason: str) -> None:
        assert runtimes._reason(output) == reason


def write_wheels(folder: Path, version: str = "9.2.0", module: str | None = None) -> Path:
    """Write a folder with the wheels of a package and their requirements, pinned by digest."""
    folder.mkdir()
    make_wheel(folder, "numpy", NUMPY)
    runtime_wheel(folder, "onnxruntime", version, module=module)
    lines = [
        f"{name}=={found} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
        for wheel in sorted(folder.glob("*.whl"))
        for name, found in [wheel.name.split("-")[:2]]
    ]
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.usefixtures("nothing_else")
class TestWheelsOfAPackage:
    @pytest.fixture
    def nothing_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let uv find no wheels by itself, as on a machine without a network."""
        monkeypatch.delenv("UV_FIND_LINKS")

    def test_are_installed_without_a_network_and_nothing_else_is(
        self, environments: RuntimeEnvironments, folder: Path, tmp_path: Path
    ) -> None:
        python = environments.python_from_wheels(write_wheels(tmp_path / "wheels"))

        assert (imported(python), imported(python, "numpy")) == ("9.2.0", NUMPY)
        (environment,) = entries(folder)
        assert {path.name for path in environment.glob("lib/*/site-packages/*.dist-info")} == {
            f"numpy-{NUMPY}.dist-info",
            "onnxruntime-9.2.0.dist-info",
        }

    def test_of_the_same_digests_are_installed_once_wherever_they_lie(
        self, environments: RuntimeEnvironments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        python = environments.python_from_wheels(write_wheels(tmp_path / "wheels"))
        monkeypatch.setattr(runtimes, "find_uv_bin", lambda: pytest.fail("uv was asked for"))

        assert environments.python_from_wheels(write_wheels(tmp_path / "the same")) == python

    def test_of_another_digest_have_another_environment_though_names_and_versions_agree(
        self, environments: RuntimeEnvironments, tmp_path: Path
    ) -> None:
        python = environments.python_from_wheels(write_wheels(tmp_path / "wheels"))
        other = write_wheels(tmp_path / "other", module="__version__ = '9.2.0+built.anew'")

        assert imported(environments.python_from_wheels(other)) == "9.2.0+built.anew"
        assert imported(python) == "9.2.0"

    def test_that_many_ask_for_at_the_same_time_are_installed_once(
        self, environments: RuntimeEnvironments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uv, log = fake_uv(tmp_path, "")
        monkeypatch.setattr(runtimes, "find_uv_bin", lambda: uv)
        wheels = write_wheels(tmp_path / "wheels")

        with ThreadPoolExecutor(3) as pool:
            answers = set(pool.map(lambda _: environments.python_from_wheels(wheels), range(3)))

        assert len(answers) == 1
        assert log.read_text().splitlines() == ["venv --quiet", "pip install"]

    @pytest.mark.parametrize(
        ("harm", "reason"),
        [
            (lambda wheel: wheel.write_bytes(wheel.read_bytes() + b"\0"), "Hash mismatch"),
            (lambda wheel: wheel.unlink(), "onnxruntime was not found"),
        ],
        ids=["damaged", "missing"],
    )
    def test_that_are_not_what_their_digests_say_are_refused_and_leave_nothing(
        self,
        environments: RuntimeEnvironments,
        folder: Path,
        tmp_path: Path,
        harm: Callable[[Path], object],
        reason: str,
    ) -> None:
        wheels = write_wheels(tmp_path / "wheels")
        harm(wheels / "onnxruntime-9.2.0-py3-none-any.whl")

        with pytest.raises(EvaluationFailed, match=f"^the wheels of the package cannot be installed: uv pip install.*{reason}"):
            environments.python_from_wheels(wheels)

        assert entries(folder) == []

    def test_whose_onnxruntime_cannot_be_imported_are_refused_with_its_reason(
        self, environments: RuntimeEnvironments, tmp_path: Path
    ) -> None:
        wheels = write_wheels(tmp_path / "wheels", module="raise ImportError('no libstdc++.so.6')")

        with pytest.raises(EvaluationFailed, match=r"import onnxruntime failed: ImportError: no libstdc\+\+\.so\.6"):
            environments.python_from_wheels(wheels)


class TestManyProcesses:
    def test_that_ask_at_the_same_time_get_one_environment_which_is_installed_once(self, folder: Path, tmp_path: Path) -> None:
        uv, log = fake_uv(tmp_path, "")
        command = [sys.executable, "-c", ASK, str(folder), uv, *STOCK]
        asking = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]

        answers = {process.communicate(timeout=300)[0].strip() for process in asking}

        assert [process.returncode for process in asking] == [0] * 4
        assert len(answers) == 1
        assert imported(answers.pop()) == "9.2.0"
        assert log.read_text().splitlines() == ["venv --quiet", "pip install"]

    def test_one_that_dies_half_way_leaves_nothing_that_is_taken_for_complete(
        self, environments: RuntimeEnvironments, folder: Path, tmp_path: Path
    ) -> None:
        uv, _ = fake_uv(tmp_path, "if sys.argv[1] == 'pip': os.kill(os.getppid(), signal.SIGKILL); sys.exit(1)")

        died = subprocess.run([sys.executable, "-c", ASK, str(folder), uv, *STOCK], check=False)

        assert died.returncode == -signal.SIGKILL
        assert len(entries(folder)) == 1
        assert environments.installed(STOCK) is None
        assert imported(environments.python(STOCK)) == "9.2.0"

    def test_what_a_dead_one_has_left_running_keeps_others_waiting(self, folder: Path, tmp_path: Path) -> None:
        """A uv that goes on alone would write into an environment that another has begun anew."""
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        uv, _ = fake_uv(tmp_path, f"os.kill(os.getppid(), signal.SIGKILL); open({str(gate)!r}).read(); sys.exit(1)")
        subprocess.run([sys.executable, "-c", ASK, str(folder), uv, *STOCK], check=False, stdout=subprocess.DEVNULL)
        (lock,) = folder.glob("*.lock")

        with lock.open() as file:
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gate.write_text("go on")
            fcntl.flock(file, fcntl.LOCK_EX)


def test_a_download_that_breaks_off_may_pass_and_what_is_not_to_be_had_does_not(
    environments: RuntimeEnvironments, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EvaluationFailed) as missing:
        environments.python(["onnxruntime==9.9.9"])
    assert not missing.value.is_transient
    for name in ("OFFLINE", "NO_INDEX", "FIND_LINKS"):
        monkeypatch.delenv(f"UV_{name}")
    with breaking_index(index) as address:
        monkeypatch.setenv("UV_DEFAULT_INDEX", address)
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")
        with pytest.raises(EvaluationFailed, match="uv pip install failed") as broken:
            environments.python(STOCK)
    assert broken.value.is_transient
