"""A topic's history: the table as it was at a tick, what came between two ticks, and streams that see each record once."""

import datetime
import json
import threading
import time

import pytest
from pyspark.errors import StreamingQueryException
from stack import clients, datasets, records
from stack.flink import FlinkReader
from stack.isk import Isk

SCHEMA = json.dumps(
    {
        "type": "record",
        "name": "Tick",
        "fields": [{"name": "n", "type": "long"}, {"name": "pad", "type": "bytes", "default": ""}],
    }
)
PARTITIONS = 2

# Records of this size come first, and the topic's chunks are cut for them: few offsets each, so that they fill up soon.
LARGE = 4_000_000
CHUNK = 16

# How long a stream may take to show the last record.
STREAM_SECONDS = 90


class Topic:
    """A topic whose records are numbered, and what was produced to it."""

    def __init__(self, broker, registry, name):
        self.name, self.count = name, 0
        self.writer, self.serialize = records.producer(broker.bootstrap), records.avro_serializer(registry.url, SCHEMA)

    def add(self, count=1, pad=b""):
        values = [{"n": n, "pad": pad} for n in range(self.count, self.count + count)]
        for value in values:
            records.produce(self.writer, self.name, [value], serialize=self.serialize, partition=value["n"] % PARTITIONS)
        self.count += count


@pytest.fixture
def topic(broker, registry, make_topic):
    """A topic with a few large records and small chunks."""
    made = Topic(broker, registry, make_topic(PARTITIONS))
    made.add(2 * PARTITIONS, bytes(LARGE))
    return made


@pytest.fixture
def load(pyiceberg, topic):
    return lambda: pyiceberg.load_table(f"hotset.{topic.name}")


@pytest.fixture
def ticks(topic, load):
    """The snapshot ids of a few ticks with the number of records at each; chunks fill up on the way."""
    seen = []
    for count in (0, 1, 5, 2 * CHUNK * PARTITIONS, 3, 1):
        topic.add(count)
        seen.append((load().current_snapshot().snapshot_id, topic.count))
    return seen


def numbers(rows):
    return sorted(row[0] for row in rows)


def test_ticks_are_appends_one_after_the_other(load, ticks):
    snapshots = {s.snapshot_id: s for s in load().snapshots()}
    chain = [ticks[-1][0]]
    while (parent := snapshots[chain[-1]].parent_snapshot_id) in snapshots:
        chain.append(parent)
    assert [tick for tick, _ in ticks if tick not in chain] == []
    assert [snapshots[tick].summary.operation.value for tick, _ in ticks] == ["append"] * len(ticks)
    times = [snapshots[tick].timestamp_ms for tick in reversed(chain)]
    assert times == sorted(set(times))
    log = [entry.snapshot_id for entry in load().history()]
    assert log == list(reversed(chain))


def test_a_version_keeps_its_rows(request, isk, spark, load, ticks, topic):
    """By version, in four engines; also once the topic has grown, its chunks were read, and ISK has started anew."""
    trino = request.getfixturevalue("trino")
    table = f"isk.hotset.{topic.name}"

    def check():
        for tick, count in ticks:
            expected = list(range(count))
            assert numbers(spark.sql(f"SELECT n FROM {table} VERSION AS OF {tick}").collect()) == expected
            assert numbers(trino.query(f"SELECT n FROM {table} FOR VERSION AS OF {tick}")) == expected
            with clients.duckdb_connection(isk.catalog_uri) as duckdb:
                assert numbers(duckdb.execute(f"SELECT n FROM {table} AT (VERSION => {tick})").fetchall()) == expected
                assert duckdb.execute(f"SELECT count(*) FROM {table} AT (VERSION => {tick})").fetchall() == [(count,)]
            scan = load().scan(snapshot_id=tick, selected_fields=("n",))
            assert sorted(scan.to_arrow()["n"].to_pylist()) == expected
            assert scan.count() == count

    check()
    topic.add(5)
    assert load().scan().count() == topic.count
    isk.restart()
    check()


