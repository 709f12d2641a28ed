"""A topic and the cold table of its name, with a model of both: what cold holds, what Kafka holds, and so what merged must show.

The model is kept from what was produced and moved, never from what the service under test says.
"""

from __future__ import annotations

import datetime
import json
import operator
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import TopicPartition

from . import records
from .canonical import METADATA_COLUMNS
from .kafka import Broker
from .registry import Registry

Position = tuple[int, int]  # Kafka partition, offset
Row = dict[str, Any]
Condition = Sequence[tuple[str, str, Any]]  # (column, operator, value); all must hold

# The service asks the registry for newer schemas once a second.
SCHEMA_SECONDS = 1.2

OPERATORS = {"=": operator.eq, "!=": operator.ne, ">=": operator.ge, ">": operator.gt, "<": operator.lt, "<=": operator.le}

START = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Field:
    """A field of the records: its Avro type, what its column is, and the value where a writer did not know it."""

    avro: Any
    kind: Any
    default: Any = ...
    aliases: tuple[str, ...] = ()

    def to_avro(self, name: str) -> dict[str, Any]:
        made = {"name": name, "type": self.avro}
        return made | ({} if self.default is ... else {"default": self.default}) | ({"aliases": list(self.aliases)} if self.aliases else {})


FIELDS: dict[str, Field] = {
    "id": Field("long", "long"),
    "quantity": Field("int", "int"),
    "amount": Field("double", "double"),
    "note": Field(["null", "string"], "string", None),
    "at": Field({"type": "long", "logicalType": "timestamp-micros"}, "timestamptz"),
    "tags": Field({"type": "array", "items": "string"}, ["string"]),
}


def value(n: int) -> Row:
    """The n-th value. Every third is a tenth of the size of its neighbours, so that filters on `amount` leave holes."""
    return {
        "id": n,
        "quantity": n % 1000,
        "amount": n / 8 if n % 3 else n / 80,
        "note": None if n % 5 == 0 else f"nöte {n}",
        "at": START + datetime.timedelta(hours=n, microseconds=n),
        "tags": [f"tag{i}" for i in range(n % 3)],
    }


