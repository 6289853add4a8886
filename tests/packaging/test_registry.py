"""How packaging types are found: the built-in ones, and one that a third party installs."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from packhouse.config.loading import load_config, parse_config
from packhouse.errors import InputError
from packhouse.packaging import Packaging
from packhouse.packaging.docker.dockerfile import Dockerfile
from packhouse.packaging.mlflow.model import MLflowModel
from packhouse.packaging.registry import any_packaging, installed_types, packaging_types, with_type_as_registered
from packhouse.packaging.zipfile import Zipfile
from packhouse.release import RELEASE_NAME, REPORT_NAME
from tests.jobs import job, write_job

THIRD_PARTY = '''
from pathlib import Path
from typing import Literal

from packhouse.packaging import Packaging, PackagingJob, Workplace


class Note(Packaging):
    """A text file that names the winner."""

    type: Literal["Note"] = "Note"
    greeting: str = "The best is"

    @property
    def output_name(self) -> str:
        return f"{self.name}.txt"

    def plan(self) -> str:
        return f"{self.output_name}: who won"

    def create(self, job: PackagingJob, workplace: Workplace) -> Path:
        path = workplace.scratch / self.output_name
        path.write_text(f"{self.greeting} {job.candidate(job.best.candidate).name}")
        return path
'''
USE = """
import json, sys
from pathlib import Path
from packhouse.config import load_config
from packhouse.config.schema import config_schema
from packhouse.packaging.registry import packaging_types
from packhouse.plan import prepare
from tests.packaging_jobs import ONE, make_packing

folder = Path(sys.argv[1])
note, zipped = load_config(folder / "packhouse.json").packaging
made = make_packing(folder / "work", ONE, packaging=[]).create(note)
print(json.dumps({
    "types": list(packaging_types()),
    "plan": note.plan(),
    "made": [made.name, made.read_text()],
    "other": zipped.type,
    "schema": sorted(config_schema()["$defs"]["Note"]["properties"]),
}))
"""


@pytest.fixture
def fresh_registry() -> Iterator[None]:
    """Let this test, and then the next, look the installed types up anew."""
    installed_types.cache_clear()
    yield
    installed_types.cache_clear()


@pytest.fixture
def third_party(tmp_path: Path) -> Path:
    """A folder with an installed distribution that registers the type Note."""
    site = tmp_path / "site"
    info = site / "notes-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: notes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[packhouse.packagers]\nNote = notes_packaging:Note\n")
    (site / "notes_packaging.py").write_text(THIRD_PARTY)
    return site


def run_with(site: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program with one more folder of installed distributions."""
    root = Path(__file__).parents[2]
    program = f"import sys; sys.path[:0] = [{str(site)!r}, {str(root)!r}]\n{program}"
    return subprocess.run([sys.executable, "-c", program, *arguments], check=False, capture_output=True, text=True)


def test_built_in_types_are_found_by_their_entry_points() -> None:
    points = {
        point.name: point.value for point in metadata.distribution("packhouse").entry_points.select(group="packhouse.packagers")
    }
    assert points["Zipfile"] == "packhouse.packaging.zipfile:Zipfile"
    assert points["MLflowModel"] == "packhouse.packaging.mlflow.model:MLflowModel"
    assert packaging_types()["Zipfile"] is Zipfile
    assert packaging_types()["MLflowModel"] is MLflowModel


def test_every_registered_name_is_the_type_that_its_class_takes() -> None:
    for name, kind in packaging_types().items():
        assert issubclass(kind, Packaging)
        assert kind.model_fields["type"].default == name


def test_a_type_that_somebody_installs_is_configured_planned_described_and_made(third_party: Path, tmp_path: Path) -> None:
    packaging = [{"type": "note", "name": "winner", "greeting": "Hail"}, {"type": "Zipfile"}]
    write_job(tmp_path, packaging=packaging)
    done = run_with(third_party, USE, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "types": ["AzureMLData", "AzureMLDeployment", "AzureMLModels", "Dockerfile", "MLflowModel", "Note", "Zipfile"],
        "plan": "winner.txt: who won",
        "made": ["winner.txt", "Hail turned-0.0"],
        "other": "Zipfile",
        "schema": ["config", "greeting", "name", "type"],
    }


