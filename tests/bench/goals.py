"""The goals, and whether the figures reach them. A goal whose part was not measured is left out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SCANS = ("filtered aggregate", "group by", "3 columns")
AGGREGATES = ("filtered aggregate", "group by")
ENGINES = ("trino", "spark")
# Who is asked for LIMIT.
ASKED_FOR_LIMIT = {"default": "Trino as it comes", "set": "Trino set as docs/engines.md says", "spark": "Spark", "duckdb": "DuckDB"}
KAFKA = {"trino": "Kafka connector", "spark": "Kafka source"}
FIRST, PROVEN, STATIC = "ISK, first touch", "ISK, proven", "static Parquet"


@dataclass(frozen=True)
class Goal:
    what: str
    seen: str
    reached: bool


class Queries:
    """Medians and spreads of the runs, by topic, query, contender and engine."""

    def __init__(self, results: list[dict[str, Any]]) -> None:
        self.results = results

    def runs(self, topic: str, query: str, contender: str, engine: str) -> list[dict[str, Any]]:
        wanted = {"topic": topic, "query": query, "contender": contender, "engine": engine}
        return [run for run in self.results if wanted.items() <= run.items()]

    def seconds(self, *key: str) -> float | None:
        runs = self.runs(*key)
        return statistics.median(run["wall_s"] for run in runs) if runs else None

    def ratio(self, topic: str, engine: str, queries: tuple[str, ...], slower: str, faster: str) -> float | None:
        """How many times faster, as the geometric mean over the queries."""
        pairs = [(self.seconds(topic, q, slower, engine), self.seconds(topic, q, faster, engine)) for q in queries]
        if any(a is None or b is None for a, b in pairs):
            return None
        return math.exp(statistics.mean(math.log(a / b) for a, b in pairs))

    def late(self, topic: str, engine: str, queries: tuple[str, ...], contender: str) -> bool:
        """Whether some answer was not waited for."""
        return any("over_s" in run for query in queries for run in self.runs(topic, query, contender, engine))

    def topics(self) -> list[str]:
        return list(dict.fromkeys(run["topic"] for run in self.results))


def of_queries(queries: Queries) -> Iterator[Goal]:
    for topic in queries.topics():
        for engine in ENGINES:
            name = f"{engine.capitalize()}, {topic}"
            rows = [
                (f"first touch against the {KAFKA[engine]}, aggregates ({name})", AGGREGATES, KAFKA[engine], FIRST, 3.0 if topic == "wide" else 1.5),
                (f"proven against the {KAFKA[engine]}, aggregates ({name})", AGGREGATES, KAFKA[engine], PROVEN, 10.0),
                (f"proven against static Parquet, scans ({name})", SCANS, STATIC, PROVEN, 0.9),
            ]
            for what, asked, slower, faster, least in rows:
                ratio = queries.ratio(topic, engine, asked, slower, faster)
                if ratio is not None:
                    # A late answer would have come later still; ours must have come.
                    more, ours = queries.late(topic, engine, asked, slower), queries.late(topic, engine, asked, faster)
                    yield Goal(f"{what}: at least {least:g} times as fast", f"{'over ' * more}{ratio:.2f}", ratio >= least and not ours)


def of_planning(planning: dict[str, Any]) -> Iterator[Goal]:
    seen, limit, hour = planning["never_seen"], planning["limit"], planning["last_hour"]
    plan = seen["load_ms"]["median"]
    what = f"plan of a never-seen topic of {seen['chunks']} chunks: p50 under 50 ms, no record read"
    yield Goal(what, f"{plan:.1f} ms, {seen['records_read']:.0f} read", plan < 50 and seen["records_read"] == 0)
    small, large = limit["records"]["tenth"], limit["records"]["whole"]
    for how, ratio in limit["ratio"].items():
        what = f"LIMIT 10 on a never-seen topic of {large:,} records against one of {small:,}, {ASKED_FOR_LIMIT[how]}: under 1.3 times the time"
        yield Goal(what, f"{ratio:.2f}", ratio < 1.3)
    most = hour["matching"] + hour["partitions"]
    what = f"last hour of a never-seen topic: reads at most the matching chunks and one for each partition ({most} of {hour['chunks']})"
    yield Goal(what, str(hour["read"]), hour["read"] <= most)


def of_stages(stages: dict[str, Any]) -> Iterator[Goal]:
    for topic, figures in stages.items():
        yield Goal(f"CPU of a first full scan ({topic}): at most 1.25 of its stages' sum", f"{figures['of_stages']:.2f}", figures["of_stages"] <= 1.25)
        one, two = (figures["cores"][n]["cpu_s"]["median"] for n in ("1", "2"))
        yield Goal(f"CPU per byte from one core to two ({topic}): grows under 10 %", f"{(two / one - 1) * 100:+.0f} %", two / one < 1.1)


def of_formats(formats: dict[str, Any]) -> Iterator[Goal]:
    for topic, by_format in formats.items():
        for format in ("json", "protobuf"):
            share = by_format[format]["of_avro"]
            yield Goal(f"Kafka to Parquet in {format} ({topic}): at least 0.5 of Avro's records a second", f"{share:.2f}", share >= 0.5)


def of_memory(queries: list[dict[str, Any]], stages: dict[str, Any]) -> Iterator[Goal]:
    peaks = [run["isk_peak_mib"] for run in queries if "isk_peak_mib" in run] + [figures["peak_mib"] for figures in stages.values()]
    if peaks:
        yield Goal("resident memory of ISK in all of these runs: under 512 MiB", f"{max(peaks):.0f} MiB", max(peaks) < 512)


def all_of(results: dict[str, Any]) -> list[Goal]:
    goals: list[Goal] = []
    if "planning" in results:
        goals += of_planning(results["planning"])
    if "stages" in results:
        goals += of_stages(results["stages"])
    if "formats" in results:
        goals += of_formats(results["formats"])
    goals += of_queries(Queries(results["queries"]))
    return goals + list(of_memory(results["queries"], results.get("stages", {})))
