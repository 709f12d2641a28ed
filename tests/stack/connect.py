"""Kafka Connect, standalone, with Iceberg's own sink: it moves records of one topic into a table of the lake while it runs."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from . import clients, jdk, maven
from .kafka import Broker
from .lake import Lake, hadoop_jars
from .process import Server, StartFailed, free_port, http_ok
from .records import create_topic
from .registry import Registry

CONVERTER = Path(__file__).with_name("ConfluentAvroConverter.java")


class IcebergSink(Server):
    """Where a record comes from is put into it by Connect's own transformations, under the names of the service's columns."""

    name = "connect"
    start_seconds = 120.0

    def __init__(self, broker: Broker, registry: Registry, lake: Lake, topic: str, table: str, more: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.broker, self.registry, self.lake, self.topic, self.table = broker, registry, lake, topic, table
        self.more = dict(more or {})
        self.port = free_port()
        self.control = f"control-{topic}"

    def prepare(self) -> None:
        create_topic(self.broker.bootstrap, self.control)
        compiler = [str(jdk.home("trino") / "bin" / "javac"), "--release", "17"]
        done = subprocess.run([*compiler, "-cp", self._jars(), "-d", str(self.work), str(CONVERTER)], capture_output=True, text=True)
        if done.returncode:
            raise StartFailed(f"the converter was not compiled\n{done.stderr}")
        self._write("worker", self._worker())
        self._write("sink", self._sink())

    def command(self) -> list[str]:
        options = ("-Xmx384m", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=WARN")
        main = "org.apache.kafka.connect.cli.ConnectStandalone"
        return [jdk.java("broker"), *options, "-cp", f"{self._jars()}:{self.work}", main, "worker.properties", "sink.properties"]

    def is_ready(self) -> bool:
        return http_ok(f"http://127.0.0.1:{self.port}/connectors/sink/status")

    def _jars(self) -> str:
        return ":".join(str(jar) for jar in [*maven.classpath("connect"), *hadoop_jars()])

    def _write(self, name: str, properties: Mapping[str, str]) -> None:
        (self.work / f"{name}.properties").write_text("".join(f"{key}={value}\n" for key, value in properties.items()))

    def _worker(self) -> dict[str, str]:
        return {
            "bootstrap.servers": self.broker.bootstrap,
            "listeners": f"http://127.0.0.1:{self.port}",
            "key.converter": "org.apache.kafka.connect.converters.ByteArrayConverter",
            "value.converter": "ConfluentAvroConverter",
            "value.converter.registry.url": self.registry.url,
            "offset.storage.file.filename": str(self.work / "offsets"),
            "offset.flush.interval.ms": "1000",
        }

    def _sink(self) -> dict[str, str]:
        insert = "org.apache.kafka.connect.transforms.InsertField$Value"
        return {
            "name": "sink",
            "connector.class": "org.apache.iceberg.connect.IcebergSinkConnector",
            "tasks.max": "1",
            "topics": self.topic,
            "iceberg.tables": self.table,
            "iceberg.tables.auto-create-enabled": "true",
            "iceberg.control.topic": self.control,
            "iceberg.control.commit.interval-ms": "1500",
            "iceberg.catalog.type": "rest",
            "iceberg.catalog.uri": self.lake.catalog_uri,
            "iceberg.catalog.io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
            "iceberg.catalog.client.region": clients.REGION,
            "iceberg.catalog.s3.endpoint": self.lake.s3_endpoint,
            "iceberg.catalog.s3.path-style-access": "true",
            "iceberg.catalog.s3.access-key-id": self.lake.access_key,
            "iceberg.catalog.s3.secret-access-key": self.lake.secret_key,
            "transforms": "from",
            "transforms.from.type": insert,
            "transforms.from.partition.field": "kafka_partition",
            "transforms.from.offset.field": "kafka_offset",
        } | self.more
