"""How often a ranking is wrong: Olive's protocol, sequential medians, and a tournament, on pairs with a known answer.

``python -m benchmarks.false_ranking`` times chains of matrix products on one thread: a model and an identical copy, one with
5 % and one with 12 % more work, at three sizes. In a trial all protocols judge the same pair in turn, in new sessions:

- ``Olive``: 10 warm-up and 20 timed runs of one model, then of the other; means, compared exactly. What Olive does by default.
- ``sequential``: as many runs as the tournament took, of one model and then of the other; medians, compared exactly.
- ``sequential, 2 %``: the same, with differences of up to 2 % taken as ties.
- ``tournament``: what Packhouse does, on a pinned CPU with SCHED_FIFO if the system allows it.
- ``tournament, no priority``: the same, as any other program.

``wrong`` is the slower one first, or identical ones told apart. ``--load N`` keeps N programs computing meanwhile, by turns.
"""

import argparse
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from packhouse.evaluation.session_host import SessionHost
from packhouse.selftest import Outcome, compete, judge, worker, write_chain
from packhouse.statistics import share_interval

SIZES = {"0.15 ms": (16, 128), "5 ms": (64, 384), "120 ms": (256, 1024)}  # rows, width
PAIRS = {"identical": (20, 20), "+5 %": (20, 21), "+12 %": (25, 28)}  # layers
OUTCOMES: tuple[Outcome, ...] = ("right", "tied", "undecided", "wrong")
OLIVE_WARMUP, OLIVE_RUNS = 10, 20
TOLERANCE = 0.02
BUSY_S, IDLE_S = (0.005, 0.3), (0.005, 0.3)

Pair = tuple[SessionHost, SessionHost]
Protocol = Callable[[], Outcome]


def main() -> None:
    """Run the trials and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="time for each pair at each size (60)")
    parser.add_argument("--load", type=int, default=4, help="programs that compute meanwhile (4)")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="sizes to run (all)")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, {arguments.load} other programs, load before {os.getloadavg()[0]:.1f}\n")
    print(
        f"{'size':8} {'pair':10} {'protocol':25} {'n':>5}" + "".join(f"{outcome:>11}" for outcome in OUTCOMES), "  wrong, 99 %"
    )
    for size in arguments.sizes:
        for pair in PAIRS:
            with loaded(arguments.load):
                counts = trials(size, pair, arguments.seconds)
            for protocol, count in counts.items():
                print(row(size, pair, protocol, count), flush=True)


def row(size: str, pair: str, protocol: str, count: Counter[Outcome]) -> str:
    """Return a line of the table, with the interval of the share of wrong verdicts."""
    n = count.total()
    interval = share_interval(count["wrong"], n)
    shares = "".join(f"{100 * count[outcome] / n:10.1f}%" for outcome in OUTCOMES)
    return f"{size:8} {pair:10} {protocol:25} {n:5}{shares}   {100 * interval.low:.1f}-{100 * interval.high:.1f} %"


def trials(size: str, pair: str, seconds: float) -> dict[str, Counter[Outcome]]:
    """Return how often each protocol judged a pair in which way, in as many trials as the time allows."""
    with tempfile.TemporaryDirectory(prefix="packhouse-") as name, ExitStack() as running:
        folder = Path(name)
        models = [write_chain(folder / f"{index}.onnx", layers, *SIZES[size]) for index, layers in enumerate(PAIRS[pair])]
        plain = tuple(
            running.enter_context(worker(model, folder / f"p{model.stem}", has_priority=False))[0] for model in models
        )
        owning = tuple(
            running.enter_context(worker(model, folder / f"o{model.stem}", has_priority=True))[0] for model in models
        )
        is_first_faster = None if pair == "identical" else True
        counts: dict[str, Counter[Outcome]] = {}
        order = random.Random(size + pair)  # noqa: S311 - which model comes first in a sequence
        deadline = time.monotonic() + seconds
        while not counts or time.monotonic() < deadline:
            for protocol, outcome in one_trial(plain, owning, is_first_faster, is_turned=order.random() < 0.5).items():
                counts.setdefault(protocol, Counter())[outcome] += 1
    return counts


def one_trial(
    plain: tuple[SessionHost, ...], owning: tuple[SessionHost, ...], is_first_faster: bool | None, *, is_turned: bool
) -> dict[str, Outcome]:
    """Return what each protocol says of a pair; with `is_turned`, sequences begin with the second model."""
    played = compete(owning[0], owning[1])
    runs = played.timings["first"].wall_ns.size
    unowned = compete(plain[0], plain[1])
    by_mean = sequence(plain, OLIVE_WARMUP, OLIVE_RUNS, statistics.fmean, is_turned=is_turned)
    by_median = sequence(plain, OLIVE_WARMUP, runs, statistics.median, is_turned=is_turned)
    return {
        "Olive": compared(*by_mean, 0.0, is_first_faster),
        "sequential": compared(*by_median, 0.0, is_first_faster),
        "sequential, 2 %": compared(*by_median, TOLERANCE, is_first_faster),
        "tournament": judge(played, is_first_faster=is_first_faster),
        "tournament, no priority": judge(unowned, is_first_faster=is_first_faster),
    }


def sequence(
    hosts: tuple[SessionHost, ...], warmup: int, runs: int, statistic: Callable[[list[int]], float], *, is_turned: bool
) -> tuple[float, float]:
    """Return a statistic of the runs of either model in new sessions, measured one after the other."""
    found = {}
    for host in reversed(hosts) if is_turned else hosts:
        host.ask("renew_session", warmup=warmup, settled=1e9, max_s=0.0)
        found[host] = statistic(host.ask("time", runs=runs)["wall_ns"])
    return found[hosts[0]], found[hosts[1]]


def compared(first: float, second: float, tolerance: float, is_first_faster: bool | None) -> Outcome:
    """Return what two numbers say, where differences of up to `tolerance` are ties."""
    if abs(first - second) <= tolerance * min(first, second):
        return "tied"
    return "right" if is_first_faster is not None and is_first_faster == (first < second) else "wrong"


@contextmanager
def loaded(programs: int) -> Iterator[None]:
    """Keep so many programs computing and moving memory, by turns of random length."""
    processes = [multiprocessing.Process(target=_compute, args=(seed,), daemon=True) for seed in range(programs)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _compute(seed: int) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    lengths, values = random.Random(seed), np.ones(1 << 20)  # noqa: S311
    while True:
        until = time.monotonic() + lengths.uniform(*BUSY_S)
        while time.monotonic() < until:
            values = np.sqrt(values + 1.0)
        time.sleep(lengths.uniform(*IDLE_S))


if __name__ == "__main__":
    main()
