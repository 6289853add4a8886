"""Tournaments between simulated candidates on a simulated machine: who is faster, who leaves, and what is said of it."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from packhouse.errors import EvaluationFailed
from packhouse.evaluation import tournament as module
from packhouse.evaluation.latency import TimingPlan
from packhouse.evaluation.pairs import paired_effect
from packhouse.evaluation.surroundings import Surroundings
from packhouse.evaluation.tournament import Result, Standing, Summary, Tournament
from packhouse.metrics import Metric, Tolerance
from packhouse.statistics import runs_for, shared_confidence

MS = 1_000_000
TRIALS = 30
CALM = {"pressure": 0.0, "foreign": 0.0, "steal": 0.0, "throttled": 0.0}
CROWDED = {**CALM, "pressure": 0.6, "foreign": 0.7}
WORDS = {
    "other work had the CPU": CROWDED,
    "the hypervisor took the CPU away": {**CALM, "steal": 0.1},
    "the control group was throttled": {**CALM, "throttled": 0.1},
}


def metric(sub_type: str = "p50", priority: int = 1, kind: Any = "latency", tolerance: float = 0.02) -> Metric:
    return Metric(
        name=f"{kind}-{sub_type}",
        type=kind,
        sub_type=sub_type,
        priority=priority,
        higher_is_better=kind == "throughput",
        goal=None,
        tolerance=Tolerance(value=tolerance, is_relative=True, is_tested=tolerance > 0),
        settings={},
        function=None,
    )


P50 = metric()


@dataclass
class Machine:
    """A machine whose clock runs while somebody computes on it, and that stands in for `time` and `Reading`.

    All that run in a round share its pace: `noise` from round to round, a `drift` each round, and `bursts` in a share of the
    rounds that make them three times as slow. `seen` says what /proc tells of a round.
    """

    seed: int = 0
    noise: float = 0.1
    drift: float = 0.0
    bursts: float = 0.0
    seen: Callable[[int], Mapping[str, float]] = lambda _: CALM
    now_ns: int = 10**18
    round: int = -1
    pace: float = 1.0
    turns: list[tuple[int, str]] = field(default_factory=list)
    readings: list[tuple[int, int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def monotonic(self) -> float:
        return self.now_ns / 1e9

    def time_ns(self) -> int:
        return self.now_ns

    def now(self) -> "Machine":
        self.round += 1
        burst = 3.0 if self.random.random() < self.bursts else 1.0
        self.pace = burst * (1 + self.drift * self.round) * float(self.random.lognormal(0.0, self.noise))
        return self

    def until_now(self, candidates_ns: int, switches: int, stalled: float) -> Surroundings:
        self.readings.append((candidates_ns, switches, stalled))
        values = {"load": 1.0, "running": 1, "mhz": 0.0, **self.seen(self.round)}
        return Surroundings(began_ns=0, ended_ns=self.now_ns, switches=switches, stalled=stalled, **values)


@dataclass
class Candidate:
    """A candidate on a machine: runs take `base_ms` on the CPU, each a bit more or less (`jitter`), as do sessions (`bias`).

    `waits` gives the time without a CPU in a turn as a multiple of the time on it, and `fate` why a request is not answered.
    """

    machine: Machine
    name: str
    base_ms: float
    jitter: float = 0.02
    bias: float = 0.003
    threads: int = 1
    switches: int = 0
    session_ms: float = 0.0
    waits: Callable[[int], float] = lambda _: 0.0
    fate: Callable[[str, int], str | None] = lambda *_: None
    timeout_s: float = 600.0
    pid: int = -1
    session: float = 1.0
    asked: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        number = sum(item["do"] == request for item in self.asked)
        self.asked.append({"do": request, "timeout_s": self.timeout_s, **arguments})
        if reason := self.fate(request, number):
            raise EvaluationFailed(reason)
        return self._renew() if request == "renew_session" else self._time(**arguments)

    def _renew(self) -> dict[str, Any]:
        self.session = float(self.machine.random.lognormal(0.0, self.bias))
        self.machine.now_ns += int(self.session_ms * MS)
        return {"median_ns": self.base_ms * MS * self.session}

    def _time(self, runs: int, lead_in: int) -> dict[str, Any]:
        machine = self.machine
        machine.turns.append((machine.round, self.name))
        spread = machine.random.lognormal(0.0, self.jitter, lead_in + runs)
        took = self.base_ms * MS * self.session * machine.pace * spread
        wall = (took * (1 + self.waits(machine.round))).astype(int)
        machine.now_ns += int(wall.sum())
        cpu = (took * self.threads).astype(int)
        return {
            "wall_ns": wall[lead_in:].tolist(),
            "cpu_ns": cpu[lead_in:].tolist(),
            "turn_cpu_ns": int(cpu.sum()),
            "involuntary_switches": self.switches,
        }


Play = Callable[..., Result]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """A function that holds a tournament: candidates by name, as milliseconds or as what `Candidate` takes."""

    def hold(
        machine: Machine,
        field: Mapping[str, float | dict[str, Any]],
        metrics: tuple[Metric, ...] = (P50,),
        plan: TimingPlan | None = None,
        **arguments: Any,
    ) -> Result:
        monkeypatch.setattr(module, "time", machine)
        monkeypatch.setattr(module, "Reading", machine)
        monkeypatch.setattr(module, "cpu_use", dict)
        monkeypatch.setattr(module, "busiest", lambda *_: {"make": 0.93})
        settings = {name: item if isinstance(item, dict) else {"base_ms": item} for name, item in field.items()}
        machine.field = {name: Candidate(machine, name, **item) for name, item in settings.items()}  # type: ignore[attr-defined]
        wanted = plan or TimingPlan.for_metrics(metrics, 1)
        return Tournament(machine.field, metrics, wanted, **arguments).play()  # type: ignore[attr-defined]

    return hold


def candidate(machine: Machine, name: str) -> Candidate:
    found: Candidate = machine.field[name]  # type: ignore[attr-defined]
    return found


def verdict(result: Result, best: str, other: str, compared: Metric = P50) -> str:
    """Return how one candidate compares with another, with the confidence of all comparisons of the tournament together."""
    timings = result.timings
    confidence = shared_confidence(len(timings) - 1)
    effect = paired_effect(compared, timings[best], timings[other], clock=result.summary.clock, confidence=confidence)
    return effect.verdict(compared, result.orderings[compared.name][best])


def order(result: Result, name: str = "latency-p50") -> list[str]:
    return sorted(result.orderings[name], key=result.orderings[name].__getitem__)


MACHINES: dict[str, dict[str, Any]] = {
    "steady": {"noise": 0.0},
    "noisy": {"noise": 0.2},
    "drifting": {"drift": 0.05},
    "in bursts": {"bursts": 0.2},
}


class TestOrder:
    @pytest.mark.parametrize("machine", MACHINES)
    def test_a_difference_of_five_per_cent_is_found_in_all_trials(self, play: Play, machine: str) -> None:
        for seed in range(TRIALS):
            result = play(Machine(seed, **MACHINES[machine]), {"a": 1.05, "b": 1.0})

            assert (result.summary.state, result.summary.cause) == ("decided", "")
            assert verdict(result, "b", "a") == "worse"
            assert result.orderings["latency-p50"]["a"] / result.orderings["latency-p50"]["b"] == pytest.approx(1.05, abs=0.02)

    @pytest.mark.parametrize("machine", MACHINES)
    def test_equal_candidates_are_tied_in_all_trials(self, play: Play, machine: str) -> None:
        for seed in range(TRIALS):
            result = play(Machine(seed, **MACHINES[machine]), {"a": 1.0, "b": 1.0})

            assert result.summary.state == "decided"
            assert verdict(result, "a", "b") == "tied"

    @pytest.mark.parametrize("kind", ["latency", "throughput"])
    def test_of_many_is_right(self, play: Play, kind: str) -> None:
        speeds = {"e": 1.0, "d": 1.05, "a": 1.11, "c": 1.3, "b": 2.5}
        compared = metric("avg" if kind == "throughput" else "p50", kind=kind)

        for seed in range(10):
            result = play(Machine(seed), speeds, (compared,))

            found = order(result, compared.name)
            assert (found if kind == "latency" else found[::-1]) == list(speeds)
            assert result.summary.state == "decided"

    def test_is_decided_by_every_metric_with_a_priority(self, play: Play) -> None:
        """They differ in the slowest runs only."""
        metrics = (metric("p50", 1), metric("p95", 2), metric("max", -1))
        field = {"a": {"base_ms": 1.0, "jitter": 0.02}, "b": {"base_ms": 1.0, "jitter": 0.3}}

        result = play(Machine(noise=0.0), field, metrics)

        assert sorted(result.orderings) == ["latency-p50", "latency-p95"]
        assert result.summary.state == "decided"
        assert verdict(result, "a", "b", metrics[1]) == "worse"

    def test_looks_at_the_first_metric_where_none_has_a_priority(self, play: Play) -> None:
        result = play(Machine(), {"a": 1.0, "b": 1.1}, (metric("p50", -1), metric("p95", -1)))

        assert list(result.orderings) == ["latency-p50"]

    def test_does_not_depend_on_the_order_in_which_candidates_are_given(self, play: Play) -> None:
        speeds = {"a": 1.0, "b": 1.03, "c": 1.5, "d": 1.01}
        results = [play(Machine(3, bursts=0.1), dict(given)) for given in itertools.permutations(speeds.items())]

        for result in results[1:]:
            assert (result.summary, result.orderings) == (results[0].summary, results[0].orderings)
            for name, timings in result.timings.items():
                np.testing.assert_array_equal(timings.wall_ns, results[0].timings[name].wall_ns)

    def test_counts_the_samples_of_a_batch_in_the_throughput(self, play: Play) -> None:
        compared = metric("avg", kind="throughput")

        result = play(Machine(noise=0.0), {"a": 1.0, "b": 1.0}, (compared,), batch_sizes={"a": 4, "b": 1})

        found = result.orderings[compared.name]
        assert found["a"] / found["b"] == pytest.approx(4, rel=0.02)
        assert found["a"] == pytest.approx(4000, rel=0.02)


class TestRounds:
    @pytest.mark.parametrize("names", ["a", "ab", "abc", "abcde"])
    def test_every_candidate_takes_every_position_equally_often(self, play: Play, names: str) -> None:
        machine = Machine(noise=0.0)
        result = play(machine, dict.fromkeys(names, 1.0))

        assert result.summary.rounds == 30
        for name in names:
            positions = Counter(index % len(names) for index, (_, turn) in enumerate(machine.turns) if turn == name)
            assert positions == dict.fromkeys(range(len(names)), 30 // len(names))

    def test_are_the_same_for_all_who_stay(self, play: Play) -> None:
        machine = Machine(bursts=0.2)
        result = play(machine, {"a": 1.0, "b": 1.02, "c": 1.01}, (metric("p95"),), TimingPlan(seconds_per_candidate=1))

        for timings in result.timings.values():
            np.testing.assert_array_equal(timings.rounds, np.arange(result.summary.rounds))
            np.testing.assert_array_equal(timings.rounds, np.arange(len(result.rounds)))
            assert timings.wall_ns.dtype == timings.cpu_ns.dtype == np.int64
            assert timings.wall_ns.shape == timings.cpu_ns.shape == (result.summary.rounds, 5)

    @pytest.mark.parametrize(
        ("base_ms", "runs", "lead_in"), [(40.0, 1, 0), (2.0, 3, 0), (1.5, 4, 1), (0.5, 10, 1), (0.001, 32, 1)]
    )
    def test_have_turns_of_about_five_milliseconds(self, play: Play, base_ms: float, runs: int, lead_in: int) -> None:
        machine = Machine()
        play(machine, {"a": {"base_ms": base_ms, "bias": 0.0}})

        turns = [item for item in candidate(machine, "a").asked if item["do"] == "time"]
        assert {(item["runs"], item["lead_in"]) for item in turns} == {(runs, lead_in)}

    @pytest.mark.parametrize("sub_type", ["p50", "p75", "p90", "p95", "p99", "p999"])
    def test_are_as_many_as_support_the_percentile(self, play: Play, sub_type: str) -> None:
        compared = metric(sub_type)
        result = play(
            Machine(),
            {"a": 1.0, "b": 2.0},
            (compared,),
            TimingPlan(runs=runs_for(float(f"{sub_type[1:3]}.{sub_type[3:] or 0}"))),
        )

        for timings in result.timings.values():
            value = timings.value(compared, 1)
            assert value.is_supported
            assert value.interval
        assert result.summary.state == "decided"

    def test_are_as_many_as_the_plan_asks_for(self, play: Play) -> None:
        result = play(Machine(), {"a": 1.0, "b": 2.0}, plan=TimingPlan(runs=1000))

        assert [timings.wall_ns.shape[1] for timings in result.timings.values()] == [5, 3]
        assert all(timings.wall_ns.size >= 1000 for timings in result.timings.values())
        assert result.summary.rounds <= 1.1 * 1000 / 3

    def test_know_what_all_candidates_together_computed(self, play: Play) -> None:
        machine = Machine(noise=0.0)
        field = {
            "a": {"base_ms": 1.0, "jitter": 0.0, "bias": 0.0, "switches": 3},
            "b": {"base_ms": 2.5, "jitter": 0.0, "bias": 0.0, "switches": 1, "waits": lambda _: 1.0},
        }
        play(machine, field, is_one_thread=True)

        assert set(machine.readings) == {(6 * MS + 5 * MS, 3, 0.5)}


class TestLeaving:
    FIELD = {"a": {"base_ms": 1.0, "jitter": 0.3}, "b": {"base_ms": 1.02, "jitter": 0.3}, "slow": 1.5}
    PLAN = TimingPlan(seconds_per_candidate=5)

    def test_a_clear_loser_leaves_early_and_the_others_go_on(self, play: Play) -> None:
        told: list[list[Standing]] = []
        result = play(Machine(), self.FIELD, plan=self.PLAN, tell=lambda standings: told.append(list(standings)))

        rounds = {name: len(timings.rounds) for name, timings in result.timings.items()}
        assert rounds["slow"] == 30
        assert rounds["a"] == rounds["b"] > 60
        assert verdict(result, "a", "slow") == "worse"
        assert order(result)[-1] == "slow"
        states = {item.candidate: item.state for item in told[0]}
        assert states == {"a": "measuring", "b": "measuring", "slow": "left"}

    def test_one_who_is_slower_by_less_stays(self, play: Play) -> None:
        result = play(Machine(), self.FIELD | {"slow": 1.15}, plan=self.PLAN)

        assert len({len(timings.rounds) for timings in result.timings.values()}) == 1

    def test_nobody_leaves_before_the_percentiles_are_supported(self, play: Play) -> None:
        metrics = (metric("p50"), metric("p95", -1))
        plan = TimingPlan(runs=400, seconds_per_candidate=1)

        result = play(Machine(), self.FIELD, metrics, plan)

        assert result.summary.rounds > 100
        assert result.timings["slow"].wall_ns.size >= 400
        assert len(result.timings["slow"].rounds) < result.summary.rounds

    def test_two_losers_stay_until_it_is_known_who_is_ahead(self, play: Play) -> None:
        for seed in range(3):
            field = {"a": 1.0, "x": {"base_ms": 2.0, "jitter": 0.15}, "y": {"base_ms": 2.1, "jitter": 0.15}}
            told: list[list[Standing]] = []
            result = play(Machine(seed), field, tell=lambda standings, told=told: told.append(list(standings)))

            assert result.summary.state == "decided"
            first, second = [name for name in order(result) if name != "a"]
            assert verdict(result, first, second) != "undecided"
            assert len(result.timings["x"].rounds) == len(result.timings["y"].rounds) > 30
            for standings in told[:-1]:
                assert {item.state for item in standings if item.candidate != "a"} == {"measuring"}

    def test_nobody_leaves_who_may_be_ahead_on_another_metric(self, play: Play) -> None:
        """The slower one has a steady pace, and the others have bad moments."""
        metrics = (metric("p50", 1), metric("p95", 2))
        field = {
            "a": {"base_ms": 1.0, "jitter": 0.5},
            "b": {"base_ms": 1.01, "jitter": 0.5},
            "steady": {"base_ms": 1.5, "jitter": 0.01},
        }

        result = play(Machine(), field, metrics, self.PLAN)

        assert len({len(timings.rounds) for timings in result.timings.values()}) == 1
        assert verdict(result, "steady", "a", metrics[1]) == "worse"

    def test_positions_rotate_among_those_who_are_left(self, play: Play) -> None:
        machine = Machine()
        play(machine, self.FIELD, plan=self.PLAN)

        after = [name for round_number, name in machine.turns if round_number >= 30]
        firsts = Counter(after[::2])
        assert abs(firsts["a"] - firsts["b"]) <= 1


class TestTime:
    CLOSE = {"a": {"base_ms": 1.0, "jitter": 0.5}, "b": {"base_ms": 1.06, "jitter": 0.5}}

    def test_that_runs_out_leaves_it_undecided_and_says_so(self, play: Play) -> None:
        machine = Machine()
        result = play(machine, self.CLOSE, plan=TimingPlan(seconds_per_candidate=3.0))

        assert result.summary.state == "undecided"
        assert result.summary.cause == f"comparisons are open after {result.summary.rounds} rounds, since time was up: 1"
        assert result.summary.rounds > 200
        assert 6.0 < (result.summary.ended_ns - result.summary.began_ns) / 1e9 < 6.1
        assert result.failures == {}

    def test_is_for_each_candidate(self, play: Play) -> None:
        crowd = {name: {"base_ms": 1.0, "jitter": 0.5} for name in "abcd"}
        times = [play(Machine(), field, plan=TimingPlan(seconds_per_candidate=3.0)).summary for field in (self.CLOSE, crowd)]

        assert [round((item.ended_ns - item.began_ns) / 1e9) for item in times] == [6, 12]

    @pytest.mark.parametrize(("planned_s", "rounds", "least_s"), [(0.5, 200, 2.0), (0.05, 30, 0.3)])
    def test_is_up_to_three_times_as_long_until_there_are_200_rounds(
        self, play: Play, planned_s: float, rounds: int, least_s: float
    ) -> None:
        summary = play(Machine(), self.CLOSE, plan=TimingPlan(seconds_per_candidate=planned_s)).summary

        assert summary.state == "undecided"
        assert summary.rounds <= rounds
        assert least_s < (summary.ended_ns - summary.began_ns) / 1e9 < 6 * planned_s + 0.1

    def test_that_suffices_decides_what_is_close(self, play: Play) -> None:
        assert play(Machine(), self.CLOSE, plan=TimingPlan(seconds_per_candidate=20)).summary.state == "decided"

    def test_that_is_up_at_once_still_gives_one_round(self, play: Play) -> None:
        result = play(Machine(), {"a": 1.0, "b": 5.0}, plan=TimingPlan(seconds_per_candidate=1e-9))

        assert (result.summary.state, result.summary.rounds) == ("undecided", 1)
        assert result.summary.cause == "comparisons are open after 1 rounds, since time was up: 1"
        assert [timings.value(P50, 1).interval for timings in result.timings.values()] == [None, None]

    def test_that_is_too_short_for_a_percentile_labels_it_and_decides_nothing_by_it(self, play: Play) -> None:
        compared = metric("p999")
        plan = TimingPlan.for_metrics([compared], 1, None).model_copy(update={"seconds_per_candidate": 1.0})

        result = play(Machine(), {"a": 1.0, "b": 2.0}, (compared,), plan)

        for timings in result.timings.values():
            value = timings.value(compared, 1)
            assert value.needed_n == runs_for(99.9) > value.n
            assert (value.is_supported, value.interval) == (False, None)
        assert result.summary.state == "undecided"
        assert "since time was up: 1" in result.summary.cause


class TestSessions:
    def test_are_renewed_twice_at_least_however_long_that_takes(self, play: Play) -> None:
        machine = Machine()
        field = {name: {"base_ms": 1.0, "session_ms": 1000.0} for name in "ab"}

        result = play(machine, field, plan=TimingPlan(runs=1000))

        assert result.summary.sessions == 3
        for timings in result.timings.values():
            assert Counter(timings.sessions.tolist()) == {1: 10, 2: 10, 3: result.summary.rounds - 20}

    def test_are_renewed_every_ten_rounds_where_that_is_cheap(self, play: Play) -> None:
        machine = Machine()
        result = play(machine, {"a": 1.0, "b": 2.0}, plan=TimingPlan(runs=500))

        assert result.summary.sessions == math.ceil(result.summary.rounds / 10)
        for name, timings in result.timings.items():
            assert sum(item["do"] == "renew_session" for item in candidate(machine, name).asked) == result.summary.sessions
            np.testing.assert_array_equal(timings.sessions, timings.rounds // 10 + 1)

    def test_take_no_more_than_a_fifth_of_the_time(self, play: Play) -> None:
        machine = Machine(noise=0.0)
        result = play(machine, {"a": {"base_ms": 1.0, "session_ms": 30.0}}, plan=TimingPlan(runs=10_000))

        total_ms = (result.summary.ended_ns - result.summary.began_ns) / MS
        assert 0.15 < result.summary.sessions * 30 / total_ms < 0.2
        assert 3 < result.summary.sessions < result.summary.rounds / 10

    def test_that_are_lucky_or_not_do_not_decide(self, play: Play) -> None:
        """Where memory lies makes sessions of the same candidate 2 % faster or slower."""
        right = [
            order(play(Machine(seed), {name: {"base_ms": ms, "bias": 0.02} for name, ms in (("a", 1.1), ("b", 1.0))}))
            for seed in range(TRIALS)
        ]

        assert right == [["b", "a"]] * TRIALS

    def test_are_warmed_up_as_planned(self, play: Play) -> None:
        machine = Machine()
        play(machine, {"a": 1.0}, plan=TimingPlan(warmup=25))

        renewals = [item for item in candidate(machine, "a").asked if item["do"] == "renew_session"]
        assert {(item["warmup"], item["settled"], item["max_s"]) for item in renewals} == {(25, 0.02, 2.0)}

    @pytest.mark.parametrize(("base_ms", "turn_s"), [(1.0, 60.0), (2000.0, 400.0)])
    def test_may_take_long_and_turns_have_a_time_limit_of_their_own(self, play: Play, base_ms: float, turn_s: float) -> None:
        machine = Machine()
        play(machine, {"a": {"base_ms": base_ms, "bias": 0.0}}, plan=TimingPlan(seconds_per_candidate=1e5))

        limits = {(item["do"], item["timeout_s"]) for item in candidate(machine, "a").asked}
        assert limits == {("renew_session", 600.0), ("time", turn_s)}


def at(request: str, number: int, reason: str = "its process was killed by SIGKILL") -> Callable[[str, int], str | None]:
    """Return a fate: the request is not answered for the time after so many."""
    return lambda asked, count: reason if (asked, count) == (request, number) else None


class TestFailures:
    @pytest.mark.parametrize(
        ("request_name", "number"), [("renew_session", 0), ("time", 0), ("time", 7), ("renew_session", 1), ("time", 25)]
    )
    @pytest.mark.parametrize("victim", ["a", "b", "c"])
    def test_of_one_are_its_own(self, play: Play, victim: str, request_name: str, number: int) -> None:
        speeds: dict[str, Any] = {"a": 1.0, "b": 1.1, "c": 1.3}
        field = speeds | {victim: {"base_ms": speeds[victim], "fate": at(request_name, number)}}
        machine = Machine()

        result = play(machine, field)

        assert result.failures == {victim: "its process was killed by SIGKILL"}
        assert order(result) == sorted(result.timings) == sorted(speeds.keys() - {victim})
        assert result.summary.state == "decided"
        for timings in result.timings.values():
            np.testing.assert_array_equal(timings.rounds, np.arange(30))
        assert candidate(machine, victim).asked[-1]["do"] == request_name
        assert sum(item["do"] == request_name for item in candidate(machine, victim).asked) == number + 1

    @pytest.mark.parametrize(("request_name", "number"), [("renew_session", 0), ("time", 0), ("time", 12)])
    def test_of_all_end_it(self, play: Play, request_name: str, number: int) -> None:
        field = {name: {"base_ms": 1.0, "fate": at(request_name, number, f"{name} hangs")} for name in "abc"}

        result = play(Machine(), field)

        assert result.failures == {name: f"{name} hangs" for name in "abc"}
        assert (result.timings, result.orderings) == ({}, {})
        assert (result.summary.state, result.summary.cause) == ("undecided", "no candidate could be timed")

    def test_without_candidates_there_is_nothing_to_decide(self, play: Play) -> None:
        result = play(Machine(), {})

        assert (result.summary.state, result.summary.rounds) == ("undecided", 0)
        assert result.summary.cause == "no candidate could be timed"

    def test_of_the_last_one_leave_the_result_of_those_who_left(self, play: Play) -> None:
        field = {
            "a": {"base_ms": 1.0, "jitter": 0.3, "fate": at("time", 40)},
            "b": {"base_ms": 1.02, "jitter": 0.3, "fate": at("time", 40)},
            "slow": 1.5,
        }

        result = play(Machine(), field)

        assert list(result.timings) == ["slow"]
        assert result.failures.keys() == {"a", "b"}
        assert (result.summary.state, result.summary.cause) == ("decided", "")

    def test_that_are_none_of_the_candidates_are_not_hidden(self, play: Play) -> None:
        def fate(request: str, number: int) -> str | None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            play(Machine(), {"a": 1.0, "b": {"base_ms": 1.0, "fate": fate}})

    def test_one_candidate_alone_is_measured(self, play: Play) -> None:
        result = play(Machine(), {"a": 1.0})

        value = result.timings["a"].value(P50, 1)
        assert (result.summary.state, result.summary.rounds) == ("decided", 30)
        assert value.interval
        assert value.interval[0] <= value.value <= value.interval[1]
        assert result.orderings == {"latency-p50": {"a": value.value}}


class TestContention:
    def unfair(self, machine: Machine) -> dict[str, Any]:
        """The faster one waits for the CPU most of the time, and everybody waits for another while each time."""
        return {
            "fast": {"base_ms": 1.0, "waits": lambda _: float(machine.random.exponential(2.0)) + 0.5},
            "slow": {"base_ms": 1.05, "waits": lambda _: float(machine.random.exponential(0.5)) + 0.2},
        }

    def test_of_one_thread_is_taken_out_by_comparing_cpu_time(self, play: Play) -> None:
        for seed in range(TRIALS):
            machine = Machine(seed)
            result = play(machine, self.unfair(machine), is_one_thread=True)

            summary = result.summary
            assert (summary.clock, summary.state, summary.dropped) == ("cpu", "decided", {})
            assert summary.contention > 1.5
            assert order(result) == ["fast", "slow"]
            assert verdict(result, "fast", "slow") == "worse"
            walls = {name: np.median(timings.wall_ns) for name, timings in result.timings.items()}
            assert walls["fast"] > walls["slow"]

    @pytest.mark.parametrize(("waits", "clock"), [(0.0, "wall"), (0.08, "wall"), (0.12, "cpu")])
    def test_counts_from_a_tenth(self, play: Play, waits: float, clock: str) -> None:
        field = {"a": 1.0, "b": {"base_ms": 1.0, "waits": lambda _: waits}}

        result = play(Machine(), field, is_one_thread=True)

        assert result.summary.clock == clock
        assert result.summary.contention == pytest.approx(1 + waits, abs=0.001)

    def test_of_many_rounds_counts_though_most_runs_are_free_of_it(self, play: Play) -> None:
        field = {"a": 1.0, "b": {"base_ms": 1.0, "waits": lambda number: 9.0 * (number % 5 < 2)}}

        result = play(Machine(), field, is_one_thread=True)

        assert (result.summary.clock, result.summary.dropped) == ("cpu", {})
        assert verdict(result, "a", "b") == "tied"

    def test_of_a_few_rounds_drops_them(self, play: Play) -> None:
        field = {"a": 1.0, "b": {"base_ms": 1.0, "waits": lambda number: 9.0 * (number % 5 == 0)}}

        result = play(Machine(), field, is_one_thread=True)

        assert result.summary.clock == "wall"
        assert result.summary.dropped == {"other work had the CPU": result.summary.rounds / 5}
        np.testing.assert_array_equal(result.timings["a"].kept, np.arange(result.summary.rounds) % 5 != 0)
        assert verdict(result, "a", "b") == "tied"

    def test_is_nothing_that_more_threads_could_tell_by_cpu_time(self, play: Play) -> None:
        field = {"a": {"base_ms": 1.0, "threads": 2}, "b": {"base_ms": 1.1, "waits": lambda _: 3.0}}

        result = play(Machine(), field)

        assert result.summary.clock == "wall"
        assert {seen.stalled for seen in result.rounds} == {0.0}


class TestDisturbances:
    FIELD = {"a": {"base_ms": 1.0, "switches": 2}, "b": {"base_ms": 1.05, "switches": 2}}

    @pytest.mark.parametrize("cause", WORDS)
    def test_of_many_rounds_make_it_unstable_and_are_told_in_words(self, play: Play, cause: str) -> None:
        machine = Machine(seen=lambda number: WORDS[cause] if number % 2 else CALM)

        summary = play(machine, self.FIELD, plan=TimingPlan(seconds_per_candidate=3)).summary

        gone = summary.rounds // 2
        assert (summary.state, summary.dropped, summary.dropped_rounds) == ("unstable", {cause: gone}, gone)
        expected = f"{gone} of {summary.rounds} rounds were disturbed: {cause} in {gone}; busy meanwhile: make (93 % of a CPU)"
        assert summary.cause == expected
        assert summary.foreign == {"make": 0.93}

    @pytest.mark.parametrize("cause", WORDS)
    def test_of_a_few_rounds_are_left_out(self, play: Play, cause: str) -> None:
        """In the disturbed rounds the faster one is far slower, which would be seen in the average."""
        machine = Machine(seen=lambda number: WORDS[cause] if number % 5 == 0 else CALM)
        field = self.FIELD | {"a": {**self.FIELD["a"], "waits": lambda number: 9.0 * (number % 5 == 0)}}
        average = metric("avg")

        result = play(machine, field, (average,), TimingPlan(runs=200))

        assert (result.summary.state, result.summary.dropped) == ("decided", {cause: result.summary.rounds / 5})
        assert order(result, average.name) == ["a", "b"]
        assert result.timings["a"].value(average, 1).value == pytest.approx(1.0, rel=0.1)
        assert all((timings.kept == (timings.rounds % 5 != 0)).all() for timings in result.timings.values())
        assert all(timings.value(average, 1).n >= 200 for timings in result.timings.values())

    def test_of_too_many_rounds_leave_numbers_to_look_at_that_decide_nothing(self, play: Play) -> None:
        seen = lambda number: CROWDED if number % 5 < 2 else CALM  # noqa: E731
        result = play(Machine(seen=seen), self.FIELD, plan=TimingPlan(seconds_per_candidate=1))

        assert (result.summary.state, result.failures) == ("unstable", {})
        assert result.summary.dropped_rounds > 0.3 * result.summary.rounds
        assert all(timings.kept.all() for timings in result.timings.values())

    @pytest.mark.parametrize(
        "seen",
        [
            {**CROWDED, "foreign": 0.05},
            {**CROWDED, "pressure": 0.2},
            {**CALM, "steal": 0.04},
            {**CALM, "throttled": 0.04},
        ],
        ids=["our own threads wait", "few wait", "little is stolen", "hardly throttled"],
    )
    def test_are_only_what_others_can_be_blamed_for(self, play: Play, seen: Mapping[str, float]) -> None:
        summary = play(Machine(seen=lambda _: seen), self.FIELD).summary

        assert (summary.state, summary.dropped) == ("decided", {})

    def test_are_none_where_the_cpu_was_never_taken_away(self, play: Play) -> None:
        summary = play(Machine(seen=lambda _: CROWDED), {"a": 1.0, "b": 1.05}).summary

        assert (summary.state, summary.dropped) == ("decided", {})

    def test_are_never_told_by_how_long_runs_took(self, play: Play) -> None:
        summary = play(Machine(bursts=0.5), self.FIELD).summary

        assert (summary.state, summary.dropped) == ("decided", {})

    def test_that_one_thread_can_be_cleared_of_count_for_nothing(self, play: Play) -> None:
        summary = play(Machine(seen=lambda _: CROWDED), self.FIELD, is_one_thread=True).summary

        assert (summary.state, summary.clock, summary.dropped) == ("decided", "wall", {})


class TestStandings:
    @pytest.mark.parametrize(("kind", "leader"), [("latency", "b"), ("throughput", "b")])
    def test_are_told_from_time_to_time_the_leader_first(self, play: Play, kind: str, leader: str) -> None:
        told: list[list[Standing]] = []
        compared = metric("avg", kind=kind)

        result = play(
            Machine(noise=0.0),
            {"a": 1.05, "b": 1.0, "c": 1.03},
            (compared,),
            TimingPlan(runs=300),
            tell=lambda standings: told.append(list(standings)),
        )

        assert [standings[0].round for standings in told] == list(range(30, result.summary.rounds + 1, 10))
        for standings in told:
            assert standings[0].candidate == leader
            assert sorted(item.candidate for item in standings) == ["a", "b", "c"]
        last = {item.candidate: item for item in told[-1]}
        for name, timings in result.timings.items():
            value = timings.value(compared, 1)
            assert (last[name].estimate, last[name].unit) == (value.value, compared.unit)
        assert {item.state for item in told[-1]} == {"decided"}

    def test_leave_out_who_failed(self, play: Play) -> None:
        told: list[list[Standing]] = []

        play(
            Machine(),
            {"a": 1.0, "b": {"base_ms": 1.0, "fate": at("time", 3)}},
            tell=lambda standings: told.append(list(standings)),
        )

        assert [[item.candidate for item in standings] for standings in told] == [["a"]]


def test_the_summary_delimits_the_time_and_survives_its_way_through_json(play: Play) -> None:
    machine = Machine()
    began = machine.now_ns

    summary = play(machine, {"a": 1.0, "b": 1.1}).summary

    assert (summary.began_ns, summary.ended_ns) == (began, machine.now_ns)
    assert summary.load == 1.0
    assert Summary.model_validate_json(summary.model_dump_json()) == summary
