"""The lock of a device, between real processes: many compute or one measures, and nobody dead holds anything."""

import fcntl
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from packhouse.evaluation import device_lock as module
from packhouse.evaluation.device_lock import device_lock

HOLD = """
import sys
from pathlib import Path
from packhouse.evaluation import device_lock as module
module.LOCK_FOLDER = Path(sys.argv[1])
with module.device_lock(sys.argv[2], exclusive=sys.argv[3] == "exclusive", waiting=lambda: print("waiting", flush=True)):
    print("holding", flush=True)
    sys.stdin.readline()
print("released", flush=True)
"""
Start = Callable[..., "Holder"]


class Holder:
    """A process that takes the lock of a device, and holds it until it is told to let go."""

    def __init__(self, folder: Path, device: str, mode: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), device, mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def says(self, within_s: float = 60) -> str | None:
        """Return the next word of the process, or None if it says nothing in that time."""
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], within_s)[0]:
            return None
        return self.process.stdout.readline().strip()

    def release(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.says() == "released"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A function that starts a holder; locks lie in a folder of the test's own."""
    monkeypatch.setattr(module, "LOCK_FOLDER", tmp_path)
    holders: list[Holder] = []

    def run(mode: str, device: str = "cpu") -> Holder:
        holders.append(Holder(tmp_path, device, mode))
        return holders[-1]

    yield run
    for holder in holders:
        holder.kill()
        for stream in (holder.process.stdin, holder.process.stdout):
            if stream:
                stream.close()


@pytest.mark.parametrize(("first", "second"), [("exclusive", "exclusive"), ("exclusive", "shared"), ("shared", "exclusive")])
def test_one_that_measures_has_the_device_to_itself(start: Start, first: str, second: str) -> None:
    holder = start(first)
    assert holder.says() == "holding"

    waiter = start(second)

    assert waiter.says() == "waiting"
    holder.release()
    assert waiter.says() == "holding"


def test_many_may_compute_at_once(start: Start) -> None:
    assert [start("shared").says() for _ in range(3)] == ["holding"] * 3


def test_one_that_measures_waits_for_all_that_compute(start: Start) -> None:
    first, second = start("shared"), start("shared")
    assert (first.says(), second.says()) == ("holding", "holding")

    waiter = start("exclusive")

    assert waiter.says() == "waiting"
    first.release()
    assert waiter.says(within_s=5 * module.POLL_S) is None
    second.release()
    assert waiter.says() == "holding"


def test_devices_do_not_wait_for_each_other(start: Start) -> None:
    assert start("exclusive", "cpu").says() == "holding"
    assert start("exclusive", "gpu").says() == "holding"


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
def test_the_lock_of_a_killed_process_is_free(start: Start, mode: str) -> None:
    holder = start(mode)
    assert holder.says() == "holding"
    waiter = start("exclusive")
    assert waiter.says() == "waiting"

    holder.kill()

    assert waiter.says() == "holding"


def test_threads_of_one_process_exclude_each_other_too(start: Start) -> None:
    waiting, held = threading.Event(), threading.Event()

    def measure() -> None:
        with device_lock("cpu", exclusive=True, waiting=waiting.set):
            held.set()

    thread = threading.Thread(target=measure)
    with device_lock("cpu", exclusive=False):
        thread.start()
        assert waiting.wait(60)
        assert not held.is_set()
    thread.join(60)
    assert held.is_set()


def test_the_wait_is_told_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    holder, naps, told = start("exclusive"), [], []
    assert holder.says() == "holding"

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 4:
            holder.release()

    monkeypatch.setattr("time.sleep", nap)
    with device_lock("cpu", exclusive=True, waiting=lambda: told.append("waiting")):
        pass

    assert len(naps) >= 4
    assert told == ["waiting"]


def test_without_a_wait_nothing_is_told(start: Start) -> None:
    told: list[str] = []
    with device_lock("cpu", exclusive=True, waiting=lambda: told.append("waiting")):
        assert start("exclusive").says() == "waiting"
    assert told == []


def test_the_lock_is_free_after_an_exception(start: Start) -> None:
    def fail() -> None:
        with device_lock("cpu", exclusive=True):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()

    assert start("exclusive").says() == "holding"


def test_the_lock_is_not_inherited_by_programs_that_are_started_meanwhile(start: Start) -> None:
    with device_lock("cpu", exclusive=True):
        sleeper = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        assert start("exclusive").says() == "holding"
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_lock_file_of_somebody_else_will_do(start: Start, tmp_path: Path) -> None:
    (tmp_path / "packhouse-cpu.lock").touch(0o444)

    assert start("exclusive").says() == "holding"
    assert [path.name for path in tmp_path.iterdir()] == ["packhouse-cpu.lock"]


def test_locks_lie_in_the_temporary_folder_where_there_is_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_FOLDER", tmp_path / "none")
    monkeypatch.setattr(module, "OTHER_FOLDER", tmp_path)

    with device_lock("npu", exclusive=True):
        assert (tmp_path / "packhouse-npu.lock").exists()


def test_lock_whose_file_was_deleted_while_it_was_waited_for_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise two could hold a lock of one name, on the old file and on the new one."""
    monkeypatch.setattr(module, "LOCK_FOLDER", tmp_path)
    path, other = tmp_path / "packhouse-npu.lock", ExitStack()
    other.enter_context(device_lock("npu", exclusive=True))

    def delete_and_release() -> None:
        path.unlink()
        other.close()

    with device_lock("npu", exclusive=True, waiting=delete_and_release):
        assert path.exists()
        with path.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
