"""One latency tournament per accelerator: all candidates are timed together, in rounds, until their order is known.

In each round every candidate has one turn, in rotating order, so that what slows the machine down slows all of them down, and
cancels out where they are compared round by round.
"""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from packhouse.comparison import Effect
from packhouse.errors import EvaluationFailed
from packhouse.evaluation.latency import Clock, TimingPlan, Timings, needed_runs, statistic
from packhouse.evaluation.pairs import LOOKS, paired_effect
from packhouse.evaluation.surroundings import Reading, Surroundings, busiest, cpu_use
from packhouse.metrics import Metric
from packhouse.records import Record
from packhouse.statistics import pair_count, shared_confidence

MIN_ROUNDS = 30
CHECK_EVERY = 10  # rounds, or a tenth of those that were played, from which the order is looked at again,
CHECK_SHARE = 0.2  # unless that would take more of the time
SESSION_ROUNDS = 10  # rounds after which every candidate gets a new session …
SESSIONS = 3  # … so many times at least, and on as long as this takes no more than
RENEWAL_SHARE = 0.2  # of the time
ENOUGH_ROUNDS = 200  # until so many are played, slow candidates may take
MORE_TIME = 3.0  # times as long as is planned
TURN_NS = 5_000_000  # a turn lasts about as long, if one run is shorter
MAX_TURN_RUNS = 32
LEAD_IN_FROM = 4  # runs in a turn from which one more goes before them and does not count
SETTLED = 0.02
MAX_WARMUP_S = 2.0
CLEARLY_WORSE = 0.2  # a candidate that is so much slower, for sure, leaves early
MIN_TIMEOUT_S = 60.0
TIMEOUT_TURNS = 200.0  # a turn that takes so many times as long as expected is a hang

CONTENDED = 1.1  # wall time over CPU time from which the CPU was shared with others
STALLED = 0.25  # share of a turn without a CPU from which a round is disturbed
STOLEN = 0.05  # share of a round that the hypervisor, or a limit, may take
COMPANY = 0.1  # share of a CPU that others use on average, from which they can be what disturbs
MAX_DROPPED = 0.3

State = Literal["decided", "undecided", "unstable"]


