"""What a run costs: wall time, CPU time of every process that had a part in it, and the memory of one."""

from __future__ import annotations

import os
import statistics
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stack.versions import TESTS

# Where the helpers of `crates/bench` are.
BUILT = TESTS.parent / "target" / "release"
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def forget_peak(pid: int) -> None:
    """Lets the process's peak of resident memory start again from what it holds now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def measured(run: Callable[[], Any], processes: Mapping[str, int]) -> tuple[Any, dict[str, Any]]:
    """The answer of `run`, and what it took: wall seconds, CPU seconds by process name, peak MiB of `isk` if it is among them."""
    isk = processes.get("isk")
    if isk:
        forget_peak(isk)
    before = {name: cpu_seconds(pid) for name, pid in processes.items()}
    begun = time.monotonic()
    answer = run()
    cost = {"wall_s": time.monotonic() - begun, "cpu_s": {name: cpu_seconds(pid) - before[name] for name, pid in processes.items()}}
    if isk:
        cost["isk_peak_mib"] = peak_mib(isk)
    return answer, cost


def peak_mib(pid: int) -> float:
    """The most resident memory since the process began or `forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no peak of memory for process {pid}")


def counters(catalog_uri: str) -> dict[str, float]:
    """The service's metrics, summed over their labels."""
    sums: dict[str, float] = {}
    with urllib.request.urlopen(f"{catalog_uri}/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{")[0]
                sums[name] = sums.get(name, 0) + float(value)
    return sums


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and spread."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}
