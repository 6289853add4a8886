"""Whether an accelerator works here: by a model that runs on it, in a process of its own."""

import sys
import tempfile
from pathlib import Path

import pytest

from packhouse.accelerators import Accelerator
from packhouse.evaluation import session_host
from packhouse.evaluation.probe import probe


def test_the_cpu_runs() -> None:
    assert probe(Accelerator()) is None


def test_a_provider_that_is_not_there_is_told_with_those_that_are() -> None:
    reason = probe(Accelerator(device="gpu", execution_provider="CUDAExecutionProvider"))

    assert reason is not None
    assert reason.startswith("CUDAExecutionProvider is not in this onnxruntime")


def test_a_provider_that_is_there_and_runs_nothing_does_not_run() -> None:
    """The Azure provider is in every wheel, and takes no node of a model like this."""
    reason = probe(Accelerator(execution_provider="AzureExecutionProvider"))

    assert reason is not None
    assert "AzureExecutionProvider does not take all of its nodes: 0 run there" in reason


def test_options_are_tried_too() -> None:
    strange = {"extra_session_config": {"session.disable_cpu_ep_fallback": "1"}}

    reason = probe(Accelerator.model_validate({"session_options": strange}))

    assert reason is not None
    assert "onflicting session configuration" in reason


def test_a_provider_that_kills_its_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "worker.py").write_text("import os; os.kill(os.getpid(), 11)")
    monkeypatch.setattr(session_host, "WORKER", tmp_path / "worker.py")

    assert "was killed by SIGSEGV" in (probe(Accelerator()) or "")


def test_it_is_tried_with_the_interpreter_that_is_given(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ntouch {tmp_path}/used\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)

    assert probe(Accelerator(), str(python)) is None
    assert (tmp_path / "used").exists()


def test_it_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    probe(Accelerator())

    assert list(tmp_path.iterdir()) == []
