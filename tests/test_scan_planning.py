"""Scans that the service plans: exact where the manifests cannot be, the same rows, and for tables of the hotset alone."""

import datetime
import json
import time

import pytest
import requests
from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, LessThan
from stack import clients, datasets, records
from stack.isk import Isk

SCHEMA = json.dumps({"type": "record", "name": "Event", "fields": [{"name": "n", "type": "long"}, {"name": "pad", "type": "bytes"}]})

PARTITIONS, LENGTH, MINUTE = 2, 6 * 1024, 60_000


@pytest.fixture(scope="module")
def topic(broker, registry):
    """Two partitions of six chunks, a record a minute; the second began ten days later. Returns name and rows."""
    name = records.create_topic(broker.bootstrap, "planned_by_the_service", PARTITIONS, datasets.KEEP)
    serialize = records.avro_serializer(registry.url, SCHEMA)
    rows = []
    for partition in range(PARTITIONS):
        start = int(time.time() * 1000) - (40 - partition * 10) * 86_400_000
        values = [{"n": n, "pad": bytes(datasets.FILLER if n >= LENGTH - datasets.FILLERS else 0)} for n in range(LENGTH)]
        when = lambda value, start=start: start + value["n"] * MINUTE
        records.produce(records.producer(broker.bootstrap), name, values, serialize=serialize, partition=partition, timestamp=when)
        rows += [(partition, value["n"], when(value)) for value in values]
    return name, rows


@pytest.fixture
def fresh(broker, registry):
    """A service that has seen nothing."""
    with Isk.beside(broker, registry) as server:
        yield server


def chunks(rows):
    return {(partition, offset // 1024) for partition, offset, _ in rows}


def moment(ms):
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC)


def catalog(isk):
    return clients.pyiceberg_catalog(isk.catalog_uri, **{"scan-planning-mode": "server"})


def test_pyiceberg_gets_exactly_the_chunks_that_match(fresh, topic):
    name, rows = topic
    table = catalog(fresh).load_table(f"hotset.{name}")
    for partition, place in ((0, 100), (0, 3333), (1, 5000)):
        since = next(t for p, n, t in rows if (p, n) == (partition, place)) + 1
        condition = GreaterThanOrEqual("kafka_timestamp", moment(since))
        expected = [row for row in rows if row[2] >= since]
        scan = table.scan(row_filter=condition)
        files = list(scan.plan_files())
        assert len(files) == len(chunks(expected)), "a chunk was planned that holds no matching row, or one was missed"
        # Beside what was never read stands a file that makes clients count by reading.
        if place == 100:
            assert all(len(task.delete_files) == 1 for task in files)
        assert scan.count() == len(expected)
    condition = And(EqualTo("kafka_partition", 1), And(GreaterThanOrEqual("kafka_offset", 1000), LessThan("kafka_offset", 1030)))
    scan = table.scan(row_filter=condition)
    assert len(list(scan.plan_files())) == 2
    assert sorted(scan.to_arrow()["n"].to_pylist()) == list(range(1000, 1030))
    assert table.scan().count() == len(rows)


def test_an_earlier_snapshot_is_planned_as_it_was(broker, registry, fresh, topic, make_topic):
    name = make_topic()
    serialize = records.avro_serializer(registry.url, SCHEMA)
    add = lambda n: records.produce(records.producer(broker.bootstrap), name, [{"n": n, "pad": b""}], serialize=serialize)
    add(0)
    old = catalog(fresh).load_table(f"hotset.{name}")
    add(1)
    new = catalog(fresh).load_table(f"hotset.{name}")
    assert new.scan().to_arrow().num_rows == 2
    assert old.scan(snapshot_id=old.current_snapshot().snapshot_id).to_arrow().num_rows == 1
    answer = requests.post(f"{fresh.catalog_uri}/v1/namespaces/hotset/tables/{name}/plan", json={"snapshot-id": 5}, timeout=30)
    assert answer.status_code == 406 and "load the table again" in answer.text


@pytest.mark.parametrize("told_by", ["client", "server"])
def test_spark_reads_what_the_service_planned(broker, registry, topic, told_by):
    name, rows = topic
    environment = {"ISK_SERVER_PLANNING": "true"} if told_by == "server" else {}
    with Isk.beside(broker, registry, environment) as isk:
        settings = {"scan-planning-mode": "server"} if told_by == "client" else {}
        session = clients.spark_session(clients.spark_catalog(f"planned_{told_by}", isk.catalog_uri, **settings))
        table = f"planned_{told_by}.hotset.{name}"
        since = rows[5000][2]
        expected = [n for p, n, t in rows if t >= since]
        when = f"TIMESTAMP '{moment(since):%Y-%m-%d %H:%M:%S.%f}'"
        seen = session.sql(f"SELECT count(n), sum(n) FROM {table} WHERE kafka_timestamp >= {when}").collect()[0]
        assert tuple(seen) == (len(expected), sum(expected))
        fetched = _metric(isk, "chunks_rendered_total")
        assert fetched == len(chunks([row for row in rows if row[2] >= since]))
        assert session.sql(f"SELECT count(*) FROM {table}").collect()[0][0] == len(rows)
        # Now that all is proven, the count is told without reading.
        assert session.sql(f"SELECT count(*), max(kafka_offset) FROM {table}").collect()[0] == (len(rows), LENGTH - 1)
        assert _metric(isk, "scans_planned_total") >= 2


def test_other_tables_are_planned_by_the_client(lake_isk, make_pair):
    pair = make_pair(1)
    answer = requests.post(f"{lake_isk.catalog_uri}/v1/namespaces/merged/tables/{pair.topic}/plan", json={}, timeout=30)
    assert answer.status_code == 406 and "scan-planning-mode" in answer.json()["error"]["message"]
    answer = requests.post(f"{lake_isk.catalog_uri}/v1/namespaces/nobody/tables/{pair.topic}/plan", json={}, timeout=30)
    assert answer.status_code == 404 and answer.json()["error"]["type"] == "NoSuchNamespaceException"


def _metric(isk, name):
    for line in requests.get(f"{isk.catalog_uri}/metrics", timeout=30).text.splitlines():
        if line.startswith(f"isk_{name} "):
            return int(line.split()[1])
    raise AssertionError(name)
