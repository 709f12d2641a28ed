"""Clients that read whole tables of any namespace, the same way from the service under test and from the lake itself."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from . import clients
from .canonical import checksums
from .isk import Isk
from .lake import Lake
from .trino import Trino, iceberg_catalog

# The catalogs' names in every engine: the service under test, and the lake without it.
THROUGH, DIRECT = "isk", "direct"


class Reader:
    """Tables are named "namespace.table". `direct` asks the lake itself."""

    name = ""

    def names(self, table: str, direct: bool = False) -> list[str]:
        """The columns, in order."""
        raise NotImplementedError

    def rows(self, table: str, columns: Sequence[str], direct: bool = False, where: str = "") -> list[tuple]:
        raise NotImplementedError

    def count(self, table: str, direct: bool = False, where: str = "") -> int:
        """Counted as the engine likes, which is from metadata where it trusts that."""
        raise NotImplementedError

    def tables(self, namespace: str, direct: bool = False) -> list[str]:
        raise NotImplementedError

    def close(self) -> None:
        pass


class SqlReader(Reader):
    quote = '"'

    def sql(self, text: str) -> list[tuple]:
        raise NotImplementedError

    def table(self, table: str, direct: bool = False) -> str:
        namespace, name = table.split(".", 1)
        return f"{DIRECT if direct else THROUGH}.{namespace}.{self.quote}{name}{self.quote}"

    def rows(self, table: str, columns: Sequence[str], direct: bool = False, where: str = "") -> list[tuple]:
        listed = ", ".join(f"{self.quote}{name}{self.quote}" for name in columns)
        return self.sql(f"SELECT {listed} FROM {self.table(table, direct)}{f' WHERE {where}' if where else ''}")

    def count(self, table: str, direct: bool = False, where: str = "") -> int:
        return self.sql(f"SELECT count(*) FROM {self.table(table, direct)}{f' WHERE {where}' if where else ''}")[0][0]


class PyIceberg(Reader):
    name = "pyiceberg"

    def __init__(self, isk: Isk, lake: Lake) -> None:
        self.through = clients.pyiceberg_catalog(isk.catalog_uri)
        self.direct = lake.pyiceberg()

    def load(self, table: str, direct: bool = False):
        return (self.direct if direct else self.through).load_table(tuple(table.split(".", 1)))

    def names(self, table: str, direct: bool = False) -> list[str]:
        return [column.name for column in self.load(table, direct).schema().fields]

    def rows(self, table: str, columns: Sequence[str], direct: bool = False, where: str = "") -> list[tuple]:
        return tuples(self._scan(table, direct, where, selected_fields=tuple(columns)).to_arrow(), columns)

    def count(self, table: str, direct: bool = False, where: str = "") -> int:
        return self._scan(table, direct, where).count()

    def tables(self, namespace: str, direct: bool = False) -> list[str]:
        return [name for _, name in (self.direct if direct else self.through).list_tables(namespace)]

    def _scan(self, table: str, direct: bool, where: str, **more: Any):
        return self.load(table, direct).scan(**({"row_filter": where} if where else {}), **more)


class DuckDb(SqlReader):
    name = "duckdb"

    def __init__(self, isk: Isk, lake: Lake) -> None:
        self.connection = clients.duckdb_connection(isk.catalog_uri)
        # With it, DuckDB 1.5.5 takes one deletion vector for another, see FINDINGS.
        self.connection.execute("SET enable_external_file_cache = false")
        lake.attach(self.connection)

    def close(self) -> None:
        self.connection.close()

    def sql(self, text: str) -> list[tuple]:
        return self.connection.execute(text).fetchall()

    def names(self, table: str, direct: bool = False) -> list[str]:
        return [row[0] for row in self.sql(f"DESCRIBE {self.table(table, direct)}")]

    def tables(self, namespace: str, direct: bool = False) -> list[str]:
        catalog = DIRECT if direct else THROUGH
        return [row[0] for row in self.sql(f"SELECT name FROM (SHOW ALL TABLES) WHERE database = '{catalog}' AND schema = '{namespace}'")]


class Spark(SqlReader):
    """One Spark serves the whole run and other files use its catalog `isk`, so ours has another name there."""

    name = "spark"
    quote = "`"
    through = "live"

    def __init__(self, isk: Isk, lake: Lake) -> None:
        # PySpark gives timestamps in the process's own zone.
        os.environ["TZ"] = "UTC"
        time.tzset()
        self.session = clients.spark_session(clients.spark_catalog(self.through, isk.catalog_uri) | lake.spark_catalog(DIRECT))

    def table(self, table: str, direct: bool = False) -> str:
        return super().table(table, direct).replace(f"{THROUGH}.", f"{self.through}.", 1)

    def sql(self, text: str) -> list[tuple]:
        return [tuple(row) for row in self.session.sql(text).collect()]

    def names(self, table: str, direct: bool = False) -> list[str]:
        return self.session.table(self.table(table, direct)).schema.names

    def tables(self, namespace: str, direct: bool = False) -> list[str]:
        return [row[1] for row in self.sql(f"SHOW TABLES IN {DIRECT if direct else self.through}.{namespace}")]


class TrinoReader(SqlReader):
    name = "trino"

    def __init__(self, server: Trino) -> None:
        self.server = server

    def close(self) -> None:
        self.server.discard()

    def sql(self, text: str) -> list[tuple]:
        return [tuple(row) for row in self.server.query(text)]

    def names(self, table: str, direct: bool = False) -> list[str]:
        return [row[0] for row in self.sql(f"DESCRIBE {self.table(table, direct)}")]

    def tables(self, namespace: str, direct: bool = False) -> list[str]:
        return [row[0] for row in self.sql(f"SHOW TABLES FROM {DIRECT if direct else THROUGH}.{namespace}")]


class Readers:
    """The clients by name, each started when it is first asked for."""

    def __init__(self, isk: Isk, lake: Lake) -> None:
        self.isk, self.lake = isk, lake
        self._started: dict[str, Reader] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._started:
            self._started[name] = self._start(name)
        return self._started[name]

    def _start(self, name: str) -> Reader:
        if name == "trino":
            return TrinoReader(_trino_server(self.isk, self.lake).start())
        return {"pyiceberg": PyIceberg, "duckdb": DuckDb, "spark": Spark}[name](self.isk, self.lake)

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._started.values():
            reader.close()


def _trino_server(isk: Isk, lake: Lake) -> Trino:
    direct = iceberg_catalog(
        lake.catalog_uri, lake.s3_endpoint, access_key=lake.access_key, secret_key=lake.secret_key, vended_credentials=False
    )
    return Trino({THROUGH: iceberg_catalog(isk.catalog_uri, isk.s3_endpoint), DIRECT: direct})


def tuples(arrow: Any, columns: Sequence[str]) -> list[tuple]:
    return list(zip(*(arrow.column(name).to_pylist() for name in columns), strict=True))


def assert_same(reader: Reader, table: str, columns: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], direct: bool = False) -> None:
    """The table has exactly these columns and rows, whatever their order, and is counted right."""
    where = f"{table}{' (direct)' if direct else ''} in {reader.name}"
    names = reader.names(table, direct)
    assert [name.lower() for name in names] == [name.lower() for name in columns], f"columns of {where}: {names}, not {list(columns)}"
    got = reader.rows(table, names, direct)
    place = [[name.lower() for name in names].index(name) for name in ("kafka_partition", "kafka_offset") if name in columns]
    if len(place) == 2:
        seen = Counter((row[place[0]], row[place[1]]) for row in got)
        wanted = Counter((row["kafka_partition"], row["kafka_offset"]) for row in rows)
        lost, surplus = sorted((wanted - seen).elements()), sorted((seen - wanted).elements())
        assert not lost and not surplus, f"{where}: {len(lost)} lost {lost[:10]}, {len(surplus)} too many {surplus[:10]}"
    wanted_sums, seen_sums = checksums(columns, rows), checksums(columns, got)
    if wanted_sums != seen_sums:
        differ = [name for name in wanted_sums if wanted_sums[name] != seen_sums[name]]
        raise AssertionError(f"{where}: values differ in {differ}\n{_first_difference(columns, rows, got)}")
    assert reader.count(table, direct) == len(rows), f"count(*) of {where}"


def _first_difference(columns: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], got: Sequence[tuple]) -> str:
    if not {"kafka_partition", "kafka_offset"} <= set(columns):
        return ""
    by_position = {}
    for row in got:
        named = dict(zip(columns, row, strict=True))
        by_position[named["kafka_partition"], named["kafka_offset"]] = named
    for row in rows:
        seen = by_position[row["kafka_partition"], row["kafka_offset"]]
        if checksums(columns, [row]) != checksums(columns, [seen]):
            return "\n".join(f"{name}: want {row[name]!r}, have {seen[name]!r}" for name in columns if row[name] != seen[name])
    return ""
