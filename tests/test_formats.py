"""Topics in other formats than Avro, as Confluent's own serializers write them, read by engines and by Confluent's own deserializer."""

import datetime
import json
import random
import struct
import subprocess
import uuid

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2, wrappers_pb2
from stack import records
from stack.canonical import checksums

FIELD = descriptor_pb2.FieldDescriptorProto

MONEY = {"$id": "http://example.org/money.json", "type": "object", "properties": {"amount": {"type": "number"}, "currency": {"type": "string"}}}

ORDER = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "$id": "http://example.org/order.json",
    "title": "Order",
    "type": "object",
    "definitions": {"line": {"type": "object", "properties": {"sku": {"type": "string"}, "count": {"type": "integer"}}}},
    "properties": {
        "id": {"type": "integer"},
        "paid": {"type": "boolean"},
        "note": {"oneOf": [{"type": "null"}, {"type": "string"}]},
        "state": {"enum": ["new", "done"]},
        "at": {"type": "string", "format": "date-time"},
        "day": {"type": "string", "format": "date"},
        "uid": {"type": "string", "format": "uuid"},
        "price": {"$ref": "money.json"},
        "lines": {"type": "array", "items": {"$ref": "#/definitions/line"}},
        "scores": {"type": "object", "additionalProperties": {"type": "number"}},
        "free": {},
    },
    "required": ["id"],
}

COLUMNS = tuple(ORDER["properties"])

# The columns that all engines are asked for, of JSON's topic and of Protobuf's.
JSON_KINDS = {
    "id": "long", "paid": "boolean", "note": "string", "state": "string", "at": "timestamptz", "day": "date", "uid": "uuid",
    "price": {"amount": "double", "currency": "string"}, "lines": [{"sku": "string", "count": "long"}], "scores": ("map", "double"),
}  # fmt: skip
PROTO_KINDS = {
    "id": "long", "big": "decimal(20, 0)", "paid": "boolean", "state": "string", "at": "timestamptz", "price": {"units": "long", "currency": "string"},
    "lines": [{"sku": "string", "count": "long"}], "numbers": ["int"], "counts": ("map", "double"), "note": "string", "word": "string", "number": "long",
    "raw": "binary",
}  # fmt: skip


def four_engines_agree(topic, kinds, want, pyiceberg, duckdb, spark, trino):
    """The columns as Spark, Trino, DuckDB and PyIceberg show them, nested ones too, are those of the values (None is a tombstone)."""
    expected = checksums(kinds, [value or dict.fromkeys(kinds) for value in want], nested_nulls=False)
    names, table = list(kinds), f"isk.hotset.{topic}"
    arrow = pyiceberg.load_table(f"hotset.{topic}").scan(selected_fields=tuple(names)).to_arrow()
    found = {
        "spark": [tuple(row) for row in spark.sql(f"SELECT {', '.join(f'`{name}`' for name in names)} FROM {table}").collect()],
        "trino": trino.query(f"SELECT {quoted(names)} FROM {table}"),
        "duckdb": duckdb.execute(f"SELECT {quoted(names)} FROM {table}").fetchall(),
        "pyiceberg": list(zip(*(arrow[name].to_pylist() for name in names), strict=True)),
    }
    for engine, rows in found.items():
        assert checksums(kinds, rows, nested_nulls=False) == expected, engine


def order(n):
    """Properties are missing, null and reordered now and then."""
    start = datetime.datetime(2024, 5, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=n % 5 - 2)))
    value = {
        "id": 2**62 + n,
        "paid": n % 2 == 0,
        "note": None if n % 3 == 0 else f"näh {n}\n\"\\ \U0001f600",
        "state": "new",
        "at": (start + datetime.timedelta(seconds=n, microseconds=n)).isoformat(),
        "day": f"20{n % 100:02}-02-0{n % 9 + 1}",
        "uid": str(uuid.UUID(int=n << 64 | n)),
        "price": {"amount": n / 7, "currency": "EUR"},
        "lines": [{"sku": f"s{i}", "count": i} for i in range(n % 4)],
        "scores": {f"k{i}": i / 3 for i in range(n % 3)},
        "free": [None, {"a": n}, [1.5, "x"], n, f"text {n}", {"deep": [{"b": None}]}][n % 6],
    }
    if n % 7 == 0:
        del value["lines"], value["price"]
    return dict(reversed(value.items())) if n % 5 == 0 else value


