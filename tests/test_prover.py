"""What is known before anybody reads: chunks proven in the background, followed topics, and files that outlive a restart."""

import contextlib
import json
import random
import re
import shutil
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFileContent
from stack import clients, datasets, records
from stack.canonical import checksums
from stack.isk import Isk
from stack.kafka import Broker

TOPICS = ("plain", "transactional", "compacted")
PROVE = {"ISK_PROVER_TOPICS": ",".join(TOPICS), "ISK_PROVER_INTERVAL_SECONDS": "1"}
SCHEMA = json.dumps({"type": "record", "name": "Beat", "fields": [{"name": "n", "type": "long"}]})

# How old a followed topic's end may be.
FRESH_SECONDS = 1.0


@pytest.fixture(scope="module")
def own_module_broker():
    """The names of these datasets are taken on the shared broker."""
    with Broker() as server:
        yield server


@pytest.fixture(scope="module")
def topics(own_module_broker, registry):
    return {name: getattr(datasets, name)(own_module_broker.bootstrap, registry.url) for name in TOPICS}


@pytest.fixture(scope="module")
def proving(own_module_broker, registry, topics):
    with Isk.beside(own_module_broker, registry, PROVE) as server:
        yield server


def metric(isk, name):
    with urllib.request.urlopen(f"{isk.catalog_uri}/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"isk_{name} "):
                return int(line.split()[1])
    raise AssertionError(f"no metric isk_{name}")


class Planned:
    """A table's data and delete entries, as they stand in its manifests."""

    def __init__(self, isk, topic):
        self.table = clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"hotset.{topic}")
        self.data, self.deletes = [], []
        for manifest in self.table.current_snapshot().manifests(self.table.io):
            for entry in manifest.fetch_manifest_entry(self.table.io):
                into = self.data if entry.data_file.content == DataFileContent.DATA else self.deletes
                into.append(entry.data_file)

    def count(self):
        return sum(file.record_count for file in self.data)

    def bounds(self, column):
        field = self.table.schema().find_field(column)
        lower = [from_bytes(field.field_type, file.lower_bounds[field.field_id]) for file in self.data]
        upper = [from_bytes(field.field_type, file.upper_bounds[field.field_id]) for file in self.data]
        return min(lower), max(upper)


def wait_for(what, seconds=60):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it has not come to this"
        time.sleep(0.2)


def all_proven(isk, topic):
    """Whether every file has a null count of some column of the value: only encoding can tell it."""
    planned = Planned(isk, topic)
    return all(len(file.value_counts or {}) > 3 for file in planned.data)


@pytest.mark.parametrize("topic", TOPICS)
def test_chunks_are_proven_though_nobody_reads(proving, topics, topic):
    """Counts and bounds are exact; nothing stands beside the data but where the cleaner may come again."""
    wait_for(lambda: all_proven(proving, topic))
    planned, rows = Planned(proving, topic), topics[topic].rows
    assert planned.count() == len(rows)
    assert len(planned.deletes) == (len(planned.data) if topic == "compacted" else 0)
    for column in ("kafka_offset", "quantity"):
        values = [row[column] for row in rows if row[column] is not None]
        assert planned.bounds(column) == (min(values), max(values))
    # Nothing was read so far; reading says the same.
    assert planned.table.scan().count() == len(rows)
    read = planned.table.scan().to_arrow().to_pylist()
    columns = {name: topics[topic].columns[name] for name in ("kafka_partition", "kafka_offset", "price")}
    want = [{name: row[name] for name in columns} for row in rows]
    assert checksums(columns, [{name: row[name] for name in columns} for row in read]) == checksums(columns, want)


def test_progress_is_visible(proving, topics):
    wait_for(lambda: all(all_proven(proving, topic) for topic in TOPICS))
    wait_for(lambda: metric(proving, "prover_chunks_left") == 0)
    assert metric(proving, "prover_chunks_total") >= sum(len(Planned(proving, topic).data) for topic in TOPICS)
    assert metric(proving, "prover_bytes_total") > 0
    assert metric(proving, "prover_errors_total") == 0
    # Every so often the line has the rate, too.
    begun, done = (re.search(pattern, proving.log_text()) for pattern in (r"proving chunks .*left\S*=\D*(\d+)", r"all chunks that are to be are proven .*done\S*=\D*(\d+)"))
    assert int(begun[1]) > 0 and int(done[1]) > 0


@pytest.mark.parametrize("settings", [{}, PROVE | {"ISK_PROVER_ENABLED": "false", "ISK_FOLLOW_TOPICS": ".*"}], ids=["not asked", "switched off"])
def test_nothing_is_encoded_unasked(own_module_broker, registry, topics, settings):
    with Isk.beside(own_module_broker, registry, {"ISK_PROVER_INTERVAL_SECONDS": "1"} | settings) as server:
        Planned(server, "plain")
        time.sleep(3)
        assert metric(server, "chunks_rendered_total") == 0
        assert Planned(server, "plain").deletes


def full_read(isk, topic):
    return clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"hotset.{topic}").scan().to_arrow().num_rows


