"""What merged costs over its parts, and what the gateway costs between a client and a cold file, in one run each.

- loadTable of `merged` over a cold table of 10,000 data files, beside loading that table from its own catalog and the hot one from ISK.
- What a commit of one file, and of a hundred, costs the next load: at a tenth of the cold table and at the whole of it, and beside 20,000 chunks of hot.
- Cold objects read by 8 clients in ranges, through the gateway and from its store; where nginx is installed, through that too: a server
  between a client and a store on the same two cores copies all bytes once more, whoever wrote it.
"""

import concurrent.futures
import json
import os
import statistics
import struct
import time
import urllib.request

import pyarrow as pa
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.typedef import Record
from pyiceberg.types import IntegerType, LongType, NestedField, StringType
from stack import clients, jdk, nginx, records
from stack.isk import Isk
from stack.kafka import Broker
from stack.lake import BUCKET, Lake
from stack.registry import Registry
from stack.versitygw import VersityGateway

FILES = int(os.environ.get("BENCH_COLD_FILES", 10_000))
ROWS_PER_FILE = 10
FILES_PER_COMMIT = 100
SCATTERED = 400_000
# S3Proxy takes no larger body at once.
OBJECT_BYTES = 24 << 20
OBJECTS = 8
RANGE_BYTES = 4 << 20
READERS = 8
ROUNDS = 7
COMMITS = 5
HOT_CHUNKS = int(os.environ.get("BENCH_HOT_CHUNKS", 20_000))
# A chunk holds about 16 MiB by the size of the newest records, so some of 100 KiB at the end make chunks of 128 offsets.
CHUNK_OFFSETS = 128
LARGE, LARGE_RECORDS = bytes(100 << 10), 256
VALUE = {"type": "record", "name": "V", "fields": [{"name": "note", "type": ["null", "string"]}]}


def milliseconds(url, times=40):
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        with urllib.request.urlopen(url) as answer:
            answer.read()
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken[5:])


def empty_table(lake, topic):
    fields = [(1, "note", StringType()), (2, "kafka_partition", IntegerType()), (3, "kafka_offset", LongType())]
    schema = Schema(*(NestedField(id, name, kind, required=False) for id, name, kind in fields))
    catalog = lake.pyiceberg()
    catalog.create_namespace_if_not_exists("coldset")
    return catalog.create_table(f"coldset.{topic}", schema=schema)


def fill(table, numbers):
    """A data file for every ten offsets, in commits of a hundred files.

    Loading reads manifests and no data file, so the files are named with their metrics and are not there.
    """
    for start in range(0, len(numbers), FILES_PER_COMMIT):
        commit(table, numbers[start : start + FILES_PER_COMMIT])


def commit(table, numbers):
    """Adds the data files of these numbers."""
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        for number in numbers:
            append.append_data_file(data_file(table, number))


def data_file(table, number):
    first, last = number * ROWS_PER_FILE, (number + 1) * ROWS_PER_FILE - 1
    low, high = ({2: struct.pack("<i", 0), 3: struct.pack("<q", offset)} for offset in (first, last))
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=f"{table.location()}/data/{number:08}.parquet",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=ROWS_PER_FILE,
        file_size_in_bytes=2000,
        value_counts={1: ROWS_PER_FILE, 2: ROWS_PER_FILE, 3: ROWS_PER_FILE},
        null_value_counts={1: ROWS_PER_FILE, 2: 0, 3: 0},
        lower_bounds=low,
        upper_bounds=high,
        split_offsets=None,
        equality_ids=None,
        sort_order_id=None,
    )
    file.spec_id = table.spec().spec_id
    return file


