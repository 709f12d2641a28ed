"""A lake that nobody here wrote: Iceberg's own REST catalog server over SQLite, and S3Proxy as the object store, both from Maven packages."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from . import clients, flink, jdk, maven, venv
from .process import Server, free_port, http_ok, start_together
from .tls import STORE_PASSWORD

if TYPE_CHECKING:
    import duckdb
    import pyiceberg.catalog

    from .tls import Authority

BUCKET = "lake"


def hadoop_jars() -> list[Path]:
    """Hadoop's configuration class, which Iceberg's own programs want; PySpark has it with it."""
    return list(venv.folder().glob("lib/*/site-packages/pyspark/jars/hadoop-client-*.jar"))


def catalog_jars() -> list[Path]:
    """The catalog server's."""
    return [*maven.classpath("lake-catalog"), *hadoop_jars()]


class Store(Server):
    """S3Proxy over a folder. It checks signatures (version 4), and knows ranges, multipart uploads and listings."""

    name = "lake-store"

    def __init__(self, authority: Authority | None = None) -> None:
        """With an authority it also speaks TLS, at `secure_endpoint`."""
        super().__init__()
        self.authority = authority
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.secure_endpoint = f"https://127.0.0.1:{free_port()}" if authority else None
        self.access_key = "lake-access-key"
        self.secret_key = "lake-secret-key"

    def take_keys(self, access_key: str, secret_key: str) -> None:
        """Knows other keys from now on, and no more those that it knew. The catalog has to be started again."""
        self.access_key, self.secret_key = access_key, secret_key
        self.configure()
        self.restart()

    def prepare(self) -> None:
        (self.work / "objects" / BUCKET).mkdir(parents=True)
        self.configure()

    def configure(self) -> None:
        properties = {
            "s3proxy.endpoint": self.endpoint,
            "s3proxy.authorization": "aws-v4",
            "s3proxy.identity": self.access_key,
            "s3proxy.credential": self.secret_key,
            "s3proxy.ignore-unknown-headers": "true",
            "jclouds.provider": "filesystem",
            "jclouds.identity": "none",
            "jclouds.credential": "none",
            "jclouds.filesystem.basedir": str(self.work / "objects"),
        }
        if self.authority:
            properties["s3proxy.secure-endpoint"] = self.secure_endpoint
            properties["s3proxy.keystore-path"] = str(self.authority.keystore)
            properties["s3proxy.keystore-password"] = STORE_PASSWORD
        (self.work / "s3proxy.properties").write_text("".join(f"{key}={value}\n" for key, value in properties.items()))

    def command(self) -> list[str]:
        jars = ":".join(str(jar) for jar in maven.classpath("lake-store"))
        options = ("-Xmx256m", "-XX:TieredStopAtLevel=1")
        return [jdk.java("broker"), *options, "-cp", jars, "org.gaul.s3proxy.Main", "--properties", str(self.work / "s3proxy.properties")]

    def is_ready(self) -> bool:
        try:
            urllib.request.urlopen(self.endpoint, timeout=2)
        except urllib.error.HTTPError as refused:
            return refused.code == 403  # it wants a signature
        except OSError:
            return False
        return True


class Catalog(Server):
    """Iceberg's REST catalog server. Like many, it hands out its own storage credentials with a loaded table."""

    name = "lake-catalog"

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.warehouse = f"s3://{BUCKET}/warehouse"

    def command(self) -> list[str]:
        jars = ":".join(str(jar) for jar in catalog_jars())
        options = ("-Xmx384m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "--enable-native-access=ALL-UNNAMED")
        return [jdk.java("broker"), *options, "-cp", jars, "org.apache.iceberg.rest.RESTCatalogServer"]

    def environment(self) -> dict[str, str]:
        # The server makes `a.b-c` of CATALOG_A_B__C.
        return {
            "CATALOG_REST_PORT": str(self.port),
            "CATALOG_URI": f"jdbc:sqlite:{self.work / 'catalog.db'}",
            "CATALOG_CLIENTS": "1",
            "CATALOG_WAREHOUSE": self.warehouse,
            "CATALOG_INCLUDE__CREDENTIALS": "true",
            "CATALOG_IO__IMPL": "org.apache.iceberg.aws.s3.S3FileIO",
            "CATALOG_CLIENT_REGION": clients.REGION,
            "CATALOG_S3_ENDPOINT": self.store.endpoint,
            "CATALOG_S3_PATH__STYLE__ACCESS": "true",
            "CATALOG_S3_ACCESS__KEY__ID": self.store.access_key,
            "CATALOG_S3_SECRET__ACCESS__KEY": self.store.secret_key,
        }

    def is_ready(self) -> bool:
        return http_ok(f"{self.uri}/v1/config")


class Lake:
    """Both servers, what a client is told of them, and clients that go to them directly."""

    def __init__(self, authority: Authority | None = None) -> None:
        self.store = Store(authority)
        self.catalog = Catalog(self.store)
        self.catalog_uri = self.catalog.uri
        self.warehouse = self.catalog.warehouse
        self.s3_endpoint = self.store.endpoint
        self.access_key = self.store.access_key
        self.secret_key = self.store.secret_key

    def __enter__(self) -> Lake:
        start_together([self.store, self.catalog])
        return self

    def __exit__(self, *_: object) -> None:
        self.catalog.discard()
        self.store.discard()

    def isk_environment(self, writable: bool = True) -> dict[str, str]:
        """What the service under test is told of the lake."""
        prefix = "ISK_COLDSET_CLIENT_"
        return {
            f"{prefix}URI": self.catalog_uri,
            f"{prefix}S3_ENDPOINT": self.s3_endpoint,
            f"{prefix}S3_ACCESS-KEY-ID": self.access_key,
            f"{prefix}S3_SECRET-ACCESS-KEY": self.secret_key,
            f"{prefix}S3_REGION": clients.REGION,
            "ISK_COLDSET_WRITABLE": str(writable).lower(),
        }

    def pyiceberg(self) -> pyiceberg.catalog.Catalog:
        return clients.pyiceberg_catalog(self.catalog_uri, **self._s3(), **{"s3.region": clients.REGION})

    def spark_catalog(self, name: str = "direct") -> dict[str, str]:
        return clients.spark_catalog(name, self.catalog_uri, **self._java())

    def flink_catalog(self, name: str = "lake") -> str:
        return flink.catalog(name, self.catalog_uri, self._java())

    def attach(self, connection: duckdb.DuckDBPyConnection, name: str = "direct") -> None:
        """Attaches the lake to a DuckDB that has its extensions loaded."""
        host = self.s3_endpoint.removeprefix("http://")
        connection.execute(
            f"CREATE OR REPLACE SECRET {name}_store (TYPE s3, KEY_ID '{self.access_key}', SECRET '{self.secret_key}',"
            f" ENDPOINT '{host}', URL_STYLE 'path', USE_SSL false, REGION '{clients.REGION}', SCOPE 's3://{BUCKET}')"
        )
        connection.execute(
            f"ATTACH '' AS {name} (TYPE iceberg, ENDPOINT '{self.catalog_uri}', AUTHORIZATION_TYPE 'none', ACCESS_DELEGATION_MODE 'none')"
        )

    def boto3(self):
        return clients.boto3_client(self.s3_endpoint, self.access_key, self.secret_key)

    def _java(self) -> dict[str, str]:
        return self._s3() | {"s3.path-style-access": "true", "client.region": clients.REGION}

    def _s3(self) -> dict[str, str]:
        return {"s3.endpoint": self.s3_endpoint, "s3.access-key-id": self.access_key, "s3.secret-access-key": self.secret_key}
