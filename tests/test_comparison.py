"""Effects: what a tolerance makes of them, how they are told, and how values measured apart are compared."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packhouse.comparison import SLACK, Effect, Verdict, compare_intervals, compare_values
from packhouse.evaluation.records import Evaluation, MetricValue
from packhouse.metrics import Metric, MetricType, Tolerance, parse_tolerance


def metric(
    tolerance: Tolerance | float | str = 0, *, higher: bool = False, kind: MetricType = "latency", name: str = "m"
) -> Metric:
    return Metric(
        name=name,
        type=kind,
        sub_type="p50",
        priority=1,
        higher_is_better=higher,
        goal=None,
        tolerance=tolerance if isinstance(tolerance, Tolerance) else parse_tolerance(tolerance),
        settings={},
        function=None,
    )


def evaluation(value: float, interval: tuple[float, float] | None = None, **changes: Any) -> Evaluation:
    measured = MetricValue(value=value, unit="ms", n=changes.pop("n", 1), interval=interval, **changes)
    return Evaluation(candidate="a", accelerator="cpu-cpu", metrics={"m": measured})


def relative(estimate: float, low: float, high: float) -> Effect:
    return Effect(estimate=estimate, low=low, high=high, is_relative=True)


def absolute(estimate: float, low: float, high: float) -> Effect:
    return Effect(estimate=estimate, low=low, high=high)


class TestVerdict:
    @pytest.mark.parametrize(
        ("effect", "tolerance", "best", "expected"),
        [
            pytest.param(relative(0.05, 0.021, 0.08), "2%", 1, "worse", id="all of it beyond the tolerance"),
            pytest.param(relative(0.05, 0.019, 0.08), "2%", 1, "undecided", id="not all of it beyond"),
            pytest.param(relative(0.01, -0.01, 0.029), "2%", 1, "tied", id="within one and a half of it"),
            pytest.param(relative(0.01, -0.01, 0.031), "2%", 1, "undecided", id="beyond one and a half of it"),
            pytest.param(relative(-0.01, -0.029, 0.01), "2%", 1, "tied", id="within it on the other side"),
            pytest.param(relative(-0.01, -0.031, 0.01), "2%", 1, "undecided", id="beyond it on the other side"),
            pytest.param(relative(0.02, 0.02, 0.02), "2%", 1, "tied", id="exactly the tolerance"),
            pytest.param(relative(0.03, 0.02 * (1 + 1e-12), 0.04), "2%", 1, "undecided", id="beyond by rounding only"),
            pytest.param(absolute(5, 2.1, 8), "2%", 100, "worse", id="per cent of the best value"),
            pytest.param(absolute(5, 1.9, 8), "2%", 100, "undecided", id="less than per cent of the best value"),
            pytest.param(absolute(5, 2.1, 8), "2%", -100, "worse", id="per cent of a best value below zero"),
            pytest.param(relative(0.05, 0.03, 0.08), 2, 100, "worse", id="absolute tolerance of a relative effect"),
            pytest.param(relative(0.05, 0.03, 0.08), 4, 100, "undecided", id="larger absolute tolerance"),
            pytest.param(relative(0.05, 0.03, 0.08), 2, 0, "tied", id="absolute tolerance of what is relative to nothing"),
            pytest.param(absolute(0.1, 0.01, 0.2), Tolerance(), 1, "worse", id="significant"),
            pytest.param(absolute(0.1, -0.01, 0.2), Tolerance(), 1, "undecided", id="not significant"),
            pytest.param(absolute(0.1, 0.0, 0.2), Tolerance(), 1, "undecided", id="hardly significant"),
            pytest.param(absolute(0, 0, 0), Tolerance(), 1, "tied", id="equal"),
            pytest.param(absolute(1e-300, 1e-300, 1e-300), Tolerance(), 1, "worse", id="different without uncertainty"),
            pytest.param(absolute(0.1, -9, 9), 0, 1, "worse", id="taken as it is"),
            pytest.param(absolute(0.0, -9, 9), 0, 1, "tied", id="equal as it is"),
            pytest.param(absolute(-0.1, -9, 9), 0, 1, "tied", id="better as it is"),
            pytest.param(Effect.unknown(9, is_relative=True), "2%", 1, "undecided", id="unknown"),
            pytest.param(Effect.unknown(9, is_relative=True), 0, 1, "undecided", id="unknown, without tolerance"),
        ],
    )
    def test_weighs_the_interval_against_the_tolerance(
        self, effect: Effect, tolerance: Any, best: float, expected: Verdict
    ) -> None:
        assert effect.verdict(metric(tolerance), best) == expected

    @pytest.mark.parametrize(
        ("tolerance", "best", "other", "expected"),
        [
            (0, 1.0, 1.0, "tied"),
            (0, 1.0, 0.9999999, "worse"),
            (0.5, 2.0, 1.5, "tied"),
            (0.5, 1.75, 1.0, "worse"),
            (0.01, 0.98, 0.97, "tied"),  # in binary a little more than 0.01
            ("1%", 0.97, 0.9603, "tied"),
            ("50%", 2.0, 1.0, "tied"),
            ("50%", 2.0, 0.9, "worse"),
            ("50%", -2.0, -3.0, "tied"),
            ("50%", 0.0, -0.1, "worse"),
        ],
    )
    def test_of_exact_values_is_a_tie_up_to_the_tolerance(
        self, tolerance: float | str, best: float, other: float, expected: Verdict
    ) -> None:
        of = metric(tolerance, higher=True)
        assert compare_values(of, evaluation(best), evaluation(other)).verdict(of, best) == expected

    @given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5), st.floats(0.001, 1e3))
    def test_follows_its_definition(self, estimate: float, down: float, up: float, tolerance: float, best: float) -> None:
        effect = relative(estimate, estimate - down, estimate + up)
        limit = Tolerance(value=tolerance, is_relative=True)
        verdict = effect.verdict(metric(limit), best)
        if verdict == "worse":
            assert effect.low > tolerance
        elif verdict == "undecided":
            assert effect.low <= tolerance * (1 + 1e-8)
            assert not (-SLACK * tolerance <= effect.low and effect.high <= SLACK * tolerance)
        else:
            assert effect.is_exact or (-SLACK * tolerance <= effect.low and effect.high <= SLACK * tolerance)


class TestValues:
    @pytest.mark.parametrize(("higher", "best", "other"), [(False, 1.0, 3.0), (True, 3.0, 1.0)])
    def test_effect_is_positive_where_the_other_is_worse(self, higher: bool, best: float, other: float) -> None:
        of = metric(higher=higher)
        for compare in (compare_values, compare_intervals):
            effect = compare(of, evaluation(best), evaluation(other))
            assert (effect, effect.is_exact) == (Effect(estimate=2.0, low=2.0, high=2.0), True)
            assert compare(of, evaluation(other), evaluation(best)).estimate == -2.0

    def test_alone_are_compared_as_they_are_though_they_have_intervals(self) -> None:
        assert compare_values(metric(), evaluation(1, (0, 2)), evaluation(3, (0, 6))) == Effect.exactly(2.0)


class TestIntervals:
    @pytest.mark.parametrize(("higher", "sign"), [(False, 1), (True, -1)])
    def test_add_up_as_the_sides_of_a_triangle(self, higher: bool, sign: int) -> None:
        best, other = evaluation(10, (7, 11)), evaluation(20, (16, 32))
        found = compare_intervals(metric(higher=higher), best, other)

        down, up = math.hypot(11 - 10, 20 - 16), math.hypot(10 - 7, 32 - 20)
        ends = sorted((sign * (10 - down), sign * (10 + up)))
        assert (found.estimate, found.low, found.high) == pytest.approx((sign * 10, *ends))

    @pytest.mark.parametrize("higher", [False, True])
    def test_of_the_reversed_comparison_are_mirrored(self, higher: bool) -> None:
        one, other = evaluation(10, (7, 11)), evaluation(20, (16, 32))
        there, back = compare_intervals(metric(higher=higher), one, other), compare_intervals(metric(higher=higher), other, one)

        assert (there.estimate, there.low, there.high) == pytest.approx((-back.estimate, -back.high, -back.low))

    def test_of_one_alone_make_the_difference_as_uncertain_as_that_one(self) -> None:
        found = compare_intervals(metric(), evaluation(10), evaluation(20, (18, 23)))
        assert (found.low, found.high) == pytest.approx((8, 13))
        found = compare_intervals(metric(), evaluation(10, (9, 13)), evaluation(20))
        assert (found.low, found.high) == pytest.approx((7, 11))

    @pytest.mark.parametrize("is_first", [True, False])
    def test_of_too_few_samples_leave_the_difference_unknown(self, is_first: bool) -> None:
        values = [evaluation(1, n=5, needed_n=8), evaluation(3, (2.9, 3.1))]
        found = compare_intervals(metric(), *(values if is_first else values[::-1]))
        assert (found.estimate, found.low, found.high) == (2.0 if is_first else -2.0, -math.inf, math.inf)

    def test_cover_the_difference_of_two_means_as_often_as_they_say(self) -> None:
        random, covered = np.random.default_rng(1), 0
        for ours, theirs in zip(random.normal(10, 1, 3000), random.normal(12, 2, 3000), strict=True):
            best = evaluation(ours, (ours - 2.5758, ours + 2.5758))
            other = evaluation(theirs, (theirs - 2 * 2.5758, theirs + 2 * 2.5758))
            effect = compare_intervals(metric(), best, other)
            covered += effect.low <= 2 <= effect.high
        assert covered / 3000 == pytest.approx(0.99, abs=0.007)


class TestWords:
    @pytest.mark.parametrize(
        ("effect", "of", "text"),
        [
            (relative(0.05, 0.03, 0.072), metric(), "+5 % (99 % interval +3 to +7.2 %)"),
            (relative(0.05, 0.03, 0.072), metric(higher=True), "-5 % (99 % interval -7.2 to -3 %)"),
            (absolute(-0.5, -1, 0), metric(), "-0.5 ms (99 % interval -1 to 0 ms)"),
            (absolute(0.02, -0.01, 0.05), metric(higher=True, kind="accuracy"), "-0.02 (99 % interval -0.05 to +0.01)"),
            (absolute(2, 2, 2), metric(kind="size_on_disk"), "+2 B"),
            (Effect.exactly(0), metric(), "0 ms"),
            (Effect.exactly(0), metric(higher=True), "0 ms"),
            (Effect.unknown(0.5, is_relative=True), metric(), "+50 %, and it is not known how sure that is"),
            (
                relative(0.05, 0.03, 0.072).model_copy(update={"clock": "cpu"}),
                metric(),
                "+5 % of CPU time in the same rounds (99 % interval +3 to +7.2 %)",
            ),
            (
                relative(0.05, 0.03, 0.072).model_copy(update={"clock": "wall"}),
                metric(),
                "+5 % in the same rounds (99 % interval +3 to +7.2 %)",
            ),
        ],
    )
    def test_follow_the_value_and_not_what_is_worse(self, effect: Effect, of: Metric, text: str) -> None:
        assert effect.describe(of) == text
