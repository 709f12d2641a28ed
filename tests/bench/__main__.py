"""The command line: which parts, how many records, how many rounds. Every part writes its JSON below target/bench."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from stack.versions import TESTS, VERSIONS

from . import cold, formats, planning, queries, raw, report, stages
from .rig import Rig

ROOT = TESTS.parent
OUT = ROOT / "target" / "bench"
NARROW_RECORDS, WIDE_RECORDS = 2_000_000, 500_000
ENGINES = ("trino", "spark")
CONTENDERS = ("first-touch", "proven", "static", "kafka")
PARTS = ("raw", "planning", "stages", "formats", "cold")


def main() -> None:
    options = parse()
    OUT.mkdir(parents=True, exist_ok=True)
    if not options.report:
        measure(options, set(options.only or [*ENGINES, *CONTENDERS, *PARTS]))
    report.write(OUT, ROOT / "docs" if options.docs else OUT)


def parse() -> argparse.Namespace:
    scale = float(os.environ.get("ISK_BENCH_SCALE", 1))
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*ENGINES, *CONTENDERS, *PARTS], help="only these engines, contenders and parts")
    parser.add_argument("--scale", type=float, default=scale, help=f"of {NARROW_RECORDS} narrow and {WIDE_RECORDS} wide records ($ISK_BENCH_SCALE)")
    parser.add_argument("--narrow", type=int, help="records of the narrow topic")
    parser.add_argument("--wide", type=int, help="records of the wide topic")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count; one more warms up")
    parser.add_argument("--docs", action="store_true", help="write the report to docs/ instead of target/bench")
    parser.add_argument("--report", action="store_true", help="measure nothing: write the report again from the last run's JSON")
    return parser.parse_args()


def sizes_of(options: argparse.Namespace) -> dict[str, int]:
    return {"narrow": options.narrow or int(NARROW_RECORDS * options.scale), "wide": options.wide or int(WIDE_RECORDS * options.scale)}


def measure(options: argparse.Namespace, only: set[str]) -> None:
    # An engine alone means all contenders on it, a contender alone both engines.
    if only & set(ENGINES) and not only & set(CONTENDERS):
        only |= set(CONTENDERS)
    if only & set(CONTENDERS) and not only & set(ENGINES):
        only |= set(ENGINES)
    about = machine(options)

    def save(part: str, results: Any) -> None:
        (OUT / f"{part}.json").write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")

    with Rig(sizes_of(options)) as rig:
        if "raw" in only:
            save("raw", [raw.consume(rig.broker, topic) for topic in rig.topics.values() for _ in range(options.rounds)])
        for engine in ENGINES:
            if engine in only:
                save(f"queries_{engine}", queries.run(rig.contenders(engine, only), rig.topics.values(), options.rounds))
        if "planning" in only:
            save("planning", plan(rig, options.rounds))
        if "stages" in only:
            save("stages", stages.run(rig, OUT, options.rounds))
        if "formats" in only:
            save("formats", formats.run(rig, options.rounds))
    if "cold" in only:
        save("cold", cold.run())


def plan(rig: Rig, rounds: int) -> dict[str, Any]:
    """The figures of planning. The topics of the queries are filled first, so that what is never seen is never seen."""
    return {
        "limit": planning.limit_growth(rig, rounds),
        "last_hour": planning.last_hour(rig),
        "never_seen": planning.never_seen(rig),
        "hundred_partitions": planning.hundred_partitions(rig),
        "visible": planning.visible(rig),
        "imagined": planning.imagined(),
    }


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What a reader has to know of where and how the figures were made."""
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    arguments = [f"--only {' '.join(options.only)}"] if options.only else []
    arguments += [f"--{name} {getattr(options, name)}" for name in ("narrow", "wide") if getattr(options, name)]
    return {
        "commit": commit + (" and changes" if changed else ""),
        "cores": os.cpu_count(),
        "cpu": model or platform.machine(),
        "memory_gib": round(memory),
        "load_before": os.getloadavg()[1],
        "records": sizes_of(options),
        "command": " ".join(["tests/bench/run", f"--scale {options.scale:g}", f"--rounds {options.rounds}", *arguments]),
        "versions": {"kafka": VERSIONS["kafka"]["broker"], "trino": VERSIONS["trino"]["server"], "trino with its Kafka connector": VERSIONS["trino"]["kafka"], "spark": VERSIONS["spark"]["line"], "iceberg": VERSIONS["spark"]["iceberg"]},
    }


if __name__ == "__main__":
    main()
