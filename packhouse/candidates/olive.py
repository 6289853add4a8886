"""Read the output of an Olive run, of any layout from 0.7 to 0.13.

A run's candidates are the leaves of its footprint: the final model of every search point. Their files lie in Olive's
cache, under paths of the machine that Olive ran on; each is found here by the longest end of its path that exists.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Literal

from pydantic import Field

from packhouse.candidates.olive_json import (
    COPY_AGAIN,
    FOOTPRINT,
    HISTORY,
    MODEL,
    PACKAGED_MODEL,
    History,
    Node,
    onnx_model,
    read_json,
)
from packhouse.candidates.sources import MODEL_SUFFIX, LocatedModel, Source, unique_names
from packhouse.errors import InputError, Problem

# The first pattern that matches is the whole run: Olive writes a folder per accelerator only where there are several.
FOOTPRINTS = ("footprint.json", "footprints.json", "*_footprints.json", "[cgn]pu*/footprints.json")
EXCERPTS = ("output_footprints.json", "pareto_frontier_footprints.json")
PACKAGED_MODELS = "CandidateModels/*/BestCandidateModel_*"
PACKAGED_NAME = f"model{MODEL_SUFFIX}"


class OliveSource(Source):
    """The output folder of an Olive run, version 0.7 to 0.13, or its unpacked Zipfile package."""

    type: Literal["olive"] = "olive"
    path: Path = Field(description="Olive's output folder.")
    remap: dict[str, Path] = Field(default={}, description="Prefixes of paths as Olive wrote them → where those files are now.")
    input_model: Path | None = Field(
        default=None,
        title="Input model",
        description="The model that Olive started from, to compete as 'input_model'; a good baseline.",
    )

    def locate(self) -> Sequence[LocatedModel]:
        """Return the final model of every search point that did not fail, named by its id, Pareto front or not.

        Where nothing of Olive's cache is here, and `remap` does not say that it is, the candidates are what the folder
        itself holds: the models of an unpacked package, or else the best model, which Olive saved beside
        `model_config.json`. Where only part of the cache is here, the missing rest is an error, not a smaller contest.

        Raises:
            InputError: the folder is no Olive output, is damaged, or its models are not here or are not ONNX models.
        """
        where = f"candidates.path = {self.path}"
        leaves: list[_Leaf] = []
        for file in _footprint_files(self.path):
            leaves += [leaf for leaf in _leaves_of(read_json(FOOTPRINT, file), where) if leaf not in leaves]
        models = self._cached(leaves) or _packaged(self.path) or _saved(self.path, leaves)
        if leaves and not models:
            raise self._missing(leaves)
        if not models:
            raise InputError.at(
                where,
                "holds no model: no footprint with a finished search point, no CandidateModels, no model_config.json",
                "name Olive's output_dir, or its unpacked Zipfile package",
            )
        if self.input_model:
            known = (*(leaf.model for leaf in leaves), *models)
            input_id = next((next(iter(model.history)) for model in known if model.history), None)
            models.append(LocatedModel("input_model", self.input_model, history={input_id: None} if input_id else {}))
        return unique_names(models)

    def _cached(self, leaves: "list[_Leaf]") -> list[LocatedModel]:
        """Return the leaves with their files, or nothing where none is here and `remap` does not say where to look."""
        found = [(leaf, self._find(leaf)) for leaf in leaves]
        missing = [leaf for leaf, path in found if not path]
        if len(missing) == len(leaves) and not self.remap:
            return []
        if missing:
            raise self._missing(missing)
        return [replace(leaf.model, path=_onnx_file(path, leaf.file_name, leaf.where)) for leaf, path in found if path]

    def _find(self, leaf: "_Leaf") -> Path | None:
        """Return where the leaf's file or folder is: as remapped, as written, or where the longest end of its path is.

        The end must still name the leaf or an ancestor of it: Olive calls every run's file `models/<input name>.onnx`.
        """
        if remapped := self._remapped(leaf.model.path):
            return remapped if _exists(remapped) else None
        if leaf.model.path.is_absolute() and _exists(leaf.model.path):
            return leaf.model.path
        here = self.path.resolve()
        roots = (here, here.parent, *here.parent.glob("cache"), *sorted(here.parent.glob("cache_*")))
        written = PureWindowsPath(str(leaf.model.path))
        end = written.relative_to(written.anchor).parts
        while leaf.model.history.keys() & set(end):
            places = {path.resolve(): path for root in roots if _exists(path := root.joinpath(*end))}
            if len(places) > 1:
                raise InputError.at(
                    leaf.where,
                    f"its model {leaf.model.path} could be any of {', '.join(map(str, places.values()))}",
                    "say in candidates.remap which of them is of this run",
                )
            if places:
                return next(iter(places.values()))
            end = end[1:]
        return None

    def _remapped(self, path: Path) -> Path | None:
        parts = PureWindowsPath(str(path)).parts
        prefixes = {PureWindowsPath(prefix).parts: target for prefix, target in self.remap.items()}
        for prefix in sorted(prefixes, key=len, reverse=True):
            if parts[: len(prefix)] == prefix:
                return prefixes[prefix].joinpath(*parts[len(prefix) :])
        return None

    def _missing(self, leaves: "list[_Leaf]") -> InputError:
        remedy = "say in candidates.remap where Olive's cache is now, or name an unpacked package as candidates.path"
        paths = {leaf.where: self._remapped(leaf.model.path) or leaf.model.path for leaf in leaves}
        return InputError([Problem(where, f"its model is not at {path}", remedy) for where, path in paths.items()])


@dataclass(frozen=True)
class _Leaf:
    """A model of a footprint that no other was made of; its path is the one that Olive wrote, a file or a folder."""

    where: str
    model: LocatedModel
    file_name: str | None
    is_pareto_frontier: bool


def _footprint_files(folder: Path) -> list[Path]:
    for pattern in FOOTPRINTS:
        if files := sorted(file for file in folder.glob(pattern) if not file.name.endswith(EXCERPTS)):
            return files
    return []


def _leaves_of(nodes: dict[str, Node], where: str) -> list[_Leaf]:
    """Return the leaves; where Olive evaluated some, the others are what failed search points left behind."""
    parents = {node.parent for node in nodes.values()}
    leaves = []
    for model_id, node in nodes.items():
        if not node.parent or not node.model or node.is_pruned or node.model.is_pruned or model_id in parents:
            continue
        place = f"{where}, node {model_id}"
        onnx = onnx_model(node.model, place)
        model = LocatedModel(model_id, onnx.path, onnx.settings, _history(model_id, nodes, place))
        leaves.append(_Leaf(place, model, onnx.file_name, node.is_pareto_frontier))
    return [leaf for leaf in leaves if nodes[leaf.model.name].metrics] or leaves


def _history(model_id: str, nodes: Mapping[str, Node], where: str) -> History:
    """Return the configuration of every pass from the input model, which has none, to the model."""
    chain: History = {}
    current: str | None = model_id
    while current is not None:
        if current not in nodes or current in chain:
            raise InputError.at(where, f"its ancestor {current!r} is unknown, or descends from itself", COPY_AGAIN)
        chain[current] = nodes[current].pass_run_config
        current = nodes[current].parent
    return dict(reversed(chain.items()))


def _packaged(folder: Path) -> list[LocatedModel]:
    """Return the models of an unpacked package by its folders: older versions' models_rank.json lists only one."""
    places = sorted(folder.glob(PACKAGED_MODELS))
    histories = [read_json(HISTORY, place / "configurations.json") for place in places]
    ids = [next(reversed(history)) for history in histories]
    models = []
    for place, model_id, history in zip(places, ids, histories, strict=True):
        onnx = onnx_model(read_json(PACKAGED_MODEL, place / "model_info.json").model, str(place))
        name = model_id if ids.count(model_id) == 1 else f"{model_id}-{place.parent.name}"
        models.append(LocatedModel(name, _onnx_file(place, PACKAGED_NAME, str(place)), onnx.settings, history))
    return models