def load(broker, registry, lake, isk):
    """What loading costs, hot, cold and both; and the next load after a commit, where cold has a tenth of the files and all of them."""
    topic = records.create_topic(broker.bootstrap, "loaded", 1)
    numbers = range(FILES + 2 * COMMITS * (1 + FILES_PER_COMMIT))
    produced = [{"note": None}] * (len(numbers) * ROWS_PER_FILE)
    records.produce(records.producer(broker.bootstrap), topic, produced, serialize=records.avro_serializer(registry.url, VALUE))
    table = empty_table(lake, topic)
    tables = {
        "cold": f"{lake.catalog_uri}/v1/namespaces/coldset/tables/{topic}",
        "hot": f"{isk.catalog_uri}/v1/namespaces/hotset/tables/{topic}",
        "merged": f"{isk.catalog_uri}/v1/namespaces/merged/tables/{topic}",
    }
    result, done = {}, 0
    for files in (FILES // 10, FILES):
        fill(table, numbers[done:files])
        done = files
        first = once(tables["merged"])
        parts = {name: milliseconds(url) for name, url in tables.items()}
        at = {"first_ms": first} | parts | {"over_both_ms": parts["merged"] - parts["cold"] - parts["hot"]}
        for count in (1, FILES_PER_COMMIT):
            after = {"merged": [], "cold": []}
            for _ in range(COMMITS):
                commit(table, numbers[done : done + count])
                done += count
                # The catalog itself reads what is new once.
                after["cold"].append(once(tables["cold"]))
                after["merged"].append(once(tables["merged"]))
            for name, taken in after.items():
                at[f"{name}_after_commit_of_{count}_ms"] = statistics.median(taken)
        result[f"{files}_files"] = at
    return result


def once(url):
    begun = time.perf_counter()
    urllib.request.urlopen(url).read()
    return (time.perf_counter() - begun) * 1000


def filtered(broker, registry, lake, isk):
    """What loading costs where cold has every other record, so that each chunk has many offsets to leave out."""
    topic = records.create_topic(broker.bootstrap, "filtered", 1)
    records.produce(records.producer(broker.bootstrap), topic, [{"note": None}] * SCATTERED, serialize=records.avro_serializer(registry.url, VALUE))
    url = f"{isk.catalog_uri}/v1/namespaces/merged/tables/{topic}"
    moved = pa.array(range(0, SCATTERED, 2), pa.int64())
    rows = pa.table({"note": pa.nulls(len(moved), pa.string()), "kafka_partition": pa.array([0] * len(moved), pa.int32()), "kafka_offset": moved})
    lake.pyiceberg().create_table(f"coldset.{topic}", schema=rows.schema).append(rows)
    return {"offsets_left_out": len(moved), "first_ms": once(url), "merged": milliseconds(url)}


def beside_many_chunks(broker, registry, lake, isk):
    """What the load after a commit of one file to cold costs, where hot has many chunks; the first load plans all of them."""
    topic = records.create_topic(broker.bootstrap, "many_chunks", 1, {"retention.ms": "-1", "max.message.bytes": str(2 << 20)})
    producer = records.producer(broker.bootstrap, linger_ms=20, message_max_bytes=2 << 20)
    records.produce(producer, topic, (None for _ in range(HOT_CHUNKS * CHUNK_OFFSETS - LARGE_RECORDS)))
    records.produce(producer, topic, [LARGE] * LARGE_RECORDS)
    table = empty_table(lake, topic)
    commit(table, [0])
    url = f"{isk.catalog_uri}/v1/namespaces/merged/tables/{topic}"
    first = once(url)
    after = []
    for number in range(1, 8):
        commit(table, [number])
        after.append(once(url))
    snapshot = json.load(urllib.request.urlopen(url))["metadata"]["snapshots"][0]
    return {
        "hot_files": int(snapshot["summary"]["total-data-files"]),
        "first_ms": first,
        "unchanged_ms": milliseconds(url),
        "after_commit_ms": statistics.median(after),
    }


def throughput(direct, isk, proxy=None):
    """MiB/s of ranged GETs by eight readers: best and median of a few rounds each, taken in turns."""
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

    ways = {"direct": direct, "gateway": through} | ({"nginx": proxy} if proxy else {})
    rates = {way: [] for way in ways}
    before = isk.peak_resident_bytes()
    for _ in range(ROUNDS):
        for way, client in ways.items():
            rates[way].append(read(client))
    best = {way: max(rate) for way, rate in rates.items()}
    median = {way: statistics.median(rate) for way, rate in rates.items()}
    grown = (isk.peak_resident_bytes() - before) / 2**20
    result = best | {"ratio": best["gateway"] / best["direct"], "median_ratio": median["gateway"] / median["direct"], "rates": rates}
    if proxy:
        result |= {"nginx_ratio": best["nginx"] / best["direct"], "nginx_median_ratio": median["nginx"] / median["direct"]}
    return result | {"isk_grew_mib": grown, "isk_peak_mib": isk.peak_resident_bytes() / 2**20}


def fast_store(broker, registry, lake):
    """The same of a store that gives bytes from the page cache."""
    with VersityGateway(BUCKET) as store:
        keys = {"S3_ENDPOINT": store.endpoint, "S3_ACCESS-KEY-ID": store.access_key, "S3_SECRET-ACCESS-KEY": store.secret_key}
        settings = lake.isk_environment() | {f"ISK_COLDSET_CLIENT_{name}": value for name, value in keys.items()}
        with Isk.beside(broker, registry, settings) as isk:
            if not nginx.installed():
                print("nginx is not installed: the gateway is not compared with it", flush=True)
                return throughput(store.boto3(), isk)
            with nginx.Nginx(store.endpoint.removeprefix("http://")) as proxy:
                between = clients.boto3_client(proxy.endpoint, store.access_key, store.secret_key)
                return throughput(store.boto3(), isk, between)


def run():
    with Broker(jvm=jdk.FULL) as broker, Registry() as registry, Lake() as lake, Isk.beside(broker, registry, lake.isk_environment()) as isk:
        results = {"files": FILES, "cold_mib_per_s": throughput(lake.boto3(), isk)}
        results["fast_cold_mib_per_s"] = fast_store(broker, registry, lake)
        results["many_chunks"] = beside_many_chunks(broker, registry, lake, isk)
        results["load_ms"] = load(broker, registry, lake, isk)
        results["filtered_load_ms"] = filtered(broker, registry, lake, isk)
        return results
