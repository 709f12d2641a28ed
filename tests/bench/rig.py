"""The servers of a run. Broker and registry are there from the beginning; the others start when they are first asked for."""

from __future__ import annotations

import time
from functools import cached_property

from stack import clients, jdk
from stack.isk import Isk
from stack.kafka import Broker
from stack.process import start_together
from stack.registry import Registry
from stack.trino import iceberg_catalog

from .engines import DuckdbEngine, SparkEngine, TrinoEngine
from .isk_tables import WARM_UP, FirstTouch, Proven
from .queries import WARM_UP_MOST, WARM_UP_SHARE, Contender
from .spark_kafka import SparkKafka
from .static_parquet import KEY, SECRET, Lake, StaticParquet
from .topics import KINDS, PARTITIONS, Topic, fill
from .trino_kafka import TrinoKafka


class Rig:
    """`sizes` says how many records each kind of topic has."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes
        self.broker = Broker(jvm=jdk.FULL)
        self.registry = Registry()
        self._open: list = []
        self._filled: dict[str, Topic] = {}

    def __enter__(self) -> Rig:
        start_together([self.broker, self.registry])
        return self

    def __exit__(self, *_: object) -> None:
        for thing in reversed(self._open):
            thing.__exit__(None, None, None)
        self.registry.stop()
        self.broker.stop()

    def _opened(self, thing):
        self._open.append(thing)
        return thing

    def isk(self, env: dict[str, str] | None = None) -> Isk:
        """Another service over this broker and registry, not started."""
        return Isk.beside(self.broker, self.registry, env)

    def fill(self, kind: str, count: int, name: str = "", partitions: int = PARTITIONS) -> Topic:
        """A topic, made when it is first asked for."""
        name = name or kind
        if name not in self._filled:
            begun = time.monotonic()
            self._filled[name] = fill(self.broker.bootstrap, self.registry.url, kind, count, name, partitions)
            size = self._filled[name].bytes_per_record
            print(f"  {name}: {count:,} records of {size:.0f} bytes in {time.monotonic() - begun:.0f} s", flush=True)
        return self._filled[name]

    def topic(self, kind: str) -> Topic:
        """The topic of the questions."""
        return self.fill(kind, self.sizes[kind])

    def warm(self, kind: str) -> Topic:
        """A smaller one, to warm up on."""
        return self.fill(kind, max(1, min(int(self.sizes[kind] * WARM_UP_SHARE), WARM_UP_MOST)), f"{kind}_warm")

    @cached_property
    def fresh(self) -> Isk:
        self.fill("narrow", 1000, WARM_UP)
        return self._opened(self.isk().start())

    @cached_property
    def proven(self) -> Isk:
        return self._opened(self.isk().start())

    @cached_property
    def lake(self) -> Lake:
        return self._opened(Lake().start())

    @cached_property
    def trino(self) -> TrinoEngine:
        catalogs = {name: iceberg_catalog(isk.catalog_uri, isk.s3_endpoint) for name, isk in (("fresh", self.fresh), ("proven", self.proven))}
        catalogs["lake"] = iceberg_catalog(self.lake.uri, self.lake.uri, vended_credentials=False, access_key=KEY, secret_key=SECRET)
        return self._opened(TrinoEngine.of(catalogs))

    @cached_property
    def trino_set(self) -> TrinoEngine:
        """Trino as `docs/engines.md` sets it for `LIMIT`."""
        catalogs = {"fresh": iceberg_catalog(self.fresh.catalog_uri, self.fresh.s3_endpoint)}
        return self._opened(TrinoEngine.of(catalogs, {"experimental.thread-per-driver-scheduler-enabled": "false"}))

    @cached_property
    def duckdb(self) -> DuckdbEngine:
        return self._opened(DuckdbEngine("fresh", self.fresh.catalog_uri))

    @cached_property
    def trino_kafka(self) -> TrinoEngine:
        return self._opened(TrinoEngine.of_kafka(self.broker.bootstrap, {name: schema for kind, (schema, _) in KINDS.items() for name in (kind, f"{kind}_warm")}))

    @cached_property
    def spark(self) -> SparkEngine:
        catalogs = clients.spark_catalog("fresh", self.fresh.catalog_uri) | clients.spark_catalog("proven", self.proven.catalog_uri)
        return self._opened(SparkEngine(catalogs | self.lake.spark_catalog("lake")))

    def contenders(self, name: str, only: set[str]) -> list[Contender]:
        """Those on this engine whose short names are in `only`."""
        engine = getattr(self, name)
        made: list[Contender] = []
        if "first-touch" in only:
            made.append(FirstTouch(engine, "fresh", self.fresh, self.broker))
        if "proven" in only:
            made.append(Proven(engine, "proven", self.proven, self.broker))
        if "static" in only:
            made.append(StaticParquet(engine, self.lake, self.proven))
        if "kafka" in only:
            made.append(TrinoKafka(self.trino_kafka, self.broker) if name == "trino" else SparkKafka(engine, self.broker))
        return made
