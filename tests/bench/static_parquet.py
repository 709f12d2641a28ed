"""The floor of the proven case: the very same Parquet files in an Iceberg table of their own, on an object store of their own."""

from __future__ import annotations

import concurrent.futures
import json
import urllib.request
from typing import Any

from stack import clients
from stack.isk import Isk
from stack.process import Server, free_port, http_ok

from .isk_tables import read_footers
from .measure import BUILT
from .topics import Topic

BUCKET, NAMESPACE = "lake", "bench"
KEY, SECRET = "lake", "lake-secret-key"


class Lake(Server):
    """A catalog and a store over a folder (`crates/bench`), made of the libraries that the gateway is made of."""

    name = "bench-lake"

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        (self.work / "objects").mkdir()

    def command(self) -> list[str]:
        return [str(BUILT / "lake"), "--listen", f"127.0.0.1:{self.port}", "--folder", str(self.work / "objects"), "--secret", SECRET]

    def is_ready(self) -> bool:
        return http_ok(f"{self.uri}/v1/config")

    def spark_catalog(self, name: str) -> dict[str, str]:
        keys = {"s3.endpoint": self.uri, "s3.access-key-id": KEY, "s3.secret-access-key": SECRET}
        return clients.spark_catalog(name, self.uri, **keys, **{"s3.path-style-access": "true", "client.region": clients.REGION})


class StaticParquet:
    """Every file of the proven table as it is, with its manifest entry: what differs is who serves it."""

    name, short = "static Parquet", "static"
    few = False
    time = "kafka_timestamp"

    def __init__(self, engine: Any, lake: Lake, isk: Isk) -> None:
        self.engine = engine
        self.lake = lake
        self.isk = isk

    def prepare(self, topic: Topic) -> None:
        catalog = clients.pyiceberg_catalog(self.lake.uri)
        catalog.create_namespace_if_not_exists(NAMESPACE)
        name = f"{NAMESPACE}.{topic.name}"
        if catalog.table_exists(name):
            return
        read_footers(self.isk, topic.name)
        hot = clients.pyiceberg_catalog(self.isk.catalog_uri).load_table(f"hotset.{topic.name}")
        catalog.create_table(name, hot.schema())
        self._take_columns(topic, hot)
        files = self._copy(topic, [task.file for task in hot.scan().plan_files()])
        with catalog.load_table(name).transaction() as transaction, transaction.update_snapshot().fast_append() as append:
            for file in files:
                append.append_data_file(file)
        assert catalog.load_table(name).scan().count() == topic.records

    def _take_columns(self, topic: Topic, hot: Any) -> None:
        """A catalog numbers a new table's columns itself. The files have the hot table's ids, so a second schema has them too."""
        schema = hot.schema().model_dump(mode="json", by_alias=True)
        spec = hot.spec().model_dump(mode="json", by_alias=True)
        updates = [
            {"action": "add-schema", "schema": schema | {"schema-id": 1}, "last-column-id": hot.metadata.last_column_id},
            {"action": "set-current-schema", "schema-id": -1},
            {"action": "add-spec", "spec": {"fields": spec["fields"]}},
            {"action": "set-default-spec", "spec-id": -1},
        ]
        body = json.dumps({"requirements": [], "updates": updates}).encode()
        url = f"{self.lake.uri}/v1/namespaces/{NAMESPACE}/tables/{topic.name}"
        urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})).close()

    def _copy(self, topic: Topic, files: list) -> list:
        source = clients.boto3_client(self.isk.s3_endpoint, self.isk.access_key, self.isk.secret_key, read_timeout=600)
        target = clients.boto3_client(self.lake.uri, KEY, SECRET)
        table = clients.pyiceberg_catalog(self.lake.uri).load_table(f"{NAMESPACE}.{topic.name}")
        folder = table.location().removeprefix(f"s3://{BUCKET}/")

        def copy(number: int, file: Any) -> Any:
            bucket, key = file.file_path.removeprefix("s3://").split("/", 1)
            body = source.get_object(Bucket=bucket, Key=key)["Body"].read()
            assert len(body) == file.file_size_in_bytes
            path = f"{folder}/data/{number:05}.parquet"
            target.put_object(Bucket=BUCKET, Key=path, Body=body)
            # The entry stays as it is, with its bounds and counts, but for the path: the second of its fields.
            file._data[1] = f"s3://{BUCKET}/{path}"
            file.spec_id = table.spec().spec_id
            return file

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return list(pool.map(copy, range(len(files)), files))

    def before(self) -> None:
        pass

    def table(self, topic: Topic, query: str) -> str:
        return f"lake.{NAMESPACE}.{topic.name}"

    def processes(self) -> dict[str, int]:
        return {"engine": self.engine.pid, "store": self.lake.process.pid}
