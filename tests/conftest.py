"""Fixtures: servers are started when a test first asks for them and end with the run; clients come connected."""

import itertools
import re

import pytest
from stack import clients, records
from stack.isk import Isk
from stack.kafka import Broker
from stack.lake import Lake
from stack.moves import Deeds
from stack.pair import FIELDS, Pair
from stack.process import live_servers
from stack.readers import Readers
from stack.registry import Registry
from stack.trino import Trino, iceberg_catalog

_topic_numbers = itertools.count(1)

# The files that take longest, the longest first: one that comes last leaves the other process alone at the end.
LONGEST = (
    "test_engines", "test_merged", "test_merged_history", "test_coldset", "test_bounds", "test_streams", "test_prover",
    "test_brokers", "test_kafka_oauth", "test_merged_faults", "test_record_types", "test_errors", "test_cold_tables",
    "test_disk", "test_races", "test_leaks", "test_snapshots", "test_bad_input", "test_coldset_auth", "test_transport",
)  # fmt: skip


@pytest.fixture(scope="session")
def broker():
    """The broker most tests share. A test that stops or kills a broker takes `own_broker`."""
    with Broker() as server:
        yield server


@pytest.fixture(scope="session")
def registry():
    with Registry() as server:
        yield server


@pytest.fixture(scope="session")
def isk(broker, registry):
    """The service over the shared broker and registry."""
    with Isk.beside(broker, registry) as server:
        yield server


@pytest.fixture(scope="session")
def lake():
    """An upstream catalog and object store with nothing of ours before them."""
    with Lake() as servers:
        servers.pyiceberg().create_namespace("coldset")
        yield servers


@pytest.fixture(scope="session")
def lake_isk(broker, registry, lake):
    """The service over the shared broker and registry, with the lake as its coldset, which it may write."""
    with Isk.beside(broker, registry, lake.isk_environment()) as server:
        yield server


@pytest.fixture(scope="session")
def readers(lake_isk, lake):
    """Clients of both by name: readers["duckdb"]. Each starts when it is first asked for."""
    with Readers(lake_isk, lake) as clients_by_name:
        yield clients_by_name


@pytest.fixture
def make_pair(broker, registry, make_topic):
    """Makes a topic that has no cold table yet, and the model of both: make_pair(partitions, fields)."""

    def make(partitions: int = 2, fields=FIELDS) -> Pair:
        return Pair.make(broker, registry, make_topic(partitions), partitions, fields)

    return make


@pytest.fixture
def make_deeds(make_pair, readers):
    """A topic of two partitions with `count` records each, and what can be done to it."""

    def made(count: int = 120, partitions: int = 2, fields=FIELDS) -> Deeds:
        pair = make_pair(partitions, fields)
        if count:
            pair.produce(count)
        return Deeds(pair, readers)

    return made


@pytest.fixture
def own_broker():
    """A broker for one test alone."""
    with Broker() as server:
        yield server


@pytest.fixture(scope="session")
def trino(isk):
    """Trino with the service as its catalog `isk`."""
    with Trino({"isk": iceberg_catalog(isk.catalog_uri, isk.s3_endpoint)}) as server:
        yield server


@pytest.fixture(scope="session")
def spark(isk):
    """Spark with the service as its catalog `isk`."""
    return clients.spark_session(clients.spark_catalog("isk", isk.catalog_uri))


@pytest.fixture
def duckdb(isk):
    """DuckDB with the service attached as `isk`."""
    with clients.duckdb_connection(isk.catalog_uri) as connection:
        yield connection


@pytest.fixture
def pyiceberg(isk):
    """PyIceberg's catalog on the service."""
    return clients.pyiceberg_catalog(isk.catalog_uri)


@pytest.fixture
def boto3_s3(isk):
    return clients.boto3_client(isk.s3_endpoint, isk.access_key, isk.secret_key)


@pytest.fixture
def minio_s3(isk):
    return clients.minio_client(isk.s3_endpoint, isk.access_key, isk.secret_key)


@pytest.fixture
def make_topic(broker, request):
    """Makes topics on the shared broker, under names that no other test uses: make_topic(partitions, config)."""

    def make(partitions: int = 1, config: dict[str, str] | None = None) -> str:
        stem = re.sub(r"\W+", "_", request.node.name).lower()[:60]
        return records.create_topic(broker.bootstrap, f"{stem}_{next(_topic_numbers)}", partitions, config)

    return make


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows the end of every running server's log under a test that failed."""
    report = yield
    if report.failed:
        for server in live_servers():
            report.sections.append((f"log of {server.name}", server.log_tail(30)))
    return report
