"""The topics: a narrow one of about 80 bytes a record, and a wide nested one of 20 columns.

Values are drawn from a set that was encoded before, each with an id of its own. 99 % of a topic's records are older than an
hour, and producers' clocks differ by up to half a minute. Numbers are multiples of 1/4, so that sums do not depend on order.
"""

from __future__ import annotations

import contextlib
import decimal
import functools
import io
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
import numpy
from confluent_kafka.schema_registry import Schema
from stack import records

from .measure import BUILT

PARTITIONS = 4
DISTINCT = 50_000
HISTORY_MS = 48 * 3_600_000
HOUR_MS = 3_600_000
CLOCKS_MS = 30_000
SHARE_OF_LAST_HOUR = 0.01
# Where the id's 36 characters are in a framed value: after the framing and their length.
ID_AT = 6

UUID = {"type": "string", "logicalType": "uuid"}
NARROW = {
    "type": "record",
    "name": "Narrow",
    "fields": [
        {"name": "id", "type": UUID},
        {"name": "account", "type": "long"},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["DEBIT", "CREDIT", "FEE"]}},
        {"name": "amount", "type": "double"},
        {"name": "branch", "type": "int"},
        {"name": "note", "type": ["null", "string"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}
ADDRESS = {
    "type": "record",
    "name": "Address",
    "fields": [{"name": n, "type": "string"} for n in ("street", "city", "zip")] + [{"name": "country", "type": ["null", "string"]}],
}
LINE = {
    "type": "record",
    "name": "Line",
    "fields": [{"name": "sku", "type": "string"}, {"name": "quantity", "type": "int"}, {"name": "price", "type": "double"}],
}
WIDE = {
    "type": "record",
    "name": "Wide",
    "fields": [
        {"name": "id", "type": UUID},
        {"name": "customer", "type": "long"},
        {"name": "address", "type": ADDRESS},
        {"name": "lines", "type": {"type": "array", "items": LINE}},
        {"name": "tags", "type": {"type": "map", "values": "string"}},
        {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "status", "type": {"type": "enum", "name": "Status", "symbols": ["OPEN", "PACKED", "SENT", "LOST"]}},
        {"name": "weight", "type": "double"},
        {"name": "priority", "type": "int"},
        {"name": "remark", "type": ["null", "string"]},
        {"name": "region", "type": "string"},
    ]
    + [{"name": f"flag{i}", "type": ["null", "boolean"]} for i in range(8)],
}
NOTES = [None] * 100 + ["by card at the till"] * 100 + [f"standing order no. {n}" for n in range(200)]
CITIES = ["Ghent", "Porto", "Turku", "Cork", "Graz"]


def narrow(n: int, rnd: random.Random) -> dict[str, Any]:
    value = {"id": "0" * 36, "account": rnd.randrange(10**6), "kind": rnd.choice(["DEBIT", "CREDIT", "FEE"])}
    value |= {"amount": rnd.randrange(4000) / 4, "branch": rnd.randrange(100)}
    return value | {"note": rnd.choice(NOTES), "at": 1_750_000_000_000 + n}


def wide(n: int, rnd: random.Random) -> dict[str, Any]:
    lines = [{"sku": f"SKU{rnd.randrange(10**4):05}", "quantity": rnd.randrange(9), "price": rnd.randrange(400) / 4} for _ in range(2)]
    address = {"street": f"{rnd.randrange(400)} Long Street", "city": rnd.choice(CITIES), "zip": f"{rnd.randrange(10**5):05}", "country": None}
    value = {"id": "0" * 36, "customer": rnd.randrange(10**6), "address": address, "lines": lines}
    value |= {"tags": {"channel": rnd.choice(["web", "app", "shop"]), "campaign": f"c{rnd.randrange(40)}"}}
    value |= {"total": decimal.Decimal(rnd.randrange(10**6)).scaleb(-2), "at": 1_750_000_000_000_000 + n}
    value |= {"status": rnd.choice(["OPEN", "PACKED", "SENT", "LOST"]), "weight": rnd.randrange(400) / 4, "priority": rnd.randrange(5)}
    value |= {"remark": rnd.choice([None, "leave at the door"]), "region": f"region {rnd.randrange(30)}"}
    return value | {f"flag{i}": rnd.choice([None, True, False]) for i in range(8)}


@dataclass(frozen=True)
class Topic:
    """`since_ms` is an hour before the topic was filled; `bytes_per_record` is of framed values."""

    name: str
    kind: str
    schema: dict[str, Any]
    records: int
    since_ms: int
    bytes_per_record: float


KINDS: dict[str, tuple[dict[str, Any], Callable]] = {"narrow": (NARROW, narrow), "wide": (WIDE, wide)}


def fill(bootstrap: str, registry_url: str, kind: str, count: int, name: str = "", partitions: int = PARTITIONS) -> Topic:
    """Makes a topic of `count` records. The same count gives the same values; timestamps are as far from now."""
    schema, _ = KINDS[kind]
    name = name or kind
    records.create_topic(bootstrap, name, partitions, {"retention.ms": "-1"})
    schema_id = records.registry_client(registry_url).register_schema(f"{name}-value", Schema(json.dumps(schema), "AVRO"))
    now = int(time.time() * 1000)
    bodies = encoded(kind, min(DISTINCT, count), schema_id)
    with values_file(bodies) as file:
        produce(bootstrap, name, partitions, count, ["--values", file, "--id-at", ID_AT], times(count, now))
    return Topic(name, kind, schema, count, now - HOUR_MS, sum(map(len, bodies)) / len(bodies))


def produce(bootstrap: str, name: str, partitions: int, count: int, options: Sequence[Any], times_ms: numpy.ndarray | None = None) -> None:
    """Has `crates/bench` produce, which is several times faster than Python."""
    command = [BUILT / "fill", "--brokers", bootstrap, "--topic", name, "--partitions", partitions, "--records", count, *options]
    with tempfile.NamedTemporaryFile() as file:
        if times_ms is not None:
            file.write(times_ms.astype("<i8").tobytes())
            file.flush()
            command += ["--times", file.name]
        subprocess.run([str(part) for part in command], check=True)


@contextlib.contextmanager
def values_file(values: list[bytes]) -> Iterator[str]:
    """A file of values as `fill` takes them."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(len(value).to_bytes(4, "little") + value for value in values))
        file.flush()
        yield file.name


@functools.cache
def encoded(kind: str, count: int, schema_id: int) -> list[bytes]:
    """Framed values, whose ids are still to be filled in."""
    schema, make = KINDS[kind]
    header = b"\0" + schema_id.to_bytes(4, "big")
    parsed, rnd, values = fastavro.parse_schema(schema), random.Random(7), []
    for n in range(count):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, make(n, rnd))
        values.append(header + out.getvalue())
    return values


def times(count: int, now_ms: int) -> numpy.ndarray:
    """Timestamps of so many records: old ones up to an hour before now, the last ones since then."""
    n = numpy.arange(count, dtype=numpy.float64)
    old = int(count * (1 - SHARE_OF_LAST_HOUR))
    before = now_ms - HISTORY_MS + n / max(old, 1) * (HISTORY_MS - HOUR_MS - 2 * CLOCKS_MS)
    after = now_ms - HOUR_MS + 2 * CLOCKS_MS + (n - old) / max(count - old, 1) * (HOUR_MS - 3 * CLOCKS_MS)
    clocks = numpy.random.default_rng(7).integers(-CLOCKS_MS, CLOCKS_MS, count)
    return (numpy.where(n < old, before, after) + clocks).astype(numpy.int64)
