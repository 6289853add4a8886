"""Whether measurements on this machine deserve a ranking: time models of which it is known how they compare, again and again.

The models are chains of matrix products, made here. A tournament between two copies of one model must not find a difference;
one between a chain and a longer one must not put the longer one first.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from packhouse.accelerators import DEFAULT_PROVIDER, Accelerator
from packhouse.evaluation.device_lock import device_locks
from packhouse.evaluation.latency import TimingPlan
from packhouse.evaluation.pairs import LOOKS, paired_effect
from packhouse.evaluation.session_host import SessionHost
from packhouse.evaluation.surroundings import PRIORITY, cpus_for
from packhouse.evaluation.tournament import Result, Tournament
from packhouse.metrics import Metric, MetricConfig, SubType, flatten
from packhouse.records import Record
from packhouse.statistics import share_interval, shared_confidence

Outcome = Literal["right", "wrong", "tied", "undecided"]

(P50,) = flatten((MetricConfig(name="latency", type="latency", sub_types=(SubType(name="p50", priority=1),)),))
ROWS, WIDTH = 16, 128  # about 0.1 ms for a chain of 20
SHORT, LONG = 25, 28  # 12 % more work
ACCEPTED = 0.01  # share of wrong verdicts


class SelfTest(Record):
    """What came of the trials: how often two copies of a model, and a model and a slower one, were judged in which way."""

    identical: dict[Outcome, int]
    slower: dict[Outcome, int]
    scheduler: str
    pinned: str
    duration_s: float

    @property
    def is_passed(self) -> bool:
        """Whether the trials are compatible with no more than 1 % of wrong verdicts, and most slower models were found."""
        wrong = self.identical.get("wrong", 0) + self.slower.get("wrong", 0)
        if 2 * self.slower.get("right", 0) <= sum(self.slower.values()):
            return False
        return share_interval(wrong, sum(self.identical.values()) + sum(self.slower.values())).low <= ACCEPTED


def self_test(seconds: float, say: Callable[[str], None]) -> SelfTest:
    """Hold tournaments for so many seconds, on a CPU that no other run of Packhouse times on."""
    began = time.monotonic()
    identical: Counter[Outcome] = Counter()
    slower: Counter[Outcome] = Counter()
    with tempfile.TemporaryDirectory(prefix="packhouse-") as name, device_locks(Accelerator().devices(), exclusive=True):
        folder = Path(name)
        short = write_chain(folder / "short.onnx", SHORT)
        long = write_chain(folder / "long.onnx", LONG)
        with (
            worker(short, folder / "a", has_priority=True) as (first, owned),
            worker(short, folder / "b", has_priority=True) as (copy, _),
            worker(long, folder / "c", has_priority=True) as (second, _),
        ):
            while not slower or time.monotonic() - began < seconds:
                identical[judge(compete(first, copy), is_first_faster=None)] += 1
                slower[judge(compete(first, second), is_first_faster=True)] += 1
                say(f"{identical.total() + slower.total()} tournaments")
    return SelfTest(
        identical=dict(identical),
        slower=dict(slower),
        scheduler=owned["scheduler"],
        pinned=owned["pinned"],
        duration_s=time.monotonic() - began,
    )


def write_chain(path: Path, layers: int, rows: int = ROWS, width: int = WIDTH) -> Path:
    """Write a model of so many products of its input (rows, width) with weights (width, width), and return its path."""
    generator = np.random.default_rng(layers)
    nodes, weights = [], []
    for layer in range(layers):
        values = generator.standard_normal((width, width), dtype=np.float32) / np.float32(np.sqrt(width))
        weights.append(numpy_helper.from_array(values, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [rows, width])],
        [helper.make_tensor_value_info(f"x{layers}", TensorProto.FLOAT, [rows, width])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    np.savez(path.with_suffix(".npz"), x0=generator.standard_normal((rows, width), dtype=np.float32))
    return path


@contextmanager
def worker(model: Path, scratch: Path, *, has_priority: bool) -> Iterator[tuple[SessionHost, dict[str, str]]]:
    """Start a worker with a session of a chain on one thread; with priority if asked for and allowed, which is told."""
    scratch.mkdir()
    with SessionHost(scratch) as host:
        owned = host.ask("occupy", cpus=cpus_for(1), priority=PRIORITY) if has_priority else {}
        host.ask("read_data", path=str(model.with_suffix(".npz")), inputs={"x0": "x0"})
        host.ask(
            "create_session",
            model=str(model),
            provider=DEFAULT_PROVIDER,
            provider_options={},
            session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
        )
        host.ask("prepare_timing", batch_size=1)
        yield host, {key: str(value) for key, value in owned.items()}


def compete(first: SessionHost, second: SessionHost, plan: TimingPlan | None = None) -> Result:
    """Hold a tournament between two workers, called ``first`` and ``second``."""
    players = {"first": first, "second": second}
    return Tournament(players, [P50], plan or TimingPlan(), is_one_thread=True).play()


def judge(result: Result, *, is_first_faster: bool | None) -> Outcome:
    """Return what a tournament says of which it is known whether the first is the faster one; None if they are the same."""
    verdict = verdict_on(result, P50)
    if verdict in ("tied", "undecided"):
        return "tied" if verdict == "tied" else "undecided"
    return "right" if is_first_faster is not None and is_first_faster == (verdict == "first") else "wrong"


def verdict_on(result: Result, metric: Metric) -> str:
    """Return which of two is faster, ``tied``, or ``undecided``."""
    values = result.orderings[metric.name]
    if result.summary.state == "unstable":
        return "undecided"
    leader, other = sorted(values, key=lambda name: (values[name], name))
    timings, confidence = (result.timings[leader], result.timings[other]), shared_confidence(LOOKS)
    effect = paired_effect(metric, *timings, clock=result.summary.clock, confidence=confidence)
    verdict = effect.verdict(metric, values[leader])
    return leader if verdict == "worse" else verdict
