"""The laws of ranking, and what it says about each place."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packhouse.comparison import Compare, Effect, compare_intervals, compare_values
from packhouse.evaluation.records import Evaluation, MetricValue
from packhouse.metrics import Goal, GoalType, Metric, parse_tolerance
from packhouse.ranking import Objective, Ranked, Ranking, Unranked, _Order, rank

NOT_FINITE = (math.nan, math.inf, -math.inf)


def metric(
    name: str, priority: int = 1, *, higher: bool = True, tolerance: float | str = 0, goal: Goal | None = None
) -> Metric:
    """Return a metric of the type that has a unit, so that texts show it."""
    return Metric(
        name=name,
        type="latency",
        sub_type="p50",
        priority=priority,
        higher_is_better=higher,
        goal=goal,
        tolerance=parse_tolerance(tolerance),
        settings={},
        function=None,
    )


def evaluation(candidate: str, accelerator: str = "cpu-cpu", failure: str | None = None, **values: float) -> Evaluation:
    measured = {name: MetricValue(value=value, unit="ms", n=1) for name, value in values.items()}
    return Evaluation(candidate=candidate, accelerator=accelerator, failure=failure, metrics=measured)


def uncertain(candidate: str, accelerator: str = "cpu-cpu", **values: tuple[float, float]) -> Evaluation:
    """Return an evaluation whose values each have an interval that reaches as far on both sides."""
    measured = {
        name: MetricValue(value=value, unit="ms", n=1, interval=(value - margin, value + margin))
        for name, (value, margin) in values.items()
    }
    return Evaluation(candidate=candidate, accelerator=accelerator, metrics=measured)


def identities(found: Iterable[Evaluation | Ranked | Unranked]) -> list[tuple[str, str]]:
    return [(item.candidate, item.accelerator) for item in found]


# Few different values, so that ties and chains of near ties are common; and some as large or small as floats get.
odd_values = st.sampled_from([0.1, 0.2, 0.30000000000000004, -0.0, 1e-300, 1.7e308, -1.7e308])
values = st.integers(-4, 4).map(float) | odd_values
directions = st.booleans()
tolerances: st.SearchStrategy[float | str] = st.sampled_from([0, 0.1, 1, 2.5, "10%", "100%", "300%"])
goals = st.none() | st.builds(
    Goal, type=st.sampled_from(["threshold", "max-degradation", "percent-min-improvement"]), value=st.integers(0, 3)
)


@st.composite
def metric_lists(draw: st.DrawFn, *, exact: bool = False) -> list[Metric]:
    """Up to three ranked metrics and perhaps one that is not, in any order of priority."""
    priorities = [*draw(st.permutations([1, 2, 3])), -1][: draw(st.integers(1, 4))]
    return [
        metric(
            name,
            priority,
            higher=draw(directions),
            tolerance=draw(st.just(0) if exact else tolerances),
            goal=None if exact else draw(goals),
        )
        for name, priority in zip("pqrs", priorities, strict=False)
    ]


@st.composite
def evaluation_lists(draw: st.DrawFn, *, whole: bool = False) -> list[Evaluation]:
    """Evaluations of up to five candidates on two accelerators; unless `whole`, some failed or lack values."""
    pair = st.tuples(st.sampled_from("abcde"), st.sampled_from(["cpu-cpu", "gpu-cuda"]))
    pairs = draw(st.lists(pair, unique=True, max_size=8))
    any_value = values if whole else values | st.sampled_from(NOT_FINITE)
    measured = st.fixed_dictionaries(dict.fromkeys("pqrs", any_value))
    if not whole:
        measured = measured | st.dictionaries(st.sampled_from("pqrs"), any_value)
    failure = st.none() if whole else st.none() | st.just("out of memory")
    return [evaluation(candidate, accelerator, draw(failure), **draw(measured)) for candidate, accelerator in pairs]


@st.composite
def uncertain_lists(draw: st.DrawFn) -> list[Evaluation]:
    """Evaluations of up to six candidates with intervals, which often overlap and need not be alike."""
    reach = st.integers(0, 3).map(float)
    value = st.builds(
        lambda middle, down, up: MetricValue(value=middle, unit="ms", n=1, interval=(middle - down, middle + up)),
        st.integers(1, 8).map(float),
        reach,
        reach,
    )
    measured = st.fixed_dictionaries(dict.fromkeys("pqrs", value))
    names = draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=6))
    return [Evaluation(candidate=name, accelerator="cpu-cpu", metrics=draw(measured)) for name in names]


objectives = st.sampled_from(
    [Objective(), Objective(kind="pareto"), Objective(weights={"p": 2, "q": 1}), Objective(kind="pareto", weights={"r": 1})]
)


def by_priority(metrics: Iterable[Metric]) -> list[Metric]:
    return sorted((item for item in metrics if item.priority > 0), key=lambda item: item.priority)


def order_of(evaluations: list[Evaluation], metrics: list[Metric], objective: Objective | None = None) -> _Order:
    return _Order(evaluations, by_priority(metrics), compare_intervals, objective or Objective())


def classes_of(evaluations: list[Evaluation], by: Metric) -> list[list[Evaluation]]:
    return order_of(evaluations, [by])._classes_by(by)(evaluations)


def beats(one: Evaluation, other: Evaluation, by: Metric) -> bool:
    return compare_intervals(by, one, other).verdict(by, one.values[by.name]) == "worse"


@settings(deadline=None)
@given(st.data(), evaluation_lists(), metric_lists(), st.sampled_from([None, "a"]))
def test_order_of_the_input_does_not_matter(
    data: st.DataObject, evaluations: list[Evaluation], metrics: list[Metric], baseline: str | None
) -> None:
    shuffled = data.draw(st.permutations(evaluations))
    reordered = data.draw(st.permutations(metrics))
    expected = rank(evaluations, metrics, baseline)
    assert rank(shuffled, metrics, baseline) == expected
    assert rank(shuffled, reordered, baseline).ranked == expected.ranked


def in_plain_order(evaluations: list[Evaluation], metrics: list[Metric]) -> list[Evaluation]:
    def key(item: Evaluation) -> list[float | str]:
        numbers = [item.values[by.name] * (-1 if by.higher_is_better else 1) for by in by_priority(metrics)]
        return [*numbers, item.candidate, item.accelerator]

    return sorted(evaluations, key=key)


@settings(deadline=None)
@given(evaluation_lists(whole=True), metric_lists(exact=True))
def test_order_without_tolerance_is_lexicographic(evaluations: list[Evaluation], metrics: list[Metric]) -> None:
    assert identities(rank(evaluations, metrics).ranked) == identities(in_plain_order(evaluations, metrics))


@settings(deadline=None)
@given(uncertain_lists(), metric_lists(exact=True))
def test_order_without_tolerance_is_lexicographic_though_there_are_intervals(
    evaluations: list[Evaluation], metrics: list[Metric]
) -> None:
    assert identities(rank(evaluations, metrics).ranked) == identities(in_plain_order(evaluations, metrics))


@settings(deadline=None)
@given(evaluation_lists(), metric_lists(), st.sampled_from([None, "a"]))
def test_every_evaluation_is_placed_once_or_unranked_once_with_a_reason(
    evaluations: list[Evaluation], metrics: list[Metric], baseline: str | None
) -> None:
    ranking = rank(evaluations, metrics, baseline)
    assert Counter(identities([*ranking.ranked, *ranking.unranked])) == Counter(identities(evaluations))
    assert [item.rank for item in ranking.ranked] == list(range(1, len(ranking.ranked) + 1))
    assert all(item.reason for item in ranking.unranked)
    assert all(item.decided_by for item in ranking.ranked)


@settings(deadline=None)
@given(evaluation_lists(), metric_lists())
def test_evaluation_that_failed_or_lacks_a_finite_value_is_unranked_not_last(
    evaluations: list[Evaluation], metrics: list[Metric]
) -> None:
    needed = [item.name for item in metrics if item.priority > 0]
    whole = {
        (item.candidate, item.accelerator)
        for item in evaluations
        if item.failure is None and all(math.isfinite(item.values.get(name, math.nan)) for name in needed)
    }
    ranking = rank(evaluations, metrics)
    statuses = {(item.candidate, item.accelerator): item.status for item in ranking.unranked}
    assert set(identities(ranking.ranked)) <= whole
    assert whole.isdisjoint(key for key, status in statuses.items() if status == "unranked")
    assert {key for key, status in statuses.items() if status == "failed"} == {
        (item.candidate, item.accelerator) for item in evaluations if item.failure
    }


@settings(deadline=None)
@given(evaluation_lists(whole=True), directions, tolerances)
def test_class_is_its_leader_and_all_that_is_within_the_tolerance_of_the_leader(
    evaluations: list[Evaluation], higher: bool, tolerance: float | str
) -> None:
    by = metric("p", higher=higher, tolerance=tolerance)
    classes = [[item.values["p"] for item in members] for members in classes_of(evaluations, by)]

    def is_within(leader: float, other: float) -> bool:
        limit = by.tolerance.limit(leader, is_relative=False)
        return (leader - other if higher else other - leader) <= limit * (1 + 2e-9)

    for index, (leader, *members) in enumerate(classes):
        assert all(is_within(leader, other) and (leader >= other if higher else leader <= other) for other in members)
        for later in classes[index + 1 :]:
            assert not any(is_within(leader, other) for other in later)
    assert sum(map(len, classes)) == len(evaluations)


@settings(deadline=None)
@given(uncertain_lists(), directions, tolerances)
def test_class_is_led_by_one_that_is_not_sure_to_beat_its_members_and_is_to_beat_the_next_leader(
    evaluations: list[Evaluation], higher: bool, tolerance: float | str
) -> None:
    by = metric("p", higher=higher, tolerance=tolerance)
    classes = classes_of(evaluations, by)
    for leader, *members in classes:
        assert not any(beats(leader, member, by) for member in members)
        assert all(
            leader.values["p"] >= item.values["p"] if higher else leader.values["p"] <= item.values["p"] for item in members
        )
    assert all(beats(earlier[0], later[0], by) for earlier, later in itertools.pairwise(classes))
    assert sorted(identities(itertools.chain(*classes))) == sorted(identities(evaluations))


@settings(deadline=None)
@given(uncertain_lists(), metric_lists(), objectives, st.data())
def test_order_of_the_input_does_not_matter_where_numbers_are_uncertain(
    evaluations: list[Evaluation], metrics: list[Metric], objective: Objective, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(evaluations))
    assert rank(shuffled, metrics, objective=objective) == rank(evaluations, metrics, objective=objective)


def not_told_apart(evaluations: list[Evaluation], metrics: list[Metric]) -> list[list[str]]:
    """Return the candidates in order, those that no metric tells apart together: an account of its own of how ranking goes."""
    if not metrics:
        return [sorted(item.candidate for item in evaluations)]
    by, *others = metrics
    sign = -1 if by.higher_is_better else 1
    waiting, groups = sorted(evaluations, key=lambda item: (sign * item.values[by.name], item.candidate)), []
    while waiting:
        tied = [item for item in waiting if not beats(waiting[0], item, by)]
        waiting = [item for item in waiting if beats(waiting[0], item, by)] if len(waiting) > 1 else []
        groups += not_told_apart(tied, others)
    return groups


@settings(deadline=None)
@given(uncertain_lists(), metric_lists())
def test_candidates_share_a_rank_if_and_only_if_no_metric_tells_them_apart(
    evaluations: list[Evaluation], metrics: list[Metric]
) -> None:
    unaimed = [by.model_copy(update={"goal": None}) for by in metrics]
    ranked = rank(evaluations, unaimed).ranked
    groups = [[item.candidate for item in shared] for _, shared in itertools.groupby(ranked, key=lambda item: item.shared_rank)]
    assert groups == (not_told_apart(evaluations, by_priority(unaimed)) if evaluations else [])
    assert [item.shared_rank for item in ranked if item.shared_rank == item.rank] == [
        1 + sum(map(len, groups[:index])) for index in range(len(groups))
    ]
    for item in ranked[1:]:
        assert (item.shared_rank < item.rank) is item.decided_by.endswith("ordered by digest")


@settings(deadline=None)
@given(uncertain_lists(), metric_lists(), objectives, st.data())
def test_candidate_that_failed_or_has_no_value_changes_no_other_place(
    evaluations: list[Evaluation], metrics: list[Metric], objective: Objective, data: st.DataObject
) -> None:
    lost = data.draw(st.sampled_from([evaluation("aa", failure="out of memory"), evaluation("aa", s=1.0)]))
    before = rank(evaluations, metrics, objective=objective)
    after = rank([lost, *evaluations], metrics, objective=objective)
    assert after.ranked == before.ranked
    assert {item.candidate for item in after.unranked} == {item.candidate for item in before.unranked} | {"aa"}


@settings(deadline=None)
@given(uncertain_lists(), directions, st.sampled_from(["10%", "50%", 0]), objectives, st.sampled_from([0.125, 4.0, 1024.0]))
def test_unit_that_a_metric_is_told_in_does_not_matter_to_relative_tolerances(
    evaluations: list[Evaluation], higher: bool, tolerance: float | str, objective: Objective, factor: float
) -> None:
    metrics = [metric(name, at, higher=higher, tolerance=tolerance) for at, name in enumerate("pqr", start=1)]

    def scaled(item: MetricValue) -> MetricValue:
        assert item.interval
        ends = (item.interval[0] * factor, item.interval[1] * factor)
        return item.model_copy(update={"value": item.value * factor, "interval": ends})

    other_unit = [
        item.model_copy(update={"metrics": {name: scaled(value) for name, value in item.metrics.items()}})
        for item in evaluations
    ]
    before, after = (rank(found, metrics, objective=objective).ranked for found in (evaluations, other_unit))
    assert [(item.candidate, item.shared_rank) for item in before] == [(item.candidate, item.shared_rank) for item in after]


def dominates(one: Evaluation, other: Evaluation, metrics: list[Metric]) -> bool:
    gains = [(one.values[by.name] - other.values[by.name]) * (1 if by.higher_is_better else -1) for by in by_priority(metrics)]
    return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)


@settings(deadline=None)
@given(evaluation_lists(whole=True), metric_lists(exact=True))
def test_pareto_fronts_are_of_those_that_only_earlier_fronts_dominate(
    evaluations: list[Evaluation], metrics: list[Metric]
) -> None:
    fronts = order_of(evaluations, metrics)._fronts(evaluations)
    assert sorted(identities(itertools.chain(*fronts))) == sorted(identities(evaluations))
    for index, front in enumerate(fronts):
        not_before = list(itertools.chain(*fronts[index:]))
        assert not any(dominates(one, other, metrics) for one in not_before for other in front)
        if index:
            assert all(any(dominates(one, other, metrics) for one in fronts[index - 1]) for other in front)
    ranked = rank(evaluations, metrics, objective=Objective(kind="pareto")).ranked
    assert identities(ranked) == [key for front in fronts for key in identities(in_plain_order(front, metrics))]


@settings(deadline=None)
@given(uncertain_lists(), metric_lists())
def test_candidate_of_the_first_front_is_not_sure_to_be_dominated(evaluations: list[Evaluation], metrics: list[Metric]) -> None:
    order = by_priority(metrics)

    def surely_dominates(one: Evaluation, other: Evaluation) -> bool:
        return any(beats(one, other, by) for by in order) and not any(beats(other, one, by) for by in order)

    fronts = order_of(evaluations, metrics)._fronts(evaluations)
    assert sorted(identities(itertools.chain(*fronts))) == sorted(identities(evaluations))
    undominated = [one for one in evaluations if not any(surely_dominates(other, one) for other in evaluations)]
    assert not fronts or not undominated or identities(fronts[0]) == identities(undominated)


@settings(deadline=None)
@given(uncertain_lists(), directions, directions, st.sampled_from(["p", "q"]), st.sampled_from([0.5, 1, 7]))
def test_order_by_the_weight_of_a_single_metric_is_that_of_this_metric(
    evaluations: list[Evaluation], p_higher: bool, q_higher: bool, heavy: str, weight: float
) -> None:
    metrics = [metric("p", 1, higher=p_higher), metric("q", 2, higher=q_higher)]
    exact = [
        item.model_copy(update={"metrics": {k: v.model_copy(update={"interval": None}) for k, v in item.metrics.items()}})
        for item in evaluations
    ]
    first = sorted(metrics, key=lambda by: by.name != heavy)
    expected = rank(exact, [by.model_copy(update={"priority": at}) for at, by in enumerate(first, start=1)])
    weighed = rank(exact, metrics, objective=Objective(weights={heavy: weight}))
    assert identities(weighed.ranked) == identities(expected.ranked)


@settings(deadline=None)
@given(evaluation_lists(whole=True), directions, directions, st.integers(0, 3), st.integers(1, 3))
def test_weights_order_by_the_sum_of_the_distances_from_the_best_values(
    evaluations: list[Evaluation], p_higher: bool, q_higher: bool, p_weight: int, q_weight: int
) -> None:
    small = [item for item in evaluations if all(abs(value) <= 4 for value in item.values.values())]
    metrics = [metric("p", 1, higher=p_higher), metric("q", 2, higher=q_higher)]
    ranked = rank(small, metrics, objective=Objective(weights={"p": p_weight, "q": q_weight})).ranked
    found = {(item.candidate, item.accelerator): item.values for item in small}
    sums = dict.fromkeys(found, 0.0)
    for by, weight in zip(metrics, (p_weight, q_weight), strict=True):
        values = [item[by.name] for item in found.values()]
        best = (max(values) if by.higher_is_better else min(values)) if values else 0.0
        for key, item in found.items():
            sums[key] += weight * abs(item[by.name] - best) / (abs(best) or 1.0)
    in_order = [sums[key] for key in identities(ranked)]
    assert all(one <= other or one == pytest.approx(other, rel=1e-9) for one, other in itertools.pairwise(in_order)), in_order


def test_weights_and_throughput_are_measured_from_the_best_value_of_all() -> None:
    metrics = [metric("p", 1, higher=True), metric("q", 2, higher=True)]
    found = [evaluation("a", p=10.0, q=1.0), evaluation("b", p=1.0, q=12.0)]
    ranked = rank(found, metrics, objective=Objective(weights={"p": 1, "q": 1})).ranked
    assert [item.candidate for item in ranked] == ["b", "a"]
    assert [item.decided_by for item in ranked] == [
        "weighted sum: ahead of the second",
        "weighted sum: behind the one before",
    ]


def test_metric_without_a_weight_adds_no_doubt_to_the_sum() -> None:
    def compare(metric: Metric, best: Evaluation, other: Evaluation, *, comparisons: int = 1) -> Effect:
        if metric.name == "q":
            return Effect.unknown(0.0, is_relative=False)
        return compare_intervals(metric, best, other, comparisons=comparisons)

    metrics = [metric(name, place, higher=False, tolerance="1%") for place, name in enumerate("pq", start=1)]
    weights = Objective(weights={"p": 1})
    apart = [uncertain("a", p=(3, 0.5), q=(1, 0)), uncertain("b", p=(1, 0.5), q=(2, 0))]
    assert [item.candidate for item in rank(apart, metrics, compare=compare, objective=weights).ranked] == ["b", "a"]
    near = [uncertain("a", p=(3, 5), q=(1, 0)), uncertain("b", p=(1, 5), q=(2, 0))]
    assert [item.shared_rank for item in rank(near, metrics, compare=compare, objective=weights).ranked] == [1, 1]


def test_weighted_sums_that_are_uncertain_leave_the_order_to_the_priorities() -> None:
    metrics = [metric("p", 1, higher=False), metric("q", 2, higher=False, tolerance="1%")]
    weights = Objective(weights={"q": 1})
    found = [uncertain("a", p=(2, 0), q=(10, 4)), uncertain("b", p=(1, 0), q=(11, 4)), uncertain("c", p=(0, 0), q=(40, 4))]
    assert [item.candidate for item in rank(found, metrics, objective=weights).ranked] == ["b", "a", "c"]


def test_effects_that_are_relative_weigh_as_much_as_those_in_the_unit() -> None:
    def relative(metric: Metric, best: Evaluation, other: Evaluation, *, comparisons: int = 1) -> Effect:
        effect = compare_values(metric, best, other).estimate / best.values[metric.name]
        return Effect(estimate=effect, low=effect, high=effect, is_relative=True)

    metrics = [metric("p", 1, higher=False), metric("q", 2, higher=False)]
    weights = Objective(weights={"p": 1, "q": 1})
    found = [evaluation("a", p=2, q=3), evaluation("b", p=3, q=1), evaluation("c", p=1, q=9), evaluation("d", p=7, q=7)]
    orders = [
        [item.candidate for item in rank(found, metrics, compare=compare, objective=weights).ranked]
        for compare in (compare_values, relative)
    ]
    assert orders == [["b", "a", "c", "d"]] * 2


@pytest.mark.parametrize("count", [1, 2, 5])
def test_intervals_hold_together_for_as_many_comparisons_as_there_are_others(count: int) -> None:
    asked = []

    def compare(metric: Metric, best: Evaluation, other: Evaluation, *, comparisons: int = 1) -> Effect:
        asked.append(comparisons)
        return compare_intervals(metric, best, other)

    found = [*(evaluation(name, p=1.0) for name in "abcde"[:count]), evaluation("f", failure="out of memory")]
    rank(found, [metric("p", tolerance="1%")], compare=compare)
    assert set(asked) == ({count * (count - 1) // 2} if count > 1 else set())


@settings(deadline=None)
@given(evaluation_lists(), metric_lists(), st.sampled_from([None, "a"]))
def test_only_candidates_that_have_a_place_are_compared(
    evaluations: list[Evaluation], metrics: list[Metric], baseline: str | None
) -> None:
    seen: list[Evaluation] = []

    def compare(metric: Metric, best: Evaluation, other: Evaluation, *, comparisons: int = 1) -> Effect:
        seen.extend([best, other])
        return compare_values(metric, best, other)

    ranking = rank(evaluations, metrics, baseline, compare)
    assert set(identities(seen)) <= set(identities(ranking.ranked))


@settings(deadline=None)
@given(evaluation_lists(whole=True), directions, st.sampled_from([0, 0.1, 1, 2.5]))
def test_nothing_stands_before_what_is_better_by_more_than_the_tolerance(
    evaluations: list[Evaluation], higher: bool, tolerance: float
) -> None:
    metrics = [metric("p", 1, higher=higher, tolerance=tolerance), metric("q", 2)]
    numbers = {(item.candidate, item.accelerator): item.values["p"] for item in evaluations}
    order = [numbers[key] * (1 if higher else -1) for key in identities(rank(evaluations, metrics).ranked)]
    for index, earlier in enumerate(order):
        assert all(later - earlier <= tolerance * (1 + 1e-8) for later in order[index + 1 :])


@settings(deadline=None)
@given(evaluation_lists(whole=True), metric_lists(exact=True))
def test_candidate_that_is_worse_in_everything_changes_no_other_place(
    evaluations: list[Evaluation], metrics: list[Metric]
) -> None:
    numbers = {by.name: -1.75e308 if by.higher_is_better else 1.75e308 for by in metrics}
    worst = evaluation("aa", "cpu-cpu", None, **numbers)
    before, after = (identities(rank(found, metrics).ranked) for found in (evaluations, [worst, *evaluations]))
    assert after == [*before, ("aa", "cpu-cpu")]


@settings(deadline=None)
@given(evaluation_lists(whole=True), metric_lists(exact=True))
def test_place_is_explained_by_the_first_metric_that_differs_in_numbers_that_differ(
    evaluations: list[Evaluation], metrics: list[Metric]
) -> None:
    found = {(item.candidate, item.accelerator): item.values for item in evaluations}
    order = sorted((item for item in metrics if item.priority > 0), key=lambda item: item.priority)
    ranked = rank(evaluations, metrics).ranked
    for better, worse in itertools.pairwise(ranked):
        ours, theirs = (found[item.candidate, item.accelerator] for item in (better, worse))
        deciding = next((by.name for by in order if ours[by.name] != theirs[by.name]), None)
        if deciding is None:
            assert worse.decided_by.startswith("tied on ")
            assert (worse.decision, worse.shared_rank) == (None, better.shared_rank)
            continue
        name, _, rest = worse.decided_by.partition(": ")
        mine, other = rest.split(" ms")[0].split(" behind ")
        assert name == deciding
        assert worse.shared_rank == worse.rank
        assert mine != other
        assert (float(mine), float(other)) == pytest.approx((theirs[name], ours[name]))


ACCURACY = metric("accuracy", 1, tolerance=0.01)
LATENCY = metric("latency", 2, higher=False)
BOTH = [ACCURACY, LATENCY]


@pytest.mark.parametrize(
    ("evaluations", "decided_by"),
    [
        pytest.param([evaluation("a", accuracy=0.9, latency=2)], ["the only ranked candidate"], id="only one"),
        pytest.param(
            [evaluation("a", accuracy=0.9, latency=2), evaluation("b", accuracy=0.8, latency=1)],
            ["accuracy: 0.9 against 0.8 ms", "accuracy: 0.8 behind 0.9 ms"],
            id="by the first metric",
        ),
        pytest.param(
            [evaluation("a", accuracy=0.895, latency=1), evaluation("b", accuracy=0.9, latency=2.5)],
            ["latency: 1 against 2.5 ms; tied on accuracy", "latency: 2.5 behind 1 ms; tied on accuracy"],
            id="tied on the first, by the second",
        ),
        pytest.param(
            [evaluation("a", accuracy=0.9, latency=1), evaluation("b", accuracy=0.9, latency=1)],
            ["tied on accuracy; tied on latency; ordered by digest"] * 2,
            id="tied on everything",
        ),
        pytest.param(
            [evaluation("a", "cpu-cpu", accuracy=0.9, latency=1), evaluation("a", "gpu-cuda", accuracy=0.9, latency=1)],
            ["tied on accuracy; tied on latency; ordered by accelerator"] * 2,
            id="the same candidate on two accelerators",
        ),
        pytest.param(
            [evaluation("a", accuracy=1, latency=12345678), evaluation("b", accuracy=1, latency=12345679)],
            [
                "latency: 12345678 against 12345679 ms; tied on accuracy",
                "latency: 12345679 behind 12345678 ms; tied on accuracy",
            ],
            id="numbers that six digits do not tell apart",
        ),
        pytest.param(
            [
                evaluation("a", accuracy=0.9, latency=2),
                evaluation("b", accuracy=0.9, latency=3),
                evaluation("c", accuracy=0.7, latency=1),
            ],
            [
                "latency: 2 against 3 ms; tied on accuracy",
                "latency: 3 behind 2 ms; tied on accuracy",
                "accuracy: 0.7 behind 0.9 ms",
            ],
            id="each against the one before it",
        ),
    ],
)
def test_place_says_what_decided_it(evaluations: list[Evaluation], decided_by: list[str]) -> None:
    ranked = rank(evaluations[::-1], BOTH).ranked
    assert identities(ranked) == identities(evaluations)
    assert [item.decided_by for item in ranked] == decided_by


def decisions(found: list[Evaluation], metrics: list[Metric], compare: Compare = compare_intervals) -> list[str]:
    return [item.decided_by for item in rank(found, metrics, compare=compare).ranked]


def test_place_says_how_large_and_how_sure_the_difference_is() -> None:
    found = [uncertain("a", accuracy=(0.9, 0.003), latency=(1, 0)), uncertain("b", accuracy=(0.8, 0.004), latency=(1, 0))]
    assert decisions(found, BOTH) == [
        "accuracy: 0.9 against 0.8 ms, -0.1 ms (99 % interval -0.105 to -0.095 ms)",
        "accuracy: 0.8 behind 0.9 ms, -0.1 ms (99 % interval -0.105 to -0.095 ms)",
    ]
    (first, second) = rank(found, BOTH).ranked
    assert first.decision == second.decision
    assert second.decision is not None
    assert second.decision.metric == "accuracy"
    assert second.decision.effect.estimate == pytest.approx(0.1)


def test_tie_and_what_is_undecided_say_between_which_ends_the_difference_lies() -> None:
    near = [uncertain("a", accuracy=(0.9, 0.003), latency=(1, 0)), uncertain("b", accuracy=(0.899, 0.004), latency=(2, 0))]
    assert decisions(near, BOTH)[1] == (
        "latency: 2 behind 1 ms; tied on accuracy: -0.001 ms (99 % interval -0.006 to +0.004 ms)"
    )
    open_still = [uncertain("a", accuracy=(0.9, 0.3), latency=(1, 0)), uncertain("b", accuracy=(0.8, 0.4), latency=(2, 0))]
    assert decisions(open_still, BOTH)[1] == (
        "latency: 2 behind 1 ms; undecided on accuracy: -0.1 ms (99 % interval -0.6 to +0.4 ms)"
    )


def test_difference_that_is_not_known_is_undecided_and_says_so() -> None:
    def unknown(metric: Metric, best: Evaluation, other: Evaluation, *, comparisons: int = 1) -> Effect:
        return Effect.unknown(compare_values(metric, best, other).estimate, is_relative=False)

    tested = metric("latency", 1, higher=False, tolerance="2%")
    found = [evaluation("b", latency=1), evaluation("a", latency=2)]
    assert decisions(found, [tested], unknown) == [
        "undecided on latency: -1 ms, and it is not known how sure that is; ordered by digest",
        "undecided on latency: -1 ms, and it is not known how sure that is; ordered by digest",
    ]
    assert [item.shared_rank for item in rank(found, [tested], compare=unknown).ranked] == [1, 1]
    few = [
        item.model_copy(update={"metrics": {"latency": item.metrics["latency"].model_copy(update={"needed_n": 8})}})
        for item in found
    ]
    plain = rank(few, [metric("latency", 1, higher=False)], compare=unknown).ranked
    assert [(item.candidate, item.shared_rank) for item in plain] == [("a", 1), ("b", 1)]


@pytest.mark.parametrize("tolerance", [0, "2%"])
@pytest.mark.parametrize(
    "doubt",
    [
        pytest.param(lambda item: item.model_copy(update={"is_stable": False}), id="unstable"),
        pytest.param(
            lambda item: item.model_copy(update={"metrics": {"p": item.metrics["p"].model_copy(update={"needed_n": 528})}}),
            id="too few samples",
        ),
    ],
)
def test_times_that_are_not_known_decide_nothing_whatever_the_tolerance(
    doubt: Callable[[Evaluation], Evaluation], tolerance: float | str
) -> None:
    found = [uncertain("b", "cpu-cpu", p=(1, 0.01)), doubt(uncertain("a", "cpu-openvino", p=(2, 0.01)))]

    ranked = rank(found, [metric("p", higher=False, tolerance=tolerance)]).ranked

    assert [(item.candidate, item.shared_rank) for item in ranked] == [("a", 1), ("b", 1)]
    assert "it is not known how sure that is" in ranked[0].decided_by


def test_goal_on_times_of_an_unstable_tournament_is_missed() -> None:
    goal = Goal(type="threshold", value=5)
    unstable = uncertain("a", p=(1, 0.01)).model_copy(update={"is_stable": False})

    (item,) = rank([unstable], [metric("p", higher=False, goal=goal)]).unranked

    assert (item.status, "its measurement was disturbed too much" in item.reason) == ("rejected", True)


def test_order_of_one_tournament_says_nothing_about_another() -> None:
    """By the clock of its own tournament a candidate may look faster than it is."""
    by_cpu = uncertain("a", "cpu-cpu", p=(1.5, 0.01)).model_copy(update={"tournament": "one", "clock": "cpu"})
    by_cpu = by_cpu.model_copy(update={"metrics": {"p": by_cpu.metrics["p"].model_copy(update={"ordering": 1.0})}})
    by_wall = uncertain("b", "cpu-openvino", p=(1.1, 0.01)).model_copy(update={"tournament": "two"})

    ranked = rank([by_cpu, by_wall], [metric("p", higher=False, tolerance="2%")]).ranked

    assert [item.candidate for item in ranked] == ["b", "a"]


def test_values_that_were_found_in_pairs_put_candidates_in_order() -> None:
    def measured(name: str, value: float, ordering: float) -> Evaluation:
        return Evaluation(
            candidate=name,
            accelerator="cpu-cpu",
            metrics={"latency": MetricValue(value=value, unit="ms", n=1, interval=(0, 9), ordering=ordering)},
        )

    found = [measured("a", 1.0, 2.0), measured("b", 1.1, 1.0)]
    (members,) = classes_of(found, metric("latency", higher=False, tolerance="2%"))
    assert [item.candidate for item in members] == ["b", "a"]


def test_fronts_are_named_where_they_decide_and_metrics_where_not() -> None:
    found = [
        evaluation("a", accuracy=0.9, latency=2),
        evaluation("b", accuracy=0.8, latency=1),
        evaluation("c", accuracy=0.7, latency=3),
    ]
    ranked = rank(found, BOTH, objective=Objective(kind="pareto")).ranked
    assert [(item.candidate, item.decided_by) for item in ranked] == [
        ("a", "accuracy: 0.9 against 0.8 ms"),
        ("b", "accuracy: 0.8 behind 0.9 ms"),
        ("c", "Pareto front: behind the one before"),
    ]


def test_tolerance_is_that_of_the_leader_and_does_not_chain() -> None:
    chain = [evaluation(name, accuracy=value, latency=0) for name, value in {"c": 0.9, "b": 0.895, "a": 0.885}.items()]
    assert [item.candidate for item in rank(chain, BOTH).ranked] == ["b", "c", "a"]


def test_metric_without_priority_is_not_ranked_by() -> None:
    found = [evaluation("a", accuracy=0.9, latency=9), evaluation("b", accuracy=0.9, latency=1)]
    unranked = metric("latency", -1, higher=False)
    assert [item.candidate for item in rank(found, [ACCURACY, unranked]).ranked] == ["a", "b"]
    assert rank([evaluation("a", accuracy=0.9)], [ACCURACY, unranked]).unranked == ()


def test_ranking_of_nothing_is_empty() -> None:
    assert rank([], BOTH) == Ranking()


@pytest.mark.parametrize(
    ("found", "status", "reason"),
    [
        (evaluation("a", failure="out of memory", accuracy=1, latency=1), "failed", "out of memory"),
        (evaluation("a", accuracy=math.nan, latency=1), "unranked", "no finite value for accuracy"),
        (evaluation("a", accuracy=math.inf, latency=1), "unranked", "no finite value for accuracy"),
        (evaluation("a"), "unranked", "no finite value for accuracy, latency"),
    ],
)
def test_candidate_without_a_place_says_why(found: Evaluation, status: str, reason: str) -> None:
    (unranked,) = rank([found, evaluation("b", accuracy=0.1, latency=9)], BOTH).unranked
    assert (unranked.candidate, unranked.status, unranked.reason) == ("a", status, reason)


def by_goal(kind: GoalType, value: float, *, higher: bool = True, priority: int = 1) -> list[Metric]:
    goal = Goal(type=kind, value=value)
    return [metric("m", priority, higher=higher, goal=goal), metric("other", 2)]


@pytest.mark.parametrize(
    ("metrics", "passes", "misses", "sentence"),
    [
        (by_goal("threshold", 0.9), 0.9, 0.8, "m is 0.8 and must be at least 0.9 (threshold 0.9)"),
        (by_goal("threshold", 5, higher=False), 5, 6, "m is 6 and must be at most 5 (threshold 5)"),
        (by_goal("max-degradation", 2), 8, 7, "m is 7 and must be at least 8 (max-degradation 2, baseline 10)"),
        (
            by_goal("percent-min-improvement", 50, higher=False),
            5,
            6,
            "m is 6 and must be at most 5 (percent-min-improvement 50, baseline 10)",
        ),
        (
            by_goal("threshold", 1),
            1.0,
            0.9999999999,
            "m is 0.9999999999 and must be at least 1 (threshold 1)",
        ),
        (by_goal("threshold", 1, priority=-1), 1, 0, "m is 0 and must be at least 1 (threshold 1)"),
    ],
)
def test_goal_is_met_at_its_limit_and_missed_beyond_it_in_one_sentence(
    metrics: list[Metric], passes: float, misses: float, sentence: str
) -> None:
    found = [evaluation(name, m=value, other=1) for name, value in (("base", 10), ("good", passes), ("bad", misses))]
    ranking = rank(found, metrics, "base")
    reasons = {item.candidate: (item.status, item.reason) for item in ranking.unranked}
    assert "good" in [item.candidate for item in ranking.ranked]
    assert reasons["bad"] == ("rejected", sentence)


def test_all_goals_that_are_missed_are_named() -> None:
    metrics = [metric(name, at, goal=Goal(type="threshold", value=1)) for at, name in enumerate("mn", start=1)]
    (unranked,) = rank([evaluation("a", m=0, n=0.5)], metrics).unranked
    assert unranked.reason.split("; ") == [
        "m is 0 and must be at least 1 (threshold 1)",
        "n is 0.5 and must be at least 1 (threshold 1)",
    ]


def test_baseline_is_that_of_the_same_accelerator() -> None:
    metrics = by_goal("max-degradation", 1, higher=False)
    found = [
        evaluation("base", "cpu-cpu", m=100, other=1),
        evaluation("base", "gpu-cuda", m=5, other=1),
        evaluation("a", "cpu-cpu", m=90, other=1),
        evaluation("a", "gpu-cuda", m=7, other=1),
    ]
    ranking = rank(found, metrics, "base")
    assert ("a", "cpu-cpu") in identities(ranking.ranked)
    assert identities(ranking.unranked) == [("a", "gpu-cuda")]


@pytest.mark.parametrize(
    ("baseline", "why"),
    [
        ([], "it was not evaluated"),
        ([evaluation("base", "gpu-cuda", m=1, other=1)], "it was not evaluated"),
        ([evaluation("base", failure="out of memory")], "out of memory"),
        ([evaluation("base", other=1)], "its own is missing or not finite"),
        ([evaluation("base", m=math.nan, other=1)], "its own is missing or not finite"),
    ],
)
def test_relative_goal_without_a_baseline_value_rejects_and_says_why(baseline: list[Evaluation], why: str) -> None:
    ranking = rank([*baseline, evaluation("a", m=9, other=1)], by_goal("max-degradation", 1), "base")
    reasons = {item.candidate: (item.status, item.reason) for item in ranking.unranked}
    assert reasons["a"] == ("rejected", f"m: the baseline has no value to compare with ({why})")


def test_candidate_without_a_value_misses_the_goals_of_what_was_measured_only() -> None:
    metrics = [metric(name, at, goal=Goal(type="threshold", value=1)) for at, name in enumerate("mn", start=1)]
    found = [evaluation("a", m=2), evaluation("b", m=0), evaluation("c", m=math.nan, n=2)]
    assert [(item.candidate, item.status, item.reason) for item in rank(found, metrics).unranked] == [
        ("a", "unranked", "no finite value for n"),
        ("b", "rejected", "m is 0 and must be at least 1 (threshold 1)"),
        ("c", "unranked", "no finite value for m"),
    ]
