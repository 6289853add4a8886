"""The laws of ranking, and what it says about each place."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packhouse.evaluation.records import Evaluation, MetricValue
from packhouse.metrics import Goal, GoalType, Metric, parse_tolerance
from packhouse.ranking import Ranked, Ranking, Unranked, _classes, rank

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


@settings(deadline=None)
@given(evaluation_lists(whole=True), metric_lists(exact=True))
def test_order_without_tolerance_is_lexicographic(evaluations: list[Evaluation], metrics: list[Metric]) -> None:
    by_priority = [item for wanted in (1, 2, 3) for item in metrics if item.priority == wanted]

    def key(item: Evaluation) -> list[float | str]:
        numbers = [item.values[by.name] * (-1 if by.higher_is_better else 1) for by in by_priority]
        return [*numbers, item.candidate, item.accelerator]

    expected = sorted(evaluations, key=key)
    assert identities(rank(evaluations, metrics).ranked) == identities(expected)


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
    assert {key for key, status in statuses.items() if status == "rejected"} <= whole
    assert {key for key, status in statuses.items() if status == "failed"} == {
        (item.candidate, item.accelerator) for item in evaluations if item.failure
    }


@settings(deadline=None)
@given(evaluation_lists(whole=True), directions, tolerances)
def test_class_is_its_leader_and_all_that_is_within_the_tolerance_of_the_leader(
    evaluations: list[Evaluation], higher: bool, tolerance: float | str
) -> None:
    by = metric("p", higher=higher, tolerance=tolerance)
    classes = [[item.values["p"] for item in members] for members in _classes(evaluations, by)]
    for index, (leader, *members) in enumerate(classes):
        assert all(by.tolerance.covers(leader, other) and not by.better(other, leader) for other in members)
        for later in classes[index + 1 :]:
            assert all(by.better(leader, other) and not by.tolerance.covers(leader, other) for other in later)
    assert sum(map(len, classes)) == len(evaluations)


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
            continue
        name, _, rest = worse.decided_by.partition(": ")
        mine, other = rest.split(" ms")[0].split(" behind ")
        assert name == deciding
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
            ["latency: 1 against 2.5 ms (tied on accuracy)", "latency: 2.5 behind 1 ms (tied on accuracy)"],
            id="tied on the first, by the second",
        ),
        pytest.param(
            [evaluation("a", accuracy=0.9, latency=1), evaluation("b", accuracy=0.9, latency=1)],
            ["tied on accuracy, latency; ordered by digest"] * 2,
            id="tied on everything",
        ),
        pytest.param(
            [evaluation("a", "cpu-cpu", accuracy=0.9, latency=1), evaluation("a", "gpu-cuda", accuracy=0.9, latency=1)],
            ["tied on accuracy, latency; ordered by accelerator"] * 2,
            id="the same candidate on two accelerators",
        ),
        pytest.param(
            [evaluation("a", accuracy=1, latency=12345678), evaluation("b", accuracy=1, latency=12345679)],
            [
                "latency: 12345678 against 12345679 ms (tied on accuracy)",
                "latency: 12345679 behind 12345678 ms (tied on accuracy)",
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
                "latency: 2 against 3 ms (tied on accuracy)",
                "latency: 3 behind 2 ms (tied on accuracy)",
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