class Player(Protocol):
    """What a tournament needs of a worker."""

    timeout_s: float

    @property
    def pid(self) -> int:
        """Process id."""
        ...

    def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer to a request; raise EvaluationFailed where there is none."""
        ...


class Standing(Record):
    """Where a candidate stands: estimate and interval of the metric that leads, whether its place is decided, and the round."""

    candidate: str
    estimate: float
    interval: tuple[float, float] | None
    unit: str
    state: Literal["measuring", "decided", "left"]
    round: int


class Summary(Record):
    """How a tournament went.

    It is `decided` if every comparison that the order rests on is: one candidate slower than another by more than the
    tolerance, or tied within it. It is `undecided` if time ran out first, and `unstable` if too many rounds had to be dropped;
    `cause` says so in words. `clock` is what candidates are compared by; `began_ns` and `ended_ns` (since 1970) delimit the
    time in which the device was not shared.
    """

    state: State
    cause: str = ""
    clock: Clock = "wall"
    rounds: int = 0
    dropped: Mapping[str, int] = {}
    sessions: int = 0
    contention: float = 1.0
    pinned: str = ""
    scheduler: str = ""
    foreign: Mapping[str, float] = {}
    load: float = 0.0
    began_ns: int = 0
    ended_ns: int = 0

    @property
    def dropped_rounds(self) -> int:
        """How many rounds were dropped."""
        return sum(self.dropped.values())


@dataclass(frozen=True)
class Result:
    """What a tournament gave: timings by candidate, why candidates failed, the comparisons with the best, and how it went."""

    summary: Summary
    timings: Mapping[str, Timings]
    failures: Mapping[str, str]
    orderings: Mapping[str, Mapping[str, float]]
    rounds: Sequence[Surroundings]


@dataclass
class _Entrant:
    """A candidate in the tournament; a new session may take as long as the worker came with, and a turn its own time."""

    name: str
    player: Player
    session_timeout_s: float
    turn_timeout_s: float = MIN_TIMEOUT_S
    runs: int = 1
    is_active: bool = True
    wall: list[list[int]] = field(default_factory=list)
    cpu: list[list[int]] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    sessions: list[int] = field(default_factory=list)

    def timings(self, kept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Timings:
        rounds = np.asarray(self.rounds, dtype=np.int64)
        return Timings(
            wall_ns=np.asarray(self.wall, dtype=np.int64).reshape(len(rounds), -1),
            cpu_ns=np.asarray(self.cpu, dtype=np.int64).reshape(len(rounds), -1),
            rounds=rounds,
            sessions=np.asarray(self.sessions, dtype=np.int64),
            kept=kept[rounds],
        )


class Tournament:
    """A tournament between workers that are ready to be timed.

    `is_one_thread` says that every candidate computes on one thread of the CPU, so that CPU time can stand for wall time where
    the CPU had to be shared. `metrics` are the timed ones, and those with a priority are what is to be decided.
    """

    def __init__(
        self,
        players: Mapping[str, Player],
        metrics: Sequence[Metric],
        plan: TimingPlan,
        *,
        batch_sizes: Mapping[str, int] | None = None,
        is_one_thread: bool = False,
        tell: Callable[[Sequence[Standing]], None] = lambda _: None,
    ) -> None:
        self._entrants = [_Entrant(name, player, player.timeout_s) for name, player in sorted(players.items())]
        self._metrics = sorted((item for item in metrics if item.priority > 0), key=lambda item: item.priority) or metrics[:1]
        self._plan = plan
        self._batch_sizes = batch_sizes or {}
        self._is_one_thread = is_one_thread
        self._tell = tell
        self._failures: dict[str, str] = {}
        self._surroundings: list[Surroundings] = []
        self._sessions = 0
        self._renewal_s = self._turns_s = self._checks_s = 0.0
        self._next_check = MIN_ROUNDS

    def play(self) -> Result:
        """Time the candidates until their order is decided and every metric is supported, or the time is up."""
        began_ns, began = time.time_ns(), time.monotonic()
        processes = cpu_use()
        is_decided = False
        while self._active:
            round_number = len(self._surroundings)
            if self._needs_sessions(round_number):
                self._renew_sessions()
            self._play_round(round_number)
            if self._needs_check(round_number + 1):
                is_decided = self._check()
                if is_decided and self._is_supported:
                    break
            if self._is_time_up(time.monotonic() - began):
                is_decided = self._check()
                break
        if not self._active:
            is_decided = self._check()
        ours = {os.getpid(), *(entrant.player.pid for entrant in self._entrants)}
        foreign = busiest(processes, time.monotonic() - began, ours)
        return self._result(is_decided, foreign, began_ns)

    def _is_time_up(self, elapsed_s: float) -> bool:
        planned_s = self._plan.seconds_per_candidate * len(self._entrants)
        is_enough = len(self._surroundings) >= ENOUGH_ROUNDS
        return elapsed_s > (planned_s if is_enough else MORE_TIME * planned_s)

    @property
    def _active(self) -> list[_Entrant]:
        return [entrant for entrant in self._entrants if entrant.is_active]

    @property
    def _is_supported(self) -> bool:
        kept = int(self._kept().sum())
        return all(kept * entrant.runs >= self._plan.runs for entrant in self._active)

    def _needs_sessions(self, round_number: int) -> bool:
        if round_number % SESSION_ROUNDS:
            return False
        return self._sessions < SESSIONS or self._renewal_s < RENEWAL_SHARE * self._turns_s

    def _needs_check(self, rounds: int) -> bool:
        """Whether to look at the order; the more rounds there are, the longer that takes."""
        return rounds >= self._next_check and self._checks_s <= CHECK_SHARE * self._turns_s

    def _renew_sessions(self) -> None:
        began = time.monotonic()
        for entrant in self._active:
            with self._failing(entrant):
                entrant.player.timeout_s = entrant.session_timeout_s
                warmed = entrant.player.ask("renew_session", warmup=self._plan.warmup, settled=SETTLED, max_s=MAX_WARMUP_S)
                median_ns = float(warmed["median_ns"])
                if not self._sessions:
                    entrant.runs = min(MAX_TURN_RUNS, max(1, math.ceil(TURN_NS / max(1.0, median_ns))))
                    entrant.turn_timeout_s = max(MIN_TIMEOUT_S, TIMEOUT_TURNS * entrant.runs * median_ns / 1e9)
                entrant.player.timeout_s = entrant.turn_timeout_s
        self._sessions += 1
        self._renewal_s += time.monotonic() - began

    def _play_round(self, number: int) -> None:
        active = self._active
        if not active:
            return
        first = number // 2 % len(active)
        order = (*active[first:], *active[:first])
        reading, began = Reading.now(), time.monotonic()
        computed_ns, switches, stalled = 0, 0, 0.0
        for entrant in order if number % 2 else reversed(order):  # so that nobody always follows the same one
            with self._failing(entrant):
                lead_in = int(entrant.runs >= LEAD_IN_FROM)
                answer = entrant.player.ask("time", runs=entrant.runs, lead_in=lead_in)
                wall, cpu = answer["wall_ns"], answer["cpu_ns"]
                entrant.wall.append(wall)
                entrant.cpu.append(cpu)
                entrant.rounds.append(number)
                entrant.sessions.append(self._sessions)
                computed_ns += int(answer["turn_cpu_ns"])
                switches = max(switches, int(answer["involuntary_switches"]))
                stalled = max(stalled, 1 - sum(cpu) / sum(wall))
        self._surroundings.append(reading.until_now(computed_ns, switches, stalled if self._is_one_thread else 0.0))
        self._turns_s += time.monotonic() - began

    def _failing(self, entrant: _Entrant) -> ExitStack:
        """Return a context in which the failure of a candidate takes it, and nothing else, out of the tournament."""

        def note(kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
            if kind is None or not issubclass(kind, EvaluationFailed):
                return False
            self._failures[entrant.name] = str(error)
            entrant.is_active = False
            return True

        stack = ExitStack()
        stack.push(note)
        return stack

    def _contention(self) -> float:
        """Return wall time over CPU time in the middle of the runs, of the candidate for which it is largest."""
        ratios = [
            float(np.median(np.asarray(entrant.wall) / np.maximum(1, np.asarray(entrant.cpu)))) for entrant in self._standing()
        ]
        return max(ratios, default=1.0)

    @property
    def _clock(self) -> Clock:
        if not self._is_one_thread:
            return "wall"
        stalled = [seen.stalled > STALLED for seen in self._surroundings]
        return "cpu" if self._contention() > CONTENDED or sum(stalled) > MAX_DROPPED * len(stalled) else "wall"

    def _disturbances(self) -> list[str | None]:
        """Return what disturbed each round, or None. Only what was seen of the machine counts, never how long runs took."""
        clock = self._clock
        have_company = statistics.fmean([seen.foreign for seen in self._surroundings] or [0.0]) > COMPANY
        usual = statistics.median([seen.pressure for seen in self._surroundings] or [0.0])
        causes: list[str | None] = []
        for seen in self._surroundings:
            crowded = have_company and seen.pressure > usual + STALLED and seen.switches > 0
            if seen.steal > STOLEN:
                causes.append("the hypervisor took the CPU away")
            elif seen.throttled > STOLEN:
                causes.append("the control group was throttled")
            elif clock == "wall" and (seen.stalled > STALLED if self._is_one_thread else crowded):
                causes.append("other work had the CPU")
            else:
                causes.append(None)
        return causes

    def _kept(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.asarray([cause is None for cause in self._disturbances()], dtype=np.bool_)

    def _standing(self) -> list[_Entrant]:
        """Return the candidates that have not failed, whether or not they left early."""
        return [entrant for entrant in self._entrants if entrant.name not in self._failures and entrant.rounds]

    def _check(self) -> bool:
        """Tell the standings, the leader's first, send clear losers home, and return whether the order is decided."""
        began, rounds = time.monotonic(), len(self._surroundings)
        self._next_check = rounds + max(CHECK_EVERY, rounds // 10)
        kept, clock = self._kept(), self._clock
        standing = [entrant for entrant in self._standing() if kept[entrant.rounds].any()]
        timings = {entrant.name: entrant.timings(kept) for entrant in standing}
        if not standing:
            return False
        comparison = _Comparison(self._metrics, timings, clock, self._batch_sizes)
        open_pairs = comparison.undecided_pairs()
        is_over, leader = self._is_supported, comparison.leader(self._metrics[0])
        for entrant in standing:
            is_known = not any(entrant.name in pair for pair in open_pairs)
            if is_over and is_known and entrant.name != leader and comparison.is_clearly_worse(leader, entrant.name):
                entrant.is_active = False
        active = {entrant.name for entrant in self._active}
        still_open = [pair for pair in open_pairs if active.issuperset(pair)]
        shown = sorted(standing, key=lambda entrant: entrant.name != leader)
        self._tell([self._stand(entrant, timings[entrant.name], still_open) for entrant in shown])
        self._checks_s += time.monotonic() - began
        return not still_open

    def _stand(self, entrant: _Entrant, timings: Timings, open_pairs: Sequence[tuple[str, str]]) -> Standing:
        metric = self._metrics[0]
        estimate, interval = timings.estimate(metric, self._batch_sizes.get(entrant.name, 1))
        is_decided = not any(entrant.name in pair for pair in open_pairs)
        return Standing(
            candidate=entrant.name,
            estimate=estimate,
            interval=interval,
            unit=metric.unit,
            state="left" if not entrant.is_active else "decided" if is_decided else "measuring",
            round=len(self._surroundings),
        )

    def _result(self, is_decided: bool, foreign: Mapping[str, float], began_ns: int) -> Result:
        disturbances = self._disturbances()
        kept = np.asarray([cause is None for cause in disturbances], dtype=np.bool_)
        dropped = {cause: disturbances.count(cause) for cause in disturbances if cause is not None}
        if sum(dropped.values()) > MAX_DROPPED * len(kept):
            kept[:] = True  # what is left would be no better: nothing is decided by these times, but they can be looked at
        usable = {entrant.name: entrant.timings(kept) for entrant in self._standing()}
        comparison = _Comparison(self._metrics, usable, self._clock, self._batch_sizes)
        state, cause = self._verdict(is_decided, dropped, foreign, comparison)
        summary = Summary(
            state=state,
            cause=cause,
            clock=self._clock,
            rounds=len(self._surroundings),
            dropped=dropped,
            sessions=self._sessions,
            contention=round(self._contention(), 3),
            foreign=foreign,
            load=statistics.fmean([seen.load for seen in self._surroundings] or [0.0]),
            began_ns=began_ns,
            ended_ns=time.time_ns(),
        )
        orderings = {metric.name: comparison.orderings(metric) for metric in self._metrics} if usable else {}
        return Result(summary, usable, self._failures, orderings, self._surroundings)

    def _verdict(
        self, is_decided: bool, dropped: Mapping[str, int], foreign: Mapping[str, float], comparison: "_Comparison"
    ) -> tuple[State, str]:
        rounds, gone = len(self._surroundings), sum(dropped.values())
        if gone > MAX_DROPPED * rounds:
            causes = ", ".join(f"{cause} in {count}" for cause, count in dropped.items())
            others = ", ".join(f"{name} ({100 * share:.0f} % of a CPU)" for name, share in foreign.items())
            busy = f"; busy meanwhile: {others}" if others else ""
            return "unstable", f"{gone} of {rounds} rounds were disturbed: {causes}{busy}"
        if not self._standing():
            return "undecided", "no candidate could be timed"
        open_pairs = len(comparison.undecided_pairs())
        if is_decided and not open_pairs:
            return "decided", ""
        reason = "of candidates that had left" if is_decided else "since time was up"
        return "undecided", f"comparisons are open after {rounds} rounds, {reason}: {open_pairs}"


class _Comparison:
    """The candidates of a tournament compared in pairs, with intervals that shall hold together."""

    def __init__(
        self, metrics: Sequence[Metric], timings: Mapping[str, Timings], clock: Clock, batch_sizes: Mapping[str, int]
    ) -> None:
        self._metrics, self._timings, self._clock, self._batch_sizes = metrics, timings, clock, batch_sizes
        self._confidence = shared_confidence(LOOKS * pair_count(len(timings)))
        self._effects: dict[tuple[str, str, str], Effect] = {}

    def effect(self, metric: Metric, best: str, other: str) -> Effect:
        """Return by how much `other` is worse than `best`; how sure that is is unknown where one has too few runs."""
        key = metric.name, best, other
        if key not in self._effects:
            sizes = self._batch_sizes.get(best, 1), self._batch_sizes.get(other, 1)
            effect = paired_effect(
                metric,
                self._timings[best],
                self._timings[other],
                clock=self._clock,
                batch_sizes=sizes,
                confidence=self._confidence,
            )
            runs = min(self._timings[name].of_kept_rounds().wall_ns.size for name in (best, other))
            is_supported = runs >= needed_runs(metric.sub_type)
            self._effects[key] = effect if is_supported else Effect.unknown(effect.estimate, is_relative=True)
        return self._effects[key]

    def value(self, metric: Metric, name: str) -> float:
        """Return the metric over the kept rounds by the clock that ranks."""
        runs = self._timings[name].of_kept_rounds().ns(self._clock).reshape(1, -1)
        return float(statistic(metric, runs, self._batch_sizes.get(name, 1))[0]) if runs.size else math.nan

    def leader(self, metric: Metric) -> str:
        """Return the candidate with the best value."""
        sign = -1 if metric.higher_is_better else 1
        return min(self._timings, key=lambda name: (sign * self.value(metric, name), name))

    def orderings(self, metric: Metric) -> dict[str, float]:
        """Return, for each candidate, the leader's value times the ratio to it that was found in pairs."""
        leader = self.leader(metric)
        value, sign = self.value(metric, leader), -1 if metric.higher_is_better else 1
        effects = {name: 0.0 if name == leader else self.effect(metric, leader, name).estimate for name in self._timings}
        return {name: value * (1 + sign * effect) for name, effect in effects.items()}

    def undecided_pairs(self) -> list[tuple[str, str]]:
        """Return the pairs that the order rests on and that are not decided: each leader of a class with those behind it."""
        return [pair for metric in self._metrics for pair in self._undecided(metric)]

    def is_clearly_worse(self, leader: str, name: str) -> bool:
        """Whether a candidate is so much worse than the leader on every metric that more rounds are of no use."""
        return all(self.effect(metric, leader, name).low > CLEARLY_WORSE for metric in self._metrics)

    def _undecided(self, metric: Metric) -> list[tuple[str, str]]:
        orderings = self.orderings(metric) if self._timings else {}
        sign = -1 if metric.higher_is_better else 1
        waiting = sorted(orderings, key=lambda name: (sign * orderings[name], name))
        found = []
        while waiting:
            leader, *others = waiting
            verdicts = {name: self.effect(metric, leader, name).verdict(metric, orderings[leader]) for name in others}
            found += [(leader, name) for name, verdict in verdicts.items() if verdict == "undecided"]
            waiting = [name for name in others if verdicts[name] == "worse"]
        return found