def test_a_time_is_the_tick_before_it(spark, trino, duckdb, load, ticks, topic):
    table = f"isk.hotset.{topic.name}"
    times = {s.snapshot_id: s.timestamp_ms for s in load().snapshots()}
    for tick, count in ticks:
        at = datetime.datetime.fromtimestamp(times[tick] / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        expected = list(range(count))
        assert numbers(spark.sql(f"SELECT n FROM {table} TIMESTAMP AS OF '{at}'").collect()) == expected
        assert numbers(trino.query(f"SELECT n FROM {table} FOR TIMESTAMP AS OF TIMESTAMP '{at} UTC'")) == expected
        query = f"SELECT n FROM {table} AT (TIMESTAMP => TIMESTAMP '{at}')"
        assert numbers(duckdb.execute(query).fetchall()) == expected
        found = load().snapshot_as_of_timestamp(times[tick])
        assert found.snapshot_id == tick


def test_a_time_before_the_first_tick_goes_by_the_records_own_timestamps(broker, registry, isk, spark, trino, duckdb, pyiceberg, make_topic):
    """Starts of hours and days, in four engines; streams do not come by them, and a restart changes none."""
    name = make_topic(PARTITIONS, datasets.KEEP)
    hour_ms = 3_600_000
    hour = int(time.time() * 1000) // hour_ms * hour_ms
    # One record in the middle of each of the last 100 hours; the other partition ends 10 hours ago.
    writer, serialize = records.producer(broker.bootstrap), records.avro_serializer(registry.url, SCHEMA)
    dated = {n: hour - (100 - n) * hour_ms + hour_ms // 2 for n in range(100)}
    for n, ms in dated.items():
        where = 1 if n % 2 and n < 90 else 0
        records.produce(writer, name, [{"n": n, "pad": b""}], serialize=serialize, partition=where, timestamp=lambda _, ms=ms: ms)
    table = f"isk.hotset.{name}"

    def by_record_timestamp():
        snapshots = pyiceberg.load_table(f"hotset.{name}").snapshots()
        return [s for s in snapshots if s.summary.additional_properties.get("isk.by-record-timestamp") == "true"]

    assert by_record_timestamp() == [], "the first plan waits for none"
    deadline = time.monotonic() + 30
    # The last 24 starts of hours, and of days those with records before them.
    days = [t for t in range(hour - 99 * hour_ms, hour + 1, hour_ms) if t % (24 * hour_ms) == 0]
    times = sorted({*days, *(hour - n * hour_ms for n in range(24))})
    while len(by_record_timestamp()) < len(times):
        assert time.monotonic() < deadline, len(by_record_timestamp())
        time.sleep(0.2)
    assert [s.timestamp_ms for s in by_record_timestamp()] == times
    current = pyiceberg.load_table(f"hotset.{name}").current_snapshot()
    for at_ms in (times[0], times[-7], times[-1]):
        # Behind the start of the present hour comes the first tick, or a time that Trino takes for the future.
        for asked_ms in (at_ms, at_ms + hour_ms // 3) if at_ms < hour else (at_ms,):
            expected = [n for n, ms in dated.items() if ms < at_ms]
            at = datetime.datetime.fromtimestamp(asked_ms / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
            assert numbers(spark.sql(f"SELECT n FROM {table} TIMESTAMP AS OF '{at}'").collect()) == expected
            assert numbers(trino.query(f"SELECT n FROM {table} FOR TIMESTAMP AS OF TIMESTAMP '{at} UTC'")) == expected
            assert numbers(duckdb.execute(f"SELECT n FROM {table} AT (TIMESTAMP => TIMESTAMP '{at}')").fetchall()) == expected
            loaded = pyiceberg.load_table(f"hotset.{name}")
            found = loaded.snapshot_as_of_timestamp(asked_ms)
            assert found.timestamp_ms == at_ms and loaded.scan(snapshot_id=found.snapshot_id).count() == len(expected)
    known = {s.snapshot_id for s in by_record_timestamp()}
    chain = {s.parent_snapshot_id for s in pyiceberg.load_table(f"hotset.{name}").snapshots() if s.snapshot_id not in known}
    assert not chain & known and current.snapshot_id not in known
    before = by_record_timestamp()
    isk.restart()
    assert by_record_timestamp() == before


def test_what_came_between_two_ticks(spark, load, ticks, topic):
    def between(start, end):
        read = spark.read.format("iceberg").option("start-snapshot-id", start).option("end-snapshot-id", end)
        return numbers(read.load(f"isk.hotset.{topic.name}").select("n").collect())

    for earlier in range(len(ticks)):
        for later in range(earlier + 1, len(ticks)):
            (start, before), (end, after) = ticks[earlier], ticks[later]
            assert between(start, end) == list(range(before, after))
    load().scan().to_arrow()  # what is proven now changes nothing in what was planned
    load()
    (start, before), (end, after) = ticks[1], ticks[-1]
    assert between(start, end) == list(range(before, after))


def test_history_outlives_a_restart(isk, load, ticks, topic):
    load().scan().to_arrow()
    before, location = load().snapshots(), load().metadata_location
    isk.restart()
    assert load().snapshots() == before
    assert load().metadata_location == location
    topic.add(2)
    snapshots = load().snapshots()
    assert snapshots[: len(before)] == before
    for earlier, later in zip(snapshots, snapshots[1:]):
        assert later.parent_snapshot_id == earlier.snapshot_id


class SparkStream:
    """A streaming query that is started anew from its checkpoint whenever it fails; rows by batch, the last try counts."""

    def __init__(self, spark, table, checkpoint, options):
        self.spark, self.table, self.checkpoint, self.options = spark, table, str(checkpoint), options
        self.batches, self.failures = {}, []
        self.query = None

    def _start(self):
        read = self.spark.readStream.format("iceberg")
        for key, value in self.options.items():
            read = read.option(key, value)

        def keep(batch, number):
            self.batches[number] = [row[0] for row in batch.select("n").collect()]

        write = read.load(self.table).writeStream.foreachBatch(keep).option("checkpointLocation", self.checkpoint)
        self.query = write.trigger(processingTime="500 milliseconds").start()

    def seen(self):
        return sorted(n for rows in self.batches.values() for n in rows)

    def wait(self, expected):
        deadline = time.monotonic() + STREAM_SECONDS
        while len(self.seen()) < len(expected):
            if self.query is None or not self.query.isActive:
                if self.query is not None:
                    self.failures.append(str(self.query.exception())[:2000])
                    time.sleep(1)
                self._start()
            assert time.monotonic() < deadline, (self.failures, len(self.seen()))
            time.sleep(0.2)

    def stop(self):
        if self.query is not None:
            self.query.stop()


def produce_in_steps(topic, steps, between):
    """Adds records in steps of different sizes, with a pause between them, from a thread of its own."""

    def run():
        for step in range(steps):
            topic.add(1 + 7 * (step % 4))
            time.sleep(between)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("limit", [{}, {"streaming-max-files-per-micro-batch": "2"}], ids=["all", "few files"])
def test_spark_streams_each_record_once(isk, spark, topic, tmp_path, limit):
    """From the start, while records come, chunks fill up, other clients load the table, and ISK starts anew."""
    stream = SparkStream(spark, f"isk.hotset.{topic.name}", tmp_path, limit)
    try:
        stream.wait(range(topic.count))
        thread = produce_in_steps(topic, 12, 0.5)
        clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"hotset.{topic.name}").scan().to_arrow()
        stream.wait(range(topic.count + 20))
        isk.restart()
        thread.join()
        stream.wait(range(topic.count))
        time.sleep(2)  # a record that came twice has time to show
        assert stream.seen() == list(range(topic.count)), stream.failures
    finally:
        stream.stop()


def test_spark_streams_from_a_time(spark, load, ticks, topic, tmp_path):
    tick, _ = ticks[3]
    before = ticks[2][1]
    at = next(s.timestamp_ms for s in load().snapshots() if s.snapshot_id == tick)
    stream = SparkStream(spark, f"isk.hotset.{topic.name}", tmp_path, {"stream-from-timestamp": str(at)})
    try:
        stream.wait(range(before, topic.count))
        topic.add(3)
        stream.wait(range(before, topic.count))
        assert stream.seen() == list(range(before, topic.count))
    finally:
        stream.stop()


@pytest.mark.parametrize("strategy", ["TABLE_SCAN_THEN_INCREMENTAL", "INCREMENTAL_FROM_EARLIEST_SNAPSHOT"])
def test_flink_streams_each_record_once(isk, topic, strategy):
    with FlinkReader(isk.catalog_uri, topic.name, "n", {"starting-strategy": strategy}) as stream:
        thread = produce_in_steps(topic, 12, 0.5)
        time.sleep(3)
        isk.restart()
        thread.join()
        deadline = time.monotonic() + STREAM_SECONDS
        while len(stream.rows()) < topic.count:
            assert time.monotonic() < deadline and stream.is_running(), len(stream.rows())
            time.sleep(0.5)
        time.sleep(3)
        assert sorted(int(n) for (n,) in stream.rows()) == list(range(topic.count))


def test_a_reader_whose_tick_is_forgotten_is_told(broker, registry, spark, topic, tmp_path):
    """Ticks are kept for a time. A stream that rested longer fails; it never goes on with a gap. From the start, all is there."""
    with Isk.beside(broker, registry, {"ISK_HISTORY_KEEP_SECONDS": "3"}) as isk:
        for key, value in clients.spark_catalog("brief", isk.catalog_uri).items():
            spark.conf.set(key, value)
        table = f"brief.hotset.{topic.name}"
        stream = SparkStream(spark, table, tmp_path / "rested", {})
        stream.wait(range(topic.count))
        topic.add(2)
        stream.wait(range(topic.count))
        stream.stop()
        catalog = clients.pyiceberg_catalog(isk.catalog_uri)
        deadline = time.monotonic() + 6
        while time.monotonic() < deadline:
            topic.add()
            catalog.load_table(f"hotset.{topic.name}")
            time.sleep(0.5)
        stream._start()
        with pytest.raises(StreamingQueryException, match="the snapshot was expired or removed"):
            stream.query.awaitTermination(60)
        fresh = SparkStream(spark, table, tmp_path / "fresh", {})
        try:
            fresh.wait(range(topic.count))
            assert fresh.seen() == list(range(topic.count))
        finally:
            fresh.stop()
