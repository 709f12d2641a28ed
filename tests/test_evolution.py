"""Schemas that change under way, in each format: columns, rows and field ids after each version, across a restart, and in old snapshots."""

import io
import json
import struct
import time

import fastavro
import pytest
from confluent_kafka.schema_registry import Schema
from stack import clients, records
from stack.isk import Isk

KAFKA = ("kafka_partition", "kafka_offset", "kafka_timestamp", "kafka_timestamp_type", "kafka_key", "kafka_headers")


@pytest.fixture(scope="module")
def evolving(broker, registry):
    """A service of its own: it is restarted."""
    with Isk.beside(broker, registry) as server:
        yield server


# ---- Avro ----------------------------------------------------------------------------------------------------------


def avro_record(name, *fields):
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} | more for n, t, more in fields]}


def optional(ty):
    return ["null", ty], {"default": None}


def avro(schema, value):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


def avro_enum(*symbols):
    return {"type": "enum", "name": "State", "symbols": list(symbols)}


def lists(levels):
    return "int" if levels == 0 else {"type": "array", "items": lists(levels - 1)}


AVRO = [
    (
        avro_record("R", ("id", "int", {}), ("name", "string", {}), ("place", avro_record("P", ("street", "string", {}), ("no", "int", {})), {}), ("state", avro_enum("A", "B"), {}), ("u", ["int", "string"], {}), ("price", "float", {})),
        {"id": 1, "name": "one", "place": {"street": "s1", "no": 1}, "state": "A", "u": 7, "price": 0.5},
    ),
    (  # added (nested too), reordered, promoted (nested too), renamed by alias, symbols and a union grown
        avro_record(
            "R",
            ("title", "string", {"aliases": ["name"]}),
            ("id", "long", {}),
            ("place", avro_record("P", ("no", "long", {}), ("zip", *optional("string")), ("street", "string", {})), {}),
            ("state", avro_enum("A", "B", "C"), {}),
            ("u", ["int", "string", "boolean"], {}),
            ("price", "double", {}),
            ("extra", *optional("int")),
        ),
        {"title": "two", "id": 2**40, "place": {"no": 2**40, "zip": "z", "street": "s2"}, "state": "C", "u": True, "price": 0.25, "extra": 5},
    ),
    (  # removed, and required fields that become optional
        avro_record("R", ("id", *optional("long")), ("place", avro_record("P", ("street", *optional("string"))), {}), ("price", "double", {})),
        {"id": None, "place": {"street": None}, "price": 1.5},
    ),
    (  # and back; what was removed is the same column again
        avro_record("R", ("id", "long", {"default": -1}), ("title", "string", {"default": "-"}), ("place", avro_record("P", ("street", "string", {"default": "-"}), ("no", "long", {"default": -1})), {}), ("price", "double", {})),
        {"id": 4, "title": "four", "place": {"street": "s4", "no": 4}, "price": 2.5},
    ),
]  # fmt: skip
AVRO_SHOWN = [
    [{"id": 1, "name": "one", "place": {"street": "s1", "no": 1}, "state": "A", "u": {"int": 7, "string": None}, "price": 0.5}],
    [
        {"title": "one", "id": 1, "place": {"no": 1, "zip": None, "street": "s1"}, "state": "A", "u": {"int": 7, "string": None, "boolean": None}, "price": 0.5, "extra": None},
        {"title": "two", "id": 2**40, "place": {"no": 2**40, "zip": "z", "street": "s2"}, "state": "C", "u": {"int": None, "string": None, "boolean": True}, "price": 0.25, "extra": 5},
    ],
    [{"id": 1, "place": {"street": "s1"}, "price": 0.5}, {"id": 2**40, "place": {"street": "s2"}, "price": 0.25}, {"id": None, "place": {"street": None}, "price": 1.5}],
    [
        # A writer's null is null, where the reader has no null too.
        {"id": 1, "title": "-", "place": {"street": "s1", "no": 1}, "price": 0.5},
        {"id": 2**40, "title": "two", "place": {"street": "s2", "no": 2**40}, "price": 0.25},
        {"id": None, "title": "-", "place": {"street": None, "no": -1}, "price": 1.5},
        {"id": 4, "title": "four", "place": {"street": "s4", "no": 4}, "price": 2.5},
    ],
]  # fmt: skip
AVRO_REFUSED = avro_record("R", ("id", "long", {}), ("lists", lists(70), {"default": []})), "lists"

# ---- JSON Schema ---------------------------------------------------------------------------------------------------


def json_object(required=(), **properties):
    return {"type": "object", "properties": properties, "required": list(required)}


