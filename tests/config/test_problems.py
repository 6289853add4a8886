"""What is wrong with a configuration is said with its place, what was found, and the remedy."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from packhouse.config import load_config
from packhouse.config.loading import parse_config
from packhouse.config.model import PackhouseConfig
from packhouse.errors import InputError, Problem
from packhouse.provenance.config import SigningConfig
from tests.config.documents import Document, document, metric, with_sub_type

DATA = {"path": "data.npz", "labels": "label"}
P50 = {"name": "p50", "priority": 1}
SUB_TYPE = "metrics[0].sub_types[0]"
OWN = {"name": "own", "priority": 1, "higher_is_better": True}
A_FUNCTION = {"function": "own.py:own"}
FILE_NAME = "use letters, digits, dots, dashes, underscores"


def problems_of(written: Document) -> list[Problem]:
    with pytest.raises(InputError) as refused:
        parse_config(written)
    return list(refused.value.problems)


# id: document, place, part of the finding, part of the remedy
ONE_PROBLEM: dict[str, tuple[Document, str, str, str]] = {
    "unknown key": (document(metric=1), "metric", "unknown key, with the value 1", "did you mean 'metrics'?"),
    "unlike any key": (document(zzz=1), "zzz", "unknown key", "known keys: candidates, data, accelerators, metrics"),
    "nested unknown key": (with_sub_type(priorty=2), f"{SUB_TYPE}.priorty", "with the value 2", "mean 'priority'?"),
    "unknown key of a source": (
        document(candidates={"type": "folder", "path": "m", "pth": "x"}),
        "candidates.pth",
        'unknown key, with the value "x"',
        "did you mean 'path'?",
    ),
    "key of another source": (
        document(candidates={"type": "folder", "path": "m", "remap": {}}),
        "candidates.remap",
        "unknown key",
        "known keys: type, path",
    ),
    "unknown key named like its type": (
        document(candidates={"type": "folder", "path": "m", "folder": "x"}),
        "candidates.folder",
        "unknown key",
        "known keys: type, path",
    ),
    "unknown key of a package": (
        document(packaging=[{"type": "Zipfile"}, {"type": "MLflowModel", "nme": "x"}]),
        "packaging[1].nme",
        "unknown key",
        "did you mean 'name'?",
    ),
    "unknown key of the only package": (
        document(packaging={"type": "Zipfile", "nme": "x"}),
        "packaging.nme",
        "unknown key",
        "did you mean 'name'?",
    ),
    "unknown key in config": (
        document(packaging=[{"type": "Zipfile", "config": {"include_runtime_package": True}}]),
        "packaging[0].config.include_runtime_package",
        "with the value true",
        "did you mean 'include_runtime_packages'?",
    ),
    "value in config": (
        document(packaging=[{"type": "Zipfile", "config": {"top_k": 0}}]),
        "packaging[0].config.top_k",
        "0 is refused",
        "it should be greater than or equal to 1",
    ),
    "same key twice": (
        document(packaging=[{"type": "Zipfile", "top_k": 1, "config": {"top_k": 2}}]),
        "packaging[0]",
        "top_k is given twice, with different values",
        "",
    ),
    "unknown packaging": (document(packaging={"type": "Zip"}), "packaging", "unknown type 'Zip'", "'Zipfile'"),
    "packaging without type": (
        document(packaging=[{"name": "x"}]),
        "packaging[0]",
        'has no type: {"name": "x"}',
        "add type: AzureMLData or AzureMLDeployment or AzureMLModels or Dockerfile or MLflowModel or Zipfile",
    ),
    "packaging that is a word": (document(packaging=["Zipfile"]), "packaging[0]", '"Zipfile"', "a mapping of settings"),
    "two packages of one name": (
        document(packaging=[{"type": "Zipfile", "name": "A"}, {"type": "zipfile", "name": "a"}]),
        "packaging",
        "two packages would be called 'a.zip'",
        "give each its own name",
    ),
    "a package called like what lies beside another": (
        document(packaging=[{"type": "MLflowModel", "name": "A.zip.Intoto.JSON"}]),
        "packaging[0]",
        "A.zip.Intoto.JSON is what every run writes beside its packages",
        "choose another name",
    ),
    "a package called like the record of a run": (
        document(packaging=[{"type": "MLflowModel", "name": "A.zip.run.json"}]),
        "packaging[0]",
        "A.zip.run.json is what every run writes beside its packages",
        "choose another name",
    ),
    "signing without a key": (
        document(signing={}),
        "signing",
        "neither key_file nor key_block is given",
        "give one of them",
    ),
    "signing with two keys": (
        document(signing={"key_file": "key.pem", "key_block": "key"}),
        "signing",
        "key_file and key_block are both given",
        "give one of them",
    ),
    "unknown source": (document(candidates={"type": "folders"}), "candidates", "type 'folders'", "'folder', 'list'"),
    "source without type": (document(candidates={}), "candidates", "has no type: {}", "folder or list or olive"),
    "key missing": (document(candidates={"type": "list"}), "candidates.models", "is required and missing", "add it"),
    "same priority": (
        document(metrics=[metric(P50, {"name": "p95", "priority": 1})]),
        "metrics",
        "latency-p50 and latency-p95 have the same priority 1",
        "number the ranked ones 1, 2, 3",
    ),
    "priority 0": (with_sub_type(priority=0), f"{SUB_TYPE}.priority", "0 is no priority", "use 1 for the first"),
    "no priority": (
        document(metrics=[metric({"name": "p50"}, {"name": "p95"})]),
        "metrics",
        "none has a priority",
        "give the most important one priority: 1",
    ),
    "same name": (
        document(metrics=[metric(P50, {"name": "p50", "priority": 2})]),
        "metrics",
        "'latency-p50' is defined twice",
        "give the metrics different names",
    ),
    "relative goal without baseline": (
        with_sub_type(goal={"type": "max-degradation", "value": 1}),
        "baseline",
        "is not set, and the goal of latency-p50 is relative to it",
        "name a candidate",
    ),
    "accuracy without data": (
        document(metrics=[metric(kind="accuracy")]),
        "data",
        "is not set, and accuracy-accuracy needs labelled samples",
        "give data.path and data.labels",
    ),
    "unknown provider": (
        document(accelerators=[{}, {"device": "gpu", "execution_provider": "cuda"}]),
        "accelerators[1]",
        "unknown execution provider 'cuda'",
        "did you mean CUDAExecutionProvider?",
    ),
    "unlike any provider": (
        document(accelerators=[{"execution_provider": "abacus"}]),
        "accelerators[0]",
        "'abacus'",
        "use one of ACLExecutionProvider",
    ),
    "unknown device": (
        document(accelerators=[{"device": "tpu"}]),
        "accelerators[0].device",
        '"tpu" is refused',
        "it should be 'cpu', 'gpu' or 'npu'",
    ),
    "accelerator twice": (
        document(accelerators=[{"device": "cpu"}, {"device": "CPU", "provider_options": {"a": 1}}]),
        "accelerators",
        "cpu-cpu is listed twice",
        "keep one of them",
    ),
    "no accelerator": (document(accelerators=[]), "accelerators", "[] is refused", "give at least one"),
    "accelerator not in a list": (document(accelerators={"device": "cpu"}), "accelerators", '"cpu"', "give a list"),
    "unknown metric": (
        document(metrics=[metric(type="speed")]),
        "metrics[0].type",
        '"speed" is refused',
        "it should be 'accuracy', 'latency', 'throughput'",
    ),
    "unknown sub type": (
        document(metrics=[metric(P50 | {"name": "p51"})]),
        "metrics[0]",
        "latency has no sub type 'p51'",
        "use one of avg, min, max, p50",
    ),
    "no sub types": (document(metrics=[metric(sub_types=[])]), "metrics[0].sub_types", "[] is", "give at least one"),
    "no metrics": (document(metrics=[]), "metrics", "[] is refused", "give at least one"),
    "custom without function": (
        document(data=DATA, metrics=[metric(OWN, kind="custom", user_config={"user_script": "own.py"})]),
        "metrics[0]",
        "a custom metric needs a function",
        "add user_config.function",
    ),
    "custom without direction": (
        document(data=DATA, metrics=[metric(OWN | {"higher_is_better": None}, kind="custom", user_config=A_FUNCTION)]),
        "metrics[0]",
        "the custom sub type 'own' has no direction",
        "add higher_is_better",
    ),
    "tolerance with a unit": (with_sub_type(tolerance="2ms"), f"{SUB_TYPE}.tolerance", "'2ms' is no", "such as 2%"),
    "value with a semicolon": (with_sub_type(tolerance="1; 2"), f"{SUB_TYPE}.tolerance", "'1; 2' is no", "write a"),
    "negative tolerance": (with_sub_type(tolerance=-1), f"{SUB_TYPE}.tolerance", "-1.0 is no", "zero or more"),
    "tolerance of another type": (
        with_sub_type(tolerance=[1]),
        f"{SUB_TYPE}.tolerance",
        "[1] is refused",
        "give a number, or give a text",
    ),
    "unknown goal": (
        with_sub_type(goal={"type": "treshold", "value": 1}),
        f"{SUB_TYPE}.goal.type",
        '"treshold" is refused',
        "it should be 'threshold'",
    ),
    "goal that nothing reaches": (
        with_sub_type(goal={"type": "threshold", "value": float("nan")}),
        f"{SUB_TYPE}.goal.value",
        "NaN is refused",
        "it should be a finite number",
    ),
    "goal with its direction twice": (
        with_sub_type(goal={"type": "max-degradation", "value": -0.5}),
        f"{SUB_TYPE}.goal",
        "max-degradation is -0.5, less than zero",
        "give the size only",
    ),
    "data of neither origin": (document(data={"labels": "y"}), "data", "name arrays of a path or a function", "one of them"),
    "data of both origins": (document(data=DATA | A_FUNCTION), "data", "either a path or a function", "one of them"),
    "data of another suffix": (document(data={"path": "data.csv"}), "data", "data.csv is neither .npz nor", "convert"),
    "data that are a path": (document(data="data.npz"), "data", '"data.npz" is refused', "give a mapping of settings"),
    "input named like a type": (
        document(data=DATA | {"inputs": {"str": 5}}),
        "data.inputs.str",
        "5 is refused",
        "give a text in quotes, or give a list",
    ),
    "item of one form of a value": (
        document(data=DATA | {"inputs": {"x": ["a", 5]}}),
        "data.inputs.x[1]",
        "5 is refused",
        "give a text in quotes",
    ),
    "value that has two forms": (
        document(metrics=[metric(P50, data_config=5)]),
        "metrics[0].data_config",
        "5 is refused",
        "give a text in quotes, or give a mapping of settings",
    ),
    "key that is no text": (document(data={**DATA, 1: "x"}), "data.1", "1 is refused", "give the key as a text"),
    "number for a name": (document(baseline=3), "baseline", "3 is refused", "give a text in quotes"),
    "word for a flag": (
        document(packaging={"type": "Zipfile", "include_runtime_packages": "sure"}),
        "packaging.include_runtime_packages",
        '"sure" is refused',
        "give true or false",
    ),
}


@pytest.mark.parametrize(("written", "where", "what", "remedy"), ONE_PROBLEM.values(), ids=ONE_PROBLEM)
def test_problem_says_where_what_and_the_remedy(written: Document, where: str, what: str, remedy: str) -> None:
    (problem,) = problems_of(written)
    assert problem.where == where
    assert what in problem.what
    assert remedy in problem.remedy
    assert problem.remedy


PASTED = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIGx5\n-----END PRIVATE KEY-----\n"
PASTED_KEYS: dict[str, tuple[Any, str, str]] = {
    "for the name of a block": ({"key_block": PASTED}, "signing.key_block", "is no name of a Prefect block"),
    "without its frame": ({"key_block": PASTED.splitlines()[1]}, "signing.key_block", "is no name of a Prefect block"),
    "line by line": ({"key_block": PASTED.splitlines()}, "signing.key_block", "is no name of a Prefect block"),
    "for the name of a file": ({"key_file": PASTED}, "signing.key_file", "is a key, not the path of a file with one"),
    "at an unknown key": ({"key_file": "key.pem", "key": PASTED}, "signing.key", 'unknown key, with the value "**********"'),
    "for all settings": (PASTED, "signing", '"**********" is refused'),
}


@pytest.mark.parametrize(("signing", "where", "what"), PASTED_KEYS.values(), ids=PASTED_KEYS)
def test_a_private_key_that_was_pasted_into_the_configuration_is_refused_and_never_shown(
    signing: Any, where: str, what: str
) -> None:
    (problem,) = problems_of(document(signing=signing))
    assert (problem.where, problem.what) == (where, what)
    with pytest.raises(ValidationError) as refused:
        PackhouseConfig.model_validate(document(signing=signing))
    for said in (str(problem), str(refused.value), repr(refused.value.errors())):
        assert not [part for part in ("MC4CAQ", "IGx5", "BEGIN") if part in said]


@pytest.mark.parametrize("name", ["signing-key", "key2"])
def test_names_that_prefect_gives_to_blocks_are_accepted(name: str) -> None:
    assert parse_config(document(signing={"key_block": name})).signing == SigningConfig(key_block=name)


NO_FILE_NAMES = ["a/b", "a\\b", "..", "", "con", "Aux.v1", "x.", " x", "a\0b", "a\nb", "a:b", "x" * 300]


@pytest.mark.parametrize("name", NO_FILE_NAMES)
def test_name_that_is_no_file_name_everywhere_is_refused(name: str) -> None:
    problem = problems_of(document(packaging=[{"type": "Zipfile", "name": name}]))[0]
    assert problem == Problem("packaging[0].name", f"{name!r} cannot be a file name on every system", FILE_NAME)


@pytest.mark.parametrize("name", ["digits", "digits-1.2", "console", "Größe 2", "x" * 200])
def test_name_that_is_a_file_name_everywhere_is_accepted(name: str) -> None:
    assert parse_config(document(packaging=[{"type": "Zipfile", "name": name}])).packaging[0].name == name


@pytest.mark.parametrize(
    ("written", "places"),
    [
        pytest.param(
            document(
                metric=1,
                candidates={"type": "folder", "pth": "x"},
                data={"path": "x.csv"},
                accelerators=[{"device": "tpu"}],
                packaging=[{"type": "Tarball"}, {"type": "Zipfile", "config": {"nme": 1, "top_k": 0}}],
            ),
            {
                "metric",
                "candidates.pth",
                "candidates.path",
                "data",
                "accelerators[0].device",
                "packaging[0]",
                "packaging[1].config.nme",
                "packaging[1].config.top_k",
            },
            id="of single values",
        ),
        pytest.param(
            document(
                metrics=[
                    metric(P50 | {"goal": {"type": "max-degradation", "value": 1}}, P50),
                    metric({"name": "f1", "priority": 1}, kind="accuracy"),
                ]
            ),
            {"metrics", "baseline", "data"},
            id="of values that do not go together",
        ),
        pytest.param({}, {"candidates", "metrics"}, id="of an empty document"),
    ],
)
def test_several_problems_are_all_listed(written: Document, places: set[str]) -> None:
    found = problems_of(written)
    assert {problem.where for problem in found} == places
    assert str(InputError(found)).count("\n") == len(found) - 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "name", "path", "config", "sub_types", "str"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.sampled_from(sorted(PackhouseConfig.model_fields)), json_values)
def test_anything_anywhere_is_read_or_refused_with_every_place_named(key: str, value: Any) -> None:
    try:
        parse_config(document(**{key: value}))
    except InputError as refused:
        problems = refused.problems
    else:
        problems = ()
    places = {problem.where.split(".")[0].split("[")[0] for problem in problems}
    assert places <= {key, "data", "baseline"}
    assert all(problem.what and problem.remedy for problem in problems)


FILES = {
    "broken.yaml": (b"metrics: [latency\nname: x", "not valid YAML: while parsing a flow", "(line 2, column 5)"),
    "tab.yaml": (b"metrics:\n\t- latency", "not valid YAML", "(line 2, column 1)"),
    "several.yaml": (b"a: 1\n---\nb: 2", "expected a single document in the stream", "(line 2, column 1)"),
    "code.yaml": (b"a: !!python/object:os.system x", "could not determine a constructor", "(line 1, column 4)"),
    "twice.yaml": (b"metrics: 1\ndata: 2\nmetrics: 3", "the key 'metrics' is given twice", "(line 3, column 1)"),
    "latin.yaml": (b"name: Gr\xf6\xdfe", "not valid YAML", "can't decode byte 0xf6"),
    "broken.json": (b'{"metrics": [],}', "not valid JSON", "line 1 column 16"),
    "twice.json": (b'{"a": {"b": 1, "b": 2}}', "not valid JSON", "the key 'b' is given twice"),
    "list.yaml": (b"- metrics", "does not hold a mapping of settings", ""),
    "text.json": (b'"metrics"', "does not hold a mapping of settings", ""),
    "empty.yaml": (b"", "does not hold a mapping of settings", ""),
}


@pytest.mark.parametrize(("name", "content", "what", "place"), [(name, *rest) for name, rest in FILES.items()])
def test_file_that_is_not_readable_is_named(tmp_path: Path, name: str, content: bytes, what: str, place: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as refused:
        load_config(tmp_path / name)
    (problem,) = refused.value.problems
    assert problem.where == str(tmp_path / name)
    assert what in problem.what
    assert place in problem.what
    assert problem.remedy


@pytest.mark.parametrize(("name", "what"), [("none.yaml", "No such file"), (".", "Is a directory")])
def test_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(InputError) as refused:
        load_config(tmp_path / name)
    assert refused.value.problems[0].where == str(tmp_path / name)
    assert what in refused.value.problems[0].what