def shown(value):
    """The row of a value that the independent deserializer read."""
    row = {name: value.get(name) for name in COLUMNS}
    row["at"] = datetime.datetime.fromisoformat(row["at"])
    row["day"] = datetime.date.fromisoformat(row["day"])
    row["uid"] = uuid.UUID(row["uid"])
    return row


@pytest.fixture
def orders(registry):
    """The serializers of values and keys, and the deserializer of values, of a topic whose schema refers to another."""
    client = records.registry_client(registry.url)
    client.register_schema("money", Schema(json.dumps(MONEY), "JSON"))
    schema = Schema(json.dumps(ORDER), "JSON", [SchemaReference("money.json", "money", 1)])
    key = JSONSerializer(json.dumps({"title": "Key", "type": "object", "properties": {"n": {"type": "integer"}}}), client)
    return JSONSerializer(schema, client), key, JSONDeserializer(schema, schema_registry_client=client)


def test_json_schema(broker, orders, pyiceberg, duckdb, spark, trino, make_topic):
    serialize, serialize_key, deserialize = orders
    topic = make_topic(2)
    key = SerializationContext(topic, MessageField.KEY)
    records.produce(records.producer(broker.bootstrap), topic, [*map(order, range(500)), None], serialize=serialize, key=lambda v: serialize_key({"n": v["id"]} if v else None, key))
    context = SerializationContext(topic, MessageField.VALUE)
    want = {}
    for record in records.read_topic(broker.bootstrap, topic):
        value = None if record.value is None else shown(deserialize(record.value, context))
        want[record.partition, record.offset] = value

    types = {field.name: str(field.field_type) for field in pyiceberg.load_table(f"hotset.{topic}").schema().fields}
    assert {name: types[name] for name in ("id", "paid", "note", "at", "day", "uid", "free")} == {
        "id": "long", "paid": "boolean", "note": "string", "at": "timestamptz", "day": "date", "uid": "uuid", "free": "string"
    }  # fmt: skip
    assert types["kafka_key"].startswith("struct<")
    got = pyiceberg.load_table(f"hotset.{topic}").scan().to_arrow().to_pylist()
    # PyIceberg gives an empty list where a list of structs is null: there, both are taken for the same.
    differing = [(where, row, want[where]) for where, row in rows(got).items() if listed(row) != listed(want[where])]
    assert not differing, differing[:2]
    assert {row["kafka_key"]["n"] for row in got if row["kafka_key"]} == {2**62 + n for n in range(500)}
    columns = quoted(COLUMNS)
    found = duckdb.execute(f"SELECT kafka_partition, kafka_offset, {columns} FROM isk.hotset.{topic}")
    names = ("kafka_partition", "kafka_offset", *COLUMNS)
    assert rows([dict(zip(names, row, strict=True)) for row in found.fetchall()]) == want
    query = f"SELECT count(*), sum(id - {2**62}), sum(price.amount), sum(len(lines)) FROM isk.hotset.{topic}"
    values = [value for value in want.values() if value]
    count, ids, amount, lines = duckdb.execute(query).fetchone()
    assert (count, ids) == (501, sum(value["id"] - 2**62 for value in values))
    assert lines == sum(len(value["lines"] or []) for value in values)
    assert amount == pytest.approx(sum(value["price"]["amount"] for value in values if value["price"]))
    four_engines_agree(topic, JSON_KINDS, want.values(), pyiceberg, duckdb, spark, trino)


