"""Which version of an asset a content gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packhouse.errors import RegistrationFailed
from packhouse.packaging.azureml.versions import AUTO, DIGEST_TAG, AssetVersion, OnConflict, choose_version

OURS, OTHER = "digest-ours", "digest-other"
POLICIES: tuple[OnConflict, ...] = ("error", "reuse", "next")


def registered(**digests: str | None) -> list[AssetVersion]:
    """Return versions, written ``v1="digest"``."""
    return [AssetVersion(key.removeprefix("v"), f"/models/m/versions/{key}", digest) for key, digest in digests.items()]


def choose(wanted: str, on_conflict: OnConflict = "error", **digests: str | None) -> str | AssetVersion:
    return choose_version("m", OURS, registered(**digests), wanted, on_conflict)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_version_that_nobody_has_is_made(policy: OnConflict) -> None:
    assert choose("3", policy, v1=OTHER) == "3"
    assert choose("3", policy) == "3"


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_content_under_the_same_version_is_left_as_it_is(policy: OnConflict) -> None:
    assert choose("1", policy, v1=OURS) == registered(v1=OURS)[0]


@pytest.mark.parametrize("policy", POLICIES)
def test_auto_takes_the_version_that_has_the_content_and_otherwise_the_next(policy: OnConflict) -> None:
    assert choose(AUTO, policy) == "1"
    assert choose(AUTO, policy, v1=OTHER, v9=OTHER, v10=OTHER, vbeta=OTHER) == "11"
    assert choose(AUTO, policy, v1=OURS, v2=OTHER) == registered(v1=OURS)[0]
    assert choose(AUTO, policy, v3=OTHER, vauto=OTHER) == "4"


def test_other_content_is_refused_with_both_digests_and_what_to_do() -> None:
    with pytest.raises(RegistrationFailed, match=f"version 1 of m has the content {OTHER}, and here it is {OURS}.*auto"):
        choose("1", v1=OTHER, v2=OURS)
    with pytest.raises(RegistrationFailed, match="content that was not registered by Packhouse"):
        choose("1", v1=None)


def test_reuse_takes_the_content_wherever_it_is_and_never_another() -> None:
    assert choose("1", "reuse", v1=OTHER, v2=OURS) == registered(v2=OURS)[0]
    assert choose("1", "reuse", v2=OURS) == registered(v2=OURS)[0]
    with pytest.raises(RegistrationFailed, match="no version has this content"):
        choose("1", "reuse", v1=OTHER)


def test_next_makes_a_version_only_where_no_other_has_the_content() -> None:
    assert choose("1", "next", v1=OTHER, v4=OTHER) == "5"
    assert choose("1", "next", v1=OTHER, v4=OURS) == registered(v4=OURS)[0]


@given(
    st.dictionaries(st.sampled_from(["1", "2", "3", "9", "beta"]), st.sampled_from([OURS, OTHER, None])),
    st.sampled_from(["1", "2", "beta", AUTO]),
    st.sampled_from(POLICIES),
)
def test_what_is_chosen_has_the_content_or_is_free_and_is_found_again(
    digests: dict[str, str | None], wanted: str, policy: OnConflict
) -> None:
    there = [AssetVersion(version, version, digest) for version, digest in digests.items()]
    try:
        chosen = choose_version("m", OURS, there, wanted, policy)
    except RegistrationFailed:
        assert digests[wanted] != OURS
        return
    if isinstance(chosen, str):
        assert chosen not in digests
        assert choose_version("m", OURS, [*there, AssetVersion(chosen, chosen, OURS)], wanted, policy) != chosen
    else:
        assert chosen.digest == OURS


def test_a_version_is_read_from_what_the_workspace_tells() -> None:
    told = {"version": "7", "id": "/id", "tags": {DIGEST_TAG: OURS, "packhouse.rank": "1"}}
    assert AssetVersion.of(told) == AssetVersion("7", "/id", OURS)
    assert AssetVersion.of({**told, "tags": {}}).digest is None
