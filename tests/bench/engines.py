"""The engines that ask: each takes SQL and is one process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from stack import clients, jdk, maven
from stack.trino import Trino
from stack.trino_kafka import TrinoKafka

HEAP = "2g"


class TooSlow(Exception):
    """The answer was not there in time; the engine has been told to stop."""


class TrinoEngine:
    """`server` is started; its catalogs are what it was made with."""

    name = "trino"

    def __init__(self, server: Trino) -> None:
        self.server = server
        self.session: dict[str, str] = {}
        self.cursor = server.connect(session_properties=self.session).cursor()

    @classmethod
    def of(cls, catalogs: Mapping[str, Mapping[str, str]], properties: Mapping[str, str] | None = None) -> TrinoEngine:
        return cls(Trino(catalogs, HEAP, properties, jvm=jdk.FULL).start())

    @classmethod
    def of_kafka(cls, bootstrap: str, tables: Mapping[str, Mapping[str, Any]]) -> TrinoEngine:
        return cls(TrinoKafka(bootstrap, tables, HEAP).start())

    @property
    def pid(self) -> int:
        return self.server.process.pid

    def timestamp(self, ms: int) -> str:
        return f"from_unixtime({ms / 1000!r})"

    def sql(self, text: str, seconds: float = 600) -> list[tuple]:
        import trino.exceptions

        self.session["query_max_run_time"] = f"{seconds:.0f}s"
        try:
            return [tuple(row) for row in self.cursor.execute(text).fetchall()]
        except trino.exceptions.TrinoQueryError as refused:
            if refused.error_name == "EXCEEDED_TIME_LIMIT":
                raise TooSlow from refused
            raise

    def __exit__(self, *_: object) -> None:
        self.server.stop()


class SparkEngine:
    """One session; catalogs and views can be added to it."""

    name = "spark"

    def __init__(self, catalogs: Mapping[str, str]) -> None:
        self.session = clients.spark_session(catalogs, HEAP, maven.classpath("spark-kafka"), jdk.FULL)
        self.pid = self.session.sparkContext._gateway.proc.pid

    def timestamp(self, ms: int) -> str:
        return f"timestamp_millis({ms})"

    def sql(self, text: str, seconds: float = 600) -> list[tuple]:
        context = self.session.sparkContext
        context.setJobGroup("bench", text, interruptOnCancel=True)
        late = threading.Event()

        def stop() -> None:
            late.set()
            context.cancelJobGroup("bench")

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            return [tuple(row) for row in self.session.sql(text).collect()]
        except Exception as stopped:
            if late.is_set():
                raise TooSlow from stopped
            raise
        finally:
            timer.cancel()

    def __exit__(self, *_: object) -> None:
        self.session.stop()


class DuckdbEngine:
    """A connection with one catalog attached. What it has read of files it forgets: they are to be read anew."""

    name = "duckdb"

    def __init__(self, catalog: str, uri: str) -> None:
        self.connection = clients.duckdb_connection(uri, catalog)
        self.connection.execute("SET enable_external_file_cache = false")

    def sql(self, text: str) -> list[tuple]:
        return self.connection.execute(text).fetchall()

    def __exit__(self, *_: object) -> None:
        self.connection.close()
