"""Flink inside one process: a stream of rows of a table, or an INSERT."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import cache, client_files, jdk, maven
from .process import Server
from .versions import VERSIONS

SOURCE = Path(__file__).parent / "FlinkSql.java"

# What Flink asks of Java's modules.
OPENED = ("java.base/java.util", "java.base/java.lang", "java.base/java.nio", "java.base/java.util.concurrent")


class FlinkReader(Server):
    """A stream of rows of `table`, from the catalog at `catalog_uri`; `options` are the source's own."""

    name = "flink"
    start_seconds = 120.0

    def __init__(self, catalog_uri: str, table: str, columns: str, options: Mapping[str, str], credential: str | None = None) -> None:
        super().__init__()
        given = {"streaming": "true", "monitor-interval": "500ms"} | dict(options)
        query = f"SELECT {columns} FROM isk.hotset.`{table}` /*+ OPTIONS({_listed(given)}) */"
        self.statements = [catalog("isk", catalog_uri, {"credential": credential} if credential else None), query]

    def command(self) -> list[str]:
        return command(self.statements)

    def is_ready(self) -> bool:
        return bool(self.rows())

    def rows(self) -> list[tuple[str, ...]]:
        """The rows that came since the start, as text."""
        return [tuple(line.split("\t")[1:]) for line in self.log_text().splitlines() if line.startswith("row\t")]


def catalog(name: str, uri: str, properties: Mapping[str, str] | None = None) -> str:
    """The statement that makes a REST catalog known, by Flink's file in deploy/clients and `properties`."""
    given = dict(properties or {})
    (statement,) = client_files.statements(client_files.text("flink.sql", uri, credential=given.get("credential")))
    return f"CREATE CATALOG {name} WITH ({_listed(client_files.options(statement) | given)})"


def run(statements: Sequence[str], seconds: float = 180) -> None:
    """Runs statements to the end of the last one."""
    done = subprocess.run(command(statements), capture_output=True, text=True, timeout=seconds)
    if done.returncode:
        raise RuntimeError(f"Flink ended with {done.returncode}\n{done.stderr[-4000:]}")


def command(statements: Sequence[str]) -> list[str]:
    opened = [f"--add-opens={package}=ALL-UNNAMED" for package in OPENED]
    options = ["-Xmx700m", *jdk.BRIEF, *opened, "-Duser.timezone=UTC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    jars = ":".join(map(str, [compiled().parent, *maven.classpath("flink-iceberg")]))
    return [jdk.java("flink"), *options, "-cp", jars, "FlinkSql", *statements]


def _listed(properties: Mapping[str, str]) -> str:
    return ", ".join(f"'{key}' = '{value}'" for key, value in properties.items())


def compiled() -> Path:
    digest = cache.digest(SOURCE.read_text() + repr(maven.classpath("flink-iceberg")))
    return cache.root() / "flink" / f"{VERSIONS['flink']['version']}-{digest}" / "FlinkSql.class"


def install() -> None:
    """Compiles the program."""
    target = compiled()
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        compiler = jdk.home("broker") / "bin" / "javac"
        jars = ":".join(map(str, maven.classpath("flink-iceberg")))
        subprocess.run([os.fspath(compiler), "-cp", jars, "-d", os.fspath(target.parent), os.fspath(SOURCE)], check=True)
