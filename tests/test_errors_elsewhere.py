"""Records that do not decode, where tables are merged, followed or planned by the service, and of JSON and Protobuf."""

import json
import struct
import time

import pyarrow
import pytest
import requests
from confluent_kafka.schema_registry import Schema
from confluent_kafka.serialization import MessageField, SerializationContext
from stack import clients, records
from stack.isk import Isk

NUMBER = json.dumps({"type": "record", "name": "Number", "fields": [{"name": "n", "type": "long"}]})
POLICIES = {"ISK_ERRORS_SKIP": ".*_skip_.*", "ISK_ERRORS_FAIL": ".*_fail_.*"}
TOTAL, BAD = 60, (10, 40)


def fill(broker, registry, topic, bad=BAD, total=TOTAL):
    serialize = records.avro_serializer(registry.url, NUMBER)
    good = [serialize({"n": n}, SerializationContext(topic, MessageField.VALUE)) for n in range(total)]
    records.produce(records.producer(broker.bootstrap), topic, [b"poison" if n in bad else value for n, value in enumerate(good)])


def named(broker, policy, what):
    return records.create_topic(broker.bootstrap, f"{what}_{policy}_{time.monotonic_ns()}")


def rows(isk, table, **properties):
    catalog = clients.pyiceberg_catalog(isk.catalog_uri, **properties)
    return catalog.load_table(table).scan().to_arrow().sort_by("kafka_offset").to_pylist()


def count(isk, table):
    return clients.pyiceberg_catalog(isk.catalog_uri).load_table(table).scan().count()


def cold_rows(offsets):
    return pyarrow.table(
        {
            "n": pyarrow.array([None if n in BAD else n for n in offsets], pyarrow.int64()),
            "kafka_partition": pyarrow.array([0] * len(offsets), pyarrow.int32()),
            "kafka_offset": pyarrow.array(offsets, pyarrow.int64()),
        }
    )


def wait_for(check, seconds=30):
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.3)


@pytest.mark.parametrize("policy", ["keep", "skip", "fail"])
def test_merged_tables_go_by_the_policy(broker, registry, lake, policy):
    topic = named(broker, policy, "merged_errors")
    fill(broker, registry, topic)
    first = [n for n in range(30) if policy != "skip" or n not in BAD]
    cold = lake.pyiceberg().create_table(f"coldset.{topic}", schema=cold_rows(first).schema)
    cold.append(cold_rows(first))
    with Isk.beside(broker, registry, POLICIES | lake.isk_environment()) as server:
        shown = lambda: [(row["kafka_offset"], row["n"]) for row in rows(server, f"merged.{topic}")]  # noqa: E731
        kept = [(n, None if n in BAD else n) for n in range(TOTAL)]
        if policy == "fail":
            # What cold has does not fail; what is read from the topic does.
            with pytest.raises(OSError):
                shown()
            cold.append(cold_rows(list(range(30, 50))))
            wait_for(lambda: len(list(clients.pyiceberg_catalog(server.catalog_uri).load_table(f"merged.{topic}").scan().plan_files())) > 2)
            assert shown() == kept
        else:
            want = [(n, value) for n, value in kept if policy == "keep" or n not in BAD]
            for touch in ("first", "proven"):
                assert shown() == want, touch
                assert count(server, f"merged.{topic}") == len(want), touch
                with clients.duckdb_connection(server.catalog_uri) as duckdb:
                    assert duckdb.execute(f"SELECT count(*), sum(n) FROM isk.merged.{topic}").fetchone() == (len(want), sum(n or 0 for _, n in want))
        # The reasons are all of the topic's, wherever its rows are read from.
        assert [row["kafka_offset"] for row in rows(server, f"errors.{topic}")] == list(BAD)


def test_a_followed_topic_that_is_to_fail_is_known_up_to_the_record(broker, registry):
    good, bad = named(broker, "keep", "followed"), named(broker, "fail", "followed")
    for topic in (good, bad):
        fill(broker, registry, topic, bad=(), total=50)
    with Isk.beside(broker, registry, POLICIES | {"ISK_FOLLOW_TOPICS": "followed_.*", "ISK_PROVER_INTERVAL_SECONDS": "1"}) as server:
        tasks = lambda topic: list(clients.pyiceberg_catalog(server.catalog_uri).load_table(f"hotset.{topic}").scan().plan_files())  # noqa: E731
        proven = lambda topic: not any(task.delete_files for task in tasks(topic))  # noqa: E731
        wait_for(lambda: proven(good) and proven(bad))
        for topic in (good, bad):
            fill(broker, registry, topic, bad=(3,), total=10)
        wait_for(lambda: count(server, f"hotset.{good}") == 60 and proven(good))

        def fails():
            try:
                return not rows(server, f"hotset.{bad}")
            except OSError:
                return True

        # It ends where it was last proven, and a second later where the log does.
        wait_for(fails)
        for _ in range(3):
            assert fails()
            time.sleep(1)
        # What was proven stays readable, and is not read again.
        table = clients.pyiceberg_catalog(server.catalog_uri).load_table(f"hotset.{bad}")
        assert table.scan(row_filter="kafka_offset < 50").to_arrow()["n"].to_pylist() == list(range(50))
        assert [row["kafka_offset"] for row in rows(server, f"errors.{bad}")] == [53]
        assert [row["kafka_offset"] for row in rows(server, f"errors.{good}")] == [53]
        # The followed topic that is fine is not held up.
        fill(broker, registry, good, bad=(), total=5)
        wait_for(lambda: count(server, f"hotset.{good}") == 65 and proven(good))