# Whatever is imported first, the configuration comes to import all packaging types.
FIRST = ["packhouse.config", "packhouse.packaging.registry", "packhouse.plan", "packhouse.release", "flows.package_models"]
IMPORTED_ABOVE = """
from packhouse.output import OutputFolder
from packhouse.packaging.zipfile import Zipfile
from packhouse.provenance.statement import provenance
from packhouse.release import Delivery, Package, Release
from packhouse.report.page import report_html
from packhouse.verification import verify_package
"""
USABLE = """
from packhouse.packaging.registry import installed_types
print(sorted({"Note", "Zipfile"} & installed_types().usable.keys()))
"""


@pytest.mark.parametrize("first", FIRST)
def test_a_type_may_import_whatever_does_not_need_the_configuration(first: str, third_party: Path) -> None:
    (third_party / "notes_packaging.py").write_text(f"{IMPORTED_ABOVE}{THIRD_PARTY}")
    done = run_with(third_party, f"import {first}{USABLE}")
    assert (done.stdout, done.stderr) == ("['Note', 'Zipfile']\n", "")


PLAN = """
from flows.cli import app
app(["plan", sys.argv[1]])
"""
OF_NOTE = "the packaging type Note"
NOT_MADE = "which Note would make, cannot be a file name on every system"
# What the methods of a type do, and what is then said of it.
FAILING = {
    "def plan(self): raise RuntimeError('no licence\\nsee below')": f"plan() of {OF_NOTE} fails (RuntimeError: no licence)",
    "def problems(self): return [1]": f"problems() of {OF_NOTE} fails (AttributeError: 'int' object has no attribute",
    "def problems(self): yield 1 / 0": f"problems() of {OF_NOTE} fails (ZeroDivisionError: division by zero)",
    "def remote_calls(self): return self.calls": f"remote_calls() of {OF_NOTE} fails (AttributeError: ",
    "output_name = property(lambda self: {}['x'])": f"{OF_NOTE} cannot say what its package is called (KeyError: 'x')",
    "output_name = property(lambda self: '../../../x')": f"'../../../x', {NOT_MADE}",
    "output_name = property(lambda self: 'x' * 300)": f"', {NOT_MADE}",
    "output_name = property(lambda self: 5)": f"5, {NOT_MADE}",
}


@pytest.mark.parametrize(("method", "reason"), FAILING.items(), ids=FAILING)
def test_a_type_that_fails_while_it_is_planned_is_bad_input_that_names_it(
    third_party: Path, tmp_path: Path, method: str, reason: str
) -> None:
    path = third_party / "notes_packaging.py"
    path.write_text(f"{THIRD_PARTY}\n    {method}\n")
    config = write_job(tmp_path, packaging=[{"type": "Zipfile"}, {"type": "Note"}])
    done = run_with(third_party, PLAN, str(config))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    said = " ".join(done.stderr.split())
    assert f"packaging[1]: {reason}" in said or ("x" * 300 in said and reason in said)
    assert "mend or uninstall" in said or "use letters, digits" in said


def test_a_type_that_is_not_installed_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"unknown type 'Note' → use one of .*MLflowModel.*Zipfile"):
        parse_config(job(packaging=[{"type": "Note"}]))


