"""What planning costs, and what a question that needs little reads."""

from __future__ import annotations

import io
import json
import random
import subprocess
import time
import urllib.request
from typing import Any

import numpy
import pyarrow.parquet
from stack import clients, records
from stack.isk import Isk

from .isk_tables import FirstTouch, data_files
from .measure import BUILT, counters, summary
from .rig import Rig
from .topics import HOUR_MS, NARROW, PARTITIONS, narrow, produce
from .topics import times as record_times

# A chunk holds about 16 MiB by the size of the newest records, so a few of 8 KiB at the end make chunks of 1,024 offsets.
CHUNKS = 1000
CHUNK_OFFSETS = 1024
TOTAL = CHUNKS * CHUNK_OFFSETS
LARGE_BYTES = 8 << 10
LARGE_RECORDS = 128
NEVER_SEEN = 7
ENCODED = "isk_chunks_rendered_total"
DELIVERED = "isk_kafka_records_delivered_total"


def get_json(url: str) -> Any:
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def table_url(isk: Isk, topic: str) -> str:
    return f"{isk.catalog_uri}/v1/namespaces/hotset/tables/{topic}"


def milliseconds(run) -> float:
    begun = time.perf_counter()
    run()
    return (time.perf_counter() - begun) * 1000


def many_chunks(rig: Rig, name: str, times: numpy.ndarray | None = None) -> None:
    """A topic of about a thousand chunks: records without a value, and some large ones at the end; now, or of these times."""
    records.create_topic(rig.broker.bootstrap, name, PARTITIONS, {"retention.ms": "-1"})
    large = ["--large", LARGE_RECORDS * PARTITIONS, "--large-bytes", LARGE_BYTES, "--compression", "lz4"]
    produce(rig.broker.bootstrap, name, PARTITIONS, TOTAL, large, times)


def never_seen(rig: Rig) -> dict[str, Any]:
    """Milliseconds of loadTable, and of loadTable with its manifest list and manifests, of topics that were never asked for."""
    names = [f"chunks_{n}" for n in range(NEVER_SEEN + 1)]
    for name in names:
        many_chunks(rig, name)
    loads, plans, again, chunks = [], [], [], 0
    with rig.isk({"ISK_PROVER_SAMPLE_AHEAD": "true"}) as isk:
        catalog = clients.pyiceberg_catalog(isk.catalog_uri)
        sampled = sampled_ahead(isk)
        for name in names:
            tables = []
            loads.append(milliseconds(lambda n=name: get_json(table_url(isk, n))))
            plans.append(loads[-1] + milliseconds(lambda n=name, t=tables: t.append(read_manifests(catalog, n))))
            again.append(milliseconds(lambda n=name: get_json(table_url(isk, n))))
            chunks = tables[0]
        seen = counters(isk.catalog_uri)
    # The first one warms up.
    return {
        "chunks": chunks,
        "load_ms": summary(loads[1:]),
        "plan_ms": summary(plans[1:]),
        "load_again_ms": summary(again[1:]),
        "chunks_encoded": seen[ENCODED],
        "records_read": seen[DELIVERED] - sampled,
    }


def sampled_ahead(isk: Isk) -> float:
    """Waits until the topics' records have been sampled in the background; the number of records that were."""
    before = 0.0
    while True:
        time.sleep(3)
        now = counters(isk.catalog_uri)[DELIVERED]
        if now and now == before:
            return now
        before = now


def read_manifests(catalog, topic: str) -> int:
    """Reads all a planner reads; gives the number of data files."""
    table = catalog.load_table(f"hotset.{topic}")
    snapshot = table.current_snapshot()
    added = 0
    for manifest in snapshot.manifests(table.io):
        with table.io.new_input(manifest.manifest_path).open() as file:
            file.read()
        if manifest.content == 0:
            added += (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)
    return added


