"""What is decided about endpoints before anything is asked of Azure: names of deployments, and traffic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packhouse.errors import RegistrationFailed
from packhouse.packaging.azureml.deployment_settings import ENDPOINT_NAME
from packhouse.packaging.azureml.endpoints import Deployment, Endpoint, name_of_deployment, traffic_steps

DIGEST = "0123456789abcdef" * 4
OTHER = "f" * 64
shares = st.dictionaries(st.sampled_from(["blue", "red", "grey"]), st.integers(1, 100), max_size=3)
rising = st.lists(st.integers(1, 100), min_size=1, max_size=4, unique=True).map(lambda found: tuple(sorted(found)))


def endpoint(**digests: str | None) -> Endpoint:
    """Return an endpoint with deployments of these digests."""
    deployments = tuple(Deployment(name, "Succeeded", digest) for name, digest in digests.items())
    return Endpoint("orchard", "/id", "Succeeded", "https://orchard", {}, deployments)


def test_a_deployment_gets_the_name_that_is_wanted_if_that_is_free() -> None:
    assert name_of_deployment(endpoint(red=OTHER), "blue", DIGEST) == "blue"


def test_a_name_that_other_content_has_gets_some_of_the_digest() -> None:
    assert name_of_deployment(endpoint(blue=OTHER), "blue", DIGEST) == "blue-0123456"
    assert name_of_deployment(endpoint(blue=None), "blue", DIGEST) == "blue-0123456"


def test_a_name_is_taken_in_whatever_case_it_is_written() -> None:
    assert name_of_deployment(endpoint(Blue=OTHER), "blue", DIGEST) == "blue-0123456"


def test_a_content_that_is_deployed_keeps_its_name_even_where_the_wanted_one_is_free() -> None:
    assert name_of_deployment(endpoint(**{"blue-0123456": DIGEST}), "blue", DIGEST) == "blue-0123456"


@given(name=st.from_regex(ENDPOINT_NAME, fullmatch=True))
def test_a_name_with_some_of_the_digest_is_one_that_azure_takes(name: str) -> None:
    made = name_of_deployment(endpoint(**{name: OTHER}), name, DIGEST)
    assert ENDPOINT_NAME.fullmatch(made)
    assert made != name


def test_nothing_is_touched_where_all_names_are_taken() -> None:
    with pytest.raises(RegistrationFailed, match="have other content; delete one of them"):
        name_of_deployment(endpoint(**{"blue": OTHER, "blue-0123456": OTHER}), "blue", DIGEST)


def test_a_first_deployment_gets_all_traffic_at_once() -> None:
    assert traffic_steps({}, "green", "all") == [{"green": 100}]
    assert traffic_steps({}, "green", (10, 100)) == [{"green": 100}]


def test_others_share_the_rest_in_their_proportions() -> None:
    steps = traffic_steps({"blue": 75, "red": 25}, "green", (20, 100))
    assert steps == [{"green": 20, "blue": 60, "red": 20}, {"green": 100}]


def test_steps_that_were_taken_are_not_taken_again() -> None:
    assert traffic_steps({"green": 20, "blue": 80}, "green", (10, 20, 50)) == [{"green": 50, "blue": 50}]
    assert traffic_steps({"green": 100}, "green", "all") == []


def test_no_traffic_is_no_step() -> None:
    assert traffic_steps({"blue": 100}, "green", "none") == []


@given(now=shares, policy=st.one_of(st.sampled_from(["all", "none"]), rising), has=st.integers(0, 99))
def test_every_step_adds_up_to_100_and_gives_more_than_the_one_before(
    now: dict[str, int], policy: tuple[int, ...], has: int
) -> None:
    steps = traffic_steps({**now, "green": has}, "green", policy)
    for before, step in zip([{"green": has}, *steps], steps, strict=False):
        assert sum(step.values()) == 100
        assert step["green"] > before["green"]
        assert all(0 < percent <= 100 for percent in step.values())
        assert step.keys() <= {*now, "green"}
