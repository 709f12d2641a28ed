"""Topics with all that Avro and Kafka have to offer, written by Confluent's client, and what their tables must hold."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import functools
import json
import re
import struct
import time
import uuid
from collections.abc import Mapping
from typing import Any

from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from . import records
from .canonical import METADATA_COLUMNS, checksums

START = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
START_MS = int(START.timestamp() * 1000)

# Nothing here expires while a test runs, though its timestamps are old.
KEEP = {"retention.ms": "-1"}

# How wide a chunk is follows from the size of a partition's last records. These make one of 1,024 offsets,
# so that small topics have several chunks.
FILLERS, FILLER = 32, 8_192


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A topic, the columns of its table, and its rows as the independent consumer read them."""

    topic: str
    columns: Mapping[str, Any]
    rows: list[dict[str, Any]]

    @functools.cache
    def checksums(self, nested_nulls: bool) -> dict[str, str]:
        return checksums(self.columns, self.rows, nested_nulls)


def _logical(base: Any, logical: str, **more: Any) -> dict[str, Any]:
    return (base if isinstance(base, dict) else {"type": base}) | {"logicalType": logical} | more


POINT = {"type": "record", "name": "Point", "fields": [{"name": "x", "type": "double"}, {"name": "y", "type": "double"}]}
ADDRESS = {
    "type": "record",
    "name": "Address",
    "fields": [
        {"name": "street", "type": "string"},
        {"name": "zip", "type": ["null", "int"]},
        {"name": "places", "type": {"type": "array", "items": POINT}},
    ],
}
OTHER = {"type": "record", "name": "Other", "fields": [{"name": "n", "type": "int"}]}


def _fixed(name: str, size: int) -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size}


def _record(*fields: tuple[str, Any] | tuple[str, Any, Any]) -> str:
    made = [{"name": f[0], "type": f[1]} | ({"default": f[2]} if len(f) > 2 else {}) for f in fields]
    return json.dumps({"type": "record", "name": "Event", "namespace": "test", "fields": made})


_COMMON = [
    ("ok", "boolean"),
    ("weight", "float"),
    ("name", ["null", "string"]),
    ("kind", {"type": "enum", "name": "Kind", "symbols": ["RED", "GREEN", "BLUE"]}),
    ("blob", "bytes"),
    ("digest", _fixed("Digest", 4)),
    ("tags", {"type": "array", "items": ["null", "string"]}),
    ("scores", {"type": "map", "values": "long"}),
    ("address", ["null", ADDRESS]),
    ("choice", ["null", "string", "long", OTHER]),
    ("day", _logical("int", "date")),
    ("at_ms", _logical("long", "timestamp-millis")),
    ("at_us", _logical("long", "timestamp-micros")),
    ("local_us", _logical("long", "local-timestamp-micros")),
    ("price", _logical("bytes", "decimal", precision=9, scale=2)),
    ("total", _logical(_fixed("Total", 16), "decimal", precision=38, scale=6)),
    ("ident", _logical("string", "uuid")),
    ("span", _logical(_fixed("Span", 12), "duration")),
]

# The same event through three versions: types are promoted, a field is dropped, two are added.
SCHEMAS = [
    _record(("id", "long"), ("quantity", "int"), ("ratio", "float"), ("dropped", "string", ""), *_COMMON),
    _record(("id", "long"), ("quantity", "long"), ("ratio", "double"), *_COMMON, ("level", "int", 7)),
    _record(("id", "long"), ("quantity", "long"), ("ratio", "double"), *_COMMON, ("level", "int", 7), ("note", ["null", "string"], None)),
]

