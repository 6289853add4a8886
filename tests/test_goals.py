"""Goals: which are missed, and the sentence that says so."""

import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packhouse.evaluation.records import Evaluation, MetricValue
from packhouse.goals import missed_goals, told_apart
from packhouse.metrics import Goal, GoalType, Metric, Tolerance


def metric(name: str, goal: Goal | None, *, higher: bool = False) -> Metric:
    return Metric(
        name=name,
        type="latency",
        sub_type="p99",
        priority=-1,
        higher_is_better=higher,
        goal=goal,
        tolerance=Tolerance(),
        settings={},
        function=None,
    )


def evaluation(failure: str | None = None, needed_n: int = 1, **values: float) -> Evaluation:
    measured = {name: MetricValue(value=value, unit="ms", n=100, needed_n=needed_n) for name, value in values.items()}
    return Evaluation(candidate="a", accelerator="cpu-cpu", failure=failure, metrics=measured)


def threshold(value: float) -> Goal:
    return Goal(type="threshold", value=value)


def missed(found: Evaluation, *metrics: Metric, baseline: Evaluation | None = None) -> list[str]:
    return missed_goals(found, metrics, baseline)


def test_metric_without_a_goal_misses_none() -> None:
    assert missed(evaluation(m=9.0), metric("m", None)) == []
    assert missed(evaluation(), metric("m", None)) == []


@given(st.sampled_from(get_args(GoalType)), st.booleans(), st.integers(0, 9), st.integers(1, 9), st.integers(1, 9))
def test_goal_is_missed_by_what_is_worse_than_its_target(
    kind: GoalType, higher: bool, size: int, reference: int, value: int
) -> None:
    goal = Goal(type=kind, value=size)
    found = missed(evaluation(m=value), metric("m", goal, higher=higher), baseline=evaluation(m=reference))
    target = goal.target(higher, reference)
    assert bool(found) is (value < target if higher else value > target)
    if found:
        assert found[0].startswith(f"m is {value} and must be {'at least' if higher else 'at most'} ")
        assert found[0].endswith(f"({kind} {size})" if kind == "threshold" else f"({kind} {size}, baseline {reference})")


def test_value_of_too_few_samples_misses_its_goal_however_good_it_is_and_says_what_to_do() -> None:
    too_few = evaluation(needed_n=528, m=0.001)
    assert missed(too_few, metric("m", threshold(5))) == [
        "m has a goal and is not supported by 100 samples; it takes 528, so give timing.seconds_per_candidate more"
    ]
    assert missed(too_few, metric("m", None)) == []
    assert missed(evaluation(needed_n=100, m=0.001), metric("m", threshold(5))) == []


def test_value_that_is_missing_or_no_number_misses_its_goal() -> None:
    for found in (evaluation(), evaluation(m=math.nan)):
        assert missed(found, metric("m", threshold(5))) == ["m is nan and must be at most 5 (threshold 5)"]


def test_every_goal_that_is_missed_has_its_sentence_in_order() -> None:
    metrics = [metric("m", threshold(1)), metric("n", threshold(9)), metric("o", threshold(2))]
    assert [text.split()[0] for text in missed(evaluation(m=2, n=3, o=4), *metrics)] == ["m", "o"]


@pytest.mark.parametrize(
    ("baseline", "why"),
    [
        (None, "it was not evaluated"),
        (evaluation("out of memory"), "out of memory"),
        (evaluation(), "its own is missing or not finite"),
        (evaluation(m=math.inf), "its own is missing or not finite"),
    ],
)
def test_relative_goal_is_missed_without_a_baseline_value(baseline: Evaluation | None, why: str) -> None:
    relative, absolute = metric("m", Goal(type="max-degradation", value=1)), metric("m", threshold(5))
    expected = [f"m: the baseline has no value to compare with ({why})"]
    assert missed(evaluation(m=1), relative, baseline=baseline) == expected
    assert missed(evaluation(m=1), absolute, baseline=baseline) == []


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_numbers_that_differ_are_written_so_that_they_do(one: float, other: float) -> None:
    texts = told_apart(one, other)
    assert (texts[0] == texts[1]) is (one == other) or {one, other} == {0.0}
    assert math.isclose(float(texts[0]), one, rel_tol=1e-5)


@pytest.mark.parametrize(
    ("pair", "texts"),
    [
        ((1.0, 2.0), ("1", "2")),
        ((0.123456789, 0.2), ("0.123457", "0.2")),
        ((0.12345678, 0.12345679), ("0.12345678", "0.12345679")),
        ((1.0, 1.0), ("1", "1")),
        ((0.1, 0.1 + 2**-56), ("0.10000000000000001", "0.10000000000000002")),
    ],
)
def test_numbers_have_no_more_digits_than_tell_them_apart(pair: tuple[float, float], texts: Any) -> None:
    assert told_apart(*pair) == texts