INTEGER, TEXT, NUMBER = {"type": "integer"}, {"type": "string"}, {"type": "number"}
JSON = [
    (
        json_object(["id"], id=INTEGER, name=TEXT, place=json_object(street=TEXT, no=INTEGER), state={"enum": ["A", "B"]}, u={"oneOf": [INTEGER, {"type": "null"}]}),
        {"id": 1, "name": "one", "place": {"street": "s1", "no": 1}, "state": "A", "u": 7},
    ),
    (  # added (nested too), reordered, a number widened, symbols and a union grown, required that becomes optional
        json_object(name=TEXT, id=INTEGER, place=json_object(no=NUMBER, zip=TEXT, street=TEXT), state={"enum": ["A", "B", "C"]}, u={"oneOf": [INTEGER, TEXT, {"type": "null"}]}, extra={"type": "array", "items": INTEGER}),
        {"name": "two", "place": {"no": 2.5, "zip": "z", "street": "s2"}, "state": "C", "u": "w", "extra": [1, 2]},
    ),
    (json_object(id=INTEGER, place=json_object(street=TEXT)), {"id": 3, "name": "not shown", "place": {"street": "s3"}}),
    (json_object(["id", "name"], id=INTEGER, name=TEXT, place=json_object(street=TEXT, no=NUMBER)), {"id": 4, "name": "four", "place": {"street": "s4", "no": 4}}),
]  # fmt: skip
JSON_SHOWN = [
    [{"id": 1, "name": "one", "place": {"street": "s1", "no": 1}, "state": "A", "u": 7}],
    [
        {"name": "one", "id": 1, "place": {"no": 1.0, "zip": None, "street": "s1"}, "state": "A", "u": "7", "extra": None},
        {"name": "two", "id": None, "place": {"no": 2.5, "zip": "z", "street": "s2"}, "state": "C", "u": '"w"', "extra": [1, 2]},
    ],
    [{"id": 1, "place": {"street": "s1"}}, {"id": None, "place": {"street": "s2"}}, {"id": 3, "place": {"street": "s3"}}],
    [
        {"id": 1, "name": "one", "place": {"street": "s1", "no": 1.0}},
        {"id": None, "name": "two", "place": {"street": "s2", "no": 2.5}},
        # JSON says itself what it has: what this version's schema did not name is there.
        {"id": 3, "name": "not shown", "place": {"street": "s3", "no": None}},
        {"id": 4, "name": "four", "place": {"street": "s4", "no": 4.0}},
    ],
]  # fmt: skip
JSON_REFUSED = json_object(**{"id": INTEGER, "bad\nname": TEXT}), "bad"

# ---- Protobuf ------------------------------------------------------------------------------------------------------


def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


