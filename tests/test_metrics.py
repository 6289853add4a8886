"""Metrics: goals in Olive's arithmetic, tolerances, and the flat list of numbers."""

import math
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packhouse.metrics import (
    HIGHER_IS_BETTER,
    QUALITY_SUB_TYPES,
    SUB_TYPES,
    Goal,
    GoalType,
    MetricConfig,
    MetricType,
    Tolerance,
    flatten,
    parse_tolerance,
)
from tests.config.documents import metric

RELATIVE = [kind for kind in get_args(GoalType) if kind != "threshold"]
IMPROVEMENTS = [kind for kind in RELATIVE if kind.endswith("improvement")]
goal_types = st.sampled_from(get_args(GoalType))
sizes = st.floats(0, 1000)
baselines = st.floats(-1e6, 1e6)


def olive_target(kind: str, value: float, higher_is_better: bool, baseline: float) -> float:
    """Return the goal as `Engine.resolve_goals` of Olive computes it."""
    multiplier = 1 if higher_is_better else -1
    return {
        "threshold": value,
        "max-degradation": baseline - multiplier * value,
        "min-improvement": baseline + multiplier * value,
        "percent-max-degradation": baseline * (1 - multiplier * value / 100),
        "percent-min-improvement": baseline * (1 + multiplier * value / 100),
    }[kind]


@settings(deadline=None)
@given(goal_types, sizes, st.booleans(), st.floats(0, 1e6))
def test_goal_is_olives_for_a_baseline_that_is_not_negative(
    kind: GoalType, value: float, higher: bool, baseline: float
) -> None:
    expected = olive_target(kind, value, higher, baseline)
    assert Goal(type=kind, value=value).target(higher, baseline) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "value", "higher", "baseline", "target"),
    [
        ("threshold", -3, True, None, -3),
        ("min-improvement", 2, True, -10, -8),
        ("min-improvement", 2, False, -10, -12),
        ("max-degradation", 2, True, -10, -12),
        ("max-degradation", 2, False, -10, -8),
        ("percent-min-improvement", 50, True, -10, -5),
        ("percent-min-improvement", 50, False, -10, -15),
        ("percent-max-degradation", 50, True, -10, -15),
        ("percent-max-degradation", 50, False, -10, -5),
        ("percent-min-improvement", 20, False, 36.0, 28.8),
        ("percent-max-degradation", 50, True, 0, 0),
    ],
)
def test_goal_of_a_baseline_below_zero_keeps_its_direction(
    kind: GoalType, value: float, higher: bool, baseline: float | None, target: float
) -> None:
    assert Goal(type=kind, value=value).target(higher, baseline) == pytest.approx(target)


@settings(deadline=None)
@given(st.sampled_from(RELATIVE), sizes, st.booleans(), baselines)
def test_improvement_is_never_worse_than_the_baseline_and_degradation_never_better(
    kind: GoalType, value: float, higher: bool, baseline: float
) -> None:
    gain = (Goal(type=kind, value=value).target(higher, baseline) - baseline) * (1 if higher else -1)
    assert gain >= 0 if kind in IMPROVEMENTS else gain <= 0


@settings(deadline=None)
@given(st.sampled_from(RELATIVE), sizes, baselines)
def test_goal_of_a_loss_mirrors_that_of_a_gain(kind: GoalType, value: float, baseline: float) -> None:
    goal = Goal(type=kind, value=value)
    assert goal.target(False, -baseline) == -goal.target(True, baseline)


@pytest.mark.parametrize("kind", RELATIVE)
def test_relative_goal_needs_a_baseline(kind: GoalType) -> None:
    goal = Goal(type=kind, value=1)
    assert goal.is_relative
    with pytest.raises(ValueError, match=f"a {kind} goal needs a baseline"):
        goal.target(True, None)


@pytest.mark.parametrize(
    ("written", "value", "relative", "shown"),
    [
        (0, 0, False, "0"),
        (0.002, 0.002, False, "0.002"),
        ("0.5", 0.5, False, "0.5"),
        ("1e-3", 0.001, False, "0.001"),  # a text to YAML
        ("2%", 0.02, True, "2%"),
        (" 0.5 % ", 0.005, True, "0.5%"),
        ("0%", 0, True, "0%"),
    ],
)
def test_tolerance_is_read_and_shown_as_written(written: float | str, value: float, relative: bool, shown: str) -> None:
    tolerance = parse_tolerance(written)
    assert tolerance == Tolerance(value=value, is_relative=relative, is_tested=value > 0)
    assert str(tolerance) == shown


@pytest.mark.parametrize("written", [-0.1, math.inf, math.nan, "-1", "-1%", "", "%", "2 ms", "nan", "inf%", "9" * 400])
def test_tolerance_that_is_no_finite_size_is_refused(written: float | str) -> None:
    with pytest.raises(ValueError, match="is no tolerance; write a number of zero or more"):
        parse_tolerance(written)


