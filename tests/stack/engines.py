"""One adapter per engine: the same questions, asked the way the engine's users ask them.

A condition is a list of (column, operator, value); all must hold. Rows come as tuples in the order of the columns asked for.
"""

from __future__ import annotations

import datetime
import functools
import operator
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow

from . import client_files, clients
from .isk import Isk
from .process import Server
from .trino import Trino, iceberg_catalog

Condition = Sequence[tuple[str, str, Any]]

OPERATORS = {"=": operator.eq, ">=": operator.ge, "<": operator.lt}


def holds(condition: Condition, row: Mapping[str, Any]) -> bool:
    """What the condition says of a row, for the independent side of a comparison."""
    return all(OPERATORS[op](row[column], value) for column, op, value in condition)


class Engine:
    """`nested_nulls` is whether a list, a map or a struct can be null; `lists` whether it lists a catalog by itself.

    `paged_uri` is a second address of the catalog, for listings in pages.
    """

    name = ""
    nested_nulls = True
    lists = True

    def __init__(self, isk: Isk, paged_uri: str = "") -> None:
        self.isk = isk
        self.paged_uri = paged_uri

    def close(self) -> None:
        pass

    def namespaces(self) -> list[str]:
        raise NotImplementedError

    def tables(self) -> list[str]:
        raise NotImplementedError

    def tables_in_pages(self, size: int) -> list[str]:
        """The tables at `paged_uri`, listed in pages of this size where the client has a setting for it."""
        raise NotImplementedError

    def describe(self, table: str) -> dict[str, str]:
        """Columns and their types in the engine's own words."""
        raise NotImplementedError

    def count(self, table: str, condition: Condition = ()) -> int:
        raise NotImplementedError

    def rows(self, table: str, columns: Sequence[str], condition: Condition = ()) -> list[tuple]:
        raise NotImplementedError

    def aggregate(self, table: str) -> list[tuple]:
        """(kafka_partition, rows, least and greatest kafka_offset, greatest kafka_timestamp) in order."""
        raise NotImplementedError


class SqlEngine(Engine):
    """An engine that is asked in SQL."""

    timestamp = "TIMESTAMP '{:%Y-%m-%d %H:%M:%S.%f}+00:00'"
    quote = '"'

    def sql(self, text: str) -> list[tuple]:
        raise NotImplementedError

    def quoted(self, column: str) -> str:
        return f"{self.quote}{column}{self.quote}"

    def table(self, name: str) -> str:
        return f"isk.hotset.{name}"

    def where(self, condition: Condition) -> str:
        def literal(value: Any) -> str:
            return self.timestamp.format(value) if isinstance(value, datetime.datetime) else str(value)

        return "".join(f" {'AND' if i else 'WHERE'} {self.quoted(c)} {op} {literal(v)}" for i, (c, op, v) in enumerate(condition))

    def count(self, table: str, condition: Condition = ()) -> int:
        return self.sql(f"SELECT count(*) FROM {self.table(table)}{self.where(condition)}")[0][0]

    def rows(self, table: str, columns: Sequence[str], condition: Condition = ()) -> list[tuple]:
        return self.sql(f"SELECT {', '.join(map(self.quoted, columns))} FROM {self.table(table)}{self.where(condition)}")

    def aggregate(self, table: str) -> list[tuple]:
        return self.sql(
            "SELECT kafka_partition, count(*), min(kafka_offset), max(kafka_offset), max(kafka_timestamp)"
            f" FROM {self.table(table)} GROUP BY kafka_partition ORDER BY kafka_partition"
        )


class PyIceberg(Engine):
    name = "pyiceberg"

    def __init__(self, isk: Isk, paged_uri: str = "") -> None:
        super().__init__(isk, paged_uri)
        self.catalog = clients.pyiceberg_catalog(isk.catalog_uri)

    def namespaces(self) -> list[str]:
        return [".".join(name) for name in self.catalog.list_namespaces()]

    def tables(self) -> list[str]:
        return [name for _, name in self.catalog.list_tables("hotset")]

    def tables_in_pages(self, size: int) -> list[str]:
        catalog = clients.pyiceberg_catalog(self.paged_uri, **{"rest-page-size": str(size)})
        return [name for _, name in catalog.list_tables("hotset")]

    def describe(self, table: str) -> dict[str, str]:
        return {field.name: str(field.field_type) for field in self._load(table).schema().fields}

    def count(self, table: str, condition: Condition = ()) -> int:
        return self._scan(table, condition).count()

    def rows(self, table: str, columns: Sequence[str], condition: Condition = ()) -> list[tuple]:
        return tuples(self._scan(table, condition, selected_fields=tuple(columns)).to_arrow(), columns)

    def aggregate(self, table: str) -> list[tuple]:
        arrow = self._scan(table, (), selected_fields=("kafka_partition", "kafka_offset", "kafka_timestamp")).to_arrow()
        return aggregate(arrow)

    def _load(self, table: str):
        return self.catalog.load_table(f"hotset.{table}")

    def _scan(self, table: str, condition: Condition, **options: Any):
        from pyiceberg import expressions

        terms = {"=": expressions.EqualTo, ">=": expressions.GreaterThanOrEqual, "<": expressions.LessThan}
        made = [terms[op](c, v.isoformat() if isinstance(v, datetime.datetime) else v) for c, op, v in condition]
        return self._load(table).scan(functools.reduce(expressions.And, made, expressions.AlwaysTrue()), **options)


