"""The child process that runs one candidate: it holds the session and answers one JSON line per request.

It runs as a script with only numpy and onnxruntime, so that it works in the environment of any onnxruntime distribution,
and in a process of its own, so that a crash or an out-of-memory kill ends one candidate and nothing else. Requests come on
standard input as ``{"do": <name>, ...}``; answers go to what was standard output when it started.
"""

import ctypes
import functools
import gc
import json
import os
import resource
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

CPU = "CPUExecutionProvider"
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
        self.memory_before = 0
        self.next_sample = 0
        self.is_timed = False
        self.random = np.random.default_rng()

    def read_data(self, path: str, inputs: dict[str, str]) -> dict[str, Any]:
        """Load the samples: `inputs` maps each model input to an array of the file."""
        with np.load(path, allow_pickle=False) as arrays:
            self.data = {name: arrays[key] for name, key in inputs.items()}
        return {"samples": len(next(iter(self.data.values())))}

    def providers(self) -> dict[str, Any]:
        """Return the execution providers that this onnxruntime was built with."""
        return {"providers": ort.get_available_providers()}

    def create_session(
        self, model: str, provider: str, provider_options: dict[str, str], session_options: dict[str, Any]
    ) -> dict[str, Any]:
        """Create the session on exactly `provider`; any node left to the CPU instead is a reason to refuse."""
        if provider not in ort.get_available_providers():
            raise Refused(
                f"{provider} is not in this onnxruntime ({ort.__version__}); it has {', '.join(ort.get_available_providers())}"
            )
        self.memory_before = resident_bytes("VmRSS")
        options = _session_options(session_options)
        if provider != CPU:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        self._new_session = functools.partial(
            ort.InferenceSession,
            model,
            options,
            providers=[provider],
            provider_options=[provider_options],
            enable_fallback=0,
        )
        started = time.perf_counter_ns()
        self.session = self._new_session()
        duration_ns = time.perf_counter_ns() - started
        placement: dict[str, int] = {}
        for subgraph in self.session.get_provider_graph_assignment_info():
            placement[subgraph.ep_name] = placement.get(subgraph.ep_name, 0) + len(subgraph.get_nodes())
        if strays := {name: count for name, count in placement.items() if name != provider}:
            raise Refused(f"only {placement.get(provider, 0)} of its nodes run on {provider}; elsewhere: {strays}")
        if self.session.get_providers()[0] != provider:
            raise Refused(f"{provider} could not be used; the session fell back to {', '.join(self.session.get_providers())}")
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
            self.padding = np.ones(int(self.random.integers(1, 1 << 18)), np.uint8)
            self.session = self._new_session()
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
        for feed, count in self._batches(self.fixed_batch or batch_size, samples, fill_last=self.fixed_batch is not None):
            for name, value in zip(names, self.session.run(names, feed), strict=True):
                if isinstance(value, np.ndarray):
                    parts[name].append(value[:count] if value.ndim else value[None])
        arrays = {name: np.concatenate(values) for name, values in parts.items() if values}
        if not arrays and samples is None:
            raise Refused("none of its outputs is a tensor")
        with zipfile.ZipFile(output, "w") as file:
            for name, array in arrays.items():
                with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, _storable(array), allow_pickle=False)
        return {"outputs": list(arrays)}

    def _make_calls(self) -> None:
        """Make one call for each feed, so that nothing but the runtime's work is between two readings of the clock."""
        names = [value.name for value in self.session.get_outputs()]
        call = self._bound_call if self.is_bound else self._call
        self.calls = [call(names, feed) for feed in self.feeds]

    def _call(self, names: list[str], feed: Arrays) -> Callable[[], object]:
        return functools.partial(self.session.run, names, feed)

    def _bound_call(self, names: list[str], feed: Arrays) -> Callable[[], object]:
        """Return a call whose inputs and outputs are bound to memory on the device."""
        device = BOUND_DEVICES.get(self.session.get_providers()[0], "cpu")
        binding = self.session.io_binding()
        for name, array in feed.items():
            if array.dtype == object:
                raise Refused(f"its input {name!r} holds texts, which cannot be bound; set timing.io_binding: false")
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, device, 0))
        for name in names:
            binding.bind_output(name, device)
        self.session.run_with_iobinding(binding)
        outputs = binding.get_outputs()
        binding.clear_binding_outputs()
        for name, output in zip(names, outputs, strict=True):
            binding.bind_ortvalue_output(name, output)
        return functools.partial(self.session.run_with_iobinding, binding)

    def peak_memory(self) -> dict[str, Any]:
        """Return how far resident memory rose above what it was before the session, in bytes."""
        return {"bytes": max(0, resident_bytes("VmHWM") - self.memory_before)}

    def _release_session(self) -> None:
        self.calls = []
        del self.session
        gc.collect()

    def _batches(self, size: int, limit: int | None = None, *, fill_last: bool = True) -> Iterator[tuple[Arrays, int]]:
        """Yield feeds of `size` samples and how many of them are new; the last one may be filled up from the start.

        It is left short where the model allows: what else is in a batch can matter, as with dynamic quantisation.
        """
        total = len(next(iter(self.data.values())))
        for start in range(0, min(total, limit or total), size):
            index = np.arange(start, start + size if fill_last else min(start + size, total)) % total
            feed = {name: _as_input(array[index], self.input_types[name]) for name, array in self.data.items()}
            yield feed, min(size, total - start)


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


if __name__ == "__main__":
    main()