# What is written below a module whose type is right, and what is then said of it.
NOT_IMPORTED = "notes_packaging:Note cannot be imported"
NO_TYPE = "notes_packaging:Note is no class derived from packhouse.packaging.Packaging"
NOT_ITS_NAME = 'notes_packaging:Note does not declare type: Literal["Note"] = "Note"'
UNUSABLE = {
    "import nowhere": f"{NOT_IMPORTED} (ModuleNotFoundError: No module named 'nowhere')",
    "raise RuntimeError('no licence\\nsee below')": f"{NOT_IMPORTED} (RuntimeError: no licence)",
    "del Note": f"{NOT_IMPORTED} (AttributeError: module 'notes_packaging' has no attribute 'Note')",
    "Note = 3": NO_TYPE,
    "class Note: pass": NO_TYPE,
    "class Note(Packaging):\n    type: Literal['Note'] = 'Note'": "notes_packaging:Note does not define create and plan",
    "class Note(Note):\n    type: Literal['Memo'] = 'Memo'": NOT_ITS_NAME,
    "class Note(Note):\n    type: str = 'Note'": NOT_ITS_NAME,
    "class Note(Note, arbitrary_types_allowed=True):\n    odd: type(...) = ...": "has settings that are not plain data",
}
LOAD_BOTH = """
from pathlib import Path
from packhouse.config import load_config
from packhouse.errors import InputError

asking, other = map(Path, sys.argv[1:])
print([packaging.type for packaging in load_config(other).packaging])
try:
    load_config(asking)
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("line", UNUSABLE)
def test_a_type_that_cannot_be_used_is_refused_with_its_distribution_and_stops_no_other(
    line: str, third_party: Path, tmp_path: Path
) -> None:
    with (third_party / "notes_packaging.py").open("a") as module:
        module.write(f"\n\n{line}\n")
    other = write_job(tmp_path)
    asking = tmp_path / "asking.json"
    asking.write_text(json.dumps(job(packaging=[{"type": "Zipfile"}, {"type": "note"}])))
    done = run_with(third_party, LOAD_BOTH, str(asking), str(other))
    assert done.returncode == 0, done.stderr
    found, error = done.stdout.splitlines()
    assert found == "['Zipfile']"
    assert error.startswith("packaging[1]: the type 'Note' of notes 1.0 cannot be used: ")
    assert error.endswith(" → mend or uninstall notes 1.0")
    assert UNUSABLE[line] in error
    assert done.stderr.startswith("the packaging type 'Note' of notes 1.0 is left out: ")
    assert UNUSABLE[line] in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_name_that_two_distributions_register_belongs_to_neither(third_party: Path, tmp_path: Path) -> None:
    info = third_party / "rival-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[packhouse.packagers]\nNOTE = notes_packaging:Note\n")
    asking = write_job(tmp_path, packaging={"type": "note"})
    other = tmp_path / "other.json"
    other.write_text(json.dumps(job()))
    done = run_with(third_party, LOAD_BOTH, str(asking), str(other))
    both = "notes 1.0 and rival 2.0"
    assert f"the type 'Note' of {both} cannot be used: {both} register it → uninstall one of them" in done.stdout, done.stderr


KEYS = """
from pathlib import Path
from packhouse.config import load_config
from packhouse.packaging.registry import installed_types
from tasks.package import package_key
from tests.packaging_jobs import ONE, make_packing

(note,) = load_config(Path(sys.argv[1])).packaging
job = make_packing(Path(sys.argv[2]), ONE, packaging=[]).job
about = Path(sys.argv[3])
for version in ("1.0", "1.1", "1.0"):
    about.write_text(about.read_text().rpartition(" ")[0] + f" {version}\\n")
    installed_types.cache_clear()
    print(package_key(None, {"job": job, "packaging": note}))
"""


def test_a_new_version_of_a_third_partys_distribution_makes_a_new_package(third_party: Path, tmp_path: Path) -> None:
    config, about = write_job(tmp_path, packaging={"type": "Note"}), third_party / "notes-1.0.dist-info" / "METADATA"
    done = run_with(third_party, KEYS, str(config), str(tmp_path / "work"), str(about))
    assert done.returncode == 0, done.stderr
    first, updated, again = done.stdout.split()
    assert first == again != updated


WITH_PATHS = """

class Note(Note):
    beside: Path = Path("notes")
    below: Path | None = None
    nowhere: Path | None = None
"""
SHOW_PATHS = """
from pathlib import Path
from packhouse.config import PackhouseConfig, load_config

