"""What is seen of the machine: what /proc and /sys say, what they leave out, and who is busy."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from packhouse.evaluation import surroundings as module
from packhouse.evaluation.surroundings import Reading, Usage, busiest, cpu_mhz, cpu_use, cpus_for

STAT = "cpu  {user} 200 300 400000 500 60 7 {steal} 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 5\n"
FILES = {
    "/proc/stat": STAT.format(user=1000, steal=80),
    "/proc/pressure/cpu": "some avg10=0.00 avg60=0.12 avg300=0.20 total=1000000\nfull avg10=0.00 total=5\n",
    "/sys/fs/cgroup/cpu.stat": "usage_usec 77\nnr_periods 3\nnr_throttled 1\nthrottled_usec 2000\nnr_bursts 0\n",
    "/proc/loadavg": "1.25 0.75 0.50 3/456 7890\n",
    "/proc/cpuinfo": "processor : 0\nmodel name : x\ncpu MHz\t\t: 2399.998\n\nprocessor : 1\ncpu MHz\t\t: 1000.0\n",
}
# Computes until it is ended, and tells first.
BUSY = "print('busy', flush=True)\nwhile True: pass"
# The same, under a name whose bytes are no text: the system cuts names where it likes.
ODD_NAME = "import ctypes; ctypes.CDLL(None).prctl(15, b'gr\\xc3\\xbc\\xc3')\n" + BUSY
UseFiles = Callable[..., None]


@pytest.fixture
def use_files(monkeypatch: pytest.MonkeyPatch) -> UseFiles:
    """A function that puts texts in the place of what the system tells."""

    def use(files: dict[str, str]) -> None:
        monkeypatch.setattr(module, "_text", lambda path: files.get(path, ""))

    return use


@contextmanager
def busy(script: str = BUSY) -> Iterator[int]:
    """Keep a process busy, and give its id."""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "busy\n"
        try:
            yield process.pid
        finally:
            process.kill()


def names_of(pid: int) -> set[str]:
    return {usage.name for (number, _), usage in cpu_use().items() if number == pid}


def wait_for_cpu_time(pid: int, seconds: float) -> None:
    """Wait until a process has computed for so many more seconds."""

    def used() -> float:
        return sum(usage.seconds for (number, _), usage in cpu_use().items() if number == pid)

    began = used()
    while used() < began + seconds:
        time.sleep(0.02)


class TestReading:
    def test_has_what_the_system_counts(self, use_files: UseFiles) -> None:
        use_files(FILES)

        found = Reading.now()

        assert (found.pressure_us, found.busy_ticks, found.steal_ticks, found.throttled_us) == (1_000_000, 1567, 80, 2000)
        assert abs(found.at_ns - time.time_ns()) < 60e9
        assert 0 < found.our_ns <= time.process_time_ns()

    def test_has_zeros_where_nothing_is_told(self, use_files: UseFiles) -> None:
        use_files({})

        found = Reading.now()
        seen = found.until_now(0, 0, 0.0)

        assert (found.pressure_us, found.busy_ticks, found.steal_ticks, found.throttled_us) == (0, 0, 0, 0)
        assert (seen.pressure, seen.steal, seen.throttled, seen.load, seen.running, seen.mhz) == (0, 0, 0, 0, 0, 0)

    @pytest.mark.parametrize("stat", ["cpu 1 2 3 4 5 6 7", "cpu"])
    def test_of_an_old_system_has_no_ticks(self, use_files: UseFiles, stat: str) -> None:
        use_files(FILES | {"/proc/stat": stat})

        assert (Reading.now().busy_ticks, Reading.now().steal_ticks) == (0, 0)

    def test_of_this_system_counts_up(self) -> None:
        first = Reading.now()
        with busy() as pid:
            wait_for_cpu_time(pid, 0.2)
        second = Reading.now()

        assert second.busy_ticks > first.busy_ticks > 0
        assert second.at_ns > first.at_ns
        assert second.pressure_us >= first.pressure_us

    def test_gives_shares_of_the_time_since_then(self, use_files: UseFiles, monkeypatch: pytest.MonkeyPatch) -> None:
        use_files(FILES)
        monkeypatch.setattr(module, "TICKS_PER_S", 100)
        clock = {"time_ns": 10**18, "process_time_ns": 10**9}
        monkeypatch.setattr(module, "time", type("Clock", (), {name: lambda name=name: clock[name] for name in clock}))
        reading = Reading.now()
        use_files(
            FILES
            | {
                "/proc/stat": STAT.format(user=1150, steal=90),
                "/proc/pressure/cpu": "some avg10=0.00 avg60=0.12 avg300=0.20 total=1500000\n",
                "/sys/fs/cgroup/cpu.stat": "throttled_usec 102000\n",
            }
        )
        clock.update(time_ns=10**18 + 2 * 10**9, process_time_ns=10**9 + 10**8)

        seen = reading.until_now(candidates_ns=4 * 10**8, switches=3, stalled=0.123456)

        assert (seen.began_ns, seen.ended_ns) == (10**18, 10**18 + 2 * 10**9)
        assert (seen.pressure, seen.steal, seen.throttled) == (0.25, 0.05, 0.05)
        # 1.5 s in 2 s, of which candidates had 0.4 s and the process that measures 0.1 s
        assert seen.foreign == 0.5
        assert (seen.load, seen.running, seen.mhz) == (1.25, 3, 2399.998)
        assert (seen.switches, seen.stalled) == (3, 0.1235)


class TestCpus:
    @pytest.mark.parametrize(
        ("allowed", "threads", "cpus"),
        [
            ({0, 1, 2, 3}, 1, [3]),
            ({0, 1, 2, 3}, 3, [1, 2, 3]),
            ({0, 1, 2, 3}, 4, None),
            ({0, 1, 2, 3}, 9, None),
            ({12, 5, 7}, 2, [7, 12]),
            ({0}, 1, None),
            ({0, 1}, None, None),
            ({0, 1}, 0, None),
        ],
    )
    def test_are_the_last_ones_that_we_may_use(
        self, monkeypatch: pytest.MonkeyPatch, allowed: set[int], threads: int | None, cpus: list[int] | None
    ) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)

        assert cpus_for(threads) == cpus

    def test_are_unknown_where_the_system_has_no_affinity(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(os, "sched_getaffinity")

        assert cpus_for(1) is None

    @pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU only")
    def test_are_among_those_of_a_process_that_may_use_few(self) -> None:
        last = max(os.sched_getaffinity(0))
        code = (
            "import os; from packhouse.evaluation.surroundings import cpus_for\n"
            "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); print(cpus_for(1))"
        )
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

        assert done.stdout == "None\n"
        assert cpus_for(1) == [last]


class TestClock:
    def test_is_that_of_the_frequency_driver_first(self, use_files: UseFiles) -> None:
        use_files(FILES | {"/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "3100000\n"})

        assert cpu_mhz() == 3100.0

    def test_is_that_of_the_first_cpu(self, use_files: UseFiles) -> None:
        use_files(FILES)

        assert cpu_mhz() == 2399.998


class TestProcesses:
    def test_are_known_by_id_and_name(self) -> None:
        (found,) = [usage for (pid, _), usage in cpu_use().items() if pid == os.getpid()]

        assert found.name == Path("/proc/self/comm").read_text().strip()
        assert found.seconds == pytest.approx(time.process_time(), abs=1.0)

    def test_may_have_names_with_brackets_and_spaces(self, tmp_path: Path) -> None:
        program = tmp_path / "a (b) c) 9"
        program.symlink_to("/bin/sleep")
        with subprocess.Popen([program, "60"]) as process:
            try:
                while not (found := names_of(process.pid) & {"a (b) c) 9"}):
                    time.sleep(0.02)
                assert found == {"a (b) c) 9"}
            finally:
                process.kill()

    def test_may_have_names_that_are_no_text(self) -> None:
        with busy(ODD_NAME) as pid:
            names = names_of(pid)

        assert names == {"grü\N{REPLACEMENT CHARACTER}"}

    def test_that_are_busy_and_foreign_are_named(self) -> None:
        before = cpu_use()
        with busy("import ctypes; ctypes.CDLL(None).prctl(15, b'foreign')\n" + BUSY) as pid:
            wait_for_cpu_time(pid, 0.3)
            shares = busiest(before, 0.3, ours=())
            without = busiest(before, 0.3, ours={pid})

        assert shares["foreign"] >= 0.95
        assert "foreign" not in without

    def test_that_are_three_at_most_with_most_of_the_cpu_are_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def use(**seconds: float) -> dict[tuple[int, str], Usage]:
            return {(int(key[1:]), "start"): Usage(key[0], value) for key, value in seconds.items()}

        before = use(a1=10.0, b2=5.0, c3=0.0, i9=3.0)
        after = use(a1=11.0, b2=9.0, c3=2.0, c4=1.5, d5=0.5, u6=9.0, i9=3.1)
        monkeypatch.setattr(module, "cpu_use", lambda: after)

        assert busiest(before, 10.0, {6}) == {"b": 0.4, "c": 0.35, "a": 0.1}
        assert busiest(before, 10.0, {1, 2, 3, 4, 6}) == {"d": 0.05}