def proto(*fields):
    """Fields as numbers and values."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            value = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def proto_file(fields, place="", enum=""):
    return f'syntax = "proto3"; message M {{ {fields} }} message P {{ string street = 1; {place} }} enum E {{ A = 0; B = 1; {enum} }}'


PROTO = [
    (proto_file("int32 id = 1; string name = 2; P place = 3; E state = 4; oneof pick { int32 x = 5; string y = 6; }", "int32 no = 2;"), proto((1, 1), (2, "one"), (3, proto((1, "s1"), (2, 1))), (4, 1), (5, 7))),
    # Added (nested too), reordered, promoted (nested too), renamed under the same number, an enum and a oneof grown.
    (proto_file("repeated int32 extra = 8; string title = 2; int64 id = 1; P place = 3; E state = 4; oneof pick { bool z = 7; int32 x = 5; string y = 6; }", "string zip = 3; int64 no = 2;", "C = 2;"), proto((2, "two"), (1, 2**40), (3, proto((3, "z"), (2, 2**40))), (4, 2), (7, 1), (8, 5), (8, 6))),
    # Removed; fields get presence.
    (proto_file("optional int64 id = 1; P place = 3;"), proto((3, b""))),
    # And back.
    (proto_file("int64 id = 1; string title = 2; P place = 3;", "int64 no = 2;"), proto((1, 4), (2, "four"), (3, proto((1, "s4"), (2, 4))))),
]  # fmt: skip
PROTO_SHOWN = [
    [{"id": 1, "name": "one", "place": {"street": "s1", "no": 1}, "state": "B", "x": 7, "y": None}],
    [
        {"id": 1, "title": "one", "place": {"street": "s1", "no": 1, "zip": None}, "state": "B", "x": 7, "y": None, "z": None, "extra": None},
        {"id": 2**40, "title": "two", "place": {"street": "", "no": 2**40, "zip": "z"}, "state": "C", "x": None, "y": None, "z": True, "extra": [5, 6]},
    ],
    [{"id": 1, "place": {"street": "s1"}}, {"id": 2**40, "place": {"street": ""}}, {"id": None, "place": {"street": ""}}],
    [
        {"id": 1, "title": "one", "place": {"street": "s1", "no": 1}},
        {"id": 2**40, "title": "two", "place": {"street": "", "no": 2**40}},
        # What the writer's schema did not have is null.
        {"id": None, "title": None, "place": {"street": "", "no": None}},
        {"id": 4, "title": "four", "place": {"street": "s4", "no": 4}},
    ],
]  # fmt: skip
# 2^15 fields.
PROTO_REFUSED = 'syntax = "proto3"; message M { Wide0 wide = 1; } message Wide15 { int32 n = 1; }' + "".join(
    f" message Wide{n} {{ Wide{n + 1} a = 1; Wide{n + 1} b = 2; }}" for n in range(15)
), "Wide"  # fmt: skip

HISTORIES = {
    "AVRO": (AVRO, AVRO_SHOWN, AVRO_REFUSED, avro),
    "JSON": (JSON, JSON_SHOWN, JSON_REFUSED, lambda schema, value: json.dumps(value).encode()),
    # The first message of its file.
    "PROTOBUF": (PROTO, PROTO_SHOWN, PROTO_REFUSED, lambda schema, value: b"\x00" + value),
}

# By format: fields that have a new id although there is one of their name, by version; JSON has no way to widen a long to a double,
# nor a number to a text, and Avro's unions and Protobuf's numbers keep theirs.
NEW_IDS = {"AVRO": {}, "JSON": {1: {"place.no", "u"}}, "PROTOBUF": {}}
# New names of old columns.
RENAMED = {"AVRO": {"title": "name"}, "JSON": {}, "PROTOBUF": {"title": "name"}}


def load(isk, topic):
    return clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"hotset.{topic}")


def field_ids(fields, prefix=""):
    out = {}
    for field in fields:
        if field.name not in KAFKA:
            out[prefix + field.name] = field.field_id
            out |= field_ids(getattr(field.field_type, "fields", ()), f"{prefix}{field.name}.")
    return out


def shown(table, snapshot=None):
    rows = table.scan(snapshot_id=snapshot).to_arrow().sort_by("kafka_offset").to_pylist()
    return [{name: value for name, value in row.items() if name not in KAFKA} for row in rows]


def lenient(rows):
    """An absent list of Protobuf is empty, which PyIceberg may show as null."""
    return [{name: None if value == [] else value for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("format", HISTORIES)
def test_a_schema_changes_under_way(broker, registry, evolving, format):
    history, expected, (refused, named), encode = HISTORIES[format]
    topic, client = f"evolving_{format.lower()}", records.registry_client(registry.url)
    records.create_topic(broker.bootstrap, topic)
    producer = records.producer(broker.bootstrap)
    known, snapshots = {}, []

    def write(schema, payload):
        text = schema if isinstance(schema, str) else json.dumps(schema)
        number = client.register_schema(f"{topic}-value", Schema(text, format))
        producer.produce(topic, value=struct.pack(">bI", 0, number) + payload)
        assert producer.flush(30) == 0
        # An answer about a subject's versions is up to a second old.
        time.sleep(1.3)
        load(evolving, topic)
        time.sleep(0.2)

    for version, ((schema, value), want) in enumerate(zip(history, expected, strict=True)):
        write(schema, encode(schema, value))
        table = load(evolving, topic)
        assert lenient(shown(table)) == want, version
        assert [name for name in field_ids(table.schema().fields) if "." not in name] == list(want[0]), version
        ids = field_ids(table.schema().fields)
        for name, number in ids.items():
            before = known.get(name, known.get(RENAMED[format].get(name)))
            if before and name not in NEW_IDS[format].get(version, ()):
                assert number == before, (version, name)
            elif name in known:
                assert number != known[name], (version, name)
        assert len(set(ids.values())) == len(ids)
        known |= ids
        snapshots.append((table.metadata.current_snapshot_id, want))
        # Snapshots keep the schema that they were made with.
        for snapshot, had in snapshots:
            assert lenient(shown(table, snapshot)) == had, (version, snapshot)

    def stays(rows):
        table = load(evolving, topic)
        assert field_ids(table.schema().fields) == ids
        assert lenient(shown(table)) == rows
        return table

    # What can be no table is refused by name, and the table stays as it was.
    write(refused, encode(refused, {"id": 9, "lists": []}) if format != "PROTOBUF" else encode(refused, b""))
    # A record of it is shown where its schema can be read at all: JSON's, of which a name can be no column's.
    rows = [*expected[-1], dict.fromkeys(expected[-1][0]) | ({"id": 9} if format == "JSON" else {})]
    assert named in stays(rows).properties["isk.schema-refused"]
    errors = clients.pyiceberg_catalog(evolving.catalog_uri).load_table(f"errors.{topic}").scan().to_arrow().to_pylist()
    assert [row["stage"] for row in errors] == ([] if format == "JSON" else ["resolution"])
    evolving.restart()
    stays(rows)
    # The next good version heals it.
    schema, value = history[-1]
    if format == "AVRO":
        better = schema | {"fields": [*schema["fields"], {"name": "more", "type": ["null", "int"], "default": None}]}
    elif format == "JSON":
        better = schema | {"properties": schema["properties"] | {"more": INTEGER}}
    else:
        better = schema.replace("message M {", "message M { optional int32 more = 20;")
    write(better, encode(better, value))
    healed = load(evolving, topic)
    assert "isk.schema-refused" not in healed.properties
    assert lenient(shown(healed)) == [row | {"more": None} for row in [*rows, expected[-1][-1]]]
    assert ids.items() <= field_ids(healed.schema().fields).items()