def test_errors_are_planned_by_the_service(broker, registry):
    topic = named(broker, "keep", "planned_errors")
    fill(broker, registry, topic)
    with Isk.beside(broker, registry, POLICIES) as server:
        told = {"scan-planning-mode": "server"}
        for touch in ("first", "proven"):
            assert [row["kafka_offset"] for row in rows(server, f"errors.{topic}", **told)] == list(BAD), touch
            scan = clients.pyiceberg_catalog(server.catalog_uri, **told).load_table(f"errors.{topic}").scan(row_filter="kafka_offset > 20")
            assert scan.to_arrow()["kafka_offset"].to_pylist() == [40], touch
        answer = requests.post(f"{server.catalog_uri}/v1/namespaces/errors/tables/{topic}/plan", json={}, timeout=30)
        assert answer.status_code == 200 and answer.json()["status"] == "completed"
        (task,) = answer.json()["file-scan-tasks"]
        assert task["data-file"]["record-count"] == len(BAD) and not task.get("delete-file-references")
        metrics = requests.get(f"{server.catalog_uri}/metrics", timeout=30).text
        assert any(line.startswith("isk_scans_planned_total") and float(line.split()[-1]) >= 4 for line in metrics.splitlines())


FORMATS = {
    # A schema, a good payload, and payloads that fail with what the cause says, by stage.
    "JSON": (
        json.dumps({"type": "object", "properties": {"n": {"type": "integer"}, "at": {"type": "string", "format": "date-time"}}}),
        b'{"n": 1}',
        {"decode": (b'{"n": 1', "ends"), "conversion": (b'{"n": 9223372036854775808}', "beyond"), "lookup": (None, "no schema")},
    ),
    "PROTOBUF": (
        'syntax = "proto3"; import "google/protobuf/timestamp.proto"; message M { int64 n = 1; google.protobuf.Timestamp at = 2; } message Other { int32 x = 1; }',
        b"\x00\x08\x01",
        {
            "decode": (b"\x00\x08", ""),
            "conversion": (b"\x00\x12\x0a\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "at"),
            "resolution": (b"\x02\x02\x08\x01", "message [1]"),
            "lookup": (None, "no schema"),
        },
    ),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("policy", ["keep", "skip"])
def test_other_formats_have_their_reasons(broker, registry, isk_policies, format, policy):
    schema, good, bad = FORMATS[format]
    topic = named(broker, policy, f"errors_{format.lower()}")
    number = records.registry_client(registry.url).register_schema(f"{topic}-value", Schema(schema, format))
    framed = lambda payload, id=number: struct.pack(">bI", 0, id) + payload  # noqa: E731
    values, want = [framed(good)], []
    for stage, (payload, said) in bad.items():
        want.append((len(values), stage, said))
        values += [framed(good, 987_654) if payload is None else framed(payload), framed(good)]
    want.append((len(values), "framing", "zero byte"))
    values += [good[1:] if format == "PROTOBUF" else good, framed(good)]
    records.produce(records.producer(broker.bootstrap), topic, values)
    found = rows(isk_policies, f"errors.{topic}")
    assert [(row["kafka_offset"], row["stage"]) for row in found] == [(offset, stage) for offset, stage, _ in want]
    for row, (offset, _, said) in zip(found, want, strict=True):
        assert said in row["cause"] and row["kafka_value"] == values[offset] and row["part"] == "value", row
    failed = {offset for offset, _, _ in want}
    shown = [(n, None if n in failed else 1) for n in range(len(values)) if policy == "keep" or n not in failed]
    assert [(row["kafka_offset"], row["n"]) for row in rows(isk_policies, f"hotset.{topic}")] == shown
    for table, rows_there in ((f"hotset.{topic}", len(shown)), (f"errors.{topic}", len(failed))):
        assert count(isk_policies, table) == rows_there
        with clients.duckdb_connection(isk_policies.catalog_uri) as duckdb:
            assert duckdb.execute(f"SELECT count(*) FROM isk.{table}").fetchone() == (rows_there,)
    # Counted by topic and by what went wrong.
    metrics = requests.get(f"{isk_policies.catalog_uri}/metrics", timeout=30).text
    for _, stage, _ in want:
        (line,) = [line for line in metrics.splitlines() if line.startswith(f'isk_decode_failures_total{{topic="{topic}",stage="{stage}"}}')]
        assert float(line.split()[-1]) >= 1


@pytest.fixture(scope="module")
def isk_policies(broker, registry):
    with Isk.beside(broker, registry, POLICIES) as server:
        yield server