def test_files_and_facts_outlive_a_restart(own_module_broker, registry, topics):
    """And whatever befalls the files costs time only."""
    want = len(topics["plain"].rows)
    with Isk.beside(own_module_broker, registry) as server:
        assert full_read(server, "plain") == want
        chunks = metric(server, "chunks_rendered_total")
        cache = Path(server.environment()["ISK_DATA_DIR"]) / "cache"
        files = sorted(cache.rglob("*.parquet"))
        assert len(files) == chunks > 3

        server.restart()
        assert Planned(server, "plain").deletes == []
        assert full_read(server, "plain") == want
        assert metric(server, "chunks_rendered_total") == 0

        server.stop()
        files[0].write_bytes(files[0].read_bytes()[:-100])
        whole = bytearray(files[1].read_bytes())
        whole[len(whole) // 2] ^= 0xFF
        files[1].write_bytes(whole)
        files[2].unlink()
        orphan = files[3].with_name("orphan.parquet")
        orphan.write_bytes(b"left behind")
        server.start()
        assert not orphan.exists()
        assert full_read(server, "plain") == want
        assert metric(server, "chunks_rendered_total") == 3

        # While files are in use.
        for file in cache.rglob("*.parquet"):
            file.write_bytes(random.randbytes(file.stat().st_size))
        assert full_read(server, "plain") == want
        assert metric(server, "chunks_rendered_total") == 3 + chunks
        shutil.rmtree(cache)
        assert full_read(server, "plain") == want


def test_a_small_cache_keeps_its_bound(own_module_broker, registry, topics):
    bound = 100_000
    with Isk.beside(own_module_broker, registry, {"ISK_CACHE_BYTES": str(bound)}) as server:
        cache = Path(server.environment()["ISK_DATA_DIR"]) / "cache"
        for _ in range(2):
            assert full_read(server, "plain") == len(topics["plain"].rows)
            assert sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) <= bound
            server.restart()


class Producing:
    """Writes transactions, some of them aborted, until it is ended; and remembers what was committed when."""

    def __init__(self, broker, registry, topic, partitions):
        self.topic, self.partitions = topic, partitions
        self.producer = records.producer(broker.bootstrap, transactional_id=f"producing {topic}")
        self.serialize = records.avro_serializer(registry.url, SCHEMA)
        self.producer.init_transactions(30)
        self.begun = 0
        self.committed = [(time.monotonic(), 0)]
        self.ended = threading.Event()
        self.failure = None
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            turn = 0
            while not self.ended.is_set():
                turn += 1
                count = 1 + turn * 37 % 300
                commits = turn % 4 != 0
                self.producer.begin_transaction()
                for partition in range(self.partitions):
                    values = [{"n": turn}] * count
                    records.produce(self.producer, self.topic, values, serialize=self.serialize, partition=partition)
                if commits:
                    self.begun += count * self.partitions
                    self.producer.commit_transaction(30)
                    self.committed.append((time.monotonic(), self.committed[-1][1] + count * self.partitions))
                else:
                    self.producer.abort_transaction(30)
        except Exception as error:
            self.failure = error

    def committed_by(self, moment):
        return max((count for at, count in self.committed if at <= moment), default=0)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        assert self.failure is None, self.failure


def test_a_followed_topic_is_counted_from_metadata(broker, registry, make_topic):
    """Under a live producer of transactions: never more than a second behind, never wrong, and mostly without a delete file."""
    topic, partitions = make_topic(3), 3
    loads = from_metadata = 0
    with contextlib.ExitStack() as stack:
        producing = stack.enter_context(Producing(broker, registry, topic, partitions))
        wait_for(lambda: producing.begun > 1000)
        server = stack.enter_context(Isk.beside(broker, registry, {"ISK_FOLLOW_TOPICS": topic, "ISK_PROVER_INTERVAL_SECONDS": "1"}))
        wait_for(lambda: not Planned(server, topic).deletes)
        most = 0
        until = time.monotonic() + 10
        while time.monotonic() < until or loads < 20:
            time.sleep(0.4)  # ticks of a table that is loaded more often are spaced
            asked = time.monotonic()
            planned = Planned(server, topic)
            ends = dict(pair.split(":") for pair in planned.table.current_snapshot().summary["isk.end-offsets"].split(","))
            assert sum(map(int, ends.values())) >= most, "an end went back"
            most = sum(map(int, ends.values()))
            loads += 1
            if planned.deletes:
                continue
            from_metadata += 1
            assert planned.count() >= producing.committed_by(asked - FRESH_SECONDS)
            assert planned.count() <= producing.begun
            if from_metadata % 5 == 0:
                assert planned.table.scan().to_arrow().num_rows == planned.count()
        pieces = len(planned.data)
    print(f"\n{from_metadata} of {loads} loads counted from metadata; {pieces} files at last")
    # How many depends on the machine: two thirds to all of them where nothing else runs.
    assert from_metadata > loads / 3

    with Isk.beside(broker, registry, server.env) as anew:
        want = len(records.read_topic(broker.bootstrap, topic))
        wait_for(lambda: not Planned(anew, topic).deletes)
        assert Planned(anew, topic).count() == want == full_read(anew, topic) == producing.committed[-1][1]


def test_a_followed_topic_loses_its_start_and_keeps_its_count(broker, registry, make_topic):
    topic = make_topic(1)
    writer, serialize = records.producer(broker.bootstrap), records.avro_serializer(registry.url, SCHEMA)
    with Isk.beside(broker, registry, {"ISK_FOLLOW_TOPICS": topic}) as server:
        total = 0
        for turn in range(12):
            records.produce(writer, topic, [{"n": turn}] * 50, serialize=serialize)
            total += 50
            wait_for(lambda total=total: (planned := Planned(server, topic)).count() == total and not planned.deletes)
        # Pieces are joined as they become many.
        wait_for(lambda: len(Planned(server, topic).data) < 5)
        assert metric(server, "follow_joins_total") > 0
        client = records.admin(broker.bootstrap)
        place = TopicPartition(topic, 0, 120)
        client.delete_records([place])[place].result(30)
        wait_for(lambda: (planned := Planned(server, topic)).count() == total - 120 and not planned.deletes)
        assert full_read(server, topic) == total - 120
        # Where the ends are cut is known after a restart.
        before = metric(server, "follow_pieces_total")
        server.restart()
        wait_for(lambda: not Planned(server, topic).deletes)
        assert before > 12 and metric(server, "follow_pieces_total") == 0