class DuckDb(SqlEngine):
    name = "duckdb"
    timestamp = "TIMESTAMPTZ '{:%Y-%m-%d %H:%M:%S.%f}+00:00'"

    def __init__(self, isk: Isk, paged_uri: str = "") -> None:
        super().__init__(isk, paged_uri)
        self.connection = clients.duckdb_connection(isk.catalog_uri)

    def close(self) -> None:
        self.connection.close()

    def sql(self, text: str) -> list[tuple]:
        return self.connection.execute(text).fetchall()

    def namespaces(self) -> list[str]:
        return [row[0] for row in self.sql("SELECT schema_name FROM information_schema.schemata WHERE catalog_name = 'isk'")]

    def tables(self) -> list[str]:
        return [row[0] for row in self.sql("SELECT name FROM (SHOW ALL TABLES) WHERE database = 'isk' AND schema = 'hotset'")]

    def describe(self, table: str) -> dict[str, str]:
        return {row[0]: row[1] for row in self.sql(f"DESCRIBE {self.table(table)}")}


class Spark(SqlEngine):
    name = "spark"
    quote = "`"

    def __init__(self, isk: Isk, paged_uri: str = "") -> None:
        super().__init__(isk, paged_uri)
        # PySpark gives timestamps in the process's own zone.
        os.environ["TZ"] = "UTC"
        time.tzset()
        self.session = clients.spark_session(clients.spark_catalog("isk", isk.catalog_uri))

    def sql(self, text: str) -> list[tuple]:
        return [tuple(row) for row in self.session.sql(text).collect()]

    def namespaces(self) -> list[str]:
        return [row[0] for row in self.sql("SHOW NAMESPACES IN isk")]

    def tables(self) -> list[str]:
        return [row[1] for row in self.sql("SHOW TABLES IN isk.hotset")]

    def tables_in_pages(self, size: int) -> list[str]:
        for key, value in clients.spark_catalog("paged", self.paged_uri, **{"rest-page-size": str(size)}).items():
            self.session.conf.set(key, value)
        return [row[1] for row in self.sql("SHOW TABLES IN paged.hotset")]

    def describe(self, table: str) -> dict[str, str]:
        return {field.name: field.dataType.simpleString() for field in self.session.table(self.table(table)).schema.fields}


class TrinoEngine(SqlEngine):
    name = "trino"
    timestamp = "TIMESTAMP '{:%Y-%m-%d %H:%M:%S.%f} UTC'"

    def __init__(self, isk: Isk, paged_uri: str = "") -> None:
        super().__init__(isk, paged_uri)
        uris = {"isk": isk.catalog_uri} | ({"paged": paged_uri} if paged_uri else {})
        self.server: Server = Trino({name: iceberg_catalog(uri, isk.s3_endpoint) for name, uri in uris.items()}).start()

    def close(self) -> None:
        self.server.discard()

    def sql(self, text: str) -> list[tuple]:
        return [tuple(row) for row in self.server.query(text)]

    def namespaces(self) -> list[str]:
        return [row[0] for row in self.sql("SHOW SCHEMAS FROM isk")]

    def tables(self) -> list[str]:
        return [row[0] for row in self.sql("SHOW TABLES FROM isk.hotset")]

    def tables_in_pages(self, size: int) -> list[str]:
        """Trino has no setting for the size; it takes the one that the catalog's configuration names."""
        return [row[0] for row in self.sql("SHOW TABLES FROM paged.hotset")]

    def describe(self, table: str) -> dict[str, str]:
        return {row[0]: row[1] for row in self.sql(f"DESCRIBE {self.table(table)}")}