@pytest.mark.parametrize(
    ("tolerance", "best", "limit", "relative_limit"),
    [
        (0, 2.0, 0.0, 0.0),
        (0.5, 2.0, 0.5, 0.25),
        (0.5, -2.0, 0.5, 0.25),
        (0.5, 0.0, 0.5, math.inf),
        ("50%", 2.0, 1.0, 0.5),
        ("50%", -2.0, 1.0, 0.5),
        ("50%", 0.0, 0.0, 0.5),
    ],
)
def test_tolerance_is_a_difference_in_the_unit_or_relative_to_the_better_value(
    tolerance: float | str, best: float, limit: float, relative_limit: float
) -> None:
    assert parse_tolerance(tolerance).limit(best, is_relative=False) == limit
    assert parse_tolerance(tolerance).limit(best, is_relative=True) == relative_limit


def configs(*written: dict[str, Any]) -> tuple[MetricConfig, ...]:
    return tuple(MetricConfig.model_validate(item) for item in written)


def test_every_number_becomes_one_metric_in_the_order_of_the_configuration() -> None:
    own = {"name": "cost", "higher_is_better": False, "priority": 3, "tolerance": "1%", "metric_config": {"a": 1}}
    flat = flatten(
        configs(
            metric({"name": "p95"}, {"name": "p50", "priority": 2, "metric_config": None}),
            metric(own, kind="custom", name="mine", user_config={"function": "own.py:cost"}),
        )
    )
    assert [(item.name, item.type, item.sub_type, item.priority) for item in flat] == [
        ("latency-p95", "latency", "p95", -1),
        ("latency-p50", "latency", "p50", 2),
        ("mine-cost", "custom", "cost", 3),
    ]
    assert [item.settings for item in flat] == [{}, {}, {"a": 1}]
    assert [item.function for item in flat] == [None, None, "own.py:cost"]
    assert flat[2].tolerance == Tolerance(value=0.01, is_relative=True)


@pytest.mark.parametrize("priority", [{}, {"priority": -1}, {"priority": 1}, {"priority": 7}])
def test_lone_number_ranks_first_whatever_its_priority(priority: dict[str, int]) -> None:
    assert [item.priority for item in flatten(configs(metric({"name": "p50", **priority})))] == [1]


TWO = [{"name": "p50"}, {"name": "p95"}]


@pytest.mark.parametrize("written", [[metric(*TWO)], [metric(TWO[0]), metric(TWO[1], name="b")]])
def test_number_that_is_not_alone_has_no_priority_by_itself(written: list[dict[str, Any]]) -> None:
    assert [item.priority for item in flatten(configs(*written))] == [-1, -1]


@pytest.mark.parametrize("kind", sorted(HIGHER_IS_BETTER))
def test_direction_comes_from_the_type_unless_it_is_given(kind: MetricType) -> None:
    name = SUB_TYPES[kind][0]
    by_type, given_up, given_down = flatten(
        configs(*(metric({"name": name, "higher_is_better": given}, kind=kind) for given in (None, True, False)))
    )
    assert by_type.higher_is_better is (kind in {"accuracy", "throughput"})
    assert (given_up.higher_is_better, given_down.higher_is_better) == (True, False)


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("accuracy", "f1", Tolerance()),
        ("latency", "p50", Tolerance(value=0.02, is_relative=True)),
        ("throughput", "avg", Tolerance(value=0.02, is_relative=True)),
        ("size_on_disk", "bytes", Tolerance(is_tested=False)),
        ("peak_memory", "bytes", Tolerance(is_tested=False)),
        ("startup", "first_inference", Tolerance(is_tested=False)),
    ],
)
def test_differences_have_to_be_significant_by_default_where_there_is_chance(
    kind: MetricType, name: str, expected: Tolerance
) -> None:
    by_default, plain = flatten(configs(metric({"name": name}, {"name": name, "tolerance": 0}, kind=kind)))
    assert by_default.tolerance == expected
    assert plain.tolerance == Tolerance(is_tested=False)


@pytest.mark.parametrize(
    ("kind", "unit"), [("latency", "ms"), ("throughput", "samples/s"), ("peak_memory", "B"), ("accuracy", "")]
)
def test_metric_knows_its_unit(kind: MetricType, unit: str) -> None:
    assert flatten(configs(metric({"name": SUB_TYPES[kind][0]}, kind=kind)))[0].unit == unit


@pytest.mark.parametrize(("alias", "name"), [("accuracy_score", "accuracy"), ("f1_score", "f1"), ("auroc", "roc_auc")])
def test_quality_has_the_names_of_olive_and_of_scikit_learn(alias: str, name: str) -> None:
    assert flatten(configs(metric({"name": alias}, kind="accuracy")))[0].sub_type == alias
    assert QUALITY_SUB_TYPES[alias] == QUALITY_SUB_TYPES[name] == name
