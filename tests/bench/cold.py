"""What merged costs over its parts, and what the gateway costs between a client and a cold file, in one run each.

- loadTable of `merged` over a cold table of 1,000 data files, beside loading that table from its own catalog and the hot one from ISK.
- Cold objects read by 8 clients in ranges, through the gateway and from its store.
"""

import concurrent.futures
import os
import statistics
import time
import urllib.request

import pyarrow as pa
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import TruncateTransform
from pyiceberg.types import IntegerType, LongType, NestedField, StringType
from stack import clients, records
from stack.isk import Isk
from stack.kafka import Broker
from stack.lake import BUCKET, Lake
from stack.registry import Registry

FILES = int(os.environ.get("BENCH_COLD_FILES", 1000))
ROWS_PER_FILE = 10
# S3Proxy takes no larger body at once.
OBJECT_BYTES = 24 << 20
OBJECTS = 8
RANGE_BYTES = 4 << 20
READERS = 8
ROUNDS = 5
VALUE = {"type": "record", "name": "V", "fields": [{"name": "note", "type": ["null", "string"]}]}


def milliseconds(url, times=40):
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        with urllib.request.urlopen(url) as answer:
            answer.read()
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken[5:])


def cold_table(lake, topic):
    """A cold table of one snapshot with a data file for every ten offsets."""
    fields = [(1, "note", StringType()), (2, "kafka_partition", IntegerType()), (3, "kafka_offset", LongType())]
    schema = Schema(*(NestedField(id, name, kind, required=False) for id, name, kind in fields))
    spec = PartitionSpec(PartitionField(3, 1000, TruncateTransform(ROWS_PER_FILE), "offsets"))
    catalog = lake.pyiceberg()
    catalog.create_namespace_if_not_exists("coldset")
    table = catalog.create_table(f"coldset.{topic}", schema=schema, partition_spec=spec)
    rows = FILES * ROWS_PER_FILE
    table.append(
        pa.table({"note": pa.nulls(rows, pa.string()), "kafka_partition": pa.array([0] * rows, pa.int32()), "kafka_offset": pa.array(range(rows), pa.int64())})
    )
    return table


def load(broker, registry, lake, isk):
    topic = records.create_topic(broker.bootstrap, "loaded", 1)
    produced = [{"note": None}] * (FILES * ROWS_PER_FILE + 1000)
    records.produce(records.producer(broker.bootstrap), topic, produced, serialize=records.avro_serializer(registry.url, VALUE))
    table = cold_table(lake, topic)
    tables = {
        "cold": f"{lake.catalog_uri}/v1/namespaces/coldset/tables/{topic}",
        "hot": f"{isk.catalog_uri}/v1/namespaces/hotset/tables/{topic}",
        "merged": f"{isk.catalog_uri}/v1/namespaces/merged/tables/{topic}",
    }
    begun = time.perf_counter()
    urllib.request.urlopen(tables["merged"]).read()
    first = (time.perf_counter() - begun) * 1000
    result = {"first_ms": first} | {name: milliseconds(url) for name, url in tables.items()}
    result["over_both_ms"] = result["merged"] - result["cold"] - result["hot"]
    more = pa.table({"note": pa.nulls(10, pa.string()), "kafka_partition": pa.array([0] * 10, pa.int32()), "kafka_offset": pa.array(range(FILES * ROWS_PER_FILE, FILES * ROWS_PER_FILE + 10), pa.int64())})
    table.append(more)
    begun = time.perf_counter()
    urllib.request.urlopen(tables["merged"]).read()
    result["after_commit_ms"] = (time.perf_counter() - begun) * 1000
    return result


def throughput(lake, isk):
    """MiB/s of ranged GETs by eight readers: best of a few rounds each, taken in turns."""
    direct = lake.boto3()
    for n in range(OBJECTS):
        direct.put_object(Bucket=BUCKET, Key=f"bench/{n}", Body=os.urandom(OBJECT_BYTES))
    through = clients.boto3_client(isk.s3_endpoint, isk.access_key, isk.secret_key)
    parts = [(f"bench/{n}", f"bytes={at}-{at + RANGE_BYTES - 1}") for n in range(OBJECTS) for at in range(0, OBJECT_BYTES, RANGE_BYTES)]

    def read(client):
        begun = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
            sizes = pool.map(lambda part: len(client.get_object(Bucket=BUCKET, Key=part[0], Range=part[1])["Body"].read()), parts)
            assert sum(sizes) == OBJECTS * OBJECT_BYTES
        return OBJECTS * OBJECT_BYTES / 2**20 / (time.perf_counter() - begun)

    rates = {"direct": [], "gateway": []}
    before = isk.peak_resident_bytes()
    for _ in range(ROUNDS):
        rates["direct"].append(read(direct))
        rates["gateway"].append(read(through))
    best = {name: max(rate) for name, rate in rates.items()}
    grown = (isk.peak_resident_bytes() - before) / 2**20
    return best | {"ratio": best["gateway"] / best["direct"], "isk_grew_mib": grown, "isk_peak_mib": isk.peak_resident_bytes() / 2**20}


def run():
    with Broker() as broker, Registry() as registry, Lake() as lake, Isk.beside(broker, registry, lake.isk_environment()) as isk:
        return {"files": FILES, "cold_mib_per_s": throughput(lake, isk), "load_ms": load(broker, registry, lake, isk)}
