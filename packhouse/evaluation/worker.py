"""The child process that runs one candidate: it holds the session and answers one JSON line per request.

It runs as a script with only numpy and onnxruntime, so that it works in the environment of any onnxruntime distribution,
and in a process of its own, so that a crash or an out-of-memory kill ends one candidate and nothing else. Requests come on
standard input as ``{"do": <name>, ...}``; answers go to what was standard output when it started.
"""

import ctypes
import functools
import gc
import importlib
import json
import os
import re
import resource
import signal
import stat
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

CPU = "CPUExecutionProvider"
NODES_ON_CPU = "nodes that are assigned to the default CPU EP"  # what onnxruntime says where that is forbidden
PLUGIN_FOLDER = "{plugin}"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]

# Where inputs and outputs of a provider are bound to, if not to main memory.
BOUND_DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda", "DmlExecutionProvider": "dml"}

DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
    "tensor(string)": "str",
}


class Refused(Exception):
    """The candidate cannot run as asked; the message is the reason that is reported."""


class Worker:
    """One candidate's session, the data it runs on, and what is asked of both."""

    def __init__(self) -> None:
        self.data: Arrays = {}
        self.feeds: list[Arrays] = []
        self.calls: list[Callable[[], object]] = []
        self.session: Any = None
        self.libraries: dict[str, str] = {}
        self.memory_before = 0
        self.next_sample = 0
        self.is_timed = False

    def read_data(self, path: str, inputs: dict[str, str]) -> dict[str, Any]:
        """Load the samples: `inputs` maps each model input to an array of the file."""
        with np.load(path, allow_pickle=False) as arrays:
            self.data = {name: arrays[key] for name, key in inputs.items()}
        return {"samples": len(next(iter(self.data.values())))}

    def providers(self) -> dict[str, Any]:
        """Return the execution providers that this onnxruntime was built with."""
        return {"providers": ort.get_available_providers()}

    def create_session(
        self,
        *,
        model: str,
        provider: str,
        provider_options: dict[str, str],
        session_options: dict[str, Any],
        dimensions: dict[str, int] | None = None,
        plugin: str | None = None,
        device: str = "cpu",
    ) -> dict[str, Any]:
        """Create the session on exactly `provider`; any node left to the CPU instead is a reason to refuse.

        The provider is built into onnxruntime, or comes with the module `plugin` and drives a device of the kind `device`.
        `dimensions` fixes the size of dynamic dimensions by name.
        """
        if not hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
            raise Refused(
                f"onnxruntime {ort.__version__} does not tell which provider runs each node, so nothing would prove that "
                f"{provider} does; use 1.24 or later"
            )
        self.memory_before = resident_bytes("VmRSS")
        devices = self._devices(plugin, provider, device) if plugin else None
        if devices is None and provider not in ort.get_available_providers():
            raise Refused(
                f"{provider} is not in this onnxruntime ({ort.__version__}); it has {', '.join(ort.get_available_providers())}"
            )
        folder = str(Path(self.libraries[provider]).parent) if devices else PLUGIN_FOLDER
        given = {key: value.replace(PLUGIN_FOLDER, folder) for key, value in provider_options.items()}
        self.new_session = functools.partial(
            _open, model, provider, devices, given, session_options=session_options, dimensions=dimensions or {}
        )
        started = time.perf_counter_ns()
        try:
            self.session = self.new_session()
        except Exception as error:
            if NODES_ON_CPU in str(error):
                fallen = self.new_session(node_fallback=True)
                raise Refused(_what_fell_back(fallen, provider)) from error
            if isinstance(error, RuntimeError | ValueError) and provider != CPU:  # what onnxruntime's constructor retries
                reason = f"{provider} failed to create the session, and onnxruntime's retry on the CPU is refused"
                raise Refused(f"{reason}: {_one_line(error)}") from error
            raise
        duration_ns = time.perf_counter_ns() - started
        placement = _placement(self.session)
        if set(placement) - {provider} or self.session.get_providers()[0] != provider:
            raise Refused(_what_fell_back(self.session, provider))
        self.input_types = {value.name: value.type for value in self.session.get_inputs()}
        self.fixed_batch = next(
            (value.shape[0] for value in self.session.get_inputs() if value.shape and isinstance(value.shape[0], int)),
            None,
        )
        return {"duration_ns": duration_ns, "placement": placement, "onnxruntime": ort.__version__}

    def occupy(self, cpus: list[int] | None, priority: int | None) -> dict[str, Any]:
        """Run on these CPUs only, with a fixed real-time priority, as far as this is allowed; return what came of it.

        Threads that are started from now on inherit both, so this belongs before the session is created.
        """
        pinned, scheduler = "not pinned", "SCHED_OTHER"
        if cpus is not None:
            try:
                os.sched_setaffinity(0, cpus)
                pinned = "CPU " + ", ".join(map(str, cpus))
            except (OSError, AttributeError) as error:
                pinned = f"not pinned ({error})"
        if priority is not None:
            try:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
                scheduler = f"SCHED_FIFO {priority}"
            except (OSError, AttributeError) as error:
                scheduler = f"SCHED_OTHER (SCHED_FIFO: {error})"
        return {"pinned": pinned, "scheduler": scheduler}

    def prepare_timing(self, batch_size: int, io_binding: bool = False) -> dict[str, Any]:
        """Cut the samples into the feeds that will be timed, and time the first inference of the session."""
        size = self.fixed_batch or batch_size
        limit = max(1, 256 // size) * size
        self.feeds = [feed for feed, _ in self._batches(size, limit)]
        self.is_bound = io_binding
        self._make_calls()
        return {"duration_ns": self.time(1)["wall_ns"][0], "batch_size": size}

    def renew_session(self, warmup: int, settled: float, max_s: float) -> dict[str, Any]:
        """Replace the session by a new one, elsewhere in memory, and warm it up.

        Returned are the median of its last runs in ns, and the number of all of them. Warm-up takes `warmup` runs at least,
        and until the medians of two blocks in a row differ by no more than the share `settled`, or `max_s` seconds have passed.
        """
        if self.is_timed:
            self._release_session()
            self.padding = np.ones(1 + int.from_bytes(os.urandom(3), "big") % (1 << 18), np.uint8)
            self.session = self.new_session()
            self._make_calls()
        self.is_timed = True
        block, done, previous = min(warmup, 10), 0, 0.0
        deadline = time.monotonic() + max_s
        while True:
            median = float(np.median(self.time(block)["wall_ns"]))
            done += block
            if done >= warmup and (abs(median - previous) <= settled * median or time.monotonic() > deadline):
                return {"median_ns": median, "runs": done}
            previous = median

    def time(self, runs: int, lead_in: int = 0) -> dict[str, Any]:
        """Run `runs` times, after `lead_in` times that do not count, cycling through the feeds.

        Returned are the wall time and the CPU time of this process for each run, in ns; the CPU time of all of it; and how
        often the system took the CPU away meanwhile.
        """
        calls = [self.calls[(self.next_sample + index) % len(self.calls)] for index in range(lead_in + runs)]
        wall, cpu = time.perf_counter_ns, time.process_time_ns
        walls, cpus = [], []
        began = cpu()
        for call in calls[:lead_in]:
            call()
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        for call in calls[lead_in:]:
            cpu_started = cpu()
            started = wall()
            call()
            ended = wall()
            cpus.append(cpu() - cpu_started)
            walls.append(ended - started)
        self.next_sample += lead_in + runs
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switches
        return {"wall_ns": walls, "cpu_ns": cpus, "turn_cpu_ns": cpu() - began, "involuntary_switches": switches}

    def predict(self, batch_size: int, output: str, samples: int | None = None) -> dict[str, Any]:
        """Run all samples, or the first so many, and write the outputs as arrays to the .npz file `output`."""
        names = [value.name for value in self.session.get_outputs()]
        parts: dict[str, list[Any]] = {name: [] for name in names}
        done = 0
        for feed, count in self._batches(self.fixed_batch or batch_size, samples, fill_last=self.fixed_batch is not None):
            for name, value in zip(names, self.session.run(names, feed), strict=True):
                if isinstance(value, np.ndarray):
                    parts[name].append(value[:count] if value.ndim else value[None])
            done += count
        arrays = {name: np.concatenate(values) for name, values in parts.items() if values}
        if not arrays and samples is None:
            raise Refused("none of its outputs is a tensor")
        with zipfile.ZipFile(output, "w") as file:
            for name, array in arrays.items():
                with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, _storable(array), allow_pickle=False)
        return {"outputs": list(arrays), "samples": done}

    def _make_calls(self) -> None:
        """Make one call for each feed, so that nothing but the runtime's work is between two readings of the clock."""
        names = [value.name for value in self.session.get_outputs()]
        call = self._bound_call if self.is_bound else self._call
        self.calls = [call(names, feed) for feed in self.feeds]

    def _call(self, names: list[str], feed: Arrays) -> Callable[[], object]:
        return functools.partial(self.session.run, names, feed)

    def _bound_call(self, names: list[str], feed: Arrays) -> Callable[[], object]:
        """Return a call whose inputs and outputs are bound to memory on the device."""
        provider = self.session.get_providers()[0]
        device = BOUND_DEVICES.get(provider, "cpu")
        number = int(self.session.get_provider_options().get(provider, {}).get("device_id", 0)) if device != "cpu" else 0
        binding = self.session.io_binding()
        for name, array in feed.items():
            if array.dtype == object:
                raise Refused(f"its input {name!r} holds texts, which cannot be bound; set timing.io_binding: false")
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, device, number))
        for name in names:
            binding.bind_output(name, device, number)
        self.session.run_with_iobinding(binding)
        outputs = binding.get_outputs()
        binding.clear_binding_outputs()
        for name, output in zip(names, outputs, strict=True):
            binding.bind_ortvalue_output(name, output)
        return functools.partial(self.session.run_with_iobinding, binding)

    def peak_memory(self) -> dict[str, Any]:
        """Return how far resident memory rose above what it was before the session, in bytes."""
        return {"bytes": max(0, resident_bytes("VmHWM") - self.memory_before)}

    def rest(self, seconds: int) -> dict[str, Any]:
        """Let go of session and data, and end the process unless `wake` is asked for within so many seconds."""
        self._release_session()
        self.data, self.feeds, self.is_timed, self.next_sample = {}, [], False, 0
        gc.collect()
        if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)
        signal.alarm(seconds)
        return {}

    def wake(self) -> dict[str, Any]:
        """Stay for another session."""
        signal.alarm(0)
        return {}

    def close(self) -> None:
        """Let go of the session, then of the plug-in libraries, which have to outlive it."""
        self._release_session()
        for name in self.libraries:
            ort.unregister_execution_provider_library(name)
        self.libraries = {}

    def _release_session(self) -> None:
        self.calls = []
        self.session = None
        gc.collect()

    def _devices(self, plugin: str, provider: str, kind: str) -> list[Any]:
        """Register the library of `plugin` if that is not done, and return the device that its provider is to drive."""
        if not hasattr(ort, "register_execution_provider_library"):
            raise Refused(f"onnxruntime {ort.__version__} takes no plug-in providers; use 1.24 or later")
        others = {device.ep_name for device in ort.get_ep_devices()}
        if provider not in self.libraries:
            library = _library_of(plugin)
            try:
                ort.register_execution_provider_library(provider, library)
            except Exception as error:
                raise Refused(
                    f"onnxruntime {ort.__version__} cannot load the library of {plugin}: {_one_line(error)}"
                ) from error
            self.libraries[provider] = library
        found = ort.get_ep_devices()
        mine = [device for device in found if device.ep_name == provider]
        if not mine:
            names = sorted({device.ep_name for device in found} - others)
            what = f"has no {provider}, but {', '.join(names)}" if names else f"finds no device here for {provider}"
            raise Refused(f"{plugin} {what}")
        kinds = [device.device.type.name.lower() for device in mine]
        if kind not in kinds:
            raise Refused(f"{provider} of {plugin} drives a {kinds[0]} here, and no {kind}; write device: {kinds[0]}")
        return [mine[kinds.index(kind)]]

    def _batches(self, size: int, limit: int | None = None, *, fill_last: bool = True) -> Iterator[tuple[Arrays, int]]:
        """Yield feeds of `size` samples and how many of them are new; the last one may be filled up from the start.

        It is left short where the model allows: what else is in a batch can matter, as with dynamic quantisation.
        """
        total = len(next(iter(self.data.values())))
        for start in range(0, min(total, limit or total), size):
            index = np.arange(start, start + size if fill_last else min(start + size, total)) % total
            feed = {name: _as_input(array[index], self.input_types[name]) for name, array in self.data.items()}
            yield feed, min(size, total - start)


