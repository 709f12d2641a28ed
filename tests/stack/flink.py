"""Flink inside one process, reading a table as a stream."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from . import cache, jdk, maven
from .process import Server
from .versions import VERSIONS

SOURCE = Path(__file__).parent / "FlinkReader.java"

# What Flink asks of Java's modules.
OPENED = ("java.base/java.util", "java.base/java.lang", "java.base/java.nio", "java.base/java.util.concurrent")


class FlinkReader(Server):
    """A stream of rows of `table`, from the catalog at `catalog_uri`; `options` are the source's own."""

    name = "flink"
    start_seconds = 120.0

    def __init__(self, catalog_uri: str, table: str, columns: str, options: Mapping[str, str]) -> None:
        super().__init__()
        self.catalog = {
            "type": "iceberg",
            "catalog-type": "rest",
            "uri": catalog_uri,
            "io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
            "cache-enabled": "false",
        }
        given = {"streaming": "true", "monitor-interval": "500ms"} | dict(options)
        hints = ", ".join(f"'{key}' = '{value}'" for key, value in given.items())
        self.query = f"SELECT {columns} FROM isk.hotset.`{table}` /*+ OPTIONS({hints}) */"

    def command(self) -> list[str]:
        opened = [f"--add-opens={package}=ALL-UNNAMED" for package in OPENED]
        options = ["-Xmx700m", *opened, "-Duser.timezone=UTC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        jars = ":".join(map(str, [compiled().parent, *maven.classpath("flink-iceberg")]))
        catalog = [f"{key}={value}" for key, value in self.catalog.items()]
        return [jdk.java("flink"), *options, "-cp", jars, "FlinkReader", "isk", *catalog, "--", self.query]

    def is_ready(self) -> bool:
        return bool(self.rows())

    def rows(self) -> list[tuple[str, ...]]:
        """The rows that came since the start, as text."""
        return [tuple(line.split("\t")[1:]) for line in self.log_text().splitlines() if line.startswith("row\t")]


def compiled() -> Path:
    digest = cache.digest(SOURCE.read_text() + repr(maven.classpath("flink-iceberg")))
    return cache.root() / "flink" / f"{VERSIONS['flink']['version']}-{digest}" / "FlinkReader.class"


def install() -> None:
    """Compiles the reader."""
    target = compiled()
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        compiler = jdk.home("broker") / "bin" / "javac"
        jars = ":".join(map(str, maven.classpath("flink-iceberg")))
        subprocess.run([os.fspath(compiler), "-cp", jars, "-d", os.fspath(target.parent), os.fspath(SOURCE)], check=True)
