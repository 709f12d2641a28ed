"""Benchmarks of the service over a real broker and registry, beside each stage of an encoding alone in the same run.

Every figure is a rate or a time of this machine at this moment; the ratios are what carries over.
"""

import concurrent.futures
import decimal
import io
import json
import os
import random
import statistics
import subprocess
import time
import urllib.request
import uuid
from pathlib import Path

import fastavro
import pyarrow.parquet
from confluent_kafka.schema_registry import Schema
from stack import clients, records
from stack.isk import Isk
from stack.kafka import Broker
from stack.registry import Registry
from stack.versions import TESTS

RECORDS = int(os.environ.get("BENCH_RECORDS", 2_000_000))
OUT = TESTS.parent / "target" / "bench"
STAGES = TESTS.parent / "target" / "release" / "stages"
RUNS = 3
# What has to be done in any case: the CPU time of an encoding is held against the sum of these.
FLOOR = ("librdkafka", "arrow-avro", "encode")

NARROW = {
    "type": "record",
    "name": "Narrow",
    "fields": [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "account", "type": "long"},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["DEBIT", "CREDIT", "FEE"]}},
        {"name": "amount", "type": "double"},
        {"name": "branch", "type": "int"},
        {"name": "note", "type": ["null", "string"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}
ADDRESS = {
    "type": "record",
    "name": "Address",
    "fields": [{"name": n, "type": "string"} for n in ("street", "city", "zip")] + [{"name": "country", "type": ["null", "string"]}],
}
LINE = {
    "type": "record",
    "name": "Line",
    "fields": [{"name": "sku", "type": "string"}, {"name": "quantity", "type": "int"}, {"name": "price", "type": "double"}],
}
WIDE = {
    "type": "record",
    "name": "Wide",
    "fields": [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "customer", "type": "long"},
        {"name": "address", "type": ADDRESS},
        {"name": "lines", "type": {"type": "array", "items": LINE}},
        {"name": "tags", "type": {"type": "map", "values": "string"}},
        {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ]
    + [{"name": f"flag{i}", "type": ["null", "boolean"]} for i in range(8)],
}


def narrow(n, rnd):
    value = {"id": str(uuid.UUID(int=rnd.getrandbits(128))), "account": rnd.randrange(10**6)}
    value |= {"kind": rnd.choice(["DEBIT", "CREDIT", "FEE"]), "amount": rnd.random() * 1000, "branch": rnd.randrange(100)}
    return value | {"note": rnd.choice([None, "by card at the till"]), "at": 1_750_000_000_000 + n}


def wide(n, rnd):
    lines = [{"sku": f"SKU{rnd.randrange(10**4):05}", "quantity": rnd.randrange(9), "price": rnd.random() * 90} for _ in range(2)]
    address = {"street": f"{rnd.randrange(400)} Long Street", "city": rnd.choice(["Ghent", "Porto", "Turku"]), "zip": f"{rnd.randrange(10**5):05}", "country": None}
    value = {"id": str(uuid.UUID(int=rnd.getrandbits(128))), "customer": rnd.randrange(10**6), "address": address, "lines": lines}
    value |= {"tags": {"channel": rnd.choice(["web", "app", "shop"]), "campaign": f"c{rnd.randrange(40)}"}}
    value |= {"total": decimal.Decimal(rnd.randrange(10**6)).scaleb(-2), "at": 1_750_000_000_000_000 + n}
    return value | {f"flag{i}": rnd.choice([None, True, False]) for i in range(8)}


def fill(broker, registry, topic, schema, make, count, partitions=1):
    """Produces `count` records drawn from 20,000 that were encoded before."""
    records.create_topic(broker.bootstrap, topic, partitions)
    schema_id = records.registry_client(registry.url).register_schema(f"{topic}-value", Schema(json.dumps(schema), "AVRO"))
    parsed, rnd, header = fastavro.parse_schema(schema), random.Random(7), b"\0" + schema_id.to_bytes(4, "big")
    values = []
    for n in range(20_000):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, make(n, rnd))
        values.append(header + out.getvalue())
    producer = records.producer(broker.bootstrap, linger_ms=50, queue_buffering_max_messages=1_000_000, acks=1)
    for n in range(count):
        while True:
            try:
                producer.produce(topic, values[n % len(values)], partition=n % partitions)
                break
            except BufferError:
                producer.poll(0.2)
    assert producer.flush(300) == 0
    return statistics.mean(map(len, values))