@dataclass
class Pair:
    """`columns` of hot are those of the newest schema; cold's have a key each, which stays when a column is renamed."""

    bootstrap: str
    registry_url: str
    topic: str
    partitions: int = 2
    fields: dict[str, Field] = field(default_factory=lambda: dict(FIELDS))
    hot: dict[Position, Row] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    cold_columns: dict[str, int] | None = None
    cold_kinds: dict[int, Any] = field(default_factory=dict)
    cold: list[dict[int, Any]] = field(default_factory=list)
    covered: set[Position] = field(default_factory=set)
    matched: dict[str, int] = field(default_factory=dict)
    produced: int = 0
    schemas: set[str] = field(default_factory=set)

    @classmethod
    def make(cls, broker: Broker, registry: Registry, topic: str, partitions: int = 2, fields: Mapping[str, Field] = FIELDS) -> Pair:
        return cls(broker.bootstrap, registry.url, topic, partitions, dict(fields))

    # Kafka's side.

    def produce(
        self,
        count: int,
        partition: int | None = None,
        make: Callable[[int], Row] = value,
        timestamp: Callable[[Row | None], int] = lambda row: 0,
    ) -> None:
        """Adds records, a tombstone among fifty, to one partition or to all in turn. A timestamp of 0 is now."""
        writer = records.producer(self.bootstrap)
        serialize = records.avro_serializer(self.registry_url, self.schema())
        for target in range(self.partitions) if partition is None else [partition]:
            values = [None if n % 50 == 49 else self._written(make(n)) for n in range(self.produced, self.produced + count)]
            self.produced += count
            records.produce(
                writer,
                self.topic,
                values,
                serialize=serialize,
                partition=target,
                key=lambda v: None if v is None or v.get("id", 0) % 9 == 0 else b"key %d" % v["id"],
                timestamp=timestamp,
                headers=[("origin", b"test"), ("nothing", None)] if target or self.produced % 3 == 0 else None,
            )
        self._consume()
        if self.schemas and self.schema() not in self.schemas:
            time.sleep(SCHEMA_SECONDS)
        self.schemas.add(self.schema())

    def delete_records(self, partition: int, before: int) -> None:
        """Kafka forgets the records of a partition before an offset."""
        client = records.admin(self.bootstrap)
        for future in client.delete_records([TopicPartition(self.topic, partition, before)]).values():
            future.result(30)
        self.starts[partition] = before
        for position in [p for p in self.hot if p[0] == partition and p[1] < before]:
            del self.hot[position]

    def evolve(self, fields: Mapping[str, Field]) -> None:
        """Another schema from now on; older records are seen through it. It is registered with the next record."""
        assert self.may_evolve(fields), "a registry takes an earlier schema for that one, and the newest stays what it is"
        self.fields = dict(fields)

    def may_evolve(self, fields: Mapping[str, Field]) -> bool:
        """Whether the schema would be a new one."""
        return _avro(fields) not in self.schemas

    def schema(self) -> str:
        return _avro(self.fields)

    def hot_columns(self) -> dict[str, Any]:
        return {name: f.kind for name, f in self.fields.items()} | METADATA_COLUMNS

    def hot_row(self, position: Position) -> Row:
        """The row of a record through the newest schema."""
        row = self.hot[position]
        written = row["value"]
        values = dict.fromkeys(self.fields) if written is None else {name: self._resolved(written, name) for name in self.fields}
        return values | row["kafka"]

    def hot_rows(self) -> list[Row]:
        return [self.hot_row(position) for position in self.hot]

    # Cold's side.

    @property
    def cold_table(self) -> str:
        return f"coldset.{self.topic}"

    def cold_created(self, columns: Mapping[str, Any] | None = None) -> None:
        """Cold was made with these columns; without any, with those that hot has now."""
        self.cold_columns = {}
        for name, kind in (columns or self.hot_columns()).items():
            self.cold_added(name, kind)

    def cold_added(self, name: str, kind: Any) -> None:
        key = len(self.cold_kinds)
        self.cold_kinds[key] = kind
        self.cold_columns[name] = key

    def cold_renamed(self, old: str, new: str) -> None:
        self.cold_columns = {new if name == old else name: key for name, key in self.cold_columns.items()}

    def cold_dropped(self, name: str) -> None:
        self.cold_columns = {kept: key for kept, key in self.cold_columns.items() if kept != name}

    def cold_ordered(self, names: Iterable[str]) -> None:
        self.cold_columns = {name: self.cold_columns[name] for name in names}

    def moved(self, condition: Condition = (), unmoved_only: bool = True) -> int:
        """Rows of hot that meet the condition were inserted into cold; how many."""
        sources = {key: name for name, key in self.matches().items()}
        positions = [p for p in self.hot if holds(condition, self.hot_row(p)) and not (unmoved_only and p in self.covered)]
        for position in positions:
            row = self.hot_row(position)
            self.cold.append({key: row[sources[key]] if key in sources else None for key in self.cold_columns.values()})
        self.covered.update(positions)
        return len(positions)

    def deleted_from_cold(self, condition: Condition) -> int:
        before = len(self.cold)
        self.cold = [row for row in self.cold if not holds(condition, self._cold_row(row))]
        return before - len(self.cold)

    def cold_rows(self) -> list[Row]:
        return [self._cold_row(row) for row in self.cold]

    def cold_columns_and_kinds(self) -> dict[str, Any]:
        return {name: self.cold_kinds[key] for name, key in self.cold_columns.items()}

    # Both.

    def look(self) -> None:
        """Merged was looked at: from here on cold's columns stay matched, whatever they are called."""
        self.matched = self.matches()

    def unmoved(self) -> list[Position]:
        return [position for position in self.hot if position not in self.covered]

    def holes(self) -> list[tuple[int, int, int]]:
        """(partition, start, end) of the offsets that Kafka has forgotten and cold never had, behind the first that cold had."""
        found = []
        for partition in sorted({partition for partition, _ in self.covered}):
            first = min(offset for p, offset in self.covered if p == partition)
            for offset in range(first, self.starts.get(partition, 0)):
                if (partition, offset) in self.covered:
                    continue
                if found and found[-1][0] == partition and found[-1][2] == offset:
                    found[-1] = (partition, found[-1][1], offset + 1)
                else:
                    found.append((partition, offset, offset + 1))
        return found

    def matches(self) -> dict[str, int]:
        """Hot's columns to the keys of the cold columns they are: as known, else of the same name, else but for case."""
        cold, found = self.cold_columns or {}, {}
        for name in self.hot_columns():
            if self.matched.get(name) in cold.values():
                found[name] = self.matched[name]
        for alike in (lambda a, b: a == b, lambda a, b: a.lower() == b.lower()):
            for name in self.hot_columns():
                keys = [key for other, key in cold.items() if alike(name, other) and key not in found.values()]
                if name not in found and len(keys) == 1:
                    found[name] = keys[0]
        return found

    def columns(self) -> dict[str, Any]:
        """Merged's columns: cold's, and then those that only hot has."""
        if self.cold_columns is None:
            return self.hot_columns()
        matches, hot = self.matches(), self.hot_columns()
        partners = {key: hot[name] for name, key in matches.items()}
        cold = {name: _wider(self.cold_kinds[key], partners.get(key)) for name, key in self.cold_columns.items()}
        return cold | {name: kind for name, kind in hot.items() if name not in matches}

    def rows(self) -> list[Row]:
        """What merged must show, each row once."""
        columns, matches = self.columns(), self.matches()
        names = {key: name for name, key in (self.cold_columns or {}).items()}
        rows = [dict.fromkeys(columns) | row for row in self.cold_rows()]
        for position in self.unmoved():
            row = self.hot_row(position)
            rows.append(dict.fromkeys(columns) | {names[matches[name]] if name in matches else name: v for name, v in row.items()})
        return rows

    def positions(self) -> list[Position]:
        """Where the rows of merged stand in Kafka, in order."""
        return sorted((row["kafka_partition"], row["kafka_offset"]) for row in self.rows())

    def _cold_row(self, row: Mapping[int, Any]) -> Row:
        return {name: row.get(key) for name, key in (self.cold_columns or {}).items()}

    def _written(self, made: Row) -> Row:
        return {name: made[name] if name in made else f.default for name, f in self.fields.items()}

    def _resolved(self, written: Row, name: str) -> Any:
        for known in (name, *self.fields[name].aliases):
            if known in written:
                return written[known]
        return self.fields[name].default

    def _consume(self) -> None:
        """Takes what is new as an independent consumer reads it, in its writer's own words."""
        for record in records.read_topic(self.bootstrap, self.topic, self.registry_url, from_offsets=self.ends):
            self.ends[record.partition] = max(self.ends.get(record.partition, 0), record.offset + 1)
            kafka = {
                "kafka_partition": record.partition,
                "kafka_offset": record.offset,
                "kafka_timestamp": datetime.datetime.fromtimestamp(record.timestamp / 1000, datetime.UTC),
                "kafka_timestamp_type": "CreateTime" if record.is_create_time else "LogAppendTime",
                "kafka_key": record.key,
                "kafka_headers": [{"key": key, "value": content} for key, content in record.headers],
            }
            self.hot[record.partition, record.offset] = {"value": record.value, "kafka": kafka}


def holds(condition: Condition, row: Row) -> bool:
    """As SQL has it: nothing is said of a null."""
    return all(row[column] is not None and OPERATORS[op](row[column], v) for column, op, v in condition)


def sql(condition: Condition) -> str:
    """The condition as every SQL and PyIceberg say it."""
    return " AND ".join(f"{column} {op} {v}" for column, op, v in condition)


def _avro(fields: Mapping[str, Field]) -> str:
    made = [f.to_avro(name) for name, f in fields.items()]
    return json.dumps({"type": "record", "name": "Event", "namespace": "test", "fields": made})


def _wider(a: Any, b: Any) -> Any:
    for narrow, wide in (("int", "long"), ("float", "double")):
        if (a, b) in ((narrow, wide), (wide, narrow)):
            return wide
    return a

