"""What does an evaluation cost, compared with plain onnxruntime and with Olive?

All evaluate the same candidates on the same labelled images, on one thread: accuracy over all of them in batches of 32, and
median and average latency of one image. They run in turn, and what counts is **CPU seconds of the whole process tree**, as
ratios found in each repeat: wall time on a shared machine says little.

- ``ours``: the evaluator alone, without Prefect: `evaluate` for each candidate, then one tournament for all in the same
  workers. What they use is all in the last phase, since they end with it.
- ``plain``: one process per candidate with only onnxruntime and numpy, which runs as often as ours did. The floor.
- ``plain, one process``: the same for all candidates in one process.
- ``Olive``: Olive's evaluator alone, all candidates in one process, with as many timed runs and warm-up runs as ours had.
- ``packhouse run``: the whole command for the tiny family, with a temporary Prefect API, and with one that is already
  there, whose work counts.
- ``olive run``: one whole command per candidate, which evaluates and does nothing else (``CI=1``: it need not send telemetry).
  Where there are more than six candidates, six are run, and what they take is multiplied.

Candidates are those of the digits example (``tiny``: less than 0.3 ms), and deeper convolutional networks with random
weights (``mid``: 5 to 10 ms), so that both start-up and steady state are seen. Olive gets an environment of its own in the
cache folder, made by uv; where that fails, it is left out. Bytecode is compiled by a repeat that does not count.

A command has costs that its candidates share, and one per candidate has not, so what is found depends on their number:
``--counts 6 20`` runs the whole commands for so many of the tiny candidates.

usage: python -m benchmarks.evaluation [--families tiny mid] [--repeats 5] [--commands 2] [--counts 6 20] [--cache FOLDER]
                                       [--json FILE]
"""

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.olive import CACHE, olive_environment
from packhouse.demo import make_demo

ROOT = Path(__file__).parent.parent
PROGRAMS = Path(__file__).parent / "evaluators"
# requests is missing from what Olive 0.13 asks for, and it breaks with newer versions of pydantic.
OLIVE = ("olive-ai==0.13.*", "requests", "pydantic<2.14")
SAME_VERSION = ("onnxruntime", "numpy")
BATCH_SIZE = 32
DEPTHS, CHANNELS = (8, 9, 10), 256  # the mid-size family
CLASSES = 10
OLIVE_COMMANDS = 6  # more would be the same again
FLOOR = "plain"
MISSED = 1e-6  # accuracies that differ by more are different
IMPORTS = {
    "numpy, onnxruntime": "import numpy, onnxruntime",
    "packhouse's evaluator": "import packhouse.evaluation.evaluate, packhouse.evaluation.timing",
    "packhouse's flow": "import flows.package_models",
}
OLIVE_IMPORTS = {"olive's evaluator": "import olive.evaluator.olive_evaluator, olive.systems.local"}


@dataclass(frozen=True)
class Machine:
    """Where the programs run: the interpreters, the environment variables, and the folder for what is kept."""

    cache: Path
    olive: Path | None

    @property
    def variables(self) -> dict[str, str]:
        """Return the environment: bytecode is kept in the cache folder, whatever is set, and Prefect's files too."""
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONDONTWRITEBYTECODE", "PREFECT_API_URL")}
        ours = {
            "PYTHONPATH": str(ROOT),
            "PYTHONPYCACHEPREFIX": str(self.cache / "bytecode"),
            "PREFECT_HOME": str(self.cache / "prefect"),
            "CI": "1",
        }
        return kept | ours

    def cpu_s(self, command: Sequence[str | Path], folder: Path, **variables: str) -> float:
        """Run a program and return the CPU seconds of it and its children, user and system. Raises RuntimeError."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, cwd=folder, env=self.variables | variables, capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise RuntimeError(f"{command} ended with exit code {done.returncode}: {(done.stderr or done.stdout)[-2000:]}")
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def import_s(self, python: Path | str, statement: str, folder: Path) -> float:
        """Return the CPU seconds of an interpreter that executes a statement, less those of one that does not."""
        return self.cpu_s([python, "-c", statement], folder) - self.cpu_s([python, "-c", "pass"], folder)


@dataclass
class Repeat:
    """One turn of all sides: CPU seconds by side, the phases of ours, and what was found by side and candidate."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    found: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)