COLUMNS = {
    "id": "long",
    "quantity": "long",
    "ratio": "double",
    "ok": "boolean",
    "weight": "float",
    "name": "string",
    "kind": "string",
    "blob": "binary",
    "digest": "fixed[4]",
    "tags": ["string"],
    "scores": ("map", "long"),
    "address": {"street": "string", "zip": "int", "places": [{"x": "double", "y": "double"}]},
    "choice": {"string": "string", "long": "long", "Other": {"n": "int"}},
    "day": "date",
    "at_ms": "timestamptz",
    "at_us": "timestamptz",
    "local_us": "timestamp",
    "price": "decimal(9, 2)",
    "total": "decimal(38, 6)",
    "ident": "uuid",
    "span": {"months": "long", "days": "long", "milliseconds": "long"},
    "level": "int",
    "note": "string",
} | METADATA_COLUMNS


def event(n: int, name: str | None = None) -> dict[str, Any]:
    """A value that fits every version of the schema; the serializer leaves out what its version does not have."""
    at = START + datetime.timedelta(seconds=n, microseconds=n * 7)
    places = [{"x": n / 2, "y": -n / 4}] * (n % 3)
    choices = [None, f"word {n}", n * 3, {"n": n}]
    return {
        "id": n,
        "quantity": n * 1000 - 500,
        "ratio": n / 8,
        "dropped": "gone",
        "ok": n % 2 == 0,
        "weight": n / 16,
        "name": name if name else None if n % 5 == 0 else f"näme {n} \N{SNOWMAN}",
        "kind": ("RED", "GREEN", "BLUE")[n % 3],
        "blob": bytes([n % 256, 0, 255]) * (n % 4),
        "digest": struct.pack(">I", n),
        "tags": [None if i == 1 else f"tag{i}" for i in range(n % 4)],
        "scores": {f"k{i}": n * i for i in range(n % 3)},
        "address": None if n % 11 == 0 else {"street": f"Street {n}", "zip": n if n % 2 else None, "places": places},
        "choice": choices[n % 4],
        "day": at.date(),
        "at_ms": at.replace(microsecond=n % 1000 * 1000),
        "at_us": at,
        "local_us": at.replace(tzinfo=None),
        "price": decimal.Decimal(n * 37 - 5000).scaleb(-2),
        "total": decimal.Decimal(10**31 + n).scaleb(-6),
        "ident": uuid.uuid5(uuid.NAMESPACE_OID, str(n)),
        "span": struct.pack("<III", n % 12, n % 31, n * 1000),
        "level": n % 10,
        "note": f"note {n}" if n % 3 else None,
    }


def row(record: records.Record, columns: Mapping[str, Any] = COLUMNS) -> dict[str, Any]:
    """The table's row of a consumed record."""
    value = dict(record.value or {})
    if (choice := value.get("choice")) is not None:
        branch = {str: "string", int: "long", dict: "Other"}[type(choice)]
        value["choice"] = dict.fromkeys(["string", "long", "Other"]) | {branch: choice}
    if (span := value.get("span")) is not None:
        value["span"] = dict(zip(("months", "days", "milliseconds"), struct.unpack("<III", span), strict=True))
    value |= {
        "kafka_partition": record.partition,
        "kafka_offset": record.offset,
        "kafka_timestamp": datetime.datetime.fromtimestamp(record.timestamp / 1000, datetime.UTC),
        "kafka_timestamp_type": "CreateTime" if record.is_create_time else "LogAppendTime",
        "kafka_key": record.key,
        "kafka_headers": [{"key": key, "value": content} for key, content in record.headers],
    }
    return {name: value.get(name) for name in columns}


class Writer:
    """Writes events to one topic, the schema versions one after the other."""

    def __init__(self, bootstrap: str, registry_url: str, topic: str, schemas: list[str] = SCHEMAS, **config: str) -> None:
        self.bootstrap, self.registry_url, self.topic = bootstrap, registry_url, topic
        self.producer = records.producer(bootstrap, compression_type="zstd", **config)
        self.serializers = [records.avro_serializer(registry_url, schema) for schema in schemas]

    def write(self, values: list[Any], version: int = -1, **more: Any) -> None:
        records.produce(self.producer, self.topic, values, serialize=self.serializers[version], **more)

    def dataset(self) -> Dataset:
        read = records.read_topic(self.bootstrap, self.topic, self.registry_url, reader_schema=SCHEMAS[-1])
        return Dataset(self.topic, COLUMNS, [row(record) for record in read])