def get_json(url):
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def table_url(isk, topic):
    return f"{isk.catalog_uri}/v1/namespaces/hotset/tables/{topic}"


def data_files(isk, topic):
    s3 = clients.boto3_client(isk.s3_endpoint, isk.access_key, isk.secret_key)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="hotset", Prefix=f"{topic}/data/")
    return s3, [entry for page in pages for entry in page.get("Contents", [])]


def cpu_seconds(isk):
    fields = Path(f"/proc/{isk.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def first_touch(broker, registry, topic, count, size):
    """Encodes the whole topic by reading every file's footer, on a service that never saw it."""
    with Isk.beside(broker, registry) as isk:
        s3, files = data_files(isk, topic)
        cpu, begun = cpu_seconds(isk), time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda f: s3.get_object(Bucket="hotset", Key=f["Key"], Range="bytes=-8")["Body"].read(), files))
        wall, cpu = time.monotonic() - begun, cpu_seconds(isk) - cpu
        return {
            "cpu_s": cpu,
            "records_per_s": count / wall,
            "records_per_cpu_s": count / cpu,
            "mib_per_cpu_s": count * size / cpu / 2**20,
            "peak_resident_mib": isk.peak_resident_bytes() / 2**20,
            "files": len(files),
        }


def stages(broker, topic, schema, count, files):
    """CPU and wall seconds of each stage alone, over the same records."""
    file = OUT / f"{topic}.avsc"
    file.write_text(json.dumps(schema))
    rows = 1 << ((count - 1) // files).bit_length()
    command = [STAGES, "--brokers", broker.bootstrap, "--topic", topic, "--schema", file]
    command += ["--records", str(count), "--file-records", str(rows), "--runs", str(RUNS)]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def load_table(broker, registry):
    """loadTable of a topic of 100 partitions, warm, with its fresh ListOffsets: milliseconds."""
    fill(broker, registry, "hundred", NARROW, narrow, 100_000, partitions=100)
    producer = records.producer(broker.bootstrap)
    with Isk.beside(broker, registry) as isk:
        for _ in range(5):
            get_json(table_url(isk, "hundred"))
        unchanged, changed = [], []
        for n in range(50):
            for times in (changed, unchanged):
                if times is changed:
                    producer.produce("hundred", None, partition=n)
                    producer.flush(10)
                begun = time.perf_counter()
                get_json(table_url(isk, "hundred"))
                times.append((time.perf_counter() - begun) * 1000)
    return {name: {"p50": statistics.median(t), "p99": sorted(t)[-1]} for name, t in (("unchanged", unchanged), ("changed", changed))}


def visible(broker, registry):
    """From the producer's acknowledgement to the row out of loadTable and GETs: milliseconds."""
    fill(broker, registry, "fresh", NARROW, narrow, 1000)
    serialize = records.avro_serializer(registry.url, NARROW)
    times = []
    with Isk.beside(broker, registry) as isk:
        s3 = clients.boto3_client(isk.s3_endpoint, isk.access_key, isk.secret_key)
        producer, rnd = records.producer(broker.bootstrap, linger_ms=0), random.Random(1)
        for n in range(100):
            value = narrow(n, rnd)
            records.produce(producer, "fresh", [value], serialize=serialize)
            begun = time.perf_counter()
            get_json(table_url(isk, "fresh"))
            _, files = data_files(isk, "fresh")
            body = s3.get_object(Bucket="hotset", Key=files[-1]["Key"])["Body"].read()
            column = pyarrow.parquet.read_table(io.BytesIO(body), columns=["kafka_offset"])["kafka_offset"]
            times.append((time.perf_counter() - begun) * 1000)
            assert column[-1].as_py() == 1000 + n
    return {"p50": statistics.median(times), "p99": sorted(times)[98]}


def main():
    results = {"records": RECORDS}
    OUT.mkdir(parents=True, exist_ok=True)
    with Broker() as broker, Registry() as registry:
        for topic, schema, make, count in (("narrow", NARROW, narrow, RECORDS), ("wide", WIDE, wide, RECORDS // 2)):
            size = fill(broker, registry, topic, schema, make, count)
            runs = [first_touch(broker, registry, topic, count, size) for _ in range(RUNS)]
            best = min(runs, key=lambda run: run["cpu_s"])
            alone = stages(broker, topic, schema, count, best["files"])
            results[topic] = {"records": count, "bytes_per_record": size, "stages": alone, "first_touch": best}
            results[topic]["of_stages"] = best["cpu_s"] / sum(alone[stage]["cpu_s"] for stage in FLOOR)
            print(topic, json.dumps(results[topic], indent=1), flush=True)
        results["load_table_ms"] = load_table(broker, registry)
        results["visible_ms"] = visible(broker, registry)
    (OUT / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (OUT / "results.md").write_text(table(results))
    print(table(results))


def table(results):
    lines = ["| | narrow | wide |", "|---|---|---|"]

    def row(name, value):
        lines.append(f"| {name} | {value(results['narrow'])} | {value(results['wide'])} |")

    def nanoseconds(stage):
        return lambda r: f"{r['stages'][stage]['cpu_s'] / r['records'] * 1e9:.0f}"

    row("bytes per framed record", lambda r: f"{r['bytes_per_record']:.0f}")
    row("bytes per record in Parquet", lambda r: f"{r['stages']['parquet_bytes'] / r['records']:.0f}")
    row("alone, ns of CPU per record: raw librdkafka", nanoseconds("librdkafka"))
    row("arrow-avro", nanoseconds("arrow-avro"))
    row("Parquet encoding", nanoseconds("encode"))
    row("for comparison: fetching by isk-kafka", nanoseconds("fetch"))
    row("framing", nanoseconds("framing"))
    row("decoding by isk-decode, metadata columns too", nanoseconds("decode"))
    row("Kafka to Parquet, ns of CPU per record", lambda r: f"{r['first_touch']['cpu_s'] / r['records'] * 1e9:.0f}")
    row("**ratio to the stages' sum (librdkafka + arrow-avro + Parquet)**", lambda r: f"**{r['of_stages']:.2f}**")
    row("Kafka to Parquet, M records/s per core", lambda r: f"{r['first_touch']['records_per_cpu_s'] / 1e6:.2f}")
    row("Kafka to Parquet, MiB/s of framed Avro per core", lambda r: f"{r['first_touch']['mib_per_cpu_s']:.0f}")
    row("Kafka to Parquet, M records/s", lambda r: f"{r['first_touch']['records_per_s'] / 1e6:.2f}")
    row("raw librdkafka, M records/s", lambda r: f"{r['records'] / r['stages']['librdkafka']['wall_s'] / 1e6:.2f}")
    row("peak resident MiB", lambda r: f"{r['first_touch']['peak_resident_mib']:.0f}")
    load, seen = results["load_table_ms"], results["visible_ms"]
    lines.append("")
    lines.append(f"loadTable, 100 partitions, warm: p50 {load['unchanged']['p50']:.1f} ms unchanged, {load['changed']['p50']:.1f} ms after new records (worst {load['changed']['p99']:.1f} ms).")
    lines.append(f"Produced to visible: p50 {seen['p50']:.0f} ms, p99 {seen['p99']:.0f} ms.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
