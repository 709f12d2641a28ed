"""A real schema registry that speaks Confluent's API: Apicurio Registry, in memory.

`url` is what a Confluent serializer is given. Schema ids go as Confluent's do: magic byte 0, then four bytes.
"""

import shutil
import tarfile
from pathlib import Path

from . import cache, jdk, maven
from .process import Server, free_port, http_ok
from .versions import VERSIONS

STARTER = "quarkus-run.jar"


class Registry(Server):
    """What was registered is forgotten when the server stops."""

    name = "registry"

    def __init__(self, heap: str = "384m") -> None:
        super().__init__()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/apis/ccompat/v7"
        self.heap = heap

    def command(self) -> list[str]:
        options = [f"-Xmx{self.heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        settings = [
            "-Dquarkus.http.host=127.0.0.1",
            f"-Dquarkus.http.port={self.port}",
            "-Dquarkus.management.host=127.0.0.1",
            f"-Dquarkus.management.port={free_port()}",
            "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
        ]
        return [jdk.java("registry"), *options, *settings, "-jar", str(_unpacked() / STARTER)]

    def is_ready(self) -> bool:
        return http_ok(f"{self.url}/subjects")


def install() -> None:
    """Unpacks the downloaded archive beside it."""
    target = _unpacked()
    if (target / STARTER).exists():
        return
    archive = maven.classpath("registry")[0]
    partly = target.with_name(target.name + ".partly")
    shutil.rmtree(partly, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(partly, filter="data")
    shutil.rmtree(target, ignore_errors=True)
    partly.rename(target)


def _unpacked() -> Path:
    return cache.root() / "registry" / VERSIONS["registry"]["apicurio"]
