"""What a query costs on a topic of 5 million records and more than 1 GiB that the service has never read."""

import concurrent.futures
import json
import time
import urllib.request

import numpy
import pytest
from confluent_kafka.serialization import MessageField, SerializationContext
from stack import clients, jdk, records
from stack.isk import Isk
from stack.kafka import Broker

TOPIC = "large"
PARTITIONS = 4
COUNT = 5_000_000
MIB = 2**20

SCHEMA = {
    "type": "record",
    "name": "Large",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B", "C"]}},
        {"name": "trace", "type": "string"},
        {"name": "payload", "type": "bytes"},
    ],
}
# The first id: from here on to 2**27 an id takes four bytes, so that all records are equally long.
FIRST = 2**20
TRACE, PAYLOAD = 32, 176
VALUE = 5 + 4 + 1 + 1 + TRACE + 2 + PAYLOAD
BLOCK = 50_000


def values(framing, first):
    """The framed values of one block, one after the other: an id, a kind, a random trace in hex and a random payload."""
    made = numpy.zeros((BLOCK, VALUE), numpy.uint8)
    made[:, :5] = numpy.frombuffer(framing, numpy.uint8)
    zigzag = numpy.arange(first, first + BLOCK) * 2
    for i in range(4):
        made[:, 5 + i] = (zigzag >> (7 * i) & 0x7F) | (0x80 if i < 3 else 0)
    made[:, 9] = numpy.arange(first, first + BLOCK) % 3 * 2
    made[:, 10] = TRACE * 2
    random = numpy.random.default_rng(first)
    made[:, 11 : 11 + TRACE] = numpy.frombuffer(b"0123456789abcdef", numpy.uint8)[random.integers(0, 16, (BLOCK, TRACE), numpy.uint8)]
    made[:, 43:45] = (PAYLOAD * 2 & 0x7F | 0x80, PAYLOAD * 2 >> 7)
    made[:, 45:] = random.integers(0, 256, (BLOCK, PAYLOAD), numpy.uint8)
    return made.tobytes()


@pytest.fixture(scope="module")
def large(registry):
    """The topic, on a broker of its own that goes with this module. No two values have anything in common."""
    assert COUNT * VALUE > 1024 * MIB and COUNT % BLOCK == 0
    with Broker(jvm=jdk.FULL) as broker:
        records.create_topic(broker.bootstrap, TOPIC, PARTITIONS)
        serialize = records.avro_serializer(registry.url, SCHEMA)
        # One record as Confluent's serializer writes it, to be sure of what is laid out by hand.
        sample = {"id": FIRST, "kind": "ABC"[FIRST % 3], "trace": "0" * TRACE, "payload": bytes(PAYLOAD)}
        sample = serialize(sample, SerializationContext(TOPIC, MessageField.VALUE))
        block = values(sample[:5], FIRST)
        assert len(sample) == VALUE and (block[:11], block[43:45]) == (sample[:11], sample[43:45])
        producer = records.producer(broker.bootstrap, linger_ms=50, acks=1)
        for first in range(0, COUNT, BLOCK):
            block = values(sample[:5], FIRST + first)
            for n in range(BLOCK):
                value = block[n * VALUE : (n + 1) * VALUE]
                while True:
                    try:
                        producer.produce(TOPIC, value, partition=n % PARTITIONS)
                        break
                    except BufferError:
                        producer.poll(0.1)
        assert producer.flush(120) == 0
        yield broker


@pytest.fixture
def isk(large, registry):
    """A service that has never read the topic."""
    with Isk.beside(large, registry) as server:
        yield server


