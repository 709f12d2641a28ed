"""Kafka to Parquet by format: the service's CPU time at first touch of topics that hold the same rows in Avro, JSON and Protobuf.

`tests/bench/run --only formats`. Records a second are those of one core; the last column is the share of Avro's.
"""

from __future__ import annotations

import base64
import io
import json
import random
import uuid
from collections.abc import Callable
from typing import Any

import fastavro
from confluent_kafka.schema_registry import Schema
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from stack import records

from .rig import Rig
from .stages import first_touch
from .topics import DISTINCT, KINDS, Topic, produce, values_file

# In "json-rest" every third field at the top has no column: all of these are in the column of the rest.
FORMATS = ("avro", "json", "json-rest", "protobuf")
# Formats are compared by the record: so many at the most.
MOST = {"narrow": 1_000_000, "wide": 400_000}
FIELD = descriptor_pb2.FieldDescriptorProto
SCALARS = {"string": FIELD.TYPE_STRING, "long": FIELD.TYPE_INT64, "int": FIELD.TYPE_INT32, "double": FIELD.TYPE_DOUBLE, "boolean": FIELD.TYPE_BOOL}


def run(rig: Rig, rounds: int) -> dict[str, Any]:
    """For each kind of topic and each format: bytes a record, the fastest round's CPU seconds, records a second, and their share of Avro's."""
    results: dict[str, Any] = {}
    for kind, size in rig.sizes.items():
        of_kind, count = results.setdefault(kind, {}), min(size, MOST[kind])
        for format in FORMATS:
            topic = fill(rig, kind, format, count)
            cpu = min(first_touch(rig, topic, 1)["cpu_s"]["isk"] for _ in range(rounds))
            of_kind[format] = {"records": count, "bytes_per_record": topic.bytes_per_record, "cpu_s": cpu, "records_per_cpu_s": count / cpu}
            share = of_kind[format]["of_avro"] = of_kind["avro"]["cpu_s"] / cpu
            print(f"{kind}, {format}: {topic.bytes_per_record:.0f} B, {count / cpu / 1e6:.2f} M records/s per core, {share:.2f} of Avro's", flush=True)
    return results


def fill(rig: Rig, kind: str, format: str, count: int) -> Topic:
    """A topic of one partition with `count` records of a format."""
    schema, make = KINDS[kind]
    name = records.create_topic(rig.broker.bootstrap, f"{kind}_{format}", 1, {"retention.ms": "-1"})
    text, encode, prefix = {"avro": avro, "json": as_json, "json-rest": with_rest, "protobuf": protobuf}[format](schema)
    number = records.registry_client(rig.registry.url).register_schema(f"{name}-value", Schema(text, format.partition("-")[0].upper()))
    header, rnd = b"\0" + number.to_bytes(4, "big") + prefix, random.Random(7)
    bodies = [header + encode(make(n, rnd) | {"id": str(uuid.UUID(int=rnd.getrandbits(128)))}) for n in range(min(DISTINCT, count))]
    with values_file(bodies) as file:
        produce(rig.broker.bootstrap, name, 1, count, ["--values", file])
    return Topic(name, kind, schema, count, 0, sum(map(len, bodies)) / len(bodies))


Encoder = tuple[str, Callable[[dict[str, Any]], bytes], bytes]


def avro(schema: dict[str, Any]) -> Encoder:
    parsed = fastavro.parse_schema(schema)

    def encode(value: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, value)
        return out.getvalue()

    return json.dumps(schema), encode, b""


def as_json(schema: dict[str, Any]) -> Encoder:
    return json.dumps(json_type(schema)), lambda value: json.dumps(value, separators=(",", ":"), default=float).encode(), b""


def with_rest(schema: dict[str, Any]) -> Encoder:
    text, encode, prefix = as_json(schema)
    described = json.loads(text)
    for name in list(described["properties"])[::3]:
        del described["properties"][name]
    return json.dumps(described | {"isk.rest": "_rest"}), encode, prefix


def json_type(ty: Any) -> dict[str, Any]:
    match ty:
        case [_, inner]:
            return {"oneOf": [{"type": "null"}, json_type(inner)]}
        case {"type": "record", "fields": fields}:
            return {"type": "object", "properties": {field["name"]: json_type(field["type"]) for field in fields}}
        case {"type": "array", "items": items}:
            return {"type": "array", "items": json_type(items)}
        case {"type": "map", "values": values}:
            return {"type": "object", "additionalProperties": json_type(values)}
        case {"type": "enum", "symbols": symbols}:
            return {"type": "string", "enum": symbols}
        case {"logicalType": "uuid"}:
            return {"type": "string", "format": "uuid"}
        case {"logicalType": "decimal"}:
            return {"type": "number"}
        case {"type": inner}:
            return json_type(inner)
    return {"type": {"long": "integer", "int": "integer", "double": "number"}.get(ty, ty)}


def protobuf(schema: dict[str, Any]) -> Encoder:
    file = descriptor_pb2.FileDescriptorProto(name=f"{schema['name']}.proto", syntax="proto3")
    file.message_type.add(name=schema["name"])
    for number, field in enumerate(schema["fields"], 1):
        add(file, file.message_type[0], field["name"], number, field["type"])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName(schema["name"]))

    def encode(value: dict[str, Any]) -> bytes:
        present = {name: float(item) if name == "total" else item for name, item in value.items() if item is not None}
        if "address" in present:
            present["address"] = {name: item for name, item in present["address"].items() if item is not None}
        return message(**present).SerializeToString()

    return base64.b64encode(file.SerializeToString()).decode(), encode, b"\0"


def add(file: Any, message: Any, name: str, number: int, ty: Any) -> None:
    """Adds a field; messages and enums are defined within the message."""
    field = message.field.add(name=name, number=number, label=FIELD.LABEL_OPTIONAL)
    if isinstance(ty, list):
        ty = ty[1]
        field.proto3_optional = True
        field.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{name}")
    if isinstance(ty, dict) and ty["type"] == "array":
        field.label, ty = FIELD.LABEL_REPEATED, ty["items"]
    match ty:
        case {"type": "record", "name": inner, "fields": fields}:
            field.type, field.type_name = FIELD.TYPE_MESSAGE, f"{message.name}.{inner}"
            made = message.nested_type.add(name=inner)
            for place, each in enumerate(fields, 1):
                add(file, made, each["name"], place, each["type"])
        case {"type": "map", "values": values}:
            field.label, field.type, field.type_name = FIELD.LABEL_REPEATED, FIELD.TYPE_MESSAGE, f"{message.name}.{name.capitalize()}Entry"
            entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
            entry.options.map_entry = True
            add(file, entry, "key", 1, "string")
            add(file, entry, "value", 2, values)
        case {"type": "enum", "name": inner, "symbols": symbols}:
            field.type, field.type_name = FIELD.TYPE_ENUM, f"{message.name}.{inner}"
            made = message.enum_type.add(name=inner)
            for place, symbol in enumerate(symbols):
                made.value.add(name=symbol, number=place)
        case {"logicalType": "decimal"}:
            field.type = FIELD.TYPE_DOUBLE
        case {"type": inner}:
            field.type = SCALARS[inner]
        case _:
            field.type = SCALARS[ty]
