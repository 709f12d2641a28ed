"""What a query costs on a topic of 5 million records and more than 1 GiB that the service has never read."""

import json
import urllib.request

import pytest
from confluent_kafka.serialization import MessageField, SerializationContext
from stack import clients, records
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
        {"name": "text", "type": "string"},
    ],
}


@pytest.fixture(scope="module")
def large(registry):
    """The topic, on a broker of its own that goes with this module."""
    with Broker() as broker:
        records.create_topic(broker.bootstrap, TOPIC, PARTITIONS)
        serialize = records.avro_serializer(registry.url, SCHEMA)
        context = SerializationContext(TOPIC, MessageField.VALUE)
        # A thousand values over and over: what is measured does not depend on how well they compress.
        text = "the quick brown fox jumps over the lazy dog, "
        values = [serialize({"id": n, "kind": "ABC"[n % 3], "text": f"{n:03}{text * 5}"[:220]}, context) for n in range(1000)]
        assert COUNT * sum(map(len, values)) / len(values) > 1024 * MIB
        producer = records.producer(broker.bootstrap, linger_ms=50, acks=1)
        for n in range(COUNT):
            while True:
                try:
                    producer.produce(TOPIC, values[n % 1000], partition=n % PARTITIONS)
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
    assert size <= (threads + 1) * chunk * 260
    assert size < COUNT * 220 / 4


def test_a_full_scan_stays_in_bounded_memory(isk):
    with clients.duckdb_connection(isk.catalog_uri) as duckdb:
        count, longest = duckdb.execute(f"SELECT count(kafka_offset), max(length(text)) FROM isk.hotset.{TOPIC}").fetchone()
    assert (count, longest) == (COUNT, 220)
    print(f"full scan: {isk.peak_resident_bytes() / MIB:.0f} MiB resident at the most")
    assert isk.peak_resident_bytes() < 400 * MIB


def _chunk_records(isk):
    """The width of the topic's chunks, from the partition spec."""
    with urllib.request.urlopen(f"{isk.catalog_uri}/v1/namespaces/hotset/tables/{TOPIC}") as answer:
        fields = json.load(answer)["metadata"]["partition-specs"][0]["fields"]
    return int(fields[1]["transform"].removeprefix("truncate[").removesuffix("]"))
