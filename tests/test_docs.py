"""What the documentation shows is what there is."""

import re
from pathlib import Path

import pytest

import packhouse.packaging

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "packaging-types.md"


@pytest.mark.parametrize("name", ["pyproject.toml", "packhouse_tarball.py"])
def test_the_example_of_a_packaging_type_is_shown_as_it_is(name: str) -> None:
    shown = re.findall(rf"^`{re.escape(name)}`:\n\n```\w+\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert shown == [(ROOT / "examples" / "packager" / name).read_text()]


@pytest.mark.parametrize("name", packhouse.packaging.__all__)
def test_everything_that_a_packaging_type_may_import_is_there_and_told_of(name: str) -> None:
    assert hasattr(packhouse.packaging, name)
    assert re.search(rf"\b{name}\b", PAGE.read_text())
