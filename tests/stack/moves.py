"""How users move rows from hot to cold, and what they do to cold tables. Each deed is told to the model as well."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .canonical import METADATA_COLUMNS
from .pair import Condition, Pair, sql
from .readers import PyIceberg, Readers, assert_same

ALL_READERS = ("pyiceberg", "duckdb", "spark", "trino")


class Deeds:
    """What is done to one pair, by the client that is named."""

    def __init__(self, pair: Pair, readers: Readers) -> None:
        self.pair, self.readers = pair, readers

    @property
    def pyiceberg(self) -> PyIceberg:
        return self.readers["pyiceberg"]

    @property
    def cold(self) -> str:
        """The cold table in SQL, past the service."""
        return f"direct.coldset.{self.pair.topic}"

    def cold_table(self):
        """The cold table in PyIceberg, past the service."""
        return self.pyiceberg.load(self.pair.cold_table, direct=True)

    def create(self, by: str = "pyiceberg", partitioned: str = "", columns: Mapping[str, str] | None = None, **properties: str) -> None:
        """Makes the cold table, with hot's columns or, in Spark's words, with these."""
        if columns is None and by == "pyiceberg":
            assert not partitioned
            schema = self.pyiceberg.load(f"hotset.{self.pair.topic}").schema()
            self.pyiceberg.direct.create_table(self.pair.cold_table, schema=schema, properties=properties)
            self.pair.cold_created()
            return
        listed = f" ({', '.join(f'`{name}` {kind}' for name, kind in columns.items())})" if columns is not None else ""
        source = "" if columns is not None else f" AS SELECT * FROM live.hotset.`{self.pair.topic}` WHERE false"
        options = ", ".join(f"'{key}' = '{value}'" for key, value in properties.items())
        self.spark(
            f"CREATE TABLE {self.cold}{listed} USING iceberg{f' PARTITIONED BY ({partitioned})' if partitioned else ''}"
            f"{f' TBLPROPERTIES ({options})' if options else ''}{source}"
        )
        self.pair.cold_created(None if columns is None else kinds_of(columns))

    def move(self, condition: Condition = (), by: str = "pyiceberg", unmoved: bool = True) -> int:
        """Inserts from `$unmoved`, or from the whole topic, into cold; how many rows there were by the model."""
        source = f"hotset.{self.pair.topic}{'$unmoved' if unmoved else ''}"
        names = {key: name for name, key in self.pair.cold_columns.items()}
        columns = {hot: names[key] for hot, key in self.pair.matches().items()}
        if by == "pyiceberg":
            where = {"row_filter": sql(condition)} if condition else {}
            rows = self.pyiceberg.load(source).scan(selected_fields=tuple(columns), **where).to_arrow()
            if rows.num_rows:
                self.cold_table().append(rows.select(list(columns)).rename_columns(list(columns.values())))
        else:
            reader = self.readers[by]
            into, of = (", ".join(f"{reader.quote}{name}{reader.quote}" for name in some) for some in (columns.values(), columns))
            where = f" WHERE {sql(condition)}" if condition else ""
            reader.sql(f"INSERT INTO {self.cold} ({into}) SELECT {of} FROM {reader.table(source)}{where}")
        return self.pair.moved(condition, unmoved_only=unmoved)

    def load_before(self, boundary: datetime.datetime, since: datetime.datetime | None = None, in_summary: bool = True) -> int:
        """Inserts all records of a time into cold, and states in the same commit that it has all before the boundary."""
        rows = self.pyiceberg.load(f"hotset.{self.pair.topic}").scan().to_arrow()
        times = rows["kafka_timestamp"]
        chosen = pc.less(times, pa.scalar(boundary, times.type))
        if since:
            chosen = pc.and_(chosen, pc.greater_equal(times, pa.scalar(since, times.type)))
        rows = rows.filter(chosen).select(list(self.pair.cold_columns))
        stated = {"isk.boundary-timestamp": boundary.isoformat()}
        with self.cold_table().transaction() as commit:
            commit.append(rows, snapshot_properties=stated if in_summary else {})
            if not in_summary:
                commit.set_properties(stated)
        return self.pair.moved([("kafka_timestamp", "<", boundary)])

    def spark(self, text: str) -> list[tuple]:
        return self.readers["spark"].sql(text)

    def delete(self, condition: Condition, by: str = "pyiceberg") -> int:
        """Deletes rows from cold."""
        if by == "pyiceberg":
            self.cold_table().delete(sql(condition))
        else:
            self.readers[by].sql(f"DELETE FROM {self.cold} WHERE {sql(condition)}")
        return self.pair.deleted_from_cold(condition)

    def rewrite(self) -> None:
        """Puts all of cold into one new file."""
        table = self.cold_table()
        table.overwrite(table.scan().to_arrow())

    def compact(self) -> None:
        """Spark's own compaction, which drops the old files' deletes too."""
        self.spark(f"CALL direct.system.rewrite_data_files(table => 'coldset.{self.pair.topic}', options => map('rewrite-all', 'true'))")

    def check(self, *names: str) -> None:
        """Merged is what the model says, in these clients; so are what is unmoved, and cold through the service."""
        for name in names or ALL_READERS:
            assert_same(self.readers[name], f"merged.{self.pair.topic}", self.pair.columns(), self.pair.rows())
        self.pair.look()
        unmoved = [self.pair.hot_row(position) for position in self.pair.unmoved()]
        assert_same(self.pyiceberg, f"hotset.{self.pair.topic}$unmoved", self.pair.hot_columns(), unmoved)
        if self.pair.cold_columns is not None:
            for direct in (True, False):
                assert_same(self.pyiceberg, self.pair.cold_table, self.pair.cold_columns_and_kinds(), self.pair.cold_rows(), direct)
        self._check_holes()

    def _check_holes(self) -> None:
        properties, holes = self.properties(), self.pair.holes()
        assert properties.get("isk.hole-offsets", "0") == str(sum(end - start for _, start, end in holes))
        named = ",".join(f"{partition}:{start}-{end}" for partition, start, end in holes[:32])
        assert properties.get("isk.holes", "") == named

    def properties(self) -> Mapping[str, str]:
        """Of the merged table."""
        return self.pyiceberg.load(f"merged.{self.pair.topic}").properties


# The columns of the records' fields and of Kafka's own, in Spark's words.
SPARK_COLUMNS = {
    "id": "bigint",
    "quantity": "int",
    "amount": "double",
    "note": "string",
    "at": "timestamp",
    "tags": "array<string>",
    "kafka_partition": "int",
    "kafka_offset": "bigint",
    "kafka_timestamp": "timestamp",
    "kafka_timestamp_type": "string",
    "kafka_key": "binary",
    "kafka_headers": "array<struct<key: string, value: binary>>",
}


def kinds_of(columns: Mapping[str, str]) -> dict[str, Any]:
    """What Spark's column types are in the model."""
    simple = {"bigint": "long", "timestamp": "timestamptz", "array<string>": ["string"]}
    headers = {SPARK_COLUMNS["kafka_headers"]: METADATA_COLUMNS["kafka_headers"]}
    return {name: (simple | headers).get(kind, kind) for name, kind in columns.items()}
