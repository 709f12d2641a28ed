"""The test stack itself: each server and client does its least, without the service under test."""

import datetime
import os
import signal
import subprocess
import sys
import time

import chdb
import pytest
from stack import clients, records
from stack.process import Server, StartFailed
from stack.trino import Trino, iceberg_catalog
from stack.versions import TESTS

SCHEMA = {
    "type": "record",
    "name": "Reading",
    "namespace": "test",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "note", "type": ["null", "string"], "default": None},
    ],
}


def reading(number: int) -> dict:
    at = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC) + datetime.timedelta(microseconds=number)
    return {"id": number, "at": at, "note": None if number % 3 else f"note {number}"}


def test_avro_records_come_back_as_they_were_written(broker, registry, make_topic):
    topic = make_topic(partitions=3)
    values = [reading(n) for n in range(1000)]
    records.produce(
        records.producer(broker.bootstrap),
        topic,
        values,
        serialize=records.avro_serializer(registry.url, SCHEMA),
        key=lambda value: str(value["id"]).encode(),
    )
    got = records.read_topic(broker.bootstrap, topic, registry.url)
    assert sorted((r.value for r in got), key=lambda v: v["id"]) == values
    assert {r.partition for r in got} == {0, 1, 2}
    raw = records.read_topic(broker.bootstrap, topic)
    assert all(r.value[0] == 0 for r in raw), "Confluent's framing begins with a zero byte"
    assert len({r.value[1:5] for r in raw}) == 1, "one schema, one id"


def test_an_aborted_transaction_is_not_read(broker, make_topic):
    topic = make_topic()
    writer = records.producer(broker.bootstrap, transactional_id=topic)
    writer.init_transactions(30)
    for end, values in ((writer.commit_transaction, [b"a", b"b"]), (writer.abort_transaction, [b"lost"]), (writer.commit_transaction, [b"c"])):
        writer.begin_transaction()
        records.produce(writer, topic, values)
        end(30)
    committed = records.read_topic(broker.bootstrap, topic)
    assert [(r.offset, r.value) for r in committed] == [(0, b"a"), (1, b"b"), (5, b"c")]
    everything = records.read_topic(broker.bootstrap, topic, isolation="read_uncommitted")
    assert [r.value for r in everything] == [b"a", b"b", b"lost", b"c"]


def test_the_cleaner_compacts_within_seconds(broker, make_topic):
    topic = make_topic(config=records.FAST_COMPACTION)
    writer = records.producer(broker.bootstrap)
    for turn in range(5):
        records.produce(writer, topic, [b"%d %d" % (turn, key) for key in range(10)], key=lambda v: v.split()[1])
        time.sleep(0.2)
    deadline = time.monotonic() + 60
    while len(left := records.read_topic(broker.bootstrap, topic)) > 25:
        assert time.monotonic() < deadline, f"{len(left)} records are still there"
        # The newest segment is never cleaned: another record makes a new one.
        records.produce(writer, topic, [b"x 99"], key=lambda v: v.split()[1])
        time.sleep(0.5)
    newest = {r.key: r.value for r in left}
    assert all(newest[b"%d" % key] == b"4 %d" % key for key in range(10))


def test_a_killed_broker_comes_back_with_its_records(own_broker):
    topic = records.create_topic(own_broker.bootstrap, "survivor")
    records.produce(records.producer(own_broker.bootstrap), topic, [b"%d" % n for n in range(100)])
    own_broker.kill()
    assert not own_broker.is_running()
    own_broker.start()
    assert len(records.read_topic(own_broker.bootstrap, topic)) == 100


def test_trino_starts_and_answers():
    with Trino({"nowhere": iceberg_catalog("http://127.0.0.1:1", "http://127.0.0.1:2")}) as server:
        assert server.query("SELECT 1") == [[1]]
        assert ["nowhere"] in server.query("SHOW CATALOGS")


def test_spark_reads_and_writes_iceberg(tmp_path):
    prefix = "spark.sql.catalog.local"
    local = {prefix: "org.apache.iceberg.spark.SparkCatalog", f"{prefix}.type": "hadoop", f"{prefix}.warehouse": str(tmp_path)}
    session = clients.spark_session(local)
    session.sql("CREATE TABLE local.d.t USING iceberg AS SELECT id FROM range(10)")
    assert session.sql("SELECT count(*), sum(id) FROM local.d.t").collect() == [(10, 45)]
    jvm = session.sparkContext._jvm
    loaded = jvm.java.lang.Thread.currentThread().getContextClassLoader().loadClass("org.apache.iceberg.aws.s3.S3FileIO")
    assert loaded.getName().endswith("S3FileIO")


def test_duckdb_loads_iceberg_without_a_network():
    with clients.duckdb_connection() as connection:
        rows = connection.execute("SELECT extension_name FROM duckdb_extensions() WHERE loaded").fetchall()
    assert {"avro", "httpfs", "iceberg"} <= {name for (name,) in rows}


def test_clickhouse_answers():
    assert str(chdb.query("SELECT 1")).strip() == "1"


def test_iceberg_rust_is_usable_from_datafusion():
    import datafusion
    from pyiceberg_core.datafusion import IcebergDataFusionTable

    assert IcebergDataFusionTable
    assert datafusion.SessionContext().sql("SELECT 1 AS one").to_pydict() == {"one": [1]}


def test_a_server_that_cannot_start_says_why():
    class Broken(Server):
        name = "broken"

        def command(self):
            return ["sh", "-c", "echo the reason; exit 3"]

        def is_ready(self):
            return False

    with pytest.raises(StartFailed, match="(?s)ended with 3.*the reason"):
        Broken().start()


def test_servers_end_when_the_run_is_killed(tmp_path):
    program = """
import sys
from stack.process import Server
class Sleeper(Server):
    command = lambda self: ["sleep", "300"]
    is_ready = lambda self: True
print(Sleeper().start().process.pid, flush=True)
sys.stdin.read()
"""
    run = subprocess.Popen(
        [sys.executable, "-c", program], cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    sleeper = int(run.stdout.readline())
    os.kill(sleeper, 0)
    run.send_signal(signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + 10
    while is_alive(sleeper):
        assert time.monotonic() < deadline, "the server outlived the run that started it"
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