def quoted(names):
    return ", ".join(f'"{name}"' for name in names)


def listed(row):
    return row and row | {"lines": row["lines"] or []}


def rows(found):
    """Rows as the deserializer's values; a row of nulls is a tombstone."""
    out = {}
    for row in found:
        value = {name: row[name] for name in COLUMNS}
        if isinstance(value["scores"], list):
            value["scores"] = dict(value["scores"])
        if value["free"] is not None:
            value["free"] = json.loads(value["free"])
        if isinstance(value["uid"], bytes):
            value["uid"] = uuid.UUID(bytes=value["uid"])
        out[row["kafka_partition"], row["kafka_offset"]] = value if value["id"] is not None else None
    return out


def test_json_poison_among_good_records(broker, registry, isk, pyiceberg, duckdb, make_topic):
    """What the schema does not allow, a producer that does not validate writes all the same."""
    topic = make_topic()
    schema = {"title": "N", "type": "object", "properties": {"n": {"type": "integer"}, "word": {"type": "string"}}}
    serialize = JSONSerializer(json.dumps(schema), records.registry_client(registry.url), conf={"validate": False})
    poison = {3: {"n": "3"}, 5: {"n": 5.5}, 8: {"n": 2**63}, 13: {"n": 1, "word": 7}, 21: [1]}
    records.produce(records.producer(broker.bootstrap), topic, [poison.get(n, {"n": n, "word": f"w{n}", "more": n}) for n in range(100)], serialize=serialize)
    want = [(n, None, None) if n in poison else (n, n, f"w{n}") for n in range(100)]
    assert duckdb.execute(f"SELECT kafka_offset, n, word FROM isk.hotset.{topic} ORDER BY 1").fetchall() == want
    table = pyiceberg.load_table(f"hotset.{topic}").scan(selected_fields=("kafka_offset", "n", "word")).to_arrow()
    assert sorted(zip(*(table[c].to_pylist() for c in ("kafka_offset", "n", "word")), strict=True)) == want
    log = [line for line in isk.log_text().splitlines() if topic in line and "did not decode" in line]
    assert any("field n: a text is found where a whole number belongs" in line for line in log), log


# ---- kcat


def kcat(broker, topic, *options, text=None):
    subprocess.run(["kcat", "-P", "-b", broker.bootstrap, "-t", topic, *options], input=text, check=True, timeout=30, stderr=subprocess.PIPE)


def test_what_kcat_writes(broker, duckdb, make_topic, tmp_path):
    """JSON lines, with keys, headers and compression and a tombstone; lines of text; a file of any bytes."""
    topic = make_topic()
    lines = [f'k{n}\t{json.dumps({"n": n, "word": f"nä {n}", "place": {"x": n / 4}})}' for n in range(200)]
    kcat(broker, topic, "-K", "\t", "-Z", "-z", "snappy", "-H", "from=kcat", text="\n".join([*lines, "gone\t"]).encode())
    found = duckdb.execute(f"SELECT kafka_key, n, word, place.x, kafka_headers[1].key, kafka_headers[1].value FROM isk.hotset.{topic} ORDER BY kafka_offset").fetchall()
    assert found == [(f"k{n}".encode(), n, f"nä {n}", n / 4, "from", b"kcat") for n in range(200)] + [(b"gone", None, None, None, "from", b"kcat")]

    texts, raw = make_topic(), make_topic()
    words = [f"plain text, line {n}" for n in range(50)]
    kcat(broker, texts, text="\n".join(words).encode())
    assert duckdb.execute(f"SELECT kafka_value FROM isk.hotset.{texts} ORDER BY kafka_offset").fetchall() == [(word.encode(),) for word in words]
    file = tmp_path / "bytes"
    file.write_bytes(b"\0" + random.Random(1).randbytes(5000))
    kcat(broker, raw, str(file))
    assert duckdb.execute(f"SELECT kafka_value FROM isk.hotset.{raw}").fetchall() == [(file.read_bytes(),)]