class ClickHouse(SqlEngine):
    """ClickHouse inside the process (chdb)."""

    name = "clickhouse"
    nested_nulls = False
    timestamp = "toDateTime64('{:%Y-%m-%d %H:%M:%S.%f}', 6, 'UTC')"

    def __init__(self, isk: Isk, paged_uri: str = "", credential: str | None = None) -> None:
        super().__init__(isk, paged_uri)
        import chdb.session

        self.session = chdb.session.Session()
        for statement in client_files.statements(client_files.text("clickhouse.sql", isk.catalog_uri, credential=credential)):
            self.sql(statement)
        # Its strings are bytes, and some of ours are no text.
        self.sql("SET output_format_arrow_string_as_string = 0")

    def close(self) -> None:
        self.session.close()

    def table(self, name: str) -> str:
        return f"isk.`hotset.{name}`"

    def sql(self, text: str) -> list[tuple]:
        answer = self.session.query(text, "Arrow").bytes()
        if not answer:
            return []
        arrow = pyarrow.ipc.open_file(answer).read_all()
        return tuples(arrow, arrow.column_names)

    def namespaces(self) -> list[str]:
        return sorted({name.split(".")[0] for name in self._names()})

    def tables(self) -> list[str]:
        return [name.removeprefix("hotset.") for name in self._names() if name.startswith("hotset.")]

    def describe(self, table: str) -> dict[str, str]:
        return {row[0].decode(): row[1].decode() for row in self.sql(f"DESCRIBE TABLE {self.table(table)}")}

    def _names(self) -> list[str]:
        return [row[0].decode() for row in self.sql("SHOW TABLES FROM isk")]


class WithoutCatalog(Engine):
    """An engine that knows no Iceberg catalog: PyIceberg finds a table for it."""

    lists = False

    def __init__(self, isk: Isk, paged_uri: str = "") -> None:
        super().__init__(isk, paged_uri)
        self.pyiceberg = PyIceberg(isk)


class Polars(WithoutCatalog):
    """Polars. PyIceberg also reads for it the chunks that have a delete file beside them."""

    name = "polars"

    def describe(self, table: str) -> dict[str, str]:
        return {name: str(kind) for name, kind in self._scan(table, ()).collect_schema().items()}

    def count(self, table: str, condition: Condition = ()) -> int:
        import polars

        return self._scan(table, condition).select(polars.len()).collect().item()

    def rows(self, table: str, columns: Sequence[str], condition: Condition = ()) -> list[tuple]:
        return tuples(self._scan(table, condition).select(*columns).collect().to_arrow(), columns)

    def aggregate(self, table: str) -> list[tuple]:
        return aggregate(self._scan(table, ()).select("kafka_partition", "kafka_offset", "kafka_timestamp").collect().to_arrow())

    def _scan(self, table: str, condition: Condition):
        import polars

        # Its own reader does not take the endpoint from the catalog.
        options = {
            "aws_endpoint_url": self.isk.s3_endpoint,
            "aws_access_key_id": self.isk.access_key,
            "aws_secret_access_key": self.isk.secret_key,
            "aws_region": clients.REGION,
            "aws_allow_http": "true",
        }
        frame = polars.scan_iceberg(self.pyiceberg._load(table), storage_options=options)
        for column, op, value in condition:
            frame = frame.filter(OPERATORS[op](polars.col(column), value))
        return frame


class DataFusion(WithoutCatalog, SqlEngine):
    """iceberg-rust under DataFusion, given a table by its metadata file, which is what its Python package can."""

    name = "datafusion"

    def table(self, name: str) -> str:
        from datafusion import SessionContext
        from pyiceberg_core.datafusion import IcebergDataFusionTable

        table = self.pyiceberg._load(name)
        self.context = SessionContext()
        properties = {key: value for key, value in table.io.properties.items() if isinstance(value, str)}
        provider = IcebergDataFusionTable(["hotset", name], table.metadata_location, properties)
        self.context.register_table(name, provider)
        return name

    def sql(self, text: str) -> list[tuple]:
        arrow = self.context.sql(text).to_arrow_table()
        return tuples(arrow, arrow.column_names)

    def describe(self, table: str) -> dict[str, str]:
        self.table(table)
        return {field.name: str(field.type) for field in self.context.table(table).schema()}


def tuples(arrow: pyarrow.Table, columns: Sequence[str]) -> list[tuple]:
    return list(zip(*(arrow.column(name).to_pylist() for name in columns), strict=True)) if columns else []


def aggregate(arrow: pyarrow.Table) -> list[tuple]:
    by = arrow.group_by("kafka_partition").aggregate(
        [([], "count_all"), ("kafka_offset", "min"), ("kafka_offset", "max"), ("kafka_timestamp", "max")]
    )
    columns = ["kafka_partition", "count_all", "kafka_offset_min", "kafka_offset_max", "kafka_timestamp_max"]
    return tuples(by.sort_by("kafka_partition"), columns)


ENGINES = [PyIceberg, DuckDb, Spark, TrinoEngine, ClickHouse, Polars, DataFusion]