def _open(
    model: str,
    provider: str,
    devices: list[Any] | None,
    provider_options: dict[str, str],
    *,
    session_options: dict[str, Any],
    dimensions: dict[str, int],
    node_fallback: bool = False,
) -> Any:
    """Create a session on `provider`, or on the devices of a plug-in; only to explain a refusal may nodes go to the CPU."""
    options = _session_options(session_options)
    for name, size in dimensions.items():
        options.add_free_dimension_override_by_name(name, size)
    if provider != CPU and not node_fallback:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if devices:
        options.add_provider_for_devices(devices, provider_options)
        return ort.InferenceSession(model, options, enable_fallback=0)
    return ort.InferenceSession(model, options, providers=[provider], provider_options=[provider_options], enable_fallback=0)


def _session_options(settings: dict[str, Any]) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    for name, value in settings.items():
        if value is None:
            continue
        if name == "extra_session_config":
            for key, entry in value.items():
                options.add_session_config_entry(key, entry)
        elif name == "execution_mode":
            options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if value else ort.ExecutionMode.ORT_SEQUENTIAL
        elif name == "graph_optimization_level":
            options.graph_optimization_level = ort.GraphOptimizationLevel(value)
        else:
            setattr(options, name, value)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _library_of(plugin: str) -> str:
    """Return the library of a plug-in package, by the convention that such packages follow."""
    try:
        module = importlib.import_module(plugin)
    except ImportError as error:
        raise Refused(f"the plug-in {plugin} cannot be imported ({error}); is its package in this environment?") from error
    if not hasattr(module, "get_library_path"):
        raise Refused(f"{plugin} has no get_library_path(), so it is no plug-in provider")
    return str(module.get_library_path())