def limit_growth(rig: Rig, rounds: int) -> dict[str, Any]:
    """Seconds of LIMIT 10 at first touch, through Trino as it comes and as `docs/engines.md` sets it, Spark and DuckDB, on a
    topic and on one of a tenth of its records."""
    large = rig.topic("narrow")
    topics = {"tenth": rig.fill("narrow", large.records // 10, "narrow_tenth"), "whole": large}
    engines = {"default": rig.trino, "set": rig.trino_set, "spark": rig.spark, "duckdb": rig.duckdb}
    seconds: dict[str, dict[str, list[float]]] = {how: {name: [] for name in topics} for how in engines}
    for number in range(rounds + 1):
        for how, engine in engines.items():
            contender = FirstTouch(engine, "fresh", rig.fresh, rig.broker)
            for name, topic in topics.items():
                contender.before()
                took = milliseconds(lambda e=engine, c=contender, t=topic: e.sql(f"SELECT * FROM {c.table(t, '')} LIMIT 10")) / 1000
                if number:
                    seconds[how][name].append(took)
    seen = {how: {name: summary(values) for name, values in both.items()} for how, both in seconds.items()}
    ratios = {how: both["whole"]["median"] / both["tenth"]["median"] for how, both in seen.items()}
    return {"records": {name: topic.records for name, topic in topics.items()}, "seconds": seen, "ratio": ratios}


def last_hour(rig: Rig) -> dict[str, Any]:
    """How many chunks a question for the last hour reads of a topic that was never seen, and how many it has to."""
    moments = record_times(TOTAL, int(time.time() * 1000))
    many_chunks(rig, "hours", moments)
    _, files = data_files(rig.proven, "hours")
    width = TOTAL // len(files)
    FirstTouch(rig.trino, "fresh", rig.fresh, rig.broker).before()
    before = counters(rig.fresh.catalog_uri)[ENCODED]
    since = int(time.time() * 1000) - HOUR_MS
    rows = rig.trino.sql(f"SELECT count(*) FROM fresh.hotset.hours WHERE kafka_timestamp >= {rig.trino.timestamp(since)}")
    (late,) = numpy.nonzero(moments >= since)
    assert rows == [(len(late),)], rows
    matching = {(n % PARTITIONS, n // PARTITIONS // width) for n in late.tolist()}
    read = counters(rig.fresh.catalog_uri)[ENCODED] - before
    return {"read": int(read), "chunks": len(files), "matching": len(matching), "partitions": PARTITIONS}


def imagined() -> list[dict[str, Any]]:
    """What planning costs by the number of chunks, on topics that are imagined (`crates/bench`)."""
    done = subprocess.run([BUILT / "planning"], check=True, text=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def hundred_partitions(rig: Rig) -> dict[str, Any]:
    """loadTable of a topic of 100 partitions, warm, with its fresh ListOffsets: milliseconds."""
    rig.fill("narrow", 100_000, "hundred", partitions=100)
    producer = records.producer(rig.broker.bootstrap)
    with rig.isk() as isk:
        for _ in range(5):
            get_json(table_url(isk, "hundred"))
        unchanged, changed = [], []
        for n in range(50):
            producer.produce("hundred", None, partition=n)
            producer.flush(10)
            changed.append(milliseconds(lambda: get_json(table_url(isk, "hundred"))))
            unchanged.append(milliseconds(lambda: get_json(table_url(isk, "hundred"))))
    return {"unchanged": summary(unchanged), "changed": summary(changed)}


def visible(rig: Rig) -> dict[str, float]:
    """From the producer's acknowledgement to the row out of loadTable and GETs: milliseconds."""
    rig.fill("narrow", 1000, "seen", partitions=1)
    serialize = records.avro_serializer(rig.registry.url, NARROW)
    times = []
    with rig.isk() as isk:
        producer, rnd = records.producer(rig.broker.bootstrap, linger_ms=0), random.Random(1)
        # A service answers only so many loads at once that each find something new.
        for n in range(50):
            records.produce(producer, "seen", [narrow(n, rnd)], serialize=serialize)
            times.append(milliseconds(lambda offset=1000 + n: expect_last(isk, offset)))
    return summary(times)


def expect_last(isk: Isk, offset: int) -> None:
    get_json(table_url(isk, "seen"))
    s3, files = data_files(isk, "seen")
    body = s3.get_object(Bucket="hotset", Key=files[-1]["Key"])["Body"].read()
    assert pyarrow.parquet.read_table(io.BytesIO(body), columns=["kafka_offset"])["kafka_offset"][-1].as_py() == offset
