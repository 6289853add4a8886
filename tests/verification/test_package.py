"""Verification of a package: what it accepts, and that whatever was done to a package it is refused, cleanly."""

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from packhouse.errors import InputError, VerificationFailed
from packhouse.packaging.manifest import MANIFEST_NAME
from packhouse.verification import VerifiedModel, verify_package
from packhouse.verification.reader import unpack
from packhouse.verification.unpacked import read_manifest
from tests.classifiers import write_classifier
from tests.packaging_jobs import CPU, EXACT, GPU, ONE, Grades, make_packing

FOLDER = f"CandidateModels/{CPU}/BestCandidateModel_1"
MODEL, SETTINGS = f"{FOLDER}/model.onnx", f"{FOLDER}/inference_config.json"
GOLDEN = f"{FOLDER}/golden_samples.npz"
README = "SampleCode/README.md"
SAME = "loads on CPUExecutionProvider; 1 golden samples are what they were"
MIB = 1 << 20

Files = dict[str, bytes]
Change = Callable[[Files], Any]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good package of one model; not to be changed."""
    return make_packing(tmp_path_factory.mktemp("package"), ONE).zip()


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files of one test, in which verification leaves nothing."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


def files_of(package: Path) -> Files:
    with zipfile.ZipFile(package) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: Files, path: Path, compress_type: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type)
    return path


def changed(package: Path, folder: Path, change: Change) -> Path:
    """Return a copy of the package after a change that the manifest does not know of."""
    files = files_of(package)
    change(files)
    return packed(files, folder / "changed.zip")


def forged(package: Path, folder: Path, change: Change) -> Path:
    """Return a copy of the package after a change, with a manifest whose digests are right again."""
    files = files_of(package)
    change(files)
    manifest = json.loads(files.pop(MANIFEST_NAME))
    manifest["files"] = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)} for name, content in files.items()
    }
    return packed({**files, MANIFEST_NAME: json.dumps(manifest).encode()}, folder / "forged.zip")


def change_json(files: Files, name: str, change: Callable[[Any], Any]) -> None:
    document = json.loads(files[name])
    change(document)
    files[name] = json.dumps(document).encode()


def change_golden_entry(**entries: Any) -> Change:
    """Return a change of what the manifest says of the golden samples."""
    return lambda files: change_json(
        files, MANIFEST_NAME, lambda manifest: manifest["candidates"][0]["golden_samples"].update(entries)
    )


def append(package: Path, folder: Path, info: zipfile.ZipInfo, content: bytes = b"", **kind: Any) -> Path:
    """Return a copy of the package with one more entry at its end."""
    path = Path(shutil.copyfile(package, folder / "appended.zip"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, content, **kind)
    return path


def test_a_good_package_is_verified_file_by_file_and_its_model_loads(package: Path) -> None:
    verified = verify_package(package)
    assert verified.files == len(files_of(package)) - 1
    assert verified.models == (VerifiedModel(model_path=MODEL, outcome=SAME),)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"samples": 0}, r"manifest\.json cannot be read: candidates\.0\.golden_samples\.samples"),
        ({"samples": 10**30}, f"^{MODEL}: it has 1 golden samples, and the manifest says 10{29 * '0'}"),
        ({"batch_size": 0}, r"golden_samples\.batch_size"),
        ({"atol": float("inf")}, r"golden_samples\.atol"),
        ({"rtol": float("nan")}, r"golden_samples\.rtol"),
        ({"rtol": "Infinity"}, r"golden_samples\.rtol"),
        ({"rtol": -1}, r"golden_samples\.rtol"),
    ],
)
def test_a_manifest_that_would_have_nothing_compared_is_refused(
    package: Path, tmp_path: Path, entries: dict[str, Any], message: str
) -> None:
    with pytest.raises(VerificationFailed, match=message):
        verify_package(forged(package, tmp_path, change_golden_entry(**entries)))


@pytest.mark.parametrize("batch", [1, 4, 50])
def test_golden_samples_may_be_filled_up_to_a_fixed_batch(tmp_path: Path, batch: int) -> None:
    write_classifier(tmp_path / "candidates" / f"{EXACT}.onnx", batch=batch)
    (model,) = verify_package(make_packing(tmp_path, ONE).zip()).models
    assert model.outcome == SAME


def test_a_package_that_was_packed_again_by_another_program_is_still_good(package: Path, tmp_path: Path) -> None:
    assert verify_package(changed(package, tmp_path, lambda _: None)) == verify_package(package)


def test_what_verification_accepts_in_mlflow_format_loads_from_its_folder(tmp_path: Path) -> None:
    write_classifier(tmp_path / "candidates" / f"{EXACT}.onnx", external="weights.bin")
    verified = verify_package(make_packing(tmp_path, ONE).zip(export_in_mlflow_format=True))
    path = f"{FOLDER}/mlflow_model/model.onnx"
    assert verified.models == (VerifiedModel(model_path=path, outcome=SAME),)


@pytest.mark.parametrize("mlflow", [False, True])
def test_a_model_for_an_absent_provider_is_not_loaded_and_the_outcome_says_so(tmp_path: Path, mlflow: bool) -> None:
    grades: Grades = {CPU: {EXACT: "it crashed"}, GPU: {EXACT: (0.95, 0.5)}}
    (model,) = verify_package(make_packing(tmp_path, grades).zip(export_in_mlflow_format=mlflow)).models
    assert model.outcome == "not loaded, because CUDAExecutionProvider is not on this machine"


CHANGES: dict[str, tuple[Change, str]] = {
    "a byte of a model": (lambda files: files.update({MODEL: files[MODEL][:-1] + b"\0"}), f"{MODEL} is not what it was"),
    "a metric": (
        lambda files: files.update({f"{FOLDER}/metrics.json": files[f"{FOLDER}/metrics.json"].replace(b"0.97", b"0.99")}),
        "metrics.json is not what it was",
    ),
    "white space": (
        lambda files: files.update({"models_rank.json": files["models_rank.json"] + b"\n"}),
        "models_rank.json has",
    ),
    "a shorter file": (lambda files: files.update({README: b""}), f"{README} has 0 bytes and should have"),
    "a missing model": (lambda files: files.pop(MODEL), f"{MODEL} is missing"),
    "a missing text": (lambda files: files.pop(README), f"{README} is missing"),
    "one more file": (lambda files: files.update({f"{FOLDER}/evil.so": b""}), "evil.so is not in the manifest"),
    "one more file at the top": (lambda files: files.update({"setup.py": b""}), "setup.py is not in the manifest"),
    "no manifest": (lambda files: files.pop(MANIFEST_NAME), "manifest.json is missing"),
    "no files at all": (lambda files: files.clear(), "manifest.json is missing"),
    "a manifest in another folder": (
        lambda files: files.update({"a/manifest.json": files.pop(MANIFEST_NAME)}),
        "manifest.json is missing",
    ),
    "a manifest that is no JSON": (lambda files: files.update({MANIFEST_NAME: b"{"}), "manifest.json cannot be read"),
    "a manifest that is no text": (lambda files: files.update({MANIFEST_NAME: b"\xff\xfe\0"}), "manifest.json cannot be read"),
    "a manifest that is empty": (lambda files: files.update({MANIFEST_NAME: b""}), "manifest.json cannot be read"),
    "a manifest that is deep": (lambda files: files.update({MANIFEST_NAME: b"[" * 100_000}), "manifest.json cannot be read"),
    "a manifest of other shape": (lambda files: files.update({MANIFEST_NAME: b"[]"}), "manifest.json cannot be read"),
    "a manifest of a later version": (
        lambda files: change_json(files, MANIFEST_NAME, lambda manifest: manifest.update(schema_version=3)),
        r"manifest.json cannot be read.*schema_version",
    ),
    "a manifest with unknown keys": (
        lambda files: change_json(files, MANIFEST_NAME, lambda manifest: manifest.update(signature="x")),
        r"manifest.json cannot be read.*signature",
    ),
    "a manifest that lists itself": (
        lambda files: change_json(
            files, MANIFEST_NAME, lambda m: m["files"].update({MANIFEST_NAME: {"sha256": "", "size_bytes": 0}})
        ),
        "manifest.json",
    ),
    "a digest of another file": (
        lambda files: change_json(
            files, MANIFEST_NAME, lambda m: m["files"].update({MODEL: {**m["files"][MODEL], "sha256": "0" * 64}})
        ),
        f"{MODEL} is not what it was",
    ),
}


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES)
def test_a_package_with_any_change_is_refused_and_the_file_is_named(
    package: Path, tmp_path: Path, change: Change, reason: str
) -> None:
    with pytest.raises(VerificationFailed, match=reason) as caught:
        verify_package(changed(package, tmp_path, change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.txt",
        "CandidateModels/../../outside.txt",
        "/tmp/absolute.txt",
        "C:/windows.txt",
        "a\\b.txt",
        "..\\outside.txt",
        "./a.txt",
        "a//b.txt",
        "folder/",
        ".",
        "..",
        "",
        "n" * 300,
        f"{README}/below a file",
        "SampleCode",
        f"{FOLDER}/{'n' * 300}",
        "/".join(["n" * 200] * 30),
    ],
)
def test_names_that_could_leave_the_folder_or_cannot_be_unpacked_are_refused_even_with_right_digests(
    package: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(VerificationFailed):
        verify_package(forged(package, tmp_path, lambda files: files.update({name: b"content"})))


def test_a_model_with_a_file_below_it_is_refused(package: Path, tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed, match="name of the f"):
        verify_package(forged(package, tmp_path, lambda files: files.update({f"{MODEL}/weights.bin": b"content"})))


@pytest.mark.parametrize("name", [README, README.upper(), "samplecode/readme.MD"])
def test_a_name_that_is_there_twice_is_refused(package: Path, tmp_path: Path, name: str) -> None:
    with pytest.warns(UserWarning, match="Duplicate") if name == README else contextlib.nullcontext():
        path = append(package, tmp_path, zipfile.ZipInfo(name), files_of(package)[README])
    with pytest.raises(VerificationFailed, match=r"twice|only in case"):
        verify_package(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_a_link_or_another_special_file_is_refused(package: Path, tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("SampleCode/special")
    info.external_attr = (kind | 0o777) << 16
    with pytest.raises(VerificationFailed, match="'SampleCode/special' is not a regular file, but a "):
        verify_package(append(package, tmp_path, info, b"/etc/passwd"))


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_no_package_of_ours_has_is_refused(package: Path, tmp_path: Path, kind: int) -> None:
    path = packed(files_of(package), tmp_path / "other.zip", kind)
    with pytest.raises(VerificationFailed, match=f"is compressed by method {kind}; files of a package are stored or deflated"):
        verify_package(path)


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_may_be_stored_or_deflated(package: Path, tmp_path: Path, kind: int) -> None:
    files = files_of(package)
    assert verify_package(packed(files, tmp_path / "other.zip", kind)).files == len(files) - 1


def patched(package: Path, folder: Path, name: str, offset: int, value: bytes) -> Path:
    """Return a copy with bytes replaced in the entry of `name` in the archive's directory, `offset` from its start."""
    content = bytearray(package.read_bytes())
    directory = content.index(b"PK\1\2")
    while content[directory + 46 : directory + 46 + len(name)] != name.encode():
        directory = content.index(b"PK\1\2", directory + 4)
    content[directory + offset : directory + offset + len(value)] = value
    path = folder / "patched.zip"
    path.write_bytes(content)
    return path


