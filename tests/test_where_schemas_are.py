"""Schemas that headers name, that the configuration gives, or that a subject of another name has; and newest schemas that can be no table."""

import contextlib
import io
import json
import os
import struct
import subprocess
import time
import uuid

import fastavro
import pytest
import requests
from confluent_kafka.schema_registry import Schema, record_subject_name_strategy
from confluent_kafka.serialization import DoubleSerializer, IntegerSerializer, StringSerializer
from google.protobuf import wrappers_pb2
from stack import clients, records
from stack.isk import Isk, binary
from stack.proxy import Proxy

AVRO = {"type": "record", "name": "Reading", "namespace": "test", "fields": [{"name": "n", "type": "long"}, {"name": "word", "type": ["null", "string"]}]}
JSON_SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}, "word": {"type": "string"}}}
PROTO = 'syntax = "proto3"; message Other { bool b = 1; } message Int64Value { int64 value = 1; Other other = 2; }'
GUIDS = {}


def in_avro(value):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, AVRO, value)
    return out.getvalue()


class GuidRegistry(Proxy):
    """Knows schemas by GUID too, as newer registries do: those in `GUIDS`."""

    def answer(self, path):
        guid = path.rpartition("/schemas/guids/")[2]
        return super().answer(path.replace(f"/guids/{guid}", f"/ids/{GUIDS[guid]}") if guid in GUIDS else path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schemas")
    (folder / "reading.avsc").write_text(json.dumps(AVRO))
    (folder / "reading.json").write_text(json.dumps(JSON_SCHEMA))
    (folder / "number.proto").write_text(PROTO)
    (folder / "isk.toml").write_text(
        f"""
        [formats]
        topics = [
            {{ topic = 'bare_avro', value = "avro", value_schema_file = "{folder}/reading.avsc", key = "int" }},
            {{ topic = 'bare_json', value = "json", value_schema_file = "{folder}/reading.json", key = "string" }},
            {{ topic = 'bare_proto', value = "protobuf", value_schema_file = "{folder}/number.proto", key = "uuid" }},
            {{ topic = 'words.*', value = "string", key = "double" }},
            {{ topic = 'of_record', value_subject = "test.Reading" }},
            {{ topic = 'as_bytes', value = "bytes" }},
        ]
        """
    )
    return folder


@pytest.fixture(scope="module")
def named(broker, registry, files):
    """A service with formats configured, over a registry that knows GUIDs."""
    with contextlib.closing(GuidRegistry(registry.url)) as proxy:
        with Isk(
            {"ISK_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap, "ISK_REGISTRY_URL": proxy.url}, ["--config", str(files / "isk.toml")]
        ) as server:
            yield server


def produce(broker, topic, messages):
    """Records of (key, value, headers)."""
    records.create_topic(broker.bootstrap, topic)
    producer = records.producer(broker.bootstrap)
    for key, value, headers in messages:
        producer.produce(topic, key=key, value=value, headers=headers)
    assert producer.flush(30) == 0


def table(isk, topic):
    return clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"hotset.{topic}")


def rows(isk, topic, *columns):
    """By PyIceberg, and the same by DuckDB."""
    arrow = table(isk, topic).scan().to_arrow().sort_by("kafka_offset")
    found = list(zip(*(arrow[column].to_pylist() for column in columns), strict=True))
    with clients.duckdb_connection(isk.catalog_uri) as duckdb:
        assert duckdb.execute(f"SELECT {', '.join(columns)} FROM isk.hotset.{topic} ORDER BY kafka_offset").fetchall() == found
    return found


@pytest.mark.parametrize("format", ["AVRO", "JSON", "PROTOBUF"])
def test_headers_name_the_schema(broker, registry, named, format):
    """By its id or its GUID; records of both kinds and framed ones stand side by side."""
    topic = f"headers_{format.lower()}"
    text = {"AVRO": json.dumps(AVRO), "JSON": json.dumps(JSON_SCHEMA), "PROTOBUF": PROTO}[format]
    number = records.registry_client(registry.url).register_schema(f"{topic}-value", Schema(text, format))
    guid = uuid.uuid4()
    GUIDS[str(guid)] = number
    # Protobuf's message is the second of its file: the path of it stands behind the id.
    path = b"\x02\x02" if format == "PROTOBUF" else b""
    by_id, by_guid = struct.pack(">bI", 0, number) + path, b"\x01" + guid.bytes + path

    def payload(n):
        value = {"n": n, "word": f"w{n}"}
        return {"AVRO": in_avro, "JSON": lambda v: json.dumps(v).encode(), "PROTOBUF": lambda v: wrappers_pb2.Int64Value(value=v["n"]).SerializeToString()}[format](value)

    messages = []
    for n in range(300):
        header = [("trace", b"x"), ("__value_schema_id", (by_id, by_guid)[n % 2])]
        messages.append((None, by_id + payload(n), None) if n % 3 == 0 else (None, payload(n), header))
    # A GUID that nobody knows is no row's end, and no other's.
    messages.append((None, payload(300), [("__value_schema_id", b"\x01" + b"?" * 16)] if format == "AVRO" else [("__value_schema_id", b"\x07")]))
    produce(broker, topic, messages)
    if format == "AVRO":
        GUIDS[str(uuid.UUID(bytes=b"?" * 16))] = 2_000_000_000
    if format == "PROTOBUF":
        assert rows(named, topic, "value") == [*((n,) for n in range(300)), (None,)]
    else:
        assert rows(named, topic, "n", "word") == [*((n, f"w{n}") for n in range(300)), (None, None)]
    assert table(named, topic).properties["isk.value-format"] == format.lower()


def test_bare_values_and_plain_keys(broker, named):
    """What the bytes are, the configuration alone says; a truncated value is a row of nulls."""
    values = [{"n": n, "word": None if n % 3 == 0 else f"w{n}"} for n in range(100)]
    integer, text, double = IntegerSerializer(), StringSerializer(), DoubleSerializer()
    produce(broker, "bare_avro", [(integer(v["n"] - 50), in_avro(v), None) for v in values] + [(b"\x01", b"\x02", None), (None, None, None)])
    assert rows(named, "bare_avro", "kafka_key", "n", "word") == [*((v["n"] - 50, v["n"], v["word"]) for v in values), (None, None, None), (None, None, None)]
    assert {"isk.value-format": "bare avro", "isk.key-format": "int"}.items() <= table(named, "bare_avro").properties.items()

    produce(broker, "bare_json", [(text(f"k{v['n']}"), json.dumps(v).encode(), None) for v in values])
    assert rows(named, "bare_json", "kafka_key", "n", "word") == [(f"k{v['n']}", v["n"], v["word"]) for v in values]

    ids = [uuid.UUID(int=n << 70) for n in range(100)]
    produce(broker, "bare_proto", [(str(id).encode(), wrappers_pb2.Int64Value(value=n).SerializeToString(), None) for n, id in enumerate(ids)])
    assert [(uuid.UUID(bytes=k) if isinstance(k, bytes) else k, v) for k, v in rows(named, "bare_proto", "kafka_key", "value")] == list(zip(ids, range(100), strict=True))

    produce(broker, "words_1", [(double(n / 7), text(f"wört {n}"), None) for n in range(100)] + [(None, b"\xff", None)])
    assert rows(named, "words_1", "kafka_key", "value") == [*((n / 7, f"wört {n}") for n in range(100)), (None, None)]
    environment = os.environ | named.environment() | {"ISK_PORT": "0", "ISK_CATALOG_PORT": "0"}
    check = subprocess.run([binary(), "check", *named.arguments], env=environment, cwd=named.work, capture_output=True, text=True, check=True)
    assert "topic words_1: values string, keys double" in check.stdout
    produce(broker, "as_bytes", [(None, b"\x00\x01", None)])
    assert rows(named, "as_bytes", "kafka_value") == [(b"\x00\x01",)]


def test_a_subject_of_another_name(broker, registry, named):
    """RecordNameStrategy: the subject is the record's name."""
    serialize = records.avro_serializer(registry.url, AVRO, **{"subject.name.strategy": record_subject_name_strategy})
    records.create_topic(broker.bootstrap, "of_record")
    records.produce(records.producer(broker.bootstrap), "of_record", [{"n": n, "word": None} for n in range(50)], serialize=serialize)
    assert rows(named, "of_record", "n") == [(n,) for n in range(50)]


def test_a_table_stays_at_its_last_good_schema(broker, registry, named):
    """A version of lists within lists beyond bounds is refused by name; what was written with it are rows of nulls, the rest stays; the next heals it."""
    topic, client = "last_good", records.registry_client(registry.url)
    first, good, healed = {"n": 1, "word": "a"}, {"n": 2, "word": "b", "lists": []}, {"n": 3, "word": "c", "more": 4}
    lists = "int"
    for _ in range(70):
        lists = {"type": "array", "items": lists}
    deep = AVRO | {"fields": [*AVRO["fields"], {"name": "lists", "type": lists, "default": []}]}
    grown = AVRO | {"fields": [*AVRO["fields"], {"name": "more", "type": ["null", "int"], "default": None}]}
    framed = []
    for schema, values in ((AVRO, [first]), (deep, [good]), (grown, [healed])):
        number = client.register_schema(f"{topic}-value", Schema(json.dumps(schema), "AVRO"))
        framed.append((number, schema, values))
        for value in values:
            out = io.BytesIO()
            fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
            if len(framed) == 1:
                produce(broker, topic, [(None, struct.pack(">bI", 0, number) + out.getvalue(), None)])
            else:
                producer = records.producer(broker.bootstrap)
                producer.produce(topic, value=struct.pack(">bI", 0, number) + out.getvalue())
                assert producer.flush(30) == 0
        if len(framed) == 1:
            assert rows(named, topic, "n", "word") == [(1, "a")]
            ids = [field.field_id for field in table(named, topic).schema().fields]
        if len(framed) == 2:
            wait_for_the_registrys_answer_to_age(named, topic)
            assert rows(named, topic, "n", "word") == [(1, "a"), (None, None)]
            refused = table(named, topic)
            assert "64 levels" in refused.properties["isk.schema-refused"] and "lists" in refused.properties["isk.schema-refused"]
            assert [field.field_id for field in refused.schema().fields] == ids
            answer = requests.get(f"{named.catalog_uri}/metrics", timeout=10).text
            assert any(topic in line for line in answer.splitlines() if line.startswith("isk_decode_failures_total"))
            named.restart()
            assert rows(named, topic, "n", "word") == [(1, "a"), (None, None)]
    wait_for_the_registrys_answer_to_age(named, topic)
    assert rows(named, topic, "n", "word", "more") == [(1, "a", None), (None, None, None), (3, "c", 4)]
    healthy = table(named, topic)
    assert "isk.schema-refused" not in healthy.properties
    assert [field.field_id for field in healthy.schema().fields][:2] == ids[:2]


def wait_for_the_registrys_answer_to_age(isk, topic):
    """An answer about a subject's versions is up to a second old."""
    time.sleep(1.5)
    table(isk, topic)
