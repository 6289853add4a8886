"""Rank candidates by metric priority, with ties.

A candidate is behind another where a metric's difference exceeds the tolerance with confidence; otherwise they are tied, and
the next priority decides. Pure functions over evaluations: no orchestrator, no clock; what there is to know about a difference
comes from the `Compare` that they are given.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from packhouse.comparison import Compare, Effect, compare_intervals, compare_values
from packhouse.evaluation.records import Evaluation
from packhouse.goals import missed_goals, told_apart
from packhouse.metrics import Metric
from packhouse.records import Record
from packhouse.statistics import pair_count

Split = Callable[[Sequence[Evaluation]], list[list[Evaluation]]]


class Decision(Record):
    """The metric that decided a place, and by how much."""

    metric: str
    effect: Effect


class Ranked(Record):
    """A candidate with its place, 1 first, and what decided it.

    `shared_rank` is the first place among those that no metric tells apart: they are in order of digest only.
    """

    rank: int
    shared_rank: int
    candidate: str
    accelerator: str
    decided_by: str
    decision: Decision | None = None


class Objective(Record):
    """What the first places are given for: the metrics by priority, the Pareto front, or a weighted sum.

    With ``pareto``, candidates that no other one dominates come first, then those that only they dominate, and so on; one
    dominates another if it is better on some metric and worse on none, with confidence. With `weights`, candidates are ordered
    by the sum of their distances from the best value of each metric, relative to it, times the metric's weight. Within a front,
    or among those whose sums are tied, priorities decide.
    """

    kind: Literal["priority", "pareto"] = "priority"
    weights: Mapping[str, float] = {}


class Unranked(Record):
    """A candidate without a place: it failed, was rejected by a goal, or lacks a value to rank by."""

    candidate: str
    accelerator: str
    status: Literal["failed", "rejected", "unranked"]
    reason: str


class Ranking(Record):
    """The order of candidates, of one accelerator or across several."""

    ranked: tuple[Ranked, ...] = ()
    unranked: tuple[Unranked, ...] = ()


def rank(
    evaluations: Sequence[Evaluation],
    metrics: Sequence[Metric],
    baseline: str | None = None,
    compare: Compare = compare_intervals,
    objective: Objective | None = None,
) -> Ranking:
    """Order `evaluations` from best to worst; `baseline` is the digest of the candidate that relative goals refer to.

    Laws: the result does not depend on the order of the input; with a tolerance of 0 it is the plain lexicographic order of
    the values by priority; a candidate that failed, missed a goal, or has no finite value for a ranked metric is `unranked`
    with a reason, never last; what no metric tells apart is ordered by candidate digest, then accelerator.
    """
    order = sorted((metric for metric in metrics if metric.priority > 0), key=lambda metric: metric.priority)
    baselines = {evaluation.accelerator: evaluation for evaluation in evaluations if evaluation.candidate == baseline}
    unranked, eligible = [], []
    for evaluation in sorted(evaluations, key=_identity):
        obstacle = _obstacle(evaluation, metrics, order, baselines.get(evaluation.accelerator))
        if obstacle:
            unranked.append(obstacle)
        else:
            eligible.append(evaluation)
    return Ranking(ranked=_Order(eligible, order, compare, objective or Objective()).ranked(), unranked=tuple(unranked))


def _identity(evaluation: Evaluation) -> tuple[str, str]:
    return evaluation.candidate, evaluation.accelerator


def _sorted_by(metric: Metric, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Return the evaluations, the best on a metric first; by what was found in pairs only where all are of one tournament."""
    sign, is_paired = -1 if metric.higher_is_better else 1, len({item.tournament for item in evaluations}) == 1

    def key(item: Evaluation) -> tuple[float, tuple[str, str]]:
        measured = item.metrics[metric.name]
        return sign * (measured.rank_value(metric) if is_paired else measured.value), _identity(item)

    return sorted(evaluations, key=key)


def _best(metric: Metric, evaluations: Sequence[Evaluation]) -> Evaluation:
    return _sorted_by(metric, evaluations)[0]


