"""The command line: which parts, how many records, how many rounds. Every part writes its JSON below target/bench."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from stack.versions import TESTS, VERSIONS

from . import cold, formats, planning, queries, raw, report, stages
from .rig import Rig
from .topics import Topic

ROOT = TESTS.parent
OUT = ROOT / "target" / "bench"
NARROW_RECORDS, WIDE_RECORDS = 10_000_000, 2_000_000
ENGINES = ("trino", "spark")
CONTENDERS = ("first-touch", "proven", "static", "kafka")
KINDS = ("narrow", "wide")
PARTS = ("raw", "planning", "stages", "formats", "cold")


def main() -> None:
    options = parse()
    OUT.mkdir(parents=True, exist_ok=True)
    if not options.report:
        measure(options, set(options.only or [*ENGINES, *CONTENDERS, *KINDS, *PARTS]))
    report.write(OUT, ROOT / "docs" if options.docs else OUT)


def parse() -> argparse.Namespace:
    scale = float(os.environ.get("ISK_BENCH_SCALE", 1))
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*ENGINES, *CONTENDERS, *KINDS, *PARTS], help="only these engines, contenders, topics and parts")
    parser.add_argument("--scale", type=float, default=scale, help=f"of {NARROW_RECORDS} narrow and {WIDE_RECORDS} wide records ($ISK_BENCH_SCALE)")
    parser.add_argument("--narrow", type=int, help="records of the narrow topic")
    parser.add_argument("--wide", type=int, help="records of the wide topic")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count, after one on a smaller topic to warm up")
    parser.add_argument("--few", type=int, default=1, help="rounds of what reads Kafka row by row, which takes long")
    parser.add_argument("--seconds", type=float, default=120, help="how long an answer may take; a later one is not waited for")
    parser.add_argument("--docs", action="store_true", help="write the report to docs/ instead of target/bench")
    parser.add_argument("--report", action="store_true", help="measure nothing: write the report again from the last run's JSON")
    return parser.parse_args()


def sizes_of(options: argparse.Namespace) -> dict[str, int]:
    return {"narrow": options.narrow or int(NARROW_RECORDS * options.scale), "wide": options.wide or int(WIDE_RECORDS * options.scale)}


def measure(options: argparse.Namespace, only: set[str]) -> None:
    # Where contenders are asked for and no engine, both are meant; and so on.
    asked = only & {*ENGINES, *CONTENDERS, *KINDS}
    for group in (ENGINES, CONTENDERS, KINDS):
        if asked and not only & set(group):
            only |= set(group)
    about, begun = machine(options), time.monotonic()

    def save(part: str, results: Any) -> None:
        (OUT / f"{part}.json").write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")

    def save_queries(contender: queries.Contender, topic: Topic, results: list[dict[str, Any]]) -> None:
        save(f"queries_{contender.engine.name}_{contender.short}_{topic.kind}", results)

    def say(what: str) -> None:
        print(f"[{time.monotonic() - begun:5.0f} s] {what}", flush=True)

    rounds = queries.Rounds(options.rounds, min(options.few, options.rounds), options.seconds)
    with Rig(sizes_of(options)) as rig:
        if "raw" in only:
            say("raw")
            save("raw", [raw.consume(rig.broker, rig.topic(kind)) for kind in KINDS for _ in range(options.rounds)])
        for engine in ENGINES:
            for kind in KINDS:
                if {engine, kind} <= only:
                    say(f"{engine}, {kind}")
                    queries.run(rig.contenders(engine, only), rig.topic(kind), rig.warm(kind), rounds, save_queries)
        if "planning" in only:
            say("planning")
            save("planning", plan(rig, options.rounds))
        if "stages" in only:
            say("stages")
            save("stages", stages.run(rig, OUT, options.rounds))
        if "formats" in only:
            say("formats")
            save("formats", formats.run(rig, options.rounds))
    if "cold" in only:
        say("cold")
        save("cold", cold.run())
    say("measured")


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
        "command": " ".join(["tests/bench/run", f"--scale {options.scale:g}", f"--rounds {options.rounds}", f"--few {options.few}", *arguments]),
        "versions": {"kafka": VERSIONS["kafka"]["broker"], "trino": VERSIONS["trino"]["server"], "trino with its Kafka connector": VERSIONS["trino"]["kafka"], "spark": VERSIONS["spark"]["line"], "iceberg": VERSIONS["spark"]["iceberg"]},
    }


if __name__ == "__main__":
    main()
