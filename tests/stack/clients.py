"""The Iceberg engines and S3 clients, connected the way a user would connect them."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import client_files, jdk, maven
from .process import work_root

if TYPE_CHECKING:
    import duckdb
    import minio
    import pyiceberg.catalog
    import pyspark.sql

REGION = "us-east-1"

# In the order in which they need each other.
DUCKDB_EXTENSIONS = ("avro", "httpfs", "iceberg")


def pyiceberg_catalog(uri: str, **properties: str) -> pyiceberg.catalog.Catalog:
    """PyIceberg on a REST catalog, by its file in deploy/clients and `properties`."""
    from pyiceberg.catalog import load_catalog

    given = client_files.pyiceberg(client_files.text("pyiceberg.yaml", uri, credential=properties.get("credential")))
    return load_catalog("isk", **(given | properties))


def duckdb_connection(catalog_uri: str | None = None, credential: str | None = None) -> duckdb.DuckDBPyConnection:
    """DuckDB with its extensions loaded from packages, nothing downloaded, and the catalog attached as `isk`."""
    import duckdb

    connection = duckdb.connect(config={"autoinstall_known_extensions": False})
    for extension in DUCKDB_EXTENSIONS:
        folder = importlib.resources.files(f"duckdb_extension_{extension}") / "extensions" / f"v{duckdb.__version__}"
        connection.execute(f"LOAD '{folder / extension}.duckdb_extension'")
    connection.execute("SET TimeZone = 'UTC'")
    if catalog_uri:
        attach(connection, catalog_uri, credential)
    return connection


def attach(connection: duckdb.DuckDBPyConnection, catalog_uri: str, credential: str | None = None) -> None:
    """Attaches the catalog as `isk`, by DuckDB's file in deploy/clients; its extensions are there."""
    for statement in client_files.statements(client_files.text("duckdb.sql", catalog_uri, credential=credential)):
        if not statement.startswith(("INSTALL", "LOAD")):
            connection.execute(statement)


def spark_catalog(name: str, uri: str, **properties: str) -> dict[str, str]:
    """The settings of a Spark catalog over a REST catalog, by its file in deploy/clients and `properties`."""
    text = client_files.text("spark-defaults.conf", uri, credential=properties.get("credential"))
    of_file = "spark.sql.catalog.isk"
    prefix = f"spark.sql.catalog.{name}"
    given = {key.replace(of_file, prefix, 1): value for key, value in client_files.properties(text).items() if key.startswith(of_file)}
    return given | {f"{prefix}.{key}": value for key, value in properties.items()}


def spark_session(
    settings: Mapping[str, str], heap: str = "1g", jars: Sequence[Path] = (), jvm: Sequence[str] = jdk.BRIEF
) -> pyspark.sql.SparkSession:
    """A local Spark with the Iceberg runtime, its AWS bundle and `jars` on the class path.

    One Spark per process, which ends with it; each call gives a session of its own in it, whose catalogs no other session
    sees. Stopping a session would stop them all. Of a later call's settings, those count that Spark reads at run time.
    """
    from pyspark.sql import SparkSession

    os.environ["JAVA_HOME"] = str(jdk.home("spark"))
    folder = work_root() / "spark"
    builder = SparkSession.builder.appName("isk tests").master("local[2]")
    fixed = {
        "spark.driver.memory": heap,
        "spark.driver.extraJavaOptions": " ".join(jvm),
        "spark.driver.extraClassPath": ":".join(str(jar) for jar in [*maven.classpath("spark-iceberg"), *jars]),
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": str(folder / "local"),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
    }
    for key, value in fixed.items():
        builder = builder.config(key, value)
    first = builder.getOrCreate()
    first.sparkContext.setLogLevel("WARN")
    session = first.newSession()
    for key, value in settings.items():
        session.conf.set(key, value)
    return session


def boto3_client(endpoint: str, access_key: str, secret_key: str, token: str | None = None, **config):
    """An S3 client of boto3 that addresses buckets by path and tries once."""
    import boto3
    from botocore.config import Config

    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, **config)
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        aws_session_token=token,
        config=config,
    )


def minio_client(endpoint: str, access_key: str, secret_key: str) -> minio.Minio:
    """An S3 client of another make."""
    from minio import Minio

    host = endpoint.removeprefix("http://")
    return Minio(host, access_key=access_key, secret_key=secret_key, region=REGION, secure=False)
