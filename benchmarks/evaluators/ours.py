"""Our evaluator alone, without Prefect: `evaluate` for each candidate, then one tournament. ``ours.py TASK OUTCOME``."""

import resource
import time

BEGAN_S = time.process_time()

import json  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections import Counter  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from packhouse.artifacts import ArtifactStore  # noqa: E402
from packhouse.config import load_config  # noqa: E402
from packhouse.evaluation.evaluate import evaluate  # noqa: E402
from packhouse.evaluation.idle_workers import IdleWorkers  # noqa: E402
from packhouse.evaluation.latency import Timings  # noqa: E402
from packhouse.evaluation.session_host import SessionHost  # noqa: E402
from packhouse.evaluation.timing import time_candidates  # noqa: E402
from packhouse.plan import prepare  # noqa: E402


class Clock:
    """CPU seconds of this process and of its workers, phase by phase."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self._ours = BEGAN_S
        self._workers = 0.0

    def lap(self, phase: str) -> None:
        """Book what was used since the last call to a phase."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        ours, workers = time.process_time(), usage.ru_utime + usage.ru_stime
        self.phases[phase] = ours - self._ours
        if workers > self._workers:
            self.phases[f"{phase}: workers"] = workers - self._workers
        self._ours, self._workers = ours, workers


class Runs:
    """How often the workers of a tournament ran, by process id: all runs, counted by looking at what they are asked."""

    def __init__(self) -> None:
        self.by_worker: Counter[int] = Counter()
        self._ask = SessionHost.ask
        runs = self

        def ask(self: SessionHost, request: str, **arguments: Any) -> dict[str, Any]:
            answer = runs._ask(self, request, **arguments)
            if request == "time":
                runs.by_worker[self.pid] += arguments["runs"] + arguments["lead_in"]
            elif request == "renew_session":
                runs.by_worker[self.pid] += answer["runs"]
            return answer

        SessionHost.ask = ask  # type: ignore[method-assign]


def main() -> None:
    """Evaluate and time the candidates of a configuration, with a new store."""
    clock, runs = Clock(), Runs()
    clock.lap("imports")
    task = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory(prefix="packhouse-benchmark-") as folder:
        store = ArtifactStore(Path(folder))
        plan = prepare(load_config(Path(task["config"]))).receive(store)
        clock.lap("files into the store")
        idle = IdleWorkers()
        evaluations = [evaluate(request, store, idle=idle) for request in plan.requests]
        clock.lap("evaluate")
        request = plan.timing_on(plan.requests[0].accelerator.spec, evaluations)
        assert request
        timed = time_candidates(request, store, idle=idle)
        clock.lap("tournament")
        with SessionHost(Path(folder)) as host:
            host.ask("providers")
        clock.lap("an idle worker")
        found = {}
        names = {candidate.digest: candidate.name for candidate in plan.candidates}
        evaluated = {item.candidate: item for item in timed.applied_to(evaluations)}
        by_turn = sorted(timed.candidates, key=lambda item: item.candidate)
        for item, count in zip(by_turn, runs.by_worker.values(), strict=True):
            assert item.samples, item.failure
            counted = int(Timings.load(store.path(item.samples.sha256)).wall_ns.size)
            values = {name.rpartition("-")[2]: value for name, value in evaluated[item.candidate].values.items()}
            found[names[item.candidate]] = {
                "accuracy": values["accuracy_score"],
                "avg": values["avg"],
                "p50": values["p50"],
                "warmup": count - counted,
                "timed": counted,
            }
    outcome = {"candidates": found, "phases": clock.phases, "summary": timed.summary.model_dump(mode="json")}
    Path(sys.argv[2]).write_text(json.dumps(outcome))


if __name__ == "__main__":
    main()
