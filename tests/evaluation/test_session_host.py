"""The two ends of a worker process: whatever happens to it becomes a reason, and it never outlives who asked."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from packhouse.errors import EvaluationFailed
from packhouse.evaluation import session_host
from packhouse.evaluation.session_host import SessionHost

ECHO = """
import json, os, signal, sys, time
for line in sys.stdin:
    request = json.loads(line)
    sys.stderr.write("doing " + request["do"] + "\\n")
    sys.stderr.flush()
    if request["do"] == "kill":
        os.kill(os.getpid(), request["signal"])
    if request["do"] == "exit":
        sys.exit(request["code"])
    if request["do"] == "hang":
        time.sleep(600)
    if request["do"] == "stutter":
        print('{"ok": {"samples"', end="", flush=True)
        os._exit(1)
    print(json.dumps({"refused": "no"} if request["do"] == "refuse" else {"ok": request}), flush=True)
"""
# The real worker, with one request that writes to what native code takes for standard output.
NOISY = """
import os, sys
from packhouse.evaluation import worker
def providers(self, plain=worker.Worker.providers):
    os.write(1, b'native noise\\n{"ok": {}}\\n')
    print("noise of Python")
    sys.stdout.flush()
    return plain(self)
worker.Worker.providers = providers
worker.main()
"""
UseWorker = Callable[[str], None]


@pytest.fixture
def use_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UseWorker:
    """A function that puts a script in the place of the worker."""

    def use(script: str) -> None:
        (tmp_path / "worker.py").write_text(script)
        monkeypatch.setattr(session_host, "WORKER", tmp_path / "worker.py")

    return use


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class TestAnswers:
    def test_an_answer_is_what_the_worker_says(self, tmp_path: Path, use_worker: UseWorker) -> None:
        use_worker(ECHO)

        with SessionHost(tmp_path) as host:
            assert host.ask("echo", text="Grüße\n", numbers=[1, 2.5]) == {"do": "echo", "text": "Grüße\n", "numbers": [1, 2.5]}
            assert host.ask("again") == {"do": "again"}

    def test_an_answer_may_be_longer_than_a_pipe_holds(self, tmp_path: Path, use_worker: UseWorker) -> None:
        use_worker(ECHO)

        with SessionHost(tmp_path) as host:
            assert host.ask("echo", samples=[*range(200_000)])["samples"][-1] == 199_999

    def test_a_refusal_is_the_reason(self, tmp_path: Path, use_worker: UseWorker) -> None:
        use_worker(ECHO)

        with SessionHost(tmp_path) as host:
            with pytest.raises(EvaluationFailed, match=r"^no$"):
                host.ask("refuse")
            assert host.ask("echo") == {"do": "echo"}

    def test_what_native_code_prints_does_not_get_between_the_answers(self, tmp_path: Path, use_worker: UseWorker) -> None:
        use_worker(NOISY)

        with SessionHost(tmp_path) as host:
            answers = [host.ask("providers") for _ in range(2)]

        assert all("CPUExecutionProvider" in answer["providers"] for answer in answers)
        log = (tmp_path / "worker.log").read_text()
        assert (log.count("native noise"), log.count("noise of Python")) == (2, 2)

    @pytest.mark.parametrize("request_name", ["fly", "__init__", "create_session"])
    def test_a_request_that_the_worker_does_not_know_is_refused(self, tmp_path: Path, request_name: str) -> None:
        with SessionHost(tmp_path) as host:
            with pytest.raises(EvaluationFailed, match="Error"):
                host.ask(request_name, how="fast")
            assert "CPUExecutionProvider" in host.ask("providers")["providers"]


class TestDeaths:
    @pytest.mark.parametrize(
        ("number", "what"),
        [
            (signal.SIGKILL, "its process was killed by SIGKILL during 'kill' (out of memory?): doing kill"),
            (signal.SIGSEGV, "its process was killed by SIGSEGV during 'kill': doing kill"),
            (signal.SIGABRT, "its process was killed by SIGABRT during 'kill': doing kill"),
            (signal.SIGTERM, "its process was killed by SIGTERM during 'kill': doing kill"),
        ],
    )
    def test_a_signal_is_named(self, tmp_path: Path, use_worker: UseWorker, number: int, what: str) -> None:
        use_worker(ECHO)

        with SessionHost(tmp_path) as host:
            with pytest.raises(EvaluationFailed) as caught:
                host.ask("kill", signal=number)
            assert str(caught.value) == what
            with pytest.raises(EvaluationFailed, match=f"was killed by {signal.Signals(number).name} during 'echo'"):
                host.ask("echo")

    @pytest.mark.parametrize("code", [0, 3])
    def test_an_exit_code_is_told(self, tmp_path: Path, use_worker: UseWorker, code: int) -> None:
        use_worker(ECHO)

        with SessionHost(tmp_path) as host, pytest.raises(EvaluationFailed) as caught:
            host.ask("exit", code=code)

        assert str(caught.value) == f"its process ended with exit code {code} during 'exit': doing exit"

    def test_the_last_line_of_a_traceback_is_told(self, tmp_path: Path, use_worker: UseWorker) -> None:
        use_worker("raise ImportError('no onnxruntime here')")

        with SessionHost(tmp_path) as host, pytest.raises(EvaluationFailed) as caught:
            host.ask("echo")

        assert str(caught.value) == "its process ended with exit code 1 during 'echo': ImportError: no onnxruntime here"

    def test_a_death_without_last_words_is_told_too(self, tmp_path: Path, use_worker: UseWorker) -> None:
        use_worker("import os; os._exit(7)")

        with SessionHost(tmp_path) as host, pytest.raises(EvaluationFailed) as caught:
            host.ask("echo")

        assert str(caught.value) == "its process ended with exit code 7 during 'echo'"

    def test_half_an_answer_is_none(self, tmp_path: Path, use_worker: UseWorker) -> None:
        use_worker(ECHO)

        with SessionHost(tmp_path) as host, pytest.raises(EvaluationFailed, match="ended with exit code 1 during 'stutter'"):
            host.ask("stutter")

    def test_others_go_on(self, tmp_path: Path, use_worker: UseWorker) -> None:
        use_worker(ECHO)
        (tmp_path / "other").mkdir()

        with SessionHost(tmp_path) as host, SessionHost(tmp_path / "other") as other:
            with pytest.raises(EvaluationFailed):
                host.ask("kill", signal=signal.SIGKILL)
            assert other.ask("echo") == {"do": "echo"}

    def test_a_worker_that_hangs_is_stopped(self, tmp_path: Path, use_worker: UseWorker) -> None:
        use_worker(ECHO)

        with SessionHost(tmp_path, timeout_s=0.1) as host:
            with pytest.raises(EvaluationFailed) as caught:
                host.ask("hang")
            host._process.wait(timeout=60)
            assert not is_running(host.pid)

        assert str(caught.value) == "it did not finish 'hang' within 0.1 s and was stopped"


class TestEnd:
    def test_the_worker_is_gone_when_the_host_is(self, tmp_path: Path) -> None:
        with SessionHost(tmp_path) as host:
            host.ask("providers")
            assert is_running(host.pid)

        assert not is_running(host.pid)

    def test_a_busy_worker_is_gone_after_an_exception(self, tmp_path: Path, use_worker: UseWorker) -> None:
        use_worker("import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)")
        hosts = []

        def fail() -> None:
            with SessionHost(tmp_path) as host:
                hosts.append(host)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fail()

        assert not is_running(hosts[0].pid)

    def test_the_worker_does_not_outlive_a_killed_parent(self, tmp_path: Path) -> None:
        script = (
            "import sys, time; from pathlib import Path; from packhouse.evaluation.session_host import SessionHost\n"
            "with SessionHost(Path(sys.argv[1])) as host:\n"
            "    host.ask('providers'); print(host.pid, flush=True); time.sleep(600)"
        )
        with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout
            assert select.select([parent.stdout], [], [], 60)[0]
            worker = int(parent.stdout.readline())
            assert is_running(worker)
            parent.kill()

        deadline = time.monotonic() + 60
        while is_running(worker) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_running(worker)


def test_the_worker_needs_only_numpy_and_onnxruntime(tmp_path: Path) -> None:
    """It runs in the environments of other onnxruntime distributions, where Packhouse is not installed."""
    for name in ("packhouse", "onnx", "pydantic", "sklearn", "prefect"):
        (tmp_path / "hidden").mkdir(exist_ok=True)
        (tmp_path / "hidden" / f"{name}.py").write_text("raise ImportError(__name__)")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "hidden")}

    done = subprocess.run(
        [sys.executable, "-P", str(session_host.WORKER)],
        check=True,
        input=json.dumps({"do": "providers"}) + "\n",
        capture_output=True,
        text=True,
        env=environment,
    )

    assert "CPUExecutionProvider" in json.loads(done.stdout)["ok"]["providers"]


def test_the_worker_of_another_interpreter_takes_nothing_from_the_path_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PYTHONPATH stands before the packages of an environment, and would put another onnxruntime in the place of its own."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "onnxruntime.py").write_text("raise ImportError('the wrong one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)

    with SessionHost(tmp_path, str(python)) as host:
        assert "CPUExecutionProvider" in host.ask("providers")["providers"]
