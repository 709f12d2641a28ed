"""The floor of the proven case: the same rows as static Parquet in an Iceberg table, in an object store of its own."""

from __future__ import annotations

from typing import Any

from stack import clients
from stack.isk import Isk
from stack.lake import Lake

from .topics import PARTITIONS, Topic

NAMESPACE = "bench"


class StaticParquet:
    """Written by PyIceberg from the hot table, a file for each Kafka partition and column for column."""

    name = "static Parquet"
    time = "kafka_timestamp"

    def __init__(self, engine: Any, lake: Lake, isk: Isk) -> None:
        self.engine = engine
        self.lake = lake
        self.isk = isk

    def prepare(self, topic: Topic) -> None:
        catalog = self.lake.pyiceberg()
        catalog.create_namespace_if_not_exists(NAMESPACE)
        if catalog.table_exists(f"{NAMESPACE}.{topic.name}"):
            return
        hot = clients.pyiceberg_catalog(self.isk.catalog_uri).load_table(f"hotset.{topic.name}")
        table = catalog.create_table(f"{NAMESPACE}.{topic.name}", schema=hot.schema())
        for partition in range(PARTITIONS):
            table.append(hot.scan(row_filter=f"kafka_partition = {partition}").to_arrow())

    def before(self) -> None:
        pass

    def table(self, topic: Topic, query: str) -> str:
        return f"lake.{NAMESPACE}.{topic.name}"

    def processes(self) -> dict[str, int]:
        return {"engine": self.engine.pid, "store": self.lake.store.process.pid}
