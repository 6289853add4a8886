"""Functions that users name: found in modules and files, and refused with the place that named them."""

import sys
from pathlib import Path

import pytest

from packhouse.errors import InputError
from packhouse.user_code import REMEDY, code_digest, load_function

WHERE = "metrics[0].user_config.function"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("reference", ["math:sqrt", "os.path:basename"])
def test_function_of_a_module_is_found(reference: str) -> None:
    assert load_function(reference, WHERE).__name__ == reference.partition(":")[2]


def test_function_of_a_file_is_found(tmp_path: Path) -> None:
    file = write(tmp_path / "my metric.v2.py", "def double(x):\n    return 2 * x\n")
    assert load_function(f"{file}:double", WHERE)(4) == 8


def test_file_named_like_a_module_hides_nothing(tmp_path: Path) -> None:
    import json

    file = write(tmp_path / "json.py", "def loads(text):\n    return 'mine'\n")
    assert load_function(f"{file}:loads", WHERE)("{}") == "mine"
    assert sys.modules["json"] is json


def test_files_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "own.py", f"def name():\n    return {folder!r}\n")
    functions = [load_function(f"{tmp_path / folder}/own.py:name", WHERE) for folder in ("a", "b")]
    assert [function() for function in functions] == ["a", "b"]


def test_file_may_define_dataclasses_with_postponed_annotations(tmp_path: Path) -> None:
    text = "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass Sample:\n    x: int\n"
    assert load_function(f"{write(tmp_path / 'own.py', text)}:Sample", WHERE)(3).x == 3


def test_changed_file_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    for answer in (1, 22):  # of different lengths, so that no cached bytecode fits both
        write(file, f"def answer():\n    return {answer}\n")
        assert load_function(f"{file}:answer", WHERE)() == answer


@pytest.mark.parametrize(
    ("reference", "what"),
    [
        ("sqrt", "'sqrt' names no function"),
        ("math:", "'math:' names no function"),
        (":sqrt", "':sqrt' names no function"),
        ("", "'' names no function"),
        ("nowhere:f", "nowhere cannot be imported (ModuleNotFoundError: No module named 'nowhere')"),
        ("math:no_such", "math has no function 'no_such'"),
        ("math:pi", "math has no function 'pi'"),
        ("{folder}/none.py:f", "{folder}/none.py cannot be imported (FileNotFoundError: "),
        ("{folder}/broken.py:f", "{folder}/broken.py cannot be imported (SyntaxError: "),
        ("{folder}/fails.py:f", "{folder}/fails.py cannot be imported (ZeroDivisionError: division by zero)"),
    ],
)
def test_reference_that_leads_nowhere_is_refused(tmp_path: Path, reference: str, what: str) -> None:
    write(tmp_path / "broken.py", "def f(:\n")
    write(tmp_path / "fails.py", "1 / 0\n")
    before = set(sys.modules)
    with pytest.raises(InputError) as refused:
        load_function(reference.replace("{folder}", str(tmp_path)), WHERE)
    (problem,) = refused.value.problems
    assert (problem.where, problem.remedy) == (WHERE, REMEDY)
    assert problem.what.startswith(what.replace("{folder}", str(tmp_path)))
    assert set(sys.modules) == before


def test_digest_of_code_changes_with_the_file_and_with_the_function(tmp_path: Path) -> None:
    file = write(tmp_path / "own.py", "def f(): ...\n")
    digests = [code_digest(f"{file}:f"), code_digest(f"{file}:f"), code_digest(f"{file}:g"), code_digest("math:f")]
    write(file, "def f(): return 1\n")
    digests.append(code_digest(f"{file}:f"))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4
