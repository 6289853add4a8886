"""Configuration documents for tests: a smallest one to change, and a strategy of all that may be written."""

from typing import Any

from hypothesis import strategies as st

from packhouse.accelerators import KNOWN_PROVIDERS
from packhouse.metrics import SUB_TYPES

Document = dict[str, Any]


def metric(*sub_types: Document, kind: str = "latency", **more: Any) -> Document:
    """Return a metric called like its type, with the given sub types or one that ranks first."""
    only = {"name": SUB_TYPES.get(kind, ("own",))[0], "priority": 1}
    return {"name": kind, "type": kind, "sub_types": list(sub_types) or [only], **more}


def document(**changes: Any) -> Document:
    """Return the smallest configuration, with changes."""
    return {"candidates": {"type": "folder", "path": "models"}, "metrics": [metric()], **changes}


def with_sub_type(**changes: Any) -> Document:
    """Return a configuration whose only sub type has changes."""
    return document(metrics=[metric({"name": "p50", "priority": 1, **changes})])


words = st.text("abcxyz-_ äß", min_size=1, max_size=8).map(lambda text: f"n{text}n")
numbers = st.floats(0, 1e9, allow_nan=False)
options = st.dictionaries(words, words, max_size=2)
session_options = st.fixed_dictionaries(
    {},
    optional={
        "execution_mode": st.sampled_from([0, 1]),
        "graph_optimization_level": st.sampled_from([0, 1, 2, 3, 99]),
        "intra_op_num_threads": st.integers(0, 64),
        "extra_session_config": options,
    },
)
goals = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["threshold", "min-improvement", "percent-min-improvement", "max-degradation"]),
        "value": numbers,
    }
)
candidates = st.one_of(
    st.fixed_dictionaries({"type": st.just("folder"), "path": words}),
    st.fixed_dictionaries(
        {
            "type": st.just("list"),
            "models": st.lists(
                st.fixed_dictionaries({"name": words, "path": words}, optional={"session_options": session_options}),
                min_size=1,
                max_size=3,
            ),
        }
    ),
    st.fixed_dictionaries({"type": st.just("olive"), "path": words}, optional={"remap": options, "input_model": words}),
)
data = st.fixed_dictionaries(
    {"path": words.map("{}.npz".format), "labels": words},
    optional={
        "ids": words,
        "inputs": st.dictionaries(words, words | st.lists(words, min_size=1, max_size=3), max_size=2),
        "batch_size": st.integers(1, 512),
    },
)
accelerators = st.lists(
    st.fixed_dictionaries(
        {"device": st.sampled_from(["cpu", "gpu", "npu"]), "execution_provider": st.sampled_from(KNOWN_PROVIDERS)},
        optional={"provider_options": options, "session_options": session_options},
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda accelerator: (accelerator["device"], accelerator["execution_provider"]),
)


@st.composite
def packagings(draw: st.DrawFn) -> Document | list[Document]:
    """One package or several, with settings flat or nested."""
    packages: list[Document] = []
    for name in draw(st.lists(words, max_size=3, unique_by=str.lower)):
        kind = draw(st.sampled_from(["Zipfile", "MLflowModel"]))
        flags = {"export_in_mlflow_format": st.booleans(), "include_runtime_packages": st.booleans()}
        settings = draw(st.fixed_dictionaries({}, optional=flags)) if kind == "Zipfile" else {}
        packages.append({"type": kind, "name": name, **({"config": settings} if draw(st.booleans()) else settings)})
    return packages[0] if len(packages) == 1 and draw(st.booleans()) else packages


@st.composite
def metrics(draw: st.DrawFn) -> list[Document]:
    """One to four metrics of different types, with different priorities for some of their sub types."""
    kinds = draw(st.lists(st.sampled_from(sorted(SUB_TYPES)), min_size=1, max_size=4, unique=True))
    found = []
    priorities = iter(draw(st.permutations(range(1, 20))))
    for kind in kinds:
        names = draw(st.lists(st.sampled_from(SUB_TYPES[kind]), min_size=1, max_size=3, unique=True))
        details = st.fixed_dictionaries(
            {},
            optional={
                "goal": goals,
                "tolerance": numbers | st.integers(0, 100).map("{}%".format),
                "metric_config": st.dictionaries(words, numbers | words, max_size=2),
                "higher_is_better": st.booleans(),
            },
        )
        sub_types = [{"name": name, "priority": next(priorities), **draw(details)} for name in names]
        for unranked in sub_types[1:]:
            if draw(st.booleans()):
                unranked["priority"] = -1
        found.append(metric(*sub_types, kind=kind))
    return found


documents = st.fixed_dictionaries(
    {
        "candidates": candidates,
        "data": data,
        "accelerators": accelerators,
        "metrics": metrics(),
        "baseline": words,
        "packaging": packagings(),
        "output_dir": words,
    }
)
