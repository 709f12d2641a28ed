"""Filters on kafka_timestamp prune what nobody has read, in whatever order producers' clocks wrote it, and never lose a row."""

import datetime
import json
import random
import time
import urllib.request

import pytest
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import GreaterThan
from pyiceberg.types import TimestamptzType
from stack import clients, datasets, records
from stack.isk import Isk

SCHEMA = json.dumps({"type": "record", "name": "Event", "fields": [{"name": "n", "type": "long"}, {"name": "pad", "type": "bytes"}]})

PARTITIONS = 4
LENGTH = 8 * 1024
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def fill(broker, registry, topic, partition, timestamps):
    """One record for each timestamp; the last ones are large, so that a chunk is 1,024 offsets wide. Returns the rows."""
    serialize = records.avro_serializer(registry.url, SCHEMA)
    numbers = range(len(timestamps))
    values = [{"n": n, "pad": bytes(datasets.FILLER if n >= len(timestamps) - datasets.FILLERS else 0)} for n in numbers]
    records.produce(
        records.producer(broker.bootstrap), topic, values, serialize=serialize, partition=partition, timestamp=lambda value: timestamps[value["n"]]
    )
    return [(partition, n, timestamp) for n, timestamp in enumerate(timestamps)]


def out_of_order(now, seed):
    """99 % older than an hour, over thirty days; the clocks that wrote it differ by up to a minute."""
    clock = random.Random(seed)
    recent = LENGTH // 100
    old = [now - 30 * DAY + n * (30 * DAY - HOUR) // (LENGTH - recent) for n in range(LENGTH - recent)]
    new = [now - HOUR + n * HOUR // recent for n in range(recent)]
    return [moment + clock.randint(-MINUTE // 2, MINUTE // 2) for moment in old + new]


def metric(isk, name):
    with urllib.request.urlopen(f"{isk.catalog_uri}/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"isk_{name} "):
                return int(line.split()[1])
    return None


def moment(ms):
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC)


def planned(table, after):
    return list(table.scan(row_filter=GreaterThan("kafka_timestamp", moment(after).isoformat())).plan_files())


def settled(catalog, topic):
    """The table, once chunks that share a bound are told apart."""
    table = catalog.load_table(f"hotset.{topic}")
    for _ in range(30):
        time.sleep(1)
        before, table = table, catalog.load_table(f"hotset.{topic}")
        if before.current_snapshot().snapshot_id == table.current_snapshot().snapshot_id:
            return table
    raise AssertionError("every load is another snapshot")


def bounds(table):
    """The upper bound in milliseconds of every planned file, by partition and first offset."""
    found = {}
    for task in table.scan().plan_files():
        partition, start = task.file.partition[0], from_bytes(table.schema().find_type("kafka_offset"), task.file.lower_bounds[2])
        upper = task.file.upper_bounds.get(3)
        found[partition, start] = upper and from_bytes(TimestamptzType(), upper) // 1000
    return found


@pytest.fixture
def fresh(broker, registry):
    """A service that has seen nothing."""
    with Isk.beside(broker, registry) as server:
        yield server


def test_the_last_hour_of_a_topic_that_was_never_seen(broker, registry, fresh, make_topic):
    topic = make_topic(PARTITIONS, datasets.KEEP)
    now = int(time.time() * 1000)
    rows = [row for p in range(PARTITIONS) for row in fill(broker, registry, topic, p, out_of_order(now, p))]
    after = now - HOUR
    expected = sorted(row for row in rows if row[2] > after)
    matching = {(partition, offset // 1024) for partition, offset, _ in expected}
    assert PARTITIONS <= len(matching) <= 2 * PARTITIONS

    catalog = clients.pyiceberg_catalog(fresh.catalog_uri)
    begun = time.perf_counter()
    first = catalog.load_table(f"hotset.{topic}")
    print(f"\nfirst plan, sampling included: {(time.perf_counter() - begun) * 1000:.0f} ms")
    files = planned(first, after)
    print(f"first plan: {len(files)} of {PARTITIONS * LENGTH // 1024} files; {len(matching)} hold matching rows")
    assert len(matching) <= len(files) <= len(matching) + PARTITIONS

    before = metric(fresh, "kafka_records_delivered_total")
    with clients.duckdb_connection(fresh.catalog_uri) as duckdb:
        query = f"SELECT kafka_partition, kafka_offset, epoch_ms(kafka_timestamp) FROM isk.hotset.{topic} WHERE kafka_timestamp > '{moment(after).isoformat()}'"
        assert sorted(duckdb.execute(query).fetchall()) == expected
    fetched = metric(fresh, "kafka_records_delivered_total") - before  # what was fetched beside it is not counted
    print(f"DuckDB: {fetched} records fetched for {len(expected)} rows of {len(rows)}")
    # The matching chunks, and at most one more of each partition.
    assert fetched <= (len(matching) + PARTITIONS) * 1024 * 1.5

    table = settled(catalog, topic)
    for (partition, start), upper in bounds(table).items():
        latest = max(timestamp for p, offset, timestamp in rows if p == partition and start <= offset < start + 1024)
        # Known to a thirty-second of its age, on both sides.
        assert latest <= upper <= latest + 2 * MINUTE + (now - latest) // 16, (partition, start)
    fresh.stop()
    fresh.start()
    again = clients.pyiceberg_catalog(fresh.catalog_uri).load_table(f"hotset.{topic}")
    assert bounds(again) == bounds(table)
    for back in (5 * MINUTE, 3 * HOUR, 4 * DAY, 29 * DAY):
        seen = again.scan(row_filter=GreaterThan("kafka_timestamp", moment(now - back).isoformat())).to_arrow()
        assert seen.num_rows == sum(row[2] > now - back for row in rows), back
    assert planned(again, now + HOUR) == []


def test_what_was_sampled_in_the_background_is_planned_without_a_record(broker, registry, make_topic):
    topic = make_topic(PARTITIONS, datasets.KEEP)
    now = int(time.time() * 1000)
    for partition in range(PARTITIONS):
        fill(broker, registry, topic, partition, [now] * 2048)
    settings = {"ISK_PROVER_SAMPLE_AHEAD": "true", "ISK_TOPICS_INCLUDE": topic}
    with Isk.beside(broker, registry, settings) as isk:
        deadline, before = time.monotonic() + 30, 0
        while not before or metric(isk, "kafka_records_fetched_total") != before:
            assert time.monotonic() < deadline
            before = metric(isk, "kafka_records_fetched_total")
            time.sleep(1)
        table = clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"hotset.{topic}")
        assert len(list(table.scan().plan_files())) == 2 * PARTITIONS, "chunks are as wide as the sample says"
        assert metric(isk, "kafka_records_fetched_total") == before


@pytest.mark.parametrize("engine", ["spark", "trino"])
def test_the_last_hour_in_engines_that_run_apart(request, broker, registry, isk, make_topic, engine):
    topic = make_topic(1, datasets.KEEP)
    now = int(time.time() * 1000)
    rows = fill(broker, registry, topic, 0, out_of_order(now, 7))
    after = now - HOUR
    expected = sum(row[2] > after for row in rows)
    client = request.getfixturevalue(engine)
    before = metric(isk, "kafka_records_delivered_total")
    query = f"SELECT count(n) FROM isk.hotset.{topic} WHERE kafka_timestamp > TIMESTAMP '{moment(after):%Y-%m-%d %H:%M:%S.%f}{' UTC' if engine == 'trino' else ''}'"
    seen = client.sql(query).collect()[0][0] if engine == "spark" else client.query(query)[0][0]
    assert seen == expected
    assert metric(isk, "kafka_records_delivered_total") - before <= 2 * 1024 * 1.5 + 3 * 128


def test_a_broker_that_dates_the_records_itself(broker, registry, isk, pyiceberg, make_topic):
    topic = make_topic(1, datasets.KEEP | {"message.timestamp.type": "LogAppendTime"})
    fill(broker, registry, topic, 0, [0] * 3000)
    stored = records.read_topic(broker.bootstrap, topic)
    table = settled(pyiceberg, topic)
    for (_, start), upper in bounds(table).items():
        assert max(r.timestamp for r in stored if start <= r.offset < start + 1024) <= upper
    middle = stored[1500].timestamp
    seen = table.scan(row_filter=GreaterThan("kafka_timestamp", moment(middle).isoformat())).to_arrow()
    assert seen.num_rows == sum(r.timestamp > middle for r in stored)
    assert planned(table, stored[-1].timestamp + 1) == []


def test_a_record_dated_ahead_spoils_what_lies_behind_it_and_is_told_of(broker, registry, isk, pyiceberg, make_topic):
    topic = make_topic(1, datasets.KEEP | {"message.timestamp.after.max.ms": str(2**63 - 1)})
    now = int(time.time() * 1000)
    timestamps = [now - 10 * DAY + n * MINUTE for n in range(5 * 1024)]
    timestamps[3000] = now + 10 * DAY
    rows = fill(broker, registry, topic, 0, timestamps)
    table = settled(pyiceberg, topic)
    known = bounds(table)
    assert {start for (_, start), upper in known.items() if upper} == {0, 1024}
    assert table.properties["isk.future-dated"] == "0:3000"
    assert metric(isk, f'future_dated_partitions{{topic="{topic}"}}') == 1
    for after in (now - 9 * DAY, now - DAY, now + DAY):
        seen = table.scan(row_filter=GreaterThan("kafka_timestamp", moment(after).isoformat())).to_arrow()
        assert seen.num_rows == sum(row[2] > after for row in rows)