# ---- Protobuf


def proto_file(name, package, messages, dependencies=(), enums=()):
    """A file's descriptor, as the compiler would write it: messages are {name: [(field, number, type, options)]}."""
    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3", dependency=list(dependencies))
    for enum, values in enums:
        file.enum_type.add(name=enum, value=[descriptor_pb2.EnumValueDescriptorProto(name=v, number=n) for v, n in values])
    for message, fields in messages.items():
        made = file.message_type.add(name=message)
        if any("oneof" in options for *_, options in fields):
            made.oneof_decl.add(name="choice")
        for field, number, kind, options in fields:
            label = FIELD.LABEL_REPEATED if options.get("repeated") else FIELD.LABEL_OPTIONAL
            added = made.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = (FIELD.TYPE_ENUM if options.get("enum") else FIELD.TYPE_MESSAGE), kind
            else:
                added.type = kind
            if "oneof" in options:
                added.oneof_index = 0
            if "map" in options:
                entry = made.nested_type.add(name=field.capitalize() + "Entry")
                entry.options.map_entry = True
                entry.field.add(name="key", number=1, type=FIELD.TYPE_STRING, label=FIELD.LABEL_OPTIONAL)
                entry.field.add(name="value", number=2, type=options["map"], label=FIELD.LABEL_OPTIONAL)
    return file


@pytest.fixture(scope="module")
def shop():
    """The class of a message that stands second in its file and imports another file."""
    pool = descriptor_pool.DescriptorPool()
    for known in (timestamp_pb2, wrappers_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    plain, repeated = {}, {"repeated": True}
    pool.Add(proto_file("shop/money.proto", "shop", {"Money": [("units", 1, FIELD.TYPE_SINT64, plain), ("currency", 2, FIELD.TYPE_STRING, plain)]}))
    order = [
        ("id", 1, FIELD.TYPE_INT64, plain),
        ("big", 2, FIELD.TYPE_UINT64, plain),
        ("paid", 3, FIELD.TYPE_BOOL, plain),
        ("state", 4, ".shop.State", {"enum": True}),
        ("at", 5, ".google.protobuf.Timestamp", plain),
        ("price", 6, ".shop.Money", plain),
        ("lines", 7, ".shop.Line", repeated),
        ("numbers", 8, FIELD.TYPE_INT32, repeated),
        ("counts", 9, ".shop.Order.CountsEntry", {"repeated": True, "map": FIELD.TYPE_DOUBLE}),
        ("note", 10, ".google.protobuf.StringValue", plain),
        ("word", 11, FIELD.TYPE_STRING, {"oneof": True}),
        ("number", 12, FIELD.TYPE_FIXED32, {"oneof": True}),
        ("raw", 13, FIELD.TYPE_BYTES, plain),
    ]
    line = [("sku", 1, FIELD.TYPE_STRING, plain), ("count", 2, FIELD.TYPE_UINT32, plain)]
    imports = ["shop/money.proto", "google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"]
    pool.Add(proto_file("shop/order.proto", "shop", {"Line": line, "Order": order}, imports, [("State", [("NEW", 0), ("DONE", 1)])]))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))


PROTO_COLUMNS = ("id", "big", "paid", "state", "at", "price", "lines", "numbers", "counts", "note", "word", "number", "raw")


def proto_order(shop, n):
    order = shop(id=n - 100, big=2**64 - 1 - n, paid=n % 2 == 0, state=n % 3, numbers=range(n % 4), counts={f"k{i}": i / 3 for i in range(n % 3)}, raw=bytes([n % 256]) * (n % 5))
    for i in range(n % 3):
        order.lines.add(sku=f"sü{i}", count=2**32 - 1 - i)
    if n % 5:
        order.at.FromMicroseconds(1_700_000_000_000_000 + n - n % 2 * 3 * 10**15)
        order.price.units, order.price.currency = -n, "EUR"
    if n % 4:
        order.note.value = "" if n % 4 == 1 else f"note {n}"
    if n % 7 == 1:
        order.word = ""
    elif n % 7 > 1:
        order.number = n
    return order