def metric(isk, name):
    with urllib.request.urlopen(f"{isk.catalog_uri}/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"isk_{name} "):
                return int(line.split()[1])
    raise AssertionError(f"no metric isk_{name}")


def test_limit_fetches_a_chunk_for_each_running_split_and_one_more(isk):
    threads = 2
    with clients.duckdb_connection(isk.catalog_uri) as duckdb:
        duckdb.execute(f"SET threads = {threads}")
        assert len(duckdb.execute(f"SELECT * FROM isk.hotset.{TOPIC} LIMIT 10").fetchall()) == 10
    chunk = _chunk_records(isk)
    fetched, size = metric(isk, "kafka_records_fetched_total"), metric(isk, "kafka_fetched_bytes_total")
    print(f"LIMIT 10: {fetched} records, {size / MIB:.0f} MiB fetched; a chunk has {chunk} records")
    assert 10 <= fetched <= (threads + 1) * chunk
    assert VALUE * 10 <= size <= (threads + 1) * chunk * VALUE
    assert size < COUNT * VALUE / 4


def test_a_full_scan_stays_in_bounded_memory(isk):
    with clients.duckdb_connection(isk.catalog_uri) as duckdb:
        query = f"SELECT count(kafka_offset), sum(id), sum(length(trace)), sum(octet_length(payload)) FROM isk.hotset.{TOPIC}"
        seen = duckdb.execute(query).fetchone()
    assert seen == (COUNT, COUNT * (2 * FIRST + COUNT - 1) // 2, COUNT * TRACE, COUNT * PAYLOAD)
    # What was encoded is about as large as what was written: hex digits take half their length, and nothing else shrinks.
    encoded = metric(isk, "rendered_bytes_total")
    print(f"full scan: {isk.peak_resident_bytes() / MIB:.0f} MiB resident at the most, {encoded / MIB:.0f} MiB encoded")
    assert encoded > COUNT * (PAYLOAD + TRACE // 2)
    assert isk.peak_resident_bytes() < 400 * MIB


def test_however_many_chunks_are_encoded_at_once_memory_stays_bounded(large, registry):
    """All that encodings hold is one budget: of 16 that may run at once, as many do as it has room for."""
    many = 16
    with Isk.beside(large, registry, {"ISK_RENDER_CONCURRENCY": str(many)}) as isk:
        s3 = clients.boto3_client(isk.s3_endpoint, isk.access_key, isk.secret_key, read_timeout=300)
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket="hotset", Prefix=f"{TOPIC}/data/")
        files = [entry["Key"] for page in pages for entry in page["Contents"]][: 2 * many]
        assert len(files) == 2 * many
        with concurrent.futures.ThreadPoolExecutor(many) as pool:
            list(pool.map(lambda key: s3.get_object(Bucket="hotset", Key=key, Range="bytes=-8")["Body"].read(), files))
        assert metric(isk, "chunks_rendered_total") == len(files)
        print(f"{many} at once: {isk.peak_resident_bytes() / MIB:.0f} MiB resident at the most")
        assert isk.peak_resident_bytes() < 400 * MIB


def test_proving_all_of_it_stays_in_bounded_memory(large, registry):
    """A followed topic is caught up with by all who may encode at once: the prover, and those who follow the ends."""
    with Isk.beside(large, registry, {"ISK_FOLLOW_TOPICS": TOPIC, "ISK_PROVER_INTERVAL_SECONDS": "1"}) as isk:
        deadline = time.monotonic() + 180
        while metric(isk, "rows_rendered_total") < COUNT:
            assert time.monotonic() < deadline, isk.log_tail()
            time.sleep(0.2)
        print(f"proven: {isk.peak_resident_bytes() / MIB:.0f} MiB resident at the most")
        assert isk.peak_resident_bytes() < 512 * MIB


def _chunk_records(isk):
    """The width of the topic's chunks, from the partition spec."""
    with urllib.request.urlopen(f"{isk.catalog_uri}/v1/namespaces/hotset/tables/{TOPIC}") as answer:
        fields = json.load(answer)["metadata"]["partition-specs"][0]["fields"]
    return int(fields[1]["transform"].removeprefix("truncate[").removesuffix("]"))
