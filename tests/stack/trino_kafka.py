"""A second Trino server, with its Kafka connector alone: what the benchmark measures against.

Confluent's registry client, which the connector needs to ask a registry, is not published where packages come from. So tables
are described by files, and two classes of ours stand before the connector's: one cuts the five framing bytes off each message.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import cache, jdk, maven
from .trino import Trino, make_plugin
from .versions import VERSIONS

SOURCES = sorted((Path(__file__).parent / "kafka_connector").glob("*.java"))
SCHEMA = "default"

# What the server gives to a connector, which must not bring its own.
PROVIDED = ("trino-spi-", "slice-", "jol-core-", "opentelemetry-api-", "opentelemetry-context-", "jackson-annotations-")


class TrinoKafka(Trino):
    """`tables` are Avro schemas by topic; each topic is the table kafka.default.<topic>."""

    name = "trino-kafka"
    release = VERSIONS["trino"]["kafka"]

    def __init__(self, bootstrap: str, tables: Mapping[str, Mapping[str, Any]], heap: str = "1200m") -> None:
        properties = {
            "connector.name": "kafka",
            "kafka.nodes": bootstrap,
            "kafka.table-names": ",".join(tables),
            "kafka.hide-internal-columns": "false",
        }
        super().__init__({"kafka": properties}, heap, jvm=jdk.FULL)
        properties["kafka.table-description-dir"] = str(self.work / "tables")
        self.tables = tables

    def plugin_folder(self) -> Path:
        return _home() / "plugin"

    def server_jars(self) -> list[Path]:
        return maven.classpath("trino-kafka-server")

    def prepare(self) -> None:
        super().prepare()
        folder = self.work / "tables"
        folder.mkdir()
        for topic, schema in self.tables.items():
            file = folder / f"{topic}.avsc"
            file.write_text(json.dumps(schema))
            fields = [{"name": field["name"], "mapping": field["name"], "type": _type(field["type"])} for field in schema["fields"]]
            message = {"dataFormat": "avro", "dataSchema": str(file), "fields": fields}
            table = {"tableName": topic, "schemaName": SCHEMA, "topicName": topic, "message": message}
            (folder / f"{topic}.json").write_text(json.dumps(table))

    def is_ready(self) -> bool:
        # This release says that it has started before it takes queries.
        try:
            return super().is_ready() and self.query("SELECT count(*) FROM system.runtime.nodes") == [[1]]
        except Exception as refused:
            if "NO_NODES_AVAILABLE" in str(refused):
                return False
            raise


def install() -> None:
    """Puts the connector together, our two classes first."""
    jars = [jar for jar in maven.classpath("trino-kafka") if not jar.name.startswith(PROVIDED)]
    classes = _home() / "classes"
    if not classes.exists():
        everything = ":".join(map(str, maven.classpath("trino-kafka")))
        partly = classes.with_name("classes-partly")
        subprocess.run([os.fspath(jdk.home("trino") / "bin" / "javac"), "-d", partly, "-cp", everything, *SOURCES], check=True)
        partly.rename(classes)
    jar = _home() / "before.jar"
    subprocess.run([os.fspath(jdk.home("trino") / "bin" / "jar"), "--create", "--file", jar, "-C", classes, "."], check=True)
    make_plugin(_home() / "plugin" / "kafka", [jar, *jars], "io.trino.plugin.kafka.KafkaPlugin")


def _home() -> Path:
    sources = "".join(source.read_text() for source in SOURCES)
    digest = cache.digest(sources + repr(maven.classpath("trino-kafka")))
    return cache.root() / "trino-kafka" / f"{TrinoKafka.release}-{digest}"


def _type(avro: Any) -> str:
    """The connector's type for an Avro type. It knows no logical types: a timestamp is a bigint, a decimal varbinary."""
    if isinstance(avro, list):
        (only,) = (branch for branch in avro if branch != "null")
        return _type(only)
    if isinstance(avro, str):
        return {"string": "VARCHAR", "int": "BIGINT", "long": "BIGINT", "double": "DOUBLE", "boolean": "BOOLEAN", "bytes": "VARBINARY"}[avro]
    kind = avro["type"]
    if kind == "record":
        return "ROW(" + ", ".join(f"{field['name']} {_type(field['type'])}" for field in avro["fields"]) + ")"
    if kind == "array":
        return f"ARRAY({_type(avro['items'])})"
    if kind == "map":
        return f"MAP(VARCHAR, {_type(avro['values'])})"
    return "VARCHAR" if kind == "enum" else _type(kind)