def _saved(folder: Path, leaves: Sequence[_Leaf]) -> list[LocatedModel]:
    """Return the best model that Olive saved, as the leaf that it is, or nameless where it could be more than one."""
    for file in (folder / "model_config.json", folder / "output_model" / "model_config.json"):
        if file.is_file():
            onnx = onnx_model(read_json(MODEL, file), str(file))
            saved = file.parent / PureWindowsPath(str(onnx.path)).name
            path = _onnx_file(saved if _exists(saved) else file.parent, onnx.file_name, str(file))
            alike = [leaf for leaf in leaves if leaf.model.settings == onnx.settings]
            best = [leaf for leaf in alike if leaf.is_pareto_frontier] or alike
            if len(best) == 1:
                return [replace(best[0].model, path=path)]
            return [LocatedModel(path.stem, path, onnx.settings)]
    return []


def _onnx_file(path: Path, file_name: str | None, where: str) -> Path:
    """Return `path`, or of a folder the file of that name or, as the name may be stale, the only one."""
    if not path.is_dir():
        return path
    if file_name and _exists(named := path / PureWindowsPath(file_name).name):
        return named
    models = sorted(path.glob(f"*{MODEL_SUFFIX}")) or sorted(path.glob(f"mlflow_model/*{MODEL_SUFFIX}"))
    if len(models) != 1:
        what = f"{path} holds {len(models)} {MODEL_SUFFIX} files, and a candidate is one"
        raise InputError.at(where, what, COPY_AGAIN)
    return models[0]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