class Family:
    """Some candidates, and a folder in which they are evaluated."""

    def __init__(self, name: str, machine: Machine, folder: Path, count: int | None = None) -> None:
        """Make the candidates; `count` of the tiny ones, by taking those of the example again under other names."""
        self.name, self._machine, self._folder = name, machine, folder
        make_demo(folder, lambda _: None)
        if name == "mid":
            for path in (folder / "candidates").iterdir():
                path.unlink()
            for depth in DEPTHS:
                write_convolutions(folder / "candidates" / f"depth-{depth}.onnx", depth)
        elif count is not None:
            self._repeat_candidates(folder / "candidates", count)
        self.models = {path.stem: path for path in sorted((folder / "candidates").iterdir())}
        self._config = folder / "evaluate.json"
        self._config.write_text(json.dumps(self._our_config()))

    def repeat(self) -> Repeat:
        """Let each side evaluate all candidates once."""
        done = Repeat()
        task, outcome = self._folder / "task.json", self._folder / "outcome.json"
        base = {"models": {name: str(path) for name, path in self.models.items()}, "data": str(self._data)}
        task.write_text(json.dumps({"config": str(self._config)}))
        done.cpu_s["ours"] = self._run(sys.executable, "ours.py", task, outcome)
        ours = json.loads(outcome.read_text())
        done.phases, done.found["ours"] = ours["phases"], ours["candidates"]
        done.cpu_s["ours"] -= sum(value for phase, value in done.phases.items() if phase.startswith("an idle worker"))
        runs = {name: {"warmup": item["warmup"], "timed": item["timed"]} for name, item in ours["candidates"].items()}
        task.write_text(json.dumps({**base, "batch_size": BATCH_SIZE, "runs": runs, "workflows": self._workflows(runs)}))
        done.cpu_s[FLOOR], done.found[FLOOR] = 0.0, {}
        for name in self.models:
            done.cpu_s[FLOOR] += self._run(sys.executable, "plain.py", task, outcome, name)
            done.found[FLOOR] |= json.loads(outcome.read_text())
        done.cpu_s["plain, one process"] = self._run(sys.executable, "plain.py", task, outcome)
        if self._machine.olive:
            done.cpu_s["Olive"] = self._run(self._machine.olive, "on_olive.py", task, outcome)
            done.found["Olive"] = json.loads(outcome.read_text())
        return done

    def commands(
        self, url: str, server: int, runs: Mapping[str, Mapping[str, int]], limit: int | None = None
    ) -> dict[str, float]:
        """Return the CPU seconds of whole commands for all candidates; `url` is of the Prefect API that process `server` is.

        Olive is run for no more than `limit` of them, and what that takes is multiplied: its commands share nothing.
        """
        packhouse: list[Path | str] = [sys.executable, "-m", "flows.cli", "run", self._config]
        found = {}
        with tempfile.TemporaryDirectory(dir=self._folder) as results:
            found["packhouse run, temporary API"] = self._machine.cpu_s(
                packhouse, self._folder, PREFECT_RESULTS_LOCAL_STORAGE_PATH=results
            )
        with tempfile.TemporaryDirectory(dir=self._folder) as results:
            before = cpu_s_of(server)
            found["packhouse run, running API"] = self._machine.cpu_s(
                packhouse, self._folder, PREFECT_RESULTS_LOCAL_STORAGE_PATH=results, PREFECT_API_URL=url
            )
            found["packhouse run, running API"] += cpu_s_of(server) - before
        if self._machine.olive:
            command = self._machine.olive.with_name("olive")
            found["olive run"] = 0.0
            workflows = list(self._workflows(runs).values())
            for workflow in workflows[:limit]:
                with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                    found["olive run"] += self._machine.cpu_s([command, "run", "--config", workflow], Path(folder))
            found["olive run"] *= len(workflows) / len(workflows[:limit])
        return found

    @staticmethod
    def _repeat_candidates(folder: Path, count: int) -> None:
        """Add copies until there are so many; each says in its description which it is, so that it has a digest of its own."""
        originals = sorted(folder.iterdir())
        for number in range(len(originals), count):
            original = originals[number % len(originals)]
            model = onnx.load(original)
            model.doc_string = f"copy {number}"
            onnx.save(model, folder / f"{original.stem}-{number}.onnx")
        for surplus in originals[count:]:
            surplus.unlink()

    @property
    def _data(self) -> Path:
        return self._folder / "evaluation.npz"

    def _run(self, python: Path | str, program: str, *arguments: Path | str) -> float:
        return self._machine.cpu_s([python, "-P", PROGRAMS / program, *arguments], self._folder)

    def _our_config(self) -> dict[str, Any]:
        return {
            "candidates": {"type": "folder", "path": str(self._folder / "candidates")},
            "data": {"path": str(self._data), "labels": "label", "ids": "id", "batch_size": BATCH_SIZE},
            "accelerators": [{"session_options": {"intra_op_num_threads": 1}}],
            "metrics": [
                {"name": "accuracy", "type": "accuracy", "sub_types": [{"name": "accuracy_score", "priority": 1}]},
                {"name": "latency", "type": "latency", "sub_types": [{"name": "p50", "priority": 2}, {"name": "avg"}]},
            ],
            "output_dir": str(self._folder / "packages"),
        }

    def _workflows(self, runs: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
        """Write an Olive configuration for each candidate, and return the paths by name."""
        paths = {}
        for name, model in self.models.items():
            paths[name] = self._folder / f"{name}.olive.json"
            paths[name].write_text(json.dumps(self._olive_config(model, runs[name])))
        return {name: str(path) for name, path in paths.items()}

    def _olive_config(self, model: Path, runs: Mapping[str, int]) -> dict[str, Any]:
        def samples(name: str, batch_size: int) -> dict[str, Any]:
            return {
                "name": name,
                "user_script": str(PROGRAMS / "on_olive.py"),
                "load_dataset_config": {"type": "benchmark_samples", "params": {"path": str(self._data)}},
                "post_process_data_config": {"type": "benchmark_class"},
                "dataloader_config": {"batch_size": batch_size},
            }

        counts = {"warmup_num": runs["warmup"], "repeat_test_num": runs["timed"], "sleep_num": 0}
        classes = {"task": "multiclass", "num_classes": CLASSES, "average": "micro"}
        accuracy = {
            "name": "accuracy",
            "type": "accuracy",
            "backend": "torch_metrics",
            "data_config": samples("batches", BATCH_SIZE),
            "sub_types": [{"name": "accuracy_score", "priority": 1, "metric_config": classes}],
        }
        latency = {
            "name": "latency",
            "type": "latency",
            "data_config": samples("singles", 1),
            "sub_types": [
                {"name": "p50", "priority": 2, "metric_config": counts},
                {"name": "avg", "priority": 3, "metric_config": counts},
            ],
        }
        return {
            "input_model": {
                "type": "ONNXModel",
                "model_path": str(model),
                "inference_settings": {"session_options": {"intra_op_num_threads": 1}},
            },
            "systems": {
                "here": {
                    "type": "LocalSystem",
                    "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
                }
            },
            "evaluators": {"evaluator": {"metrics": [accuracy, latency]}},
            "evaluator": "evaluator",
            "host": "here",
            "target": "here",
            "evaluate_input_model": True,
            "cache_dir": "cache",
            "output_dir": "output",
        }


def write_convolutions(path: Path, depth: int) -> None:
    """Write a network of so many 3 × 3 convolutions with random weights: image (batch, 1, 8, 8) to logits (batch, 10)."""
    generator = np.random.default_rng(depth)
    nodes, weights, value = [], [], "image"
    for layer in range(depth):
        shape = (CHANNELS, 1 if layer == 0 else CHANNELS, 3, 3)
        scale = np.float32(np.sqrt(2 / (shape[1] * 9)))
        weights.append(numpy_helper.from_array(generator.standard_normal(shape, np.float32) * scale, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [value, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        value = f"r{layer}"
    weights.append(numpy_helper.from_array(generator.standard_normal((CHANNELS, CLASSES), np.float32), "w"))
    nodes += [
        helper.make_node("GlobalAveragePool", [value], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "w"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@contextmanager
def prefect_api(machine: Machine) -> Iterator[tuple[str, int]]:
    """Serve a Prefect API, and give its URL and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-P", ROOT / "flows" / "temporary_api.py", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    home = {"PREFECT_HOME": str(machine.cache / "prefect-server")}
    with subprocess.Popen(command, env=machine.variables | home, **quiet) as process:  # type: ignore[call-overload]
        try:
            while True:
                try:
                    httpx.get(f"{url}/health").raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.5)
            yield url, process.pid
        finally:
            process.terminate()


def cpu_s_of(process: int) -> float:
    """Return the CPU seconds that a running process has used, user and system."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return median and range as text."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def print_family(family: Family, repeats: Sequence[Repeat]) -> None:
    """Print CPU seconds per candidate and their ratios to the floor, and what ours is made of."""
    count = len(family.models)
    runs = repeats[-1].found["ours"]
    timed, warmup = ([int(item[key]) for item in runs.values()] for key in ("timed", "warmup"))
    latency = [item["p50"] for item in runs.values()]
    print(f"\n{family.name}: {count} candidates, p50 {min(latency):.3f}-{max(latency):.3f} ms, n = {len(repeats)};", end=" ")
    print(f"runs for latency: {min(timed)}-{max(timed)} after {min(warmup)}-{max(warmup)} that do not count\n")
    print(f"{'':32} {'CPU s a candidate':>22} {'x plain':>20}")
    for side in repeats[0].cpu_s:
        seconds = [item.cpu_s[side] / count for item in repeats]
        ratios = [item.cpu_s[side] / item.cpu_s[FLOOR] for item in repeats]
        print(f"{side:32} {spread(seconds, 3):>22} {spread(ratios):>20}")
    print("\nours, CPU s a candidate")
    for phase in repeats[0].phases:
        once = phase.startswith("an idle worker")
        values = [item.phases[phase] / (1 if once else count) for item in repeats]
        print(f"  {phase:30} {spread(values, 3):>22}" + ("  (not part of it; one is, for each candidate)" if once else ""))
    for side, found in repeats[-1].found.items():
        for name, metrics in found.items():
            if abs(metrics["accuracy"] - runs[name]["accuracy"]) > MISSED:
                print(f"{side} finds another accuracy for {name}: {metrics['accuracy']} instead of {runs[name]['accuracy']}")


def print_commands(family: Family, commands: Sequence[Mapping[str, float]]) -> None:
    """Print CPU seconds per candidate of whole commands, and how often more Olive's take."""
    count = len(family.models)
    print(f"\n{count} of {family.name}: whole commands, n = {len(commands)}")
    print(f"{'':32} {'CPU s a candidate':>22} {'olive run, x':>20}")
    for side in commands[0]:
        seconds = [item[side] / count for item in commands]
        ratios = [item["olive run"] / item[side] for item in commands] if "olive run" in commands[0] else []
        print(f"{side:32} {spread(seconds, 3):>22} {spread(ratios) if ratios else '':>20}")


def main() -> None:
    """Run the comparison and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=("tiny", "mid"), default=["tiny", "mid"], help="candidates (both)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of all evaluators (5)")
    parser.add_argument("--commands", type=int, default=2, help="turns of the whole commands (2; 0 for none)")
    parser.add_argument("--counts", type=int, nargs="*", default=[6, 20], help="tiny candidates of the whole commands (6 20)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for Olive's environment, several GB (%(default)s)")
    parser.add_argument("--without-olive", action="store_true", help="leave Olive out")
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    options = parser.parse_args()
    cache = options.cache.absolute()
    cache.mkdir(parents=True, exist_ok=True)
    versions = [f"{name}=={__import__(name).__version__}" for name in SAME_VERSION]
    machine = Machine(cache, None if options.without_olive else olive_environment(cache / "olive", *OLIVE, *versions))
    print(f"{os.cpu_count()} CPUs, load before {os.getloadavg()[0]:.1f}")
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="packhouse-benchmark-") as name, prefect_api(machine) as (url, server):
        folder = Path(name)
        for chosen in options.families:
            family = Family(chosen, machine, folder / chosen)
            if chosen == options.families[0]:
                family.repeat()
            repeats = [family.repeat() for _ in range(options.repeats)]
            print_family(family, repeats)
            measured[chosen] = {"repeats": [vars(item) for item in repeats]}
        for count in options.counts if options.commands else ():
            family = Family("tiny", machine, folder / f"tiny-{count}", count)
            runs: Any = family.repeat().found["ours"]
            family.commands(url, server, runs, limit=1)
            commands = [family.commands(url, server, runs, limit=OLIVE_COMMANDS) for _ in range(options.commands)]
            print_commands(family, commands)
            measured[f"commands for {count}"] = commands
        programs = [(sys.executable, item) for item in IMPORTS.items()]
        programs += [(str(machine.olive), item) for item in OLIVE_IMPORTS.items()] if machine.olive else []
        print("\nCPU s of an import")
        for python, (what, statement) in programs:
            seconds = [machine.import_s(python, statement, folder) for _ in range(options.repeats + 1)][1:]
            print(f"  {what:30} {spread(seconds):>22}")
            measured.setdefault("imports", {})[what] = seconds
    print(f"\nload after {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