def _placement(session: Any) -> dict[str, int]:
    """Count the nodes that each provider runs."""
    counts: dict[str, int] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        counts[subgraph.ep_name] = counts.get(subgraph.ep_name, 0) + len(subgraph.get_nodes())
    return counts


def _what_fell_back(session: Any, provider: str) -> str:
    """Say what of a session is not on `provider`: single nodes, or everything because the provider did not start."""
    if provider not in session.get_providers():
        return (
            f"{provider} is in onnxruntime {ort.__version__} and does not work here; all would run on the CPU" + _logged_error()
        )
    placement = _placement(session)
    strays = ", ".join(f"{count} on {name}" for name, count in placement.items() if name != provider)
    elsewhere = [part for part in session.get_provider_graph_assignment_info() if part.ep_name != provider]
    operators = ", ".join(sorted({node.op_type for part in elsewhere for node in part.get_nodes()}))
    return f"{provider} does not take all of its nodes: {placement.get(provider, 0)} run there, {strays} ({operators})"


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _logged_error() -> str:
    """Return the last cause that onnxruntime logged, where standard error is a file; its exceptions do not always have it."""
    log = Path("/proc/self/fd/2")
    if not log.exists() or not stat.S_ISREG(os.fstat(2).st_mode):
        return ""
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
    causes = [line for line in re.findall(r"\[E:onnxruntime.*?\] (.*)", text) if NODES_ON_CPU not in line]
    return f": {causes[-1].strip()}" if causes else ""


def _as_input(array: Any, onnx_type: str) -> Any:
    dtype = DTYPES.get(onnx_type)
    if dtype is None:
        raise Refused(f"it has an input of type {onnx_type}, which cannot be fed from an array")
    return np.ascontiguousarray(array.astype(object if dtype == "str" else dtype, copy=False))


def _storable(array: Any) -> Any:
    return array.astype(str) if array.dtype == object else array


def resident_bytes(field: str) -> int:
    """Return VmRSS (now) or VmHWM (highest so far) of this process; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith(field)), 0)


def main() -> None:
    """Answer requests until standard input ends, or the parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(worker, request.pop("do"))(**request)}
        except Refused as error:
            answer = {"refused": str(error)}
        except Exception as error:  # noqa: BLE001 - whatever a provider raises is the reason
            answer = {"refused": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
    worker.close()


if __name__ == "__main__":
    main()