def _create_time(value: dict[str, Any] | None) -> int:
    """Neither in order nor the same for two neighbours. Zero, for a tombstone, is now."""
    return START_MS + value["id"] * 1000 - value["id"] % 7 * 5000 if value else 0


def _key(value: dict[str, Any] | None) -> bytes | None:
    return None if value is None or value["id"] % 9 == 0 else b"key %d" % value["id"]


def _fillers(start: int) -> list[dict[str, Any]]:
    # The least and the greatest of names, both longer than any bound.
    return [event(start + n, "az"[n % 2] * FILLER) for n in range(FILLERS)]


def plain(bootstrap: str, registry_url: str) -> Dataset:
    """Three partitions of uneven length; all versions of the schema, interleaved at their borders; tombstones, keys, headers."""
    writer = Writer(bootstrap, registry_url, records.create_topic(bootstrap, "plain", 3, KEEP))
    for partition, length in enumerate((2500, 600, 200)):
        base = partition * 10_000
        for start in range(0, length, 100):
            values = [None if n % 50 == 49 else event(base + n) for n in range(start, start + 100)]
            # Versions 0, 1, 2 of the schema in thirds of the partition, with some older ones among the newest.
            version = 0 if start % 500 == 0 else min(2, start * 3 // length)
            headers = [("origin", b"test"), ("origin", None), ("n", b"%d" % start)] if start % 300 == 0 else None
            writer.write(values, version, partition=partition, key=_key, timestamp=_create_time, headers=headers)
        writer.write(_fillers(base + length), partition=partition, key=_key, timestamp=_create_time)
    return writer.dataset()


def transactional(bootstrap: str, registry_url: str) -> Dataset:
    """Two partitions in which committed and aborted transactions take turns."""
    writer = Writer(bootstrap, registry_url, records.create_topic(bootstrap, "transactional", 2, KEEP), transactional_id="transactional")
    writer.producer.init_transactions(30)
    for turn in range(14):
        writer.producer.begin_transaction()
        for partition, length in enumerate((100, 30)):
            values = [event(partition * 10_000 + turn * length + n) for n in range(length)]
            writer.write(values, partition=partition, key=_key, timestamp=_create_time)
        writer.producer.abort_transaction(30) if turn % 3 == 1 else writer.producer.commit_transaction(30)
    writer.producer.begin_transaction()
    for partition in range(2):
        writer.write(_fillers(partition * 10_000 + 5000), partition=partition, key=_key, timestamp=_create_time)
    writer.producer.commit_transaction(30)
    # The last thing in both partitions is nothing a consumer ever sees.
    writer.producer.begin_transaction()
    for partition in range(2):
        writer.write([event(1), event(2)], partition=partition, key=_key)
    writer.producer.abort_transaction(30)
    return writer.dataset()


def compacted(bootstrap: str, registry_url: str) -> Dataset:
    """One partition from which the cleaner has removed most records, in one chunk all, and then rests."""
    writer = Writer(bootstrap, registry_url, records.create_topic(bootstrap, "compacted", 1, records.FAST_COMPACTION))
    # One in ten has a key of its own and stays.
    keyed = {"key": lambda value: b"key %d" % (value["id"] % 40 if value["id"] % 10 else value["id"])}
    for turn in range(12):
        # Their timestamps lie further apart than segment.ms: what comes next begins a segment.
        writer.write([event(turn * 200 + n) for n in range(200)], timestamp=_create_time, **keyed)
    writer.write(_fillers(5000), key=lambda value: b"filler %d" % value["id"], timestamp=_create_time)
    deadline = time.monotonic() + 60
    while len(records.read_topic(bootstrap, writer.topic)) > 900:
        assert time.monotonic() < deadline, "the cleaner has not come"
        time.sleep(0.3)
        # The newest segment is never cleaned: another record, dated now, makes a new one.
        writer.write([event(6000)], key=lambda value: b"last")
    configure(bootstrap, writer.topic, RESTING_CLEANER)
    size = -1
    while size != (size := len(records.read_topic(bootstrap, writer.topic))):
        time.sleep(1)  # a cleaning that was under way ends
    return writer.dataset()


# Field names as a registry takes them, as they come out of `odd_spelling` and as columns are named after them. A dot
# would be read as nesting; of names that differ only in case the later field's gets a number, and so does a name of ours.
ODD_NAMES = {
    "a_dot_b": ("a.b", "a_b"),
    "a_b": ("a_b", "a_b_2"),
    "with_space": ("with space", "with space"),
    "umlaut": ("größe", "größe"),
    "big_umlaut": ("Größe", "Größe_2"),
    "kanji": ("名前", "名前"),
    "percent": ("50% (max), [é]", "50% (max), [é]"),
    "name": ("name", "name"),
    "Name": ("Name", "Name_2"),
    "Kafka_Offset": ("Kafka_Offset", "Kafka_Offset_2"),
}
ODD_POINT = {"x_dot_y": ("x.y", "x_y"), "x_space": ("x y", "x y"), "X_space": ("X y", "X y_2")}


def odd_spelling(_: str, answer: bytes) -> bytes:
    """A registry's answer with the fields of `odd` spelt as registries refuse them, and Avro's own libraries too."""
    body = json.loads(answer)
    if isinstance(body, dict) and "schema" in body:
        for name, (spelt, _column) in (ODD_NAMES | ODD_POINT).items():
            body["schema"] = re.sub(rf'("name"\s*:\s*)"{name}"', rf'\1"{spelt}"', body["schema"])
    return json.dumps(body).encode()


def odd(bootstrap: str, registry_url: str) -> Dataset:
    """A topic whose fields have the names of `ODD_NAMES`, at the top and within a record."""
    point = {"type": "record", "name": "OddPoint", "fields": [{"name": name, "type": "long"} for name in ODD_POINT]}
    schema = _record(*((name, "long") for name in ODD_NAMES), ("place", point))
    columns = {column: "long" for _, column in ODD_NAMES.values()}
    columns |= {"place": {column: "long" for _, column in ODD_POINT.values()}} | METADATA_COLUMNS
    numbers = [(n, {"place": {name: n * 1000 + i for i, name in enumerate(ODD_POINT)}}) for n in range(300)]
    values = [{name: n * 100 + i for i, name in enumerate(ODD_NAMES)} | place for n, place in numbers]
    writer = Writer(bootstrap, registry_url, records.create_topic(bootstrap, "odd", 2, KEEP), [schema])
    writer.write(values)

    def renamed(record: records.Record) -> dict[str, Any]:
        value = {ODD_NAMES[name][1]: inner for name, inner in record.value.items() if name in ODD_NAMES}
        value["place"] = {ODD_POINT[name][1]: inner for name, inner in record.value["place"].items()}
        return row(dataclasses.replace(record, value=value), columns)

    return Dataset(writer.topic, columns, [renamed(record) for record in records.read_topic(bootstrap, writer.topic, registry_url)])


# Keeps the cleaner from a topic that stays compacted.
RESTING_CLEANER = {"min.cleanable.dirty.ratio": "1.0", "max.compaction.lag.ms": str(2**62), "min.compaction.lag.ms": str(2**61), "segment.ms": str(2**60)}


def configure(bootstrap: str, topic: str, config: Mapping[str, str]) -> None:
    """Changes settings of a topic."""
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in config.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    client = records.admin(bootstrap)
    client.incremental_alter_configs([resource])[resource].result(30)