def _obstacle(
    evaluation: Evaluation, metrics: Sequence[Metric], order: Sequence[Metric], baseline: Evaluation | None
) -> Unranked | None:
    status: Literal["failed", "rejected", "unranked"]
    lacking = [metric.name for metric in order if not math.isfinite(evaluation.values.get(metric.name, math.nan))]
    measured = [metric for metric in metrics if metric.name in evaluation.metrics and metric.name not in lacking]
    if evaluation.failure is not None:
        status, reason = "failed", evaluation.failure
    elif missed := missed_goals(evaluation, metrics if not lacking else measured, baseline):
        status, reason = "rejected", "; ".join(missed)
    elif lacking:
        status, reason = "unranked", f"no finite value for {', '.join(lacking)}"
    else:
        return None
    return Unranked(candidate=evaluation.candidate, accelerator=evaluation.accelerator, status=status, reason=reason)


class _Order:
    """The order of evaluations that all have what they are ranked by, and what decided each place."""

    def __init__(
        self, evaluations: Sequence[Evaluation], metrics: Sequence[Metric], compare: Compare, objective: Objective
    ) -> None:
        self._evaluations, self._metrics = evaluations, metrics
        self._compare, self._comparisons = compare, max(1, pair_count(len(evaluations)))
        self._objective = objective
        self._effects: dict[tuple[str, tuple[str, str], tuple[str, str]], Effect] = {}

    def ranked(self) -> tuple[Ranked, ...]:
        """Return the evaluations in order."""
        ordered = self._sorted(self._evaluations, self._splits())
        places: list[Ranked] = []
        for place, evaluation in enumerate(ordered, start=1):
            reason, decision, is_tied = self._decided_by(ordered, place - 1)
            shared = places[-1].shared_rank if places and is_tied else place
            places.append(
                Ranked(
                    rank=place,
                    shared_rank=shared,
                    candidate=evaluation.candidate,
                    accelerator=evaluation.accelerator,
                    decided_by=reason,
                    decision=decision,
                )
            )
        return tuple(places)

    def _splits(self) -> list[tuple[Metric | str, Split]]:
        """Return how candidates are told apart, the most important first: by a metric, or by what the objective is called."""
        splits: list[tuple[Metric | str, Split]] = [(metric, self._classes_by(metric)) for metric in self._metrics]
        if self._objective.kind == "pareto":
            splits.insert(0, ("Pareto front", self._fronts))
        if self._objective.weights:
            splits.insert(0, ("weighted sum", self._by_weight))
        return splits

    def _sorted(self, evaluations: Sequence[Evaluation], splits: Sequence[tuple[object, Split]]) -> list[Evaluation]:
        if not splits or len(evaluations) < 2:
            return sorted(evaluations, key=_identity)
        return [member for tied in splits[0][1](evaluations) for member in self._sorted(tied, splits[1:])]

    def _classes_by(self, metric: Metric) -> Split:
        """Return the split into classes of a metric, best first: each is its leader and all that it is not sure to beat."""

        def split(evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
            waiting = _sorted_by(metric, evaluations)
            classes = []
            while waiting:
                leader = waiting[0]
                classes.append([leader, *(item for item in waiting[1:] if not self._beats(leader, item, metric))])
                waiting = [item for item in waiting if item not in classes[-1]]
            return classes

        return split

    def _fronts(self, evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
        waiting, fronts = list(evaluations), []
        while waiting:
            front = [item for item in waiting if not any(self._dominates(other, item) for other in waiting)]
            fronts.append(front or waiting)
            waiting = [item for item in waiting if item not in fronts[-1]]
        return fronts

    def _dominates(self, one: Evaluation, other: Evaluation) -> bool:
        return any(self._beats(one, other, metric) for metric in self._metrics) and not any(
            self._beats(other, one, metric) for metric in self._metrics
        )

    def _by_weight(self, evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
        waiting = sorted(
            evaluations, key=lambda item: (self._weighted(item, evaluations, evaluations).estimate, _identity(item))
        )
        classes = []
        while waiting:
            leader, sums = waiting[0], {}
            for item in waiting[1:]:
                sums[_identity(item)] = self._weighted(item, [leader], evaluations)
            classes.append([leader, *(item for item in waiting[1:] if sums[_identity(item)].low <= 0)])
            waiting = [item for item in waiting if item not in classes[-1]]
        return classes

    def _weighted(self, item: Evaluation, others: Sequence[Evaluation], group: Sequence[Evaluation]) -> Effect:
        """Return the weighted sum of the effects against the best of `others` on each metric.

        Effects are relative to the best value of `group`, so that sums against different `others` can be compared.
        """
        estimate = down = up = 0.0
        for metric in self._metrics:
            if not (weight := self._objective.weights.get(metric.name, 0.0)):
                continue
            best = _best(metric, others)
            effect = self._effect(metric, best, item)
            scale = weight / (abs(_best(metric, group).values[metric.name]) or 1.0)
            if effect.is_relative:
                scale *= abs(best.values[metric.name])
            estimate += scale * effect.estimate
            down = math.hypot(down, scale * (effect.estimate - effect.low))
            up = math.hypot(up, scale * (effect.high - effect.estimate))
        return Effect(estimate=estimate, low=estimate - down, high=estimate + up, is_relative=True)

    def _beats(self, one: Evaluation, other: Evaluation, metric: Metric) -> bool:
        if one is other:
            return False
        return self._effect(metric, one, other).verdict(metric, one.metrics[metric.name].rank_value(metric)) == "worse"

    def _effect(self, metric: Metric, best: Evaluation, other: Evaluation) -> Effect:
        if best is other:
            return Effect.exactly(0.0)
        key = metric.name, _identity(best), _identity(other)
        if key not in self._effects:
            effect = self._compare(metric, best, other, comparisons=self._comparisons)
            if effect.is_known and not metric.tolerance.is_tested:
                effect = compare_values(metric, best, other)
            self._effects[key] = effect
        return self._effects[key]

    def _decided_by(self, ordered: Sequence[Evaluation], index: int) -> tuple[str, Decision | None, bool]:
        """Say what put the evaluation at `index` behind the one before it, or the first before the second.

        Returned are the sentence, the decision if it was a metric's, and whether nothing tells it from the one before it.
        """
        if len(ordered) == 1:
            return "the only ranked candidate", None, False
        better, worse = (ordered[0], ordered[1]) if index == 0 else (ordered[index - 1], ordered[index])
        group: Sequence[Evaluation] = self._evaluations
        notes: list[str] = []
        for criterion, split in self._splits():
            group = next(tied for tied in split(group) if better in tied)
            if isinstance(criterion, str):
                if worse not in group:
                    return f"{criterion}: {'ahead of the second' if index == 0 else 'behind the one before'}", None, False
                continue
            leader = group[0]
            if worse not in group:
                text, decision = self._told(criterion, leader, worse, is_first=index == 0)
                return "; ".join([text, *notes]), decision, False
            notes.append(self._tie(criterion, leader, better, worse))
        last = "digest" if better.candidate != worse.candidate else "accelerator"
        return f"{'; '.join(notes) or 'nothing to rank by'}; ordered by {last}", None, index > 0

    def _told(self, metric: Metric, leader: Evaluation, worse: Evaluation, *, is_first: bool) -> tuple[str, Decision | None]:
        ours, theirs = leader.values[metric.name], worse.values[metric.name]
        mine, other = told_apart(ours, theirs) if is_first else told_apart(theirs, ours)
        effect = self._effect(metric, leader, worse)
        text = f"{metric.name}: {mine} {'against' if is_first else 'behind'} {other}{' ' + metric.unit if metric.unit else ''}"
        if not effect.is_exact:
            text += f", {effect.describe(metric)}"
        is_finite = math.isfinite(effect.low) and math.isfinite(effect.high)
        return text, Decision(metric=metric.name, effect=effect) if is_finite else None

    def _tie(self, metric: Metric, leader: Evaluation, better: Evaluation, worse: Evaluation) -> str:
        """Say that two are in the class of a leader: tied with it, or not told apart from it."""
        effect, best = self._effect(metric, better, worse), leader.metrics[metric.name].rank_value(metric)
        verdicts = {self._effect(metric, leader, item).verdict(metric, best) for item in (better, worse)}
        doubt = "undecided" if metric.tolerance.value else "not told apart"
        text = f"{doubt if 'undecided' in verdicts else 'tied'} on {metric.name}"
        return text if effect.is_exact else f"{text}: {effect.describe(metric)}"
