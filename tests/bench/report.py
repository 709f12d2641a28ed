"""The report: what the last run's JSON says, as Markdown and a picture."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from . import chart, goals
from .goals import ENGINES, FIRST, KAFKA, PROVEN, STATIC, ASKED_FOR_LIMIT, Queries
from .queries import QUERIES, expect_agreement

PARTS = ("raw", "queries_*", "planning", "stages", "formats", "cold")

INTRODUCTION = """# Benchmarks

Written by `make bench` and not by hand; [How it is measured](#how-it-is-measured) says more.
The times are those of one machine; the ratios beside them were taken in the same run and are what carries over.

{cores} cores ({cpu}), {memory_gib} GiB. {versions}.
"""

# Below this many narrow records the page warns.
ENOUGH = 1_000_000
FEW = """**A small run.** With so few records the fixed costs of engines and connections weigh more than the records: it shows that
everything works, not how fast it is.
"""

METHOD = """## How it is measured

- Real servers on one machine: an Apache Kafka broker, a registry, ISK, Trino, Spark, and for static Parquet a catalog and an
  object store. Topics have 4 partitions and are not compressed. 99 % of the records are older than an hour. Values repeat
  after 50,000 records, but for their ids.
- Every contender first answers all questions on a smaller topic, to warm up. Then each answers a question in turn, round by round,
  so that noise falls on all of them. Times are medians of the rounds, with the least and the most in brackets. What reads Kafka row by
  row is asked in fewer rounds. An answer that takes too long is not waited for, and counts as if it had come then. Answers must agree.
- *First touch*: ISK starts with an empty data folder before each question, and reads another, small topic. *Proven*: it has encoded every chunk once.
- *Static Parquet*: the very files that the proven table is made of, with the same manifest entries, in an Iceberg table of their own. Their
  object store is made of the same HTTP and S3 libraries as the gateway and reads plain files.
- *Kafka connector*: of Trino {trino_kafka}, the newest that is published as a package, while ISK is asked by Trino {trino}. Its tables are
  described by files, not by a registry, and one class of ours cuts the framing off. The rest is the connector as it comes.
- *Kafka source*: Spark's own, with `from_avro` and the registry's schema; the last hour is given to it as `startingTimestamp`.
- The raw floor is librdkafka that takes all records and looks at none.

```sh
make bench                                             # all of it: this page and its picture; JSON in target/bench
tests/bench/run --only trino first-touch kafka --scale 0.1    # parts of it; the page goes to target/bench
tests/bench/run --only spark kafka wide                # a part measured again takes the place of its last JSON
tests/bench/run --report --docs                        # the page again from the last JSON of each part
```
"""


def write(source: Path, target: Path) -> None:
    """Reads the parts that are in `source`; writes `benchmarks.md` and its picture into `target`."""
    files = [file for part in PARTS for file in sorted(source.glob(f"{part}.json"))]
    read = {file.stem: json.loads(file.read_text()) for file in files}
    results = {part: one["results"] for part, one in read.items() if not part.startswith("queries_")}
    results["queries"] = [run for part, one in read.items() if part.startswith("queries_") for run in one["results"]]
    expect_agreement(results["queries"])
    target.mkdir(exist_ok=True)
    picture = bool(results["queries"])
    if picture:
        (target / "benchmarks.svg").write_text(chart.svg(Queries(results["queries"])))
    page = markdown({part: one["machine"] for part, one in read.items()}, results, picture)
    (target / "benchmarks.md").write_text(page)
    print(page)


def markdown(machines: dict[str, Any], results: dict[str, Any], picture: bool) -> str:
    about = next(iter(machines.values()))
    versions = ", ".join(f"{name.capitalize()} {version}" for name, version in about["versions"].items())
    runs: dict[tuple, list[str]] = {}
    for part, one in machines.items():
        sizes = " and ".join(f"{count:,} {kind}" for kind, count in one["records"].items())
        part = part.replace("_", " ")
        runs.setdefault((sizes, one["commit"], f"`{one['command']}`", f"{one['load_before']:.1f}"), []).append(part)
    sections = [INTRODUCTION.format(**(about | {"versions": versions}))]
    sections.append(table(["parts", "records", "commit", "command", "load before"], [[", ".join(parts), *run] for run, parts in runs.items()]))
    if min(one["records"]["narrow"] for one in machines.values()) < ENOUGH:
        sections.append(FEW)
    sections.append("## Goals\n\n" + table(["goal", "seen", ""], [[g.what, g.seen, "reached" if g.reached else "**not reached**"] for g in goals.all_of(results)]))
    if picture:
        sections.append("![Seconds by topic, engine and question](benchmarks.svg)\n")
        sections += [of_topic(results, topic) for topic in Queries(results["queries"]).topics()]
    if "stages" in results:
        sections.append(of_stages(results["stages"]))
    if "planning" in results:
        sections.append(of_planning(results["planning"]))
    if "cold" in results:
        sections.append(of_cold(results["cold"]))
    trinos = {"trino": about["versions"]["trino"], "trino_kafka": about["versions"]["trino with its Kafka connector"]}
    return "\n".join([*sections, METHOD.format(**trinos)])


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def of_topic(results: dict[str, Any], topic: str) -> str:
    """Seconds of each question, and the CPU seconds of all processes that had a part in it."""
    queries = Queries(results["queries"])
    text = f"## The {topic} topic\n\n"
    raw = [run for run in results.get("raw", []) if run["topic"] == topic]
    if raw:
        text += f"Raw librdkafka took {spread([run['wall_s'] for run in raw])} s for all records, {spread([run['cpu_s'] for run in raw])} s of CPU.\n\n"
    for engine in ENGINES:
        contenders = [c for c in (STATIC, PROVEN, FIRST, KAFKA[engine]) if queries.seconds(topic, "count", c, engine) is not None]
        if contenders:
            text += f"Through {engine.capitalize()}, seconds:\n\n" + table(["", *contenders], [[q, *(times(queries.runs(topic, q, c, engine)) for c in contenders)] for q in QUERIES[topic]])
            text += "\nCPU seconds, all processes (of them ISK; its peak of memory):\n\n"
            text += table(["", *contenders], [[q, *(cpu(queries.runs(topic, q, c, engine)) for c in contenders)] for q in QUERIES[topic]]) + "\n"
    return text


def times(runs: list[dict[str, Any]]) -> str:
    late = [run["over_s"] for run in runs if "over_s" in run]
    return f"over {late[0]:.0f}" if late else spread([run["wall_s"] for run in runs])


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})" if values else ""


def cpu(runs: list[dict[str, Any]]) -> str:
    if not runs:
        return ""
    total = f"{statistics.median(sum(run['cpu_s'].values()) for run in runs):.1f}"
    if "isk_peak_mib" not in runs[0]:
        return total
    own = statistics.median(run["cpu_s"]["isk"] for run in runs)
    return f"{total} ({own:.1f}; {max(run['isk_peak_mib'] for run in runs):.0f} MiB)"


def of_stages(stages: dict[str, Any]) -> str:
    def nanoseconds(name: str):
        return lambda r: f"{r['stages'][name]['cpu_s'] / r['records'] * 1e9:.0f}"

    rows = [
        ("records", lambda r: f"{r['records']:,}"),
        ("bytes of a framed record", lambda r: f"{r['bytes_per_record']:.0f}"),
        ("bytes of a record in Parquet", lambda r: f"{r['stages']['parquet_bytes'] / r['records']:.0f}"),
        ("alone, ns of CPU a record: raw librdkafka", nanoseconds("librdkafka")),
        ("arrow-avro", nanoseconds("arrow-avro")),
        ("Parquet encoding", nanoseconds("encode")),
        ("for comparison: fetching by isk-kafka", nanoseconds("fetch")),
        ("framing", nanoseconds("framing")),
        ("decoding by isk-decode, metadata columns too", nanoseconds("decode")),
        ("Kafka to Parquet by ISK, ns of CPU a record", lambda r: f"{r['cpu_s'] / r['records'] * 1e9:.0f}"),
        ("**of the stages' sum (librdkafka, arrow-avro, Parquet)**", lambda r: f"**{r['of_stages']:.2f}**"),
        ("MiB of framed Avro a CPU second", lambda r: f"{r['mib_per_cpu_s']:.0f}"),
        ("the topic of 4 partitions, records", lambda r: f"{r['cores_records']:,}"),
        ("4 partitions, one encoding at a time: s of CPU; s", lambda r: cores(r, "1")),
        ("two at a time", lambda r: cores(r, "2")),
        ("peak of resident memory, MiB", lambda r: f"{r['peak_mib']:.0f}"),
    ]
    body = [[name, *(value(figures) for figures in stages.values())] for name, value in rows]
    return "## From Kafka to Parquet\n\nThe fastest of the rounds, on one partition, but for the lines of 4 partitions.\n\n" + table(["", *stages], body)


def cores(figures: dict[str, Any], number: str) -> str:
    cost = figures["cores"][number]
    return f"{cost['cpu_s']['median']:.2f}; {cost['wall_s']['median']:.2f}"


def of_planning(planning: dict[str, Any]) -> str:
    def shown(figures: dict[str, float], digits: int = 1) -> str:
        return f"{figures['median']:.{digits}f} ({figures['min']:.{digits}f}–{figures['max']:.{digits}f})"

    seen, hundred = planning["never_seen"], planning["hundred_partitions"]
    rows = [
        [f"loadTable of a never-seen topic, {seen['chunks']} chunks in 4 partitions", shown(seen["load_ms"])],
        ["the same with its manifest list and manifests, read by PyIceberg", shown(seen["plan_ms"])],
        ["loadTable of it again", shown(seen["load_again_ms"])],
        ["loadTable of a topic of 100 partitions, nothing new", shown(hundred["unchanged"])],
        ["the same after a new record", shown(hundred["changed"])],
        ["from a record's acknowledgement to its row in Parquet", shown(planning["visible"])],
    ]
    limit, hour = planning["limit"], planning["last_hour"]
    text = "## Planning\n\n" + table(["", "milliseconds"], rows)
    text += f"\nThe first plans read {seen['records_read']:.0f} records: their sizes had been sampled in the background.\n"
    sizes = limit["records"]
    for how, both in limit["seconds"].items():
        text += f"\nLIMIT 10 at first touch, {ASKED_FOR_LIMIT[how]}: {shown(both['tenth'], 2)} s on {sizes['tenth']:,} records, {shown(both['whole'], 2)} s on {sizes['whole']:,}.\n"
    text += f"The last hour at first touch read {hour['read']} of {hour['chunks']} chunks; {hour['matching']} hold such records.\n"
    text += "\nPlanning imagined topics, without a broker, milliseconds:\n\n"
    kinds = {"first_ms": "first", "unchanged_ms": "nothing new", "a_record_in_one_partition_ms": "a record in one partition", "a_record_in_each_partition_ms": "a record in each"}
    lines = [[f"{t['partitions']:,}", f"{t['chunks']:,}", f"{t['records']:,}", *(f"{t[kind]:.1f}" for kind in kinds)] for t in planning["imagined"]]
    return text + table(["partitions", "chunks", "records", *kinds.values()], lines)


def of_cold(cold: dict[str, Any]) -> str:
    load, rate = cold["load_ms"], cold["cold_mib_per_s"]
    kinds = {"cold": "cold, from its own catalog", "hot": "hot", "merged": "merged", "merged_after_commit_of_1_ms": "merged, after a commit of one file"}
    rows = [[name, *(f"{at[key]:.1f}" for at in load.values())] for key, name in kinds.items()]
    sizes = [f"{size.replace('_', ' ')}, ms" for size in load]
    text = "## Merged and cold\n\nloadTable, by the data files of the cold table:\n\n" + table(["", *sizes], rows)
    many, fast = cold["many_chunks"], cold["fast_cold_mib_per_s"]
    text += f"\nBeside {many['hot_files']:,} hot files, the load after a commit of one cold file took {many['after_commit_ms']:.1f} ms "
    text += f"(unchanged: {many['unchanged_ms']:.1f} ms; all of them planned: {many['first_ms']:.0f} ms).\n"
    text += f"\nOf a store that gives {fast['direct']:.0f} MiB/s from the page cache on the same cores, the gateway's readers got {fast['ratio']:.2f}"
    text += f", nginx's as a plain proxy {fast['nginx_ratio']:.2f}.\n" if "nginx" in fast else ".\n"
    return text + f"\nCold objects through the gateway came at {rate['ratio']:.2f} of the rate of their store ({rate['direct']:.0f} MiB/s).\n"
