"""A real Trino server with the Iceberg connector alone, put together from its Maven packages (the full server is four times as large)."""

import json
import os
import shutil
import subprocess
import urllib.request
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import cache, client_files, jdk, maven
from .process import Server, free_port
from .versions import VERSIONS

SOURCE = Path(__file__).parent / "TrinoLauncher.java"


def iceberg_catalog(
    catalog_uri: str,
    s3_endpoint: str,
    *,
    region: str = "us-east-1",
    warehouse: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    vended_credentials: bool = True,
    credential: str | None = None,
) -> dict[str, str]:
    """The properties of a catalog over an Iceberg REST catalog and an S3 endpoint addressed by path, by Trino's file in deploy/clients."""
    properties = client_files.properties(client_files.text("trino.properties", catalog_uri, s3_endpoint, credential))
    properties |= {"iceberg.rest-catalog.vended-credentials-enabled": str(vended_credentials).lower(), "s3.region": region}
    if warehouse:
        properties["iceberg.rest-catalog.warehouse"] = warehouse
    if access_key and secret_key:
        properties |= {"s3.aws-access-key": access_key, "s3.aws-secret-key": secret_key}
    return properties


class Trino(Server):
    """`catalogs` maps a catalog's name to its properties; see `iceberg_catalog`."""

    name = "trino"
    start_seconds = 180.0
    release = VERSIONS["trino"]["server"]

    def __init__(
        self,
        catalogs: Mapping[str, Mapping[str, str]],
        heap: str = "1200m",
        properties: Mapping[str, str] | None = None,
        java: Sequence[str] = (),
        jvm: Sequence[str] = jdk.BRIEF,
    ) -> None:
        super().__init__()
        self.java = [*jvm, *java]
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.catalogs = catalogs
        self.heap = heap
        self.properties = dict(properties or {})

    def plugin_folder(self) -> Path:
        return _plugins()

    def server_jars(self) -> list[Path]:
        return maven.classpath("trino-server")

    def prepare(self) -> None:
        configuration = {
            "coordinator": "true",
            "node-scheduler.include-coordinator": "true",
            "http-server.http.port": str(self.port),
            "discovery.uri": self.url,
            "catalog.config-dir": str(self.work / "catalog"),
            "plugin.dir": str(self.plugin_folder()),
            "catalog.management": "static",
        }
        _write_properties(self.work / "config.properties", configuration | self.properties)
        for name, properties in self.catalogs.items():
            _write_properties(self.work / "catalog" / f"{name}.properties", properties)
        _write_properties(self.work / "log.properties", {"io.trino.bootstrap": "WARN", "io.trino.memory": "ERROR"})

    def command(self) -> list[str]:
        jars = [_home(), *self.server_jars()]
        options = [
            f"-Xmx{self.heap}",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:ReservedCodeCacheSize=256M",
            "-Djdk.attach.allowAttachSelf=true",
            "-XX:+EnableDynamicAgentLoading",
            "--add-modules=jdk.incubator.vector",
            "--enable-native-access=ALL-UNNAMED",
            "--sun-misc-unsafe-memory-access=allow",
            "-Duser.timezone=UTC",
            f"-Dconfig={self.work / 'config.properties'}",
            f"-Dlog.levels-file={self.work / 'log.properties'}",
            "-Dnode.environment=test",
            "-Dnode.id=test",
            "-Dnode.internal-address=127.0.0.1",
            "-Dnode.bind-ip=127.0.0.1",
            f"-Dnode.data-dir={self.work / 'data'}",
            *self.java,
        ]
        java = jdk.java("trino")
        return [java, *options, "-cp", ":".join(map(str, jars)), "TrinoLauncher", self.release]

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v1/info", timeout=2) as answer:
                return json.load(answer)["starting"] is False
        except (OSError, ValueError, KeyError):
            return False

    def connect(self, **options: object):
        """A DB-API connection (`trino` package) to this server."""
        import trino

        return trino.dbapi.connect(host="127.0.0.1", port=self.port, user="test", **options)

    def query(self, sql: str) -> list[list]:
        """All rows of one statement."""
        connection = self.connect()
        try:
            return connection.cursor().execute(sql).fetchall()
        finally:
            connection.close()


def install() -> None:
    """Compiles the launcher and puts the connector together."""
    make_plugin(_plugins() / "iceberg", maven.classpath("trino-iceberg"), "io.trino.plugin.iceberg.IcebergPlugin")
    if not (_home() / "TrinoLauncher.class").exists():
        compiler = jdk.home("broker") / "bin" / "javac"
        subprocess.run([os.fspath(compiler), "-d", os.fspath(_home()), os.fspath(SOURCE)], check=True)


def make_plugin(plugin: Path, jars: list[Path], main_class: str) -> None:
    """Gathers a connector's jars in the folder shape that Trino wants."""
    if plugin.exists():
        return
    partly = plugin.with_name(f".{plugin.name}-partly")
    shutil.rmtree(partly, ignore_errors=True)
    partly.mkdir(parents=True)
    for number, jar in enumerate(jars):
        # Classes are taken from the first jar that has them; some of the jars differ in nothing but their group.
        (partly / f"{number:03}.{jar.name}").symlink_to(jar)
    with zipfile.ZipFile(partly / "services.jar", "w") as jar:
        # Written by Trino's own build when it packs the connector for its server; how the server finds it.
        jar.writestr("META-INF/services/io.trino.spi.Plugin", f"{main_class}\n")
    partly.rename(plugin)


def _home() -> Path:
    digest = cache.digest(SOURCE.read_text() + repr(maven.classpath("trino-iceberg")))
    return cache.root() / "trino" / f"{VERSIONS['trino']['server']}-{digest}"


def _plugins() -> Path:
    return _home() / "plugin"


def _write_properties(path: Path, properties: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
