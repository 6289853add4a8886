"""The self-test of timing: real workers on known models, and what counts as passed."""

import pytest

from packhouse.selftest import Outcome, SelfTest, self_test


def found(identical: dict[Outcome, int], slower: dict[Outcome, int]) -> SelfTest:
    return SelfTest(identical=identical, slower=slower, scheduler="", pinned="", duration_s=1.0)


def test_holds_tournaments_of_which_the_answer_is_known() -> None:
    told: list[str] = []

    tested = self_test(0.0, told.append)

    assert sum(tested.identical.values()) == sum(tested.slower.values()) == 1
    assert told == ["2 tournaments"]
    assert "wrong" not in tested.identical


@pytest.mark.parametrize(
    ("identical", "slower", "is_passed"),
    [
        ({"tied": 20}, {"right": 20}, True),
        ({"tied": 19, "undecided": 1}, {"right": 15, "undecided": 5}, True),
        ({"tied": 500, "wrong": 2}, {"right": 500}, True),
        ({"tied": 15, "wrong": 5}, {"right": 20}, False),
        ({"tied": 20}, {"right": 15, "wrong": 5}, False),
        ({"tied": 20}, {"tied": 20}, False),
        ({"undecided": 20}, {"undecided": 20}, False),
    ],
)
def test_passes_where_verdicts_are_right_and_there_are_some(
    identical: dict[Outcome, int], slower: dict[Outcome, int], is_passed: bool
) -> None:
    assert found(identical, slower).is_passed == is_passed
