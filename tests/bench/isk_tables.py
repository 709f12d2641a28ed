"""ISK as a contender: at first touch, with nothing known of the topic, and with all of it proven."""

from __future__ import annotations

import concurrent.futures
from typing import Any

from stack import clients
from stack.isk import Isk
from stack.kafka import Broker

from .topics import Topic

# The topic that a service reads first.
WARM_UP = "warm_up"


class IskTables:
    """`catalog` is the engine's catalog on this service."""

    name = short = ""
    few = False
    time = "kafka_timestamp"

    def __init__(self, engine: Any, catalog: str, isk: Isk, broker: Broker) -> None:
        self.engine = engine
        self.catalog = catalog
        self.isk = isk
        self.broker = broker

    def prepare(self, topic: Topic) -> None:
        pass

    def before(self) -> None:
        pass

    def table(self, topic: Topic, query: str) -> str:
        return f"{self.catalog}.hotset.{topic.name}"

    def processes(self) -> dict[str, int]:
        return {"engine": self.engine.pid, "isk": self.isk.process.pid, "broker": self.broker.process.pid}


class FirstTouch(IskTables):
    """Starts with an empty data folder before each question, and reads another small topic, so that it is connected."""

    name, short = "ISK, first touch", "first-touch"

    def before(self) -> None:
        self.isk.forget()
        read_footers(self.isk, WARM_UP)


class Proven(IskTables):
    """Has encoded every chunk once."""

    name, short = "ISK, proven", "proven"

    def prepare(self, topic: Topic) -> None:
        read_footers(self.isk, topic.name)


def data_files(isk: Isk, topic: str) -> tuple[Any, list[dict[str, Any]]]:
    """An S3 client, and what it lists of the topic's files."""
    s3 = clients.boto3_client(isk.s3_endpoint, isk.access_key, isk.secret_key, read_timeout=600)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="hotset", Prefix=f"{topic}/data/")
    return s3, [entry for page in pages for entry in page.get("Contents", [])]


def read_footers(isk: Isk, topic: str, readers: int = 2) -> int:
    """Has the whole topic encoded by asking for the end of each file; gives how many there are."""
    s3, files = data_files(isk, topic)
    with concurrent.futures.ThreadPoolExecutor(readers) as pool:
        list(pool.map(lambda file: s3.get_object(Bucket="hotset", Key=file["Key"], Range="bytes=-8")["Body"].read(), files))
    return len(files)
