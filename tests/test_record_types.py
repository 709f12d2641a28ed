"""Several types of record in one topic: a column for each, a table for each, and subjects found by name or by pattern."""

import json
import struct
import time
import zlib

import pytest
import requests
from confluent_kafka.schema_registry import Schema, record_subject_name_strategy, topic_record_subject_name_strategy
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from pyiceberg.exceptions import NoSuchTableError
from stack import clients, records
from stack.isk import Isk
from stack.trino import Trino, iceberg_catalog

PAYMENT = {"type": "record", "name": "Payment", "namespace": "shop", "fields": [{"name": "id", "type": "long"}, {"name": "amount", "type": "double"}]}
REFUND = {"type": "record", "name": "Refund", "namespace": "shop", "fields": [{"name": "id", "type": "long"}, {"name": "why", "type": ["null", "string"]}]}
NOTE = {"title": "shop.Note", "type": "object", "properties": {"text": {"type": "string"}}}
PROTO = 'syntax = "proto3"; package shop; message Line { int32 n = 1; } message Bill { Line line = 1; } message Memo { string text = 1; }'


@pytest.fixture(scope="module")
def served(broker, registry, tmp_path_factory):
    config = tmp_path_factory.mktemp("types") / "isk.toml"
    config.write_text(
        r"""
        [errors]
        skip = ['.*_skip']
        fail = ['.*_fail']

        [formats]
        topics = [
            { topic = 'named.*', value_subjects = ["shop.Payment", "shop.Refund"] },
            { topic = 'found.*', value_subject_pattern = '{topic}-shop\..*', record_types = "tables" },
            { topic = 'messages', value_subjects = ["{topic}-value"], record_types = "tables" },
        ]
        """
    )
    env = {"ISK_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap, "ISK_REGISTRY_URL": registry.url}
    with Isk(env, ["--config", str(config)]) as server:
        yield server


def writer(registry, schema, strategy):
    return records.avro_serializer(registry.url, schema, **{"subject.name.strategy": strategy})


def fill(broker, registry, topic, strategy, partitions=2):
    """300 payments, 200 refunds, and between them: 4 that do not decode, 2 tombstones. What is at which place."""
    records.create_topic(broker.bootstrap, topic, partitions)
    context = SerializationContext(topic, MessageField.VALUE)
    payment, refund = writer(registry, PAYMENT, strategy), writer(registry, REFUND, strategy)
    values = [payment({"id": n, "amount": n / 4}, context) for n in range(300)] + [refund({"id": n, "why": None if n % 3 else f"w{n}"}, context) for n in range(200)]
    values += [None, None, b"?", b"\0\0", struct.pack(">bI", 0, 999_999) + b"x", values[300][:-1]]
    # Types alternate.
    values.sort(key=lambda value: zlib.crc32(value or b""))
    producer = records.producer(broker.bootstrap)
    for n, value in enumerate(values):
        producer.produce(topic, value=value, partition=n % partitions)
    assert producer.flush(30) == 0
    # An answer about which subjects there are is up to a second old.
    time.sleep(1.2)


def catalog(isk):
    return clients.pyiceberg_catalog(isk.catalog_uri)


def rows(isk, table, namespace="hotset"):
    return catalog(isk).load_table(f"{namespace}.{table}").scan().to_arrow().to_pylist()


def test_a_column_for_each_type(broker, registry, served):
    """RecordNameStrategy, the subjects by name."""
    fill(broker, registry, "named_keep", record_subject_name_strategy)
    found = rows(served, "named_keep")
    assert len(found) == 506
    payments = [row["Payment"] for row in found if row["Payment"]]
    refunds = [row["Refund"] for row in found if row["Refund"]]
    assert sorted(payments, key=lambda p: p["id"]) == [{"id": n, "amount": n / 4} for n in range(300)]
    assert sorted(refunds, key=lambda r: r["id"]) == [{"id": n, "why": None if n % 3 else f"w{n}"} for n in range(200)]
    assert not any(row["Payment"] and row["Refund"] for row in found)
    assert len(rows(served, "named_keep", "errors")) == 4
    table = catalog(served).load_table("hotset.named_keep")
    assert table.properties["isk.record-types"] == "shop.Payment, shop.Refund"
    assert table.properties["isk.value-format"] == "avro"
    # A subject of the registry's that is not named is no type; tables of types are not listed here.
    assert not [name for name in catalog(served).list_tables("hotset") if "named_keep$" in name[1]]


@pytest.mark.parametrize("policy, refunds", [("keep", 201), ("skip", 200)])
def test_a_table_for_each_type(broker, registry, served, policy, refunds):
    """TopicRecordNameStrategy, the subjects by a pattern: counts are exact in each engine, at first touch and proven."""
    topic = f"found_{policy}"
    fill(broker, registry, topic, topic_record_subject_name_strategy)
    spark = clients.spark_session(clients.spark_catalog("isk", served.catalog_uri))
    want = {"Payment": 300, "Refund": refunds}
    assert {topic, *(f"{topic}${name}" for name in want)} <= {name[1] for name in catalog(served).list_tables("hotset")}
    with clients.duckdb_connection(served.catalog_uri) as duckdb, Trino({"isk": iceberg_catalog(served.catalog_uri, served.s3_endpoint)}) as trino:
        for touch in ("first", "proven"):
            for name, count in want.items():
                query = f'SELECT count(*), count(id) FROM {{}}.hotset."{topic}{{}}{name}"'
                tables = catalog(served).load_table(f"hotset.{topic}${name}")
                found = {
                    "pyiceberg": (tables.scan().count(), sum(row["id"] is not None for row in rows(served, f"{topic}${name}"))),
                    "duckdb": duckdb.execute(query.format("isk", "$")).fetchone(),
                    "trino": tuple(trino.query(query.format("isk", "~"))[0]),
                    "spark": tuple(spark.sql(query.replace('"', "`").format("isk", "$")).collect()[0]),
                }
                decoded = {"Payment": 300, "Refund": 200}[name]
                assert found == dict.fromkeys(found, (count, decoded)), (touch, name)
    payments = catalog(served).load_table(f"hotset.{topic}$Payment")
    assert [field.name for field in payments.schema().fields][:2] == ["id", "amount"]
    assert payments.properties["isk.record-type"] == "shop.Payment"
    # Its fields have the ids that they have in the topic's own table.
    (column,) = [field for field in catalog(served).load_table(f"hotset.{topic}").schema().fields if field.name == "Payment"]
    assert [field.field_id for field in column.field_type.fields] == [field.field_id for field in payments.schema().fields][:2]
    assert payments.scan(row_filter="id < 10").to_arrow().num_rows == 10
    for name in (f"{topic}$Nobody", f"{topic}$files"):
        assert requests.head(f"{served.catalog_uri}/v1/namespaces/hotset/tables/{name}", timeout=30).status_code == 404
        with pytest.raises(NoSuchTableError, match="no type of record of this name"):
            catalog(served).load_table(f"hotset.{name}")
    assert requests.head(f"{served.catalog_uri}/v1/namespaces/hotset/tables/{topic}$Payment", timeout=30).status_code == 204


def test_a_read_that_is_to_fail_does_where_the_type_is_not_told(broker, registry, served):
    fill(broker, registry, "found_fail", topic_record_subject_name_strategy, 1)
    with pytest.raises(OSError):
        rows(served, "found_fail$Payment")


def test_types_come_and_grow_and_ids_stay(broker, registry, served):
    topic = "found_grown"
    records.create_topic(broker.bootstrap, topic)
    context = SerializationContext(topic, MessageField.VALUE)
    producer = records.producer(broker.bootstrap)

    def add(value):
        producer.produce(topic, value=value)
        assert producer.flush(30) == 0

    def ids():
        fields = catalog(served).load_table(f"hotset.{topic}").schema().fields
        return {field.name: (field.field_id, {f.name: f.field_id for f in field.field_type.fields}) for field in fields if not field.name.startswith("kafka_")}

    add(writer(registry, PAYMENT, topic_record_subject_name_strategy)({"id": 1, "amount": 2.0}, context))
    time.sleep(1.5)
    assert rows(served, topic)[0]["Payment"] == {"id": 1, "amount": 2.0}
    first = ids()
    grown = PAYMENT | {"fields": [{"name": "tip", "type": ["null", "long"], "default": None}, *PAYMENT["fields"]]}
    client = records.registry_client(registry.url)
    add(writer(registry, REFUND, topic_record_subject_name_strategy)({"id": 2, "why": "w"}, context))
    add(writer(registry, grown, topic_record_subject_name_strategy)({"id": 3, "amount": 4.0, "tip": 5}, context))
    note = JSONSerializer(json.dumps(NOTE), client, conf={"subject.name.strategy": topic_record_subject_name_strategy})
    add(note({"text": "t"}, context))
    time.sleep(1.5)

    def check():
        found = sorted(rows(served, topic), key=lambda row: row["kafka_offset"])
        assert [row["Payment"] for row in found] == [{"tip": None, "id": 1, "amount": 2.0}, None, {"tip": 5, "id": 3, "amount": 4.0}, None]
        assert [row["Note"] for row in found] == [None, None, None, {"text": "t"}]
        now = ids()
        assert now["Payment"][0] == first["Payment"][0] and first["Payment"][1].items() <= now["Payment"][1].items()
        return now

    before = check()
    assert catalog(served).load_table(f"hotset.{topic}").properties["isk.value-format"] == "avro, json"
    assert [row["text"] for row in rows(served, f"{topic}$Note")] == ["t"]
    served.restart()
    assert check() == before


def test_messages_of_one_file(broker, registry, served):
    """Of Protobuf's messages in one subject, those that no other holds are types."""
    records.create_topic(broker.bootstrap, "messages")
    number = records.registry_client(registry.url).register_schema("messages-value", Schema(PROTO, "PROTOBUF"))
    head = struct.pack(">bI", 0, number)
    producer = records.producer(broker.bootstrap)
    for value in [b"\x02\x02\x0a\x02\x08\x07", b"\x02\x04\x0a\x01m", b"\x02\x04\x0a\x01n"]:
        producer.produce("messages", value=head + value)
    assert producer.flush(30) == 0
    assert [row["text"] for row in rows(served, "messages$Memo")] == ["m", "n"]
    assert [row["line"] for row in rows(served, "messages$Bill")] == [{"n": 7}]
    assert [(row["Bill"], row["Memo"]) for row in rows(served, "messages")] == [({"line": {"n": 7}}, None), (None, {"text": "m"}), (None, {"text": "n"})]
    assert "messages$Memo" in {name[1] for name in catalog(served).list_tables("hotset")}