config = load_config(Path(sys.argv[1]))
(note,) = config.packaging
print(note.beside, note.below, note.nowhere)
assert PackhouseConfig.model_validate_json(config.model_dump_json()) == config
"""


def test_relative_paths_of_a_third_partys_type_are_taken_from_the_configurations_folder(
    third_party: Path, tmp_path: Path
) -> None:
    with (third_party / "notes_packaging.py").open("a") as module:
        module.write(WITH_PATHS)
    config = write_job(tmp_path, packaging={"type": "Note", "config": {"below": "deep/er"}})
    done = run_with(third_party, SHOW_PATHS, str(config))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "notes"), str(tmp_path / "deep" / "er"), "None"]


def test_an_unknown_setting_of_an_installed_type_is_refused_in_its_place(third_party: Path, tmp_path: Path) -> None:
    write_job(tmp_path, packaging=[{"type": "Zipfile"}, {"type": "Note", "greting": "Hail"}])
    program = "from pathlib import Path; from packhouse.config import load_config; load_config(Path(sys.argv[1]))"
    done = run_with(third_party, program, str(tmp_path / "packhouse.json"))
    assert "packaging[1].greting: unknown key" in done.stderr
    assert "did you mean 'greeting'?" in done.stderr


@pytest.mark.usefixtures("fresh_registry")
def test_types_are_looked_up_once_and_in_order_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def entry_points(group: str) -> list[metadata.EntryPoint]:
        asked.append(group)
        values = {
            "Zipfile": "packhouse.packaging.zipfile:Zipfile",
            "MLflowModel": "packhouse.packaging.mlflow.model:MLflowModel",
        }
        return [metadata.EntryPoint(name, value, group) for name, value in values.items()]

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    assert list(packaging_types()) == ["MLflowModel", "Zipfile"]
    packaging_types()
    assert asked == ["packhouse.packagers"]


@pytest.mark.usefixtures("fresh_registry")
def test_a_single_installed_type_is_a_type_of_the_configuration_too(monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("Zipfile", "packhouse.packaging.zipfile:Zipfile", "packhouse.packagers")
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [point])
    assert TypeAdapter(any_packaging()).validate_python({"type": "Zipfile", "name": "a"}) == Zipfile(name="a")


@pytest.mark.parametrize("spelled", ["Zipfile", "zipfile", "ZIPFILE", "zipFile"])
def test_a_type_may_be_written_in_any_case(spelled: str) -> None:
    assert with_type_as_registered({"type": spelled, "name": "x"}) == {"type": "Zipfile", "name": "x"}
    assert parse_config(job(packaging={"type": spelled})).packaging[0] == Zipfile()


@pytest.mark.parametrize("value", [None, 3, "Zipfile", [], {}, {"type": None}, {"type": 3}, {"type": "Unknown"}])
def test_what_has_no_registered_type_is_left_as_it_is(value: Any) -> None:
    assert with_type_as_registered(value) == value


def test_the_given_configuration_is_not_changed() -> None:
    given = {"type": "zipfile"}
    with_type_as_registered(given)
    assert given == {"type": "zipfile"}


def test_settings_may_stand_beside_the_type_or_below_config_as_in_olive() -> None:
    flat = Zipfile.model_validate({"type": "Zipfile", "name": "a", "export_in_mlflow_format": True})
    nested = {"type": "Zipfile", "name": "a", "config": {"export_in_mlflow_format": True}}
    assert Zipfile.model_validate(nested) == flat
    assert Zipfile.model_validate({"type": "Zipfile", "config": None}) == Zipfile()
    assert Zipfile.model_validate({**nested, "export_in_mlflow_format": True}) == flat


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"top_k": 1, "config": {"top_k": 2}}, "top_k is given twice"),
        ({"config": [1]}, "config must be an object"),
        ({"config": {"topk": 1}}, "topk"),
        ({"top_k": 0}, "top_k"),
    ],
)
def test_settings_that_contradict_or_are_unknown_are_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Zipfile.model_validate({"type": "Zipfile", **given})


BAD_NAMES = [
    "",
    " a",
    "a ",
    ".",
    "..",
    ".hidden",
    "a.",
    "a/b",
    "a\\b",
    "C:",
    "a\nb",
    "a\0",
    "con",
    "NUL",
    "lpt1.x",
    "a*",
    "a?",
    '"a"',
]


@pytest.mark.parametrize("name", [*BAD_NAMES, "n" * 201, "ä" * 101, "🎉" * 51, "\ud800"])
@pytest.mark.parametrize("kind", [Dockerfile, MLflowModel, Zipfile])
def test_a_name_that_not_every_system_can_have_for_a_file_is_refused(kind: type[Packaging], name: str) -> None:
    with pytest.raises(ValidationError, match=r"cannot be a file name|valid string"):
        kind.model_validate({"name": name})


@pytest.mark.parametrize("name", ["a", "Größe 1.2-rc_3 (final)", "n" * 200, "ä" * 100, "конец", "console", "a.b.c"])
def test_other_names_are_taken_as_they_are(name: str) -> None:
    assert Zipfile(name=name).output_name == f"{name}.zip"
    assert MLflowModel(name=name).output_name == name


@pytest.mark.parametrize("name", [RELEASE_NAME, REPORT_NAME, RELEASE_NAME.upper()])
def test_a_package_cannot_have_the_name_of_what_every_run_writes(name: str) -> None:
    with pytest.raises(InputError, match=r"packaging\[0\].*is what every run writes beside its packages → choose another name"):
        parse_config(job(packaging=[{"type": "MLflowModel", "name": name}]))
    assert Zipfile(name=name).output_name == f"{name}.zip"


def test_a_single_package_needs_no_list(tmp_path: Path) -> None:
    assert load_config(write_job(tmp_path, packaging={"type": "mlflowmodel"})).packaging == (MLflowModel(),)