FIELDS = {
    "encrypted": (8, struct.pack("<H", 1)),
    "strongly encrypted": (8, struct.pack("<H", 0x41)),
    "patched data": (8, struct.pack("<H", 0x20)),
    "unknown compression": (10, struct.pack("<H", 77)),
    "stored though deflated": (10, struct.pack("<H", 0)),
    "needs a later version": (6, struct.pack("<H", 99)),
    "another checksum": (16, struct.pack("<I", 1)),
    "compressed to nothing": (20, struct.pack("<I", 0)),
    "compressed to far more": (20, struct.pack("<I", 0xFFFFFFF0)),
    "a size of nothing": (24, struct.pack("<I", 0)),
    "a size of 4 GB": (24, struct.pack("<I", 0xFFFFFFF0)),
    "at the end of the file": (42, struct.pack("<I", 0xFFFFFFF0)),
    "at another file": (42, struct.pack("<I", 0)),
    "a name that is not UTF-8": (8, struct.pack("<H", 0x800)),
}


@pytest.mark.parametrize(("offset", "value"), FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize("name", [README, MANIFEST_NAME])
def test_a_directory_that_lies_about_a_file_is_refused(
    package: Path, tmp_path: Path, name: str, offset: int, value: bytes
) -> None:
    path = patched(package, tmp_path, name, offset, value)
    if offset == 8 and value == struct.pack("<H", 0x800):
        path = patched(path, tmp_path, name, 46, b"\xff")
    with pytest.raises((VerificationFailed, InputError)):
        verify_package(path)


def test_a_manifest_larger_than_any_of_ours_is_refused_unread(package: Path, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        files = {**files_of(package), MANIFEST_NAME: b" " * (65 * MIB)}
        path = packed(files, tmp_path / "large.zip", zipfile.ZIP_STORED)
        files.clear()
        tracemalloc.reset_peak()
        with pytest.raises(VerificationFailed, match=r"manifest.json is larger than \d+ bytes"):
            verify_package(path)
        assert tracemalloc.get_traced_memory()[1] < 40 * MIB
    finally:
        tracemalloc.stop()


def test_entries_that_share_their_bytes_are_refused(package: Path, tmp_path: Path) -> None:
    """A few kilobytes that many entries claim would unpack to any size."""
    path = tmp_path / "overlapping.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", bytes(MIB))
        first = archive.infolist()[0]
        for number in range(50):
            info = zipfile.ZipInfo(f"b{number}")
            for field in ("header_offset", "compress_size", "file_size", "CRC"):
                setattr(info, field, getattr(first, field))
            archive.filelist.append(info)
        for name, content in files_of(package).items():
            archive.writestr(name, content)
    with pytest.raises(VerificationFailed, match="overlap"):
        verify_package(path)


def test_too_many_entries_are_refused(package: Path, tmp_path: Path) -> None:
    path = forged(package, tmp_path, lambda files: files.update({f"SampleCode/{n}": b"" for n in range(100_000)}))
    with pytest.raises(VerificationFailed, match="entries, more than 100000"):
        verify_package(path)


def replace_model(files: Files, folder: Path, **model: Any) -> None:
    files[MODEL] = write_classifier(folder / "other" / "model.onnx", **model).read_bytes()


def refer_outside(files: Files, folder: Path, location: str) -> None:
    """Make the model keep its weights in a file outside the package, which is there."""
    path = write_classifier(folder / "other" / "model.onnx", external="weights.bin")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location.format(folder / "other")
    files[MODEL] = model.SerializeToString()


FORGERIES: dict[str, tuple[Callable[[Files, Path], Any], str]] = {
    "a truncated model": (
        lambda files, _: files.update({MODEL: files[MODEL][:-40]}),
        f"{MODEL}: is not an ONNX model, or is truncated",
    ),
    "an empty model": (lambda files, _: files.update({MODEL: b""}), f"{MODEL}: is not an ONNX model"),
    "a text for a model": (lambda files, _: files.update({MODEL: b"a model"}), f"{MODEL}: is not an ONNX model"),
    "a model without its weights": (
        lambda files, folder: replace_model(files, folder, external="weights.bin"),
        f"{FOLDER}/weights.bin: cannot be read",
    ),
    "weights beside the package": (
        lambda files, folder: refer_outside(files, folder, "../weights.bin"),
        "keeps its data in '../weights.bin', which is not a plain path",
    ),
    "weights anywhere": (
        lambda files, folder: refer_outside(files, folder, "{}/weights.bin"),
        "keeps its data in '/.*weights.bin', which is not a plain path",
    ),
    "settings that are no JSON": (lambda files, _: files.update({SETTINGS: b"{"}), SETTINGS),
    "settings that are no text": (lambda files, _: files.update({SETTINGS: b"\xff"}), SETTINGS),
    "settings that are a list": (lambda files, _: files.update({SETTINGS: b"[]"}), SETTINGS),
    "settings without a provider": (lambda files, _: files.update({SETTINGS: b'{"execution_provider": []}'}), SETTINGS),
    "settings with a provider alone": (
        lambda files, _: files.update({SETTINGS: b'{"execution_provider": ["CPUExecutionProvider"], "session_options": {}}'}),
        SETTINGS,
    ),
    "no settings": (lambda files, _: files.pop(SETTINGS), SETTINGS),
    "an unknown session option": (
        lambda files, _: change_json(files, SETTINGS, lambda settings: settings["session_options"].update(speed=1)),
        SETTINGS,
    ),
    "a session option that the runtime refuses": (
        lambda files, _: change_json(
            files, SETTINGS, lambda settings: settings["session_options"].update(extra_session_config={"": "x" * 5000})
        ),
        f"{MODEL} does not load",
    ),
}


@pytest.mark.parametrize(("change", "reason"), FORGERIES.values(), ids=FORGERIES)
def test_a_model_that_does_not_load_is_refused_though_all_digests_are_right(
    package: Path, tmp_path: Path, change: Callable[[Files, Path], Any], reason: str
) -> None:
    path = forged(package, tmp_path, lambda files: change(files, tmp_path))
    with pytest.raises(VerificationFailed, match=reason):
        verify_package(path)


def change_golden_samples(files: Files, change: Callable[[dict[str, Any]], Any], *, compressed: bool = False) -> None:
    """Replace the golden samples by changed ones."""
    with np.load(io.BytesIO(files[GOLDEN])) as stored:
        arrays = dict(stored)
    change(arrays)
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    files[GOLDEN] = file.getvalue()


DECEPTIONS: dict[str, tuple[Callable[[Files, Path], Any], str]] = {
    "another model": (
        lambda files, folder: replace_model(files, folder, error=0.4),
        f"^{MODEL}: [123] of 3 values of the output 'y' are not what they were when it was packaged",
    ),
    "golden samples of another shape": (
        lambda files, _: change_golden_samples(files, lambda arrays: arrays.update(output_0=arrays["output_0"][:, :2])),
        f"^{MODEL}: the output 'y' has the shape",
    ),
    "a model without that output": (
        lambda files, _: change_golden_samples(files, lambda arrays: arrays.update(output_names=np.array(["z"]))),
        f"^{MODEL}: the output 'z' of its golden samples is missing",
    ),
    "an input that the model does not have": (
        lambda files, _: change_golden_samples(files, lambda arrays: arrays.update(input_names=np.array(["z"]))),
        f"^{MODEL} does not run its golden samples on CPUExecutionProvider",
    ),
    "an input that is not in the file": (
        lambda files, _: change_golden_samples(files, lambda arrays: arrays.pop("input_0")),
        f"^{MODEL} does not run its golden samples on CPUExecutionProvider",
    ),
    "golden samples without outputs": (
        lambda files, _: change_golden_samples(files, lambda arrays: arrays.update(output_0=arrays["output_0"][:0])),
        "holds no golden samples: no sample has the output 'y'",
    ),
    "outputs that are neither numbers nor texts": (
        lambda files, _: change_golden_samples(
            files, lambda arrays: arrays.update(output_0=np.zeros((1, 3), dtype=[("a", "f4")]))
        ),
        "holds no golden samples: the output 'y' is neither numbers nor texts",
    ),
    "golden samples that are compressed": (
        lambda files, _: change_golden_samples(files, lambda _: None, compressed=True),
        f"^{MODEL}: {GOLDEN} is compressed, as golden samples never are",
    ),
    "golden samples that are pickled": (
        lambda files, _: change_golden_samples(files, lambda arrays: arrays.update(output_names=np.array(["y"], dtype=object))),
        f"{GOLDEN} holds no golden samples: Object arrays cannot be loaded",
    ),
    "golden samples that are no archive": (
        lambda files, _: files.update({GOLDEN: b"x"}),
        f"{GOLDEN} holds no golden samples",
    ),
    "no golden samples": (lambda files, _: files.pop(GOLDEN), f"the golden samples '{GOLDEN}' are missing"),
    "no models": (
        lambda files, _: change_json(files, MANIFEST_NAME, lambda manifest: manifest.update(candidates=[])),
        r"^there is no model in it: manifest\.json has no candidates",
    ),
}


@pytest.mark.parametrize(("change", "reason"), DECEPTIONS.values(), ids=DECEPTIONS)
def test_a_package_that_does_something_else_than_it_did_is_refused_though_all_digests_are_right(
    package: Path, tmp_path: Path, change: Callable[[Files, Path], Any], reason: str
) -> None:
    path = forged(package, tmp_path, lambda files: change(files, tmp_path))
    with pytest.raises(VerificationFailed, match=reason):
        verify_package(path)


@pytest.mark.parametrize("option", ["optimized_model_filepath", "profile_file_prefix"])
def test_settings_in_a_package_write_no_file_where_it_is_verified(package: Path, tmp_path: Path, option: str) -> None:
    target = tmp_path / "written by a package"
    options = {option: str(target), "enable_profiling": True}
    path = forged(
        package,
        tmp_path,
        lambda files: change_json(files, SETTINGS, lambda settings: settings["session_options"].update(options)),
    )
    with pytest.raises(VerificationFailed, match=r"inference_config\.json cannot be read"):
        verify_package(path)
    assert not list(tmp_path.glob("written*"))


@pytest.mark.parametrize("model_path", ["{}/model.onnx", "../outside/model.onnx", "models/model.onnx", "", ".", FOLDER])
def test_a_manifest_that_names_a_model_outside_the_package_is_refused(package: Path, tmp_path: Path, model_path: str) -> None:
    write_classifier(tmp_path / "outside" / "model.onnx")
    write_classifier(tmp_path / "temporary" / "outside" / "model.onnx")
    named = model_path.format(tmp_path / "outside")
    path = forged(
        package,
        tmp_path,
        lambda files: change_json(files, MANIFEST_NAME, lambda m: m["candidates"][0].update(model_path=named)),
    )
    try:
        with pytest.raises(VerificationFailed, match=r"^the model .* is missing$"):
            verify_package(path)
    finally:
        shutil.rmtree(tmp_path / "temporary" / "outside")


CUTS = [
    0,
    1,
    4,
    21,
    22,
    23,
    45,
    46,
    100,
    1000,
    *(f"{percent}%" for percent in range(5, 100, 5)),
    *(-n for n in (1, 2, 21, 22, 23, 46)),
]


@pytest.mark.parametrize("cut", CUTS)
def test_a_truncated_package_is_refused_wherever_it_was_cut(package: Path, tmp_path: Path, cut: int | str) -> None:
    content = package.read_bytes()
    end = len(content) * int(cut.rstrip("%")) // 100 if isinstance(cut, str) else cut
    (tmp_path / "cut.zip").write_bytes(content[:end])
    with pytest.raises((InputError, VerificationFailed)):
        verify_package(tmp_path / "cut.zip")


def test_a_package_without_its_middle_is_refused(package: Path, tmp_path: Path) -> None:
    content = package.read_bytes()
    for start in range(0, len(content) - 2000, len(content) // 20):
        (tmp_path / "cut.zip").write_bytes(content[:start] + content[start + 500 :])
        with pytest.raises((InputError, VerificationFailed)):
            verify_package(tmp_path / "cut.zip")


def test_damaged_bytes_anywhere_are_refused_or_matter_to_no_file(package: Path, tmp_path: Path) -> None:
    """Bytes outside the files, such as dates, may change; nothing but our own errors ever comes out."""
    content = package.read_bytes()
    chance = random.Random(0)
    refused, root = 0, tmp_path / "unpacked"
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 3)):
            # Half of them in the directory at the end, where every byte has a meaning.
            start = 0 if chance.random() < 0.5 else content.index(b"PK\1\2")
            damaged[chance.randrange(start, len(damaged))] = chance.randrange(256)
        (tmp_path / "damaged.zip").write_bytes(damaged)
        try:
            read_manifest(root, unpack(tmp_path / "damaged.zip", root))
        except (InputError, VerificationFailed):
            refused += 1
        shutil.rmtree(root, ignore_errors=True)
    assert refused > 150


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\5\6" + bytes(18), b"\x1f\x8b" + bytes(100)])
def test_what_is_no_archive_is_an_error_of_the_input_or_has_no_manifest(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "package.zip").write_bytes(content)
    with pytest.raises((InputError, VerificationFailed), match=r"package\.zip|manifest\.json is missing"):
        verify_package(tmp_path / "package.zip")


def unzipped(package: Path, folder: Path) -> Path:
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    return folder


def test_a_package_that_was_unzipped_is_verified_as_the_archive_is(package: Path, tmp_path: Path) -> None:
    assert verify_package(unzipped(package, tmp_path / "unzipped")) == verify_package(package)


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES)
def test_a_folder_with_any_change_is_refused_as_the_archive_is(
    package: Path, tmp_path: Path, change: Change, reason: str
) -> None:
    folder = unzipped(changed(package, tmp_path, change), tmp_path / "unzipped")
    folder.mkdir(exist_ok=True)
    with pytest.raises(VerificationFailed, match=reason):
        verify_package(folder)


def test_command_line_ends_with_its_own_exit_code_for_a_package_that_is_not_what_it_says(package: Path, tmp_path: Path) -> None:
    path = changed(package, tmp_path, lambda files: files.pop(README))
    command = [sys.executable, "-m", "flows.cli", "verify"]
    done = subprocess.run(
        [*command, str(path)], check=False, capture_output=True, text=True, env={**os.environ, "COLUMNS": "300"}
    )
    assert done.returncode == 4
    assert f"{README} is missing" in done.stderr
