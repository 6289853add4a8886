"""What else the machine does while candidates are timed, and what keeps it away from them.

Everything is read from /proc and /sys of Linux; what a system does not tell is left at zero.
"""

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from packhouse.records import Record

PRIORITY = 10  # of SCHED_FIFO: above all ordinary work, below what the kernel needs
NOTICEABLE = 0.02  # share of a CPU
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Surroundings(Record):
    """What was seen during one round; shares are of the round's time, and 1.0 is all of it, or one CPU.

    `pressure` is the share in which some process waited for a CPU, `foreign` what others than the candidates computed (in steps
    of 10 ms), `steal` what the hypervisor took, `throttled` the share in which the control group was held back. `load` is the
    load average, `running` the number of processes that wanted a CPU at the end of the round, `mhz` the clock of the CPU.
    `switches` and `stalled` are of the candidate that had most of it: how often the CPU was taken away, and the share of its
    turn in which it had none.
    """

    began_ns: int
    ended_ns: int
    load: float
    running: int
    pressure: float
    foreign: float
    steal: float
    throttled: float
    mhz: float
    switches: int = 0
    stalled: float = 0.0


@dataclass(frozen=True)
class Reading:
    """The system's counters at a moment."""

    at_ns: int
    our_ns: int
    pressure_us: int
    busy_ticks: int
    steal_ticks: int
    throttled_us: int

    @classmethod
    def now(cls) -> "Reading":
        """Read the counters."""
        cpu = _text("/proc/stat").split("\n", 1)[0].split()
        pressure = _text("/proc/pressure/cpu").partition("total=")[2].split()
        throttled = [line.split()[1] for line in _text("/sys/fs/cgroup/cpu.stat").splitlines() if "throttled_usec" in line]
        return cls(
            at_ns=time.time_ns(),
            our_ns=time.process_time_ns(),
            pressure_us=int(pressure[0]) if pressure else 0,
            busy_ticks=sum(int(cpu[index]) for index in (1, 2, 3, 6, 7)) if len(cpu) > 8 else 0,
            steal_ticks=int(cpu[8]) if len(cpu) > 8 else 0,
            throttled_us=int(throttled[0]) if throttled else 0,
        )

    def until_now(self, candidates_ns: int, switches: int, stalled: float) -> Surroundings:
        """Return what has happened since this reading, in which the candidates computed for `candidates_ns`."""
        now = Reading.now()
        ours_us = (candidates_ns + now.our_ns - self.our_ns) / 1e3
        duration_us = max(1.0, (now.at_ns - self.at_ns) / 1e3)
        load = _text("/proc/loadavg").split()
        return Surroundings(
            began_ns=self.at_ns,
            ended_ns=now.at_ns,
            load=float(load[0]) if load else 0.0,
            running=int(load[3].split("/")[0]) if load else 0,
            pressure=round((now.pressure_us - self.pressure_us) / duration_us, 4),
            foreign=round(((now.busy_ticks - self.busy_ticks) * 1e6 / TICKS_PER_S - ours_us) / duration_us, 4),
            steal=round((now.steal_ticks - self.steal_ticks) * 1e6 / TICKS_PER_S / duration_us, 4),
            throttled=round((now.throttled_us - self.throttled_us) / duration_us, 4),
            mhz=cpu_mhz(),
            switches=switches,
            stalled=round(stalled, 4),
        )


class Usage(NamedTuple):
    """The name of a process, and the CPU time that it has used, in seconds."""

    name: str
    seconds: float


def cpus_for(threads: int | None) -> list[int] | None:
    """Return the CPUs to pin so many threads to: the last ones that we may use; None where all are needed, or it is unknown."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return allowed[-threads:] if threads and threads < len(allowed) else None


def cpu_mhz() -> float:
    """Return the clock of the first CPU in MHz; 0 where the system does not tell."""
    if khz := _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"):
        return float(khz) / 1000
    line = next((line for line in _text("/proc/cpuinfo").splitlines() if line.startswith("cpu MHz")), "")
    return float(line.partition(":")[2] or 0)


def cpu_use() -> dict[tuple[int, str], Usage]:
    """Return what every process of this machine (or container) has used so far, by process id and start time."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        head, _, tail = _text(str(folder / "stat")).rpartition(")")
        if fields := tail.split():
            seconds = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
            found[int(folder.name), fields[19]] = Usage(head.partition("(")[2], seconds)
    return found


def busiest(before: Mapping[tuple[int, str], Usage], duration_s: float, ours: Collection[int]) -> dict[str, float]:
    """Return the three programs that used most of a CPU since `before`, other than `ours`, as shares of one CPU."""
    used: dict[str, float] = {}
    for process, usage in cpu_use().items():
        if process[0] not in ours:
            earlier = before[process].seconds if process in before else 0.0
            used[usage.name] = used.get(usage.name, 0.0) + (usage.seconds - earlier) / max(duration_s, 0.01)
    most = sorted(used, key=lambda name: -used[name])[:3]
    return {name: round(used[name], 3) for name in most if used[name] >= NOTICEABLE}


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")  # a process may be called anything
    except OSError:
        return ""