def proto_shown(value):
    """The row of a message, by the fields of the class."""
    fields = {name: getattr(value, name) for name in PROTO_COLUMNS}
    for name in ("at", "price", "note", "word", "number"):
        if not value.HasField(name):
            fields[name] = None
    return fields | {
        "state": {0: "NEW", 1: "DONE"}.get(value.state, str(value.state)),
        "at": value.at.ToDatetime(datetime.UTC) if value.HasField("at") else None,
        "price": {"units": value.price.units, "currency": value.price.currency} if value.HasField("price") else None,
        "lines": [{"sku": line.sku, "count": line.count} for line in value.lines],
        "numbers": list(value.numbers),
        "counts": dict(value.counts),
        "note": value.note.value if value.HasField("note") else None,
    }


@pytest.mark.parametrize("text", [False, True], ids=["descriptor", "text"])
def test_protobuf(broker, registry, shop, pyiceberg, duckdb, spark, trino, make_topic, text):
    """Registered by Confluent's serializer, as the descriptor that it sends, or before that as text, as Java producers do."""
    topic = make_topic(2)
    client = records.registry_client(registry.url)
    serialize = ProtobufSerializer(shop, client, conf={"use.deprecated.format": False})
    if text:
        # The Python serializer cannot go by a text: its framing is made here, with the path of the second message.
        number = client.register_schema(f"{topic}-value", Schema(PROTO_TEXT, "PROTOBUF"))

        def serialize(value, _):
            return struct.pack(">bI", 0, number) + b"\x02\x02" + value.SerializeToString()

    values = [proto_order(shop, n) for n in range(300)]
    records.produce(records.producer(broker.bootstrap), topic, [*values, None], serialize=serialize)
    read = ProtobufDeserializer(shop, {"use.deprecated.format": False})
    context = SerializationContext(topic, MessageField.VALUE)
    want = {}
    for record in records.read_topic(broker.bootstrap, topic):
        want[record.partition, record.offset] = None if record.value is None else proto_shown(read(record.value, context))
    got = pyiceberg.load_table(f"hotset.{topic}").scan().to_arrow().to_pylist()
    differing = [(where, row, want.get(where)) for where, row in proto_rows(got).items() if row != want.get(where)]
    assert not differing and len(got) == len(want), differing[:2]
    names = ("kafka_partition", "kafka_offset", *PROTO_COLUMNS)
    found = duckdb.execute(f"SELECT {quoted(names)} FROM isk.hotset.{topic}").fetchall()
    assert proto_rows([dict(zip(names, row, strict=True)) for row in found]) == want
    four_engines_agree(topic, PROTO_KINDS, want.values(), pyiceberg, duckdb, spark, trino)


def proto_rows(found):
    out = {}
    for row in found:
        value = {name: row[name] for name in PROTO_COLUMNS}
        if isinstance(value["counts"], list):
            value["counts"] = dict(value["counts"])
        out[row["kafka_partition"], row["kafka_offset"]] = value if value["id"] is not None else None
    return out


PROTO_TEXT = """
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum State { NEW = 0; DONE = 1; }
message Line { string sku = 1; uint32 count = 2; }
message Order {
  int64 id = 1; uint64 big = 2; bool paid = 3; State state = 4;
  google.protobuf.Timestamp at = 5; Money price = 6; repeated Line lines = 7; repeated int32 numbers = 8;
  map<string, double> counts = 9; google.protobuf.StringValue note = 10;
  oneof choice { string word = 11; fixed32 number = 12; }
  bytes raw = 13;
}
message Money { sint64 units = 1; string currency = 2; }
"""
