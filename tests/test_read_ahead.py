"""What is encoded ahead of a reader who scans, and for whom nothing is: readers that stop, views of others, replicas."""

import os
import time
from pathlib import Path

import boto3
import botocore.config
import pytest
import requests
from stack import clients, datasets, records
from stack.isk import Isk, secret_of

BUCKET = "hotset"
CHUNK, CHUNKS = 1024, 8
# Values are what they are, whatever they look like.
PLAIN = {"ISK_DISCOVERY_ENABLED": "false"}
RULES = """
[[rule]]
principals = ["*"]
tables = ["*"]
allow = "read"
[[columns]]
principals = ["partial"]
tables = ["*"]
hide = ["kafka_key"]
"""


@pytest.fixture(scope="module")
def topic(broker):
    """One partition of whole chunks of small records, and their values. The last ones make the chunks narrow."""
    name = records.create_topic(broker.bootstrap, "scanned", 1, datasets.KEEP)
    values = [b"%d" % n for n in range(CHUNK * CHUNKS - datasets.FILLERS)]
    values += [os.urandom(datasets.FILLER) for _ in range(datasets.FILLERS)]
    records.produce(records.producer(broker.bootstrap), name, values, partition=0)
    return name, values


@pytest.fixture(scope="module")
def server(broker):
    with Isk.beside(broker, None, PLAIN) as server:
        yield server


@pytest.fixture
def fresh(server):
    server.forget()
    return server


def metric(isk, name):
    text = requests.get(f"{isk.catalog_uri}/metrics", timeout=10).text
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"isk_{name} "))


def wait_for(what, seconds=20):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it has not come to this"
        time.sleep(0.05)


class Reader:
    """Reads the files of a topic as engines do: the footer, then pages."""

    def __init__(self, isk, topic, **secret):
        self.isk = isk
        table = clients.pyiceberg_catalog(isk.catalog_uri, **secret).load_table((BUCKET, topic))
        keys = table.io.properties
        self.s3 = boto3.client(
            "s3",
            endpoint_url=isk.s3_endpoint,
            region_name=clients.REGION,
            config=botocore.config.Config(s3={"addressing_style": "path"}),
            aws_access_key_id=keys["s3.access-key-id"],
            aws_secret_access_key=keys["s3.secret-access-key"],
            aws_session_token=keys["s3.session-token"],
        )
        self.keys = sorted(task.file.file_path.removeprefix(f"s3://{BUCKET}/") for task in table.scan().plan_files())
        assert len(self.keys) == CHUNKS

    def get(self, n, **part):
        return self.s3.get_object(Bucket=BUCKET, Key=self.keys[n], **part)["Body"].read()

    def footer(self, n):
        assert self.get(n, Range="bytes=-8").endswith(b"PAR1")

    def pages(self, n):
        assert len(self.get(n, Range="bytes=4-503")) == 500

    def read(self, n):
        self.footer(n)
        self.pages(n)

    def ahead(self):
        return metric(self.isk, "chunks_ahead_total")


def test_who_reads_chunk_after_chunk_finds_the_next_one(fresh, topic):
    reader = Reader(fresh, topic[0])
    for n in range(CHUNKS):
        reader.read(n)
        wait_for(lambda n=n: reader.ahead() == min(n, CHUNKS - 2))
        if n > 1:
            assert metric(fresh, "chunks_ahead_read_total") == n - 1
        time.sleep(0.1)
        assert metric(fresh, "chunks_rendered_total") == min(n + 1 + (n > 0), CHUNKS)
    assert reader.ahead() == CHUNKS - 2


def test_files_that_are_encoded_ahead_are_the_same(fresh, broker, topic):
    reader = Reader(fresh, topic[0])
    read = [reader.get(n) for n in range(CHUNKS)]
    assert reader.ahead() > 0
    with Isk.beside(broker, None, PLAIN | {"ISK_READ_AHEAD": "false"}) as other:
        without = Reader(other, topic[0])
        assert without.keys == reader.keys
        assert read == [without.get(n) for n in range(CHUNKS)]
        assert without.ahead() == 0 and metric(other, "chunks_rendered_total") == CHUNKS
    rows = clients.pyiceberg_catalog(fresh.catalog_uri).load_table((BUCKET, topic[0])).scan().to_arrow()
    assert [row["kafka_value"] for row in rows.sort_by("kafka_offset").to_pylist()] == topic[1]


def limit(reader):
    """One file is enough."""
    reader.read(0)
    return 1


def wide_limit(reader):
    """Several threads open a file each, and stop."""
    for n in range(4):
        reader.footer(n)
    for n in range(4):
        reader.pages(n)
    return 4


def footers(reader):
    for n in range(4):
        reader.footer(n)
    return 4


def some(reader):
    """Filters leave files here and there."""
    for n in (0, 2, 4):
        reader.read(n)
    return 3


@pytest.mark.parametrize("ask", [limit, wide_limit, footers, some])
def test_nothing_is_ahead_of_who_does_not_scan(fresh, topic, ask):
    reader = Reader(fresh, topic[0])
    read = ask(reader)
    time.sleep(1)
    assert (reader.ahead(), metric(fresh, "chunks_rendered_total")) == (0, read)


def test_a_scan_that_stops_costs_one_chunk(fresh, topic):
    reader = Reader(fresh, topic[0])
    for n in range(3):
        reader.read(n)
    time.sleep(1)
    assert metric(fresh, "chunks_rendered_total") == 4
    # Reading the same again costs nothing.
    for n in range(3):
        reader.read(n)
    time.sleep(1)
    assert metric(fresh, "chunks_rendered_total") == 4


def test_what_a_caller_may_not_see_stays_out_of_what_is_ahead(broker, topic):
    with Isk.beside(broker, None, PLAIN | {"ISK_AUTH_OPEN_METRICS": "true"}, rules=RULES, known=["partial"]) as guarded:
        reader = Reader(guarded, topic[0], credential=f"partial:{secret_of('partial')}")
        for n in range(3):
            reader.read(n)
        wait_for(lambda: reader.ahead() == 2)
        folder = reader.keys[0].split("/")[0]
        assert folder.startswith(f"{topic[0]}~")
        cache = Path(guarded.environment()["ISK_DATA_DIR"]) / "cache"
        kept = {file.relative_to(cache).parts[0] for file in cache.rglob("*.parquet")}
        assert kept == {folder}


def test_nothing_is_encoded_ahead_among_replicas(broker, topic, tmp_path):
    with Isk.beside(broker, None, PLAIN | {"ISK_SHARED_DIR": str(tmp_path)}) as replica:
        reader = Reader(replica, topic[0])
        for n in range(4):
            reader.read(n)
        time.sleep(1)
        assert (reader.ahead(), metric(replica, "chunks_rendered_total")) == (0, 4)
