"""Two services with data folders of their own and one folder that they share, behind a balancer that asks them by turns."""

import contextlib
import os
import re
import threading
import time

import botocore.exceptions
import pyarrow.parquet
import pytest
import requests
from confluent_kafka import TopicPartition
from stack import clients, records
from stack.isk import binary, with_another_profile
from stack.replicas import Replicas

BUCKET = "hotset"
COUNT = 3000
ROWS = 2 * COUNT


@pytest.fixture(scope="module")
def replicas(broker, tmp_path_factory):
    """Both, and the balancers before their catalogs and gateways."""
    with a_pair(broker, tmp_path_factory) as pair:
        yield pair


@contextlib.contextmanager
def a_pair(broker, tmp_path_factory):
    with Replicas(broker, None, tmp_path_factory.mktemp("shared")) as pair:
        yield pair.both, pair.catalog_uri, pair.s3_endpoint


@pytest.fixture
def topic(broker, make_topic):
    name = make_topic(2)
    target = records.producer(broker.bootstrap)
    for partition in range(2):
        records.produce(target, name, (b"%020d" % (n * 7919) for n in range(COUNT)), partition=partition)
    return name


def gateway(isk, table):
    """The gateway of one, by the keys that came with the table."""
    given = table.io.properties
    return clients.boto3_client(isk.s3_endpoint, given["s3.access-key-id"], given["s3.secret-access-key"])


def positions(table):
    rows = table.scan(selected_fields=("kafka_partition", "kafka_offset")).to_arrow()
    return sorted(zip(*(rows[name].to_pylist() for name in ("kafka_partition", "kafka_offset")), strict=True))


WANT = sorted((partition, offset) for partition in range(2) for offset in range(COUNT))


def test_what_one_planned_the_other_serves_with_equal_bytes(replicas, topic):
    (one, other), _, _ = replicas
    planned = clients.pyiceberg_catalog(one.catalog_uri).load_table(f"hotset.{topic}")
    files = [task.file.file_path.removeprefix(f"s3://{BUCKET}/") for task in planned.scan().plan_files()]
    metadata = [uri.removeprefix(f"s3://{BUCKET}/") for uri in (planned.metadata_location, planned.current_snapshot().manifest_list)]
    left, right = gateway(one, planned), gateway(other, planned)
    for key in [*files, *metadata]:
        sides = [s3.get_object(Bucket=BUCKET, Key=key) for s3 in (left, right)]
        assert sides[0]["ETag"] == sides[1]["ETag"]
        whole, again = (side["Body"].read() for side in sides)
        assert whole == again and len(whole) > 100, key
    assert len(files) >= 2


def test_consecutive_ranges_come_from_both_and_one_may_die(replicas, topic):
    """DuckDB and PyIceberg open many connections, and each goes to the next. Neither has read the topic before."""
    (one, other), catalog, s3 = replicas
    table = clients.pyiceberg_catalog(catalog).load_table(f"hotset.{topic}")
    assert table.io.properties["s3.endpoint"] == f"{s3}/"
    assert positions(table) == WANT
    with clients.duckdb_connection(catalog) as duckdb:
        got = duckdb.execute(f"SELECT count(*), count(DISTINCT kafka_offset), min(kafka_value), max(kafka_value) FROM isk.hotset.{topic}").fetchone()
        assert got == (ROWS, COUNT, b"%020d" % 0, b"%020d" % ((COUNT - 1) * 7919))
    planned = clients.pyiceberg_catalog(one.catalog_uri).load_table(f"hotset.{topic}")
    failures, seen = [], []

    def read():
        try:
            seen.append(positions(planned))
        except Exception as failure:
            failures.append(failure)

    one.stop()
    try:
        threads = [threading.Thread(target=read) for _ in range(3)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert not failures, failures
        assert seen == [WANT] * 3
    finally:
        one.start()
    assert positions(planned) == WANT


def test_what_kafka_forgot_is_an_error_of_the_one_that_has_not_read_it(replicas, broker, topic):
    """The log's beginning goes after one has served a file: the other has not got its records, and says so."""
    (one, other), _, _ = replicas
    planned = clients.pyiceberg_catalog(one.catalog_uri).load_table(f"hotset.{topic}")
    key = next(task.file.file_path for task in planned.scan().plan_files() if "/00000/" in task.file.file_path).removeprefix(f"s3://{BUCKET}/")
    asked = {"Bucket": BUCKET, "Key": key, "Range": "bytes=0-99"}
    kept = gateway(one, planned).get_object(**asked)["Body"].read()
    admin = records.admin(broker.bootstrap)  # must live until the answer is there
    [future.result(30) for future in admin.delete_records([TopicPartition(topic, 0, 10)]).values()]
    right = gateway(other, planned)
    with pytest.raises(right.exceptions.ClientError) as caught:
        right.get_object(**asked)["Body"].read()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] >= 400
    assert gateway(one, planned).get_object(**asked)["Body"].read() == kept


# 64 KiB each, so that a scan at first touch takes a while.
WIDE, WIDE_COUNT = 64 << 10, 400


@pytest.fixture
def wide(broker, make_topic):
    """A function that makes topics of many large files that nobody has read."""

    def make():
        name = make_topic(2)
        for partition in range(2):
            records.produce(records.producer(broker.bootstrap), name, (os.urandom(WIDE) for _ in range(WIDE_COUNT)), partition=partition)
        return name

    return make


def rows_encoded(isk):
    text = requests.get(f"{isk.catalog_uri}/metrics", timeout=10).text
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("isk_rows_rendered_total "))


def by_duckdb(catalog, topic):
    with clients.duckdb_connection(catalog) as duckdb:
        query = f"SELECT kafka_partition, kafka_offset, octet_length(kafka_value) FROM isk.hotset.{topic}"
        return sorted(duckdb.execute(query).fetchall())


def by_pyiceberg(catalog, topic):
    rows = clients.pyiceberg_catalog(catalog).load_table(f"hotset.{topic}").scan().to_arrow()
    sizes = [len(value) for value in rows["kafka_value"].to_pylist()]
    return sorted(zip(rows["kafka_partition"].to_pylist(), rows["kafka_offset"].to_pylist(), sizes, strict=True))


@pytest.mark.parametrize("engine", [by_duckdb, by_pyiceberg])
def test_one_is_killed_in_the_middle_of_a_scan(replicas, wide, engine):
    """The engine asks again, or its query fails. Then the other serves all of it, and the first once it is back."""
    both, catalog, _ = replicas
    want = [(partition, offset, WIDE) for partition in range(2) for offset in range(WIDE_COUNT)]
    outcomes = []
    for victim in both:
        topic = wide()
        answers, errors = [], []

        def scan(topic=topic, answers=answers, errors=errors):
            try:
                answers.append(engine(catalog, topic))
            except Exception as problem:  # noqa: BLE001: an error is what may come, a wrong answer is not
                errors.append(problem)

        before = rows_encoded(victim)
        thread = threading.Thread(target=scan)
        thread.start()
        deadline = time.monotonic() + 60
        while rows_encoded(victim) == before and thread.is_alive():
            assert time.monotonic() < deadline, "it was asked for nothing"
            time.sleep(0.002)
        victim.kill()
        try:
            assert thread.is_alive(), "the scan was over before anything happened"
            thread.join(90)
            assert not thread.is_alive() and len(answers) + len(errors) == 1
            assert answers in ([], [want])
            outcomes.append("exact" if answers else f"{type(errors[0]).__name__}: {errors[0]}")
            # The one that is left.
            assert engine(catalog, topic) == want
        finally:
            victim.start()
        assert engine(catalog, topic) == want
    print(outcomes)


def refused(s3, key, **asked):
    """The error of an object that this one cannot make: not to be tried again, and the query is to be planned anew."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        s3.get_object(Bucket=BUCKET, Key=key, **asked)["Body"].read()
    answer = caught.value.response
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == (410, "RecordsExpired"), answer
    assert "planned with other settings" in answer["Error"]["Message"], answer
    return True


# How an engine shows that: the status, and the message where it fits into its buffer.
REFUSED = r"\b410\b|planned with other settings"


def written_by(s3, key):
    body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return pyarrow.parquet.read_metadata(pyarrow.BufferReader(body)).created_by, body


def rows_of(s3, table):
    """The rows of a table, read from one replica alone."""
    found = []
    for key in data_files(table):
        body = pyarrow.BufferReader(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        read = pyarrow.parquet.read_table(body, columns=["kafka_partition", "kafka_offset"])
        found += zip(*(column.to_pylist() for column in read.columns), strict=True)
    return sorted(found)


def data_files(table):
    return [task.file.file_path.removeprefix(f"s3://{BUCKET}/") for task in table.scan().plan_files()]


def test_an_upgrade_one_after_the_other_to_a_version_that_writes_other_files(broker, tmp_path_factory, make_topic):
    """What one version planned is not made by the other, in whichever order: an error, never pages that are not the footer's.
    The next plan is right.
    """
    name = make_topic(2)
    for partition in range(2):
        records.produce(records.producer(broker.bootstrap), name, (b"%020d" % (n * 7919) for n in range(COUNT)), partition=partition)
    with a_pair(broker, tmp_path_factory) as ((one, other), catalog, _):
        load = lambda isk: clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"hotset.{name}")
        old = load(one)
        assert positions(old) == WANT
        left, right = gateway(one, old), gateway(other, old)
        files = data_files(old)
        before = {key: written_by(left, key) for key in files}

        other.stop()
        other.binary = with_another_profile
        other.start()
        new = load(other)
        assert rows_of(right, new) == WANT
        after = {key: written_by(right, key) for key in data_files(new)}
        assert not set(after) & set(before)
        assert {version.split()[0] for version, _ in before.values()} == {"isk-render"}
        assert {version.split()[0] for version, _ in after.values()} == {"isk-rendes"}
        # Each keeps to its own: the footer from one, and whatever follows from the other.
        for key in files:
            footer = left.get_object(Bucket=BUCKET, Key=key, Range="bytes=-8")["Body"].read()
            assert footer == before[key][1][-8:]
            assert refused(right, key, Range="bytes=0-99")
        assert all(refused(left, key) for key in after)
        # Metadata is what all have.
        for uri in (old.metadata_location, new.metadata_location, old.current_snapshot().manifest_list):
            key = uri.removeprefix(f"s3://{BUCKET}/")
            bodies = [s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for s3 in (left, right)]
            assert bodies[0] == bodies[1]
        # Queries that are read by turns, meanwhile: each is planned by one, and its files are asked of both.
        good, bad = 0, []
        for _ in range(12):
            try:
                assert positions(clients.pyiceberg_catalog(catalog).load_table(f"hotset.{name}")) == WANT
                good += 1
            except OSError as problem:
                bad.append(str(problem))
        print(f"both versions by turns: {good} queries were right, {len(bad)} failed: {bad[:1]}")
        assert all(re.search(REFUSED, problem) for problem in bad), bad

        # The successor of the first, on its folder.
        one.stop()
        one.binary = with_another_profile
        one.start()
        with pytest.raises(OSError, match=REFUSED):
            positions(old)
        assert all(refused(left, key) for key in files)
        assert all(written_by(s3, key) == after[key] for s3 in (left, right) for key in after)
        for _ in range(4):
            assert positions(clients.pyiceberg_catalog(catalog).load_table(f"hotset.{name}")) == WANT

        # And back again: what it made before is as good as ever.
        one.stop()
        one.binary = binary
        one.start()
        assert {key: written_by(left, key) for key in files} == before
        assert rows_of(left, old) == rows_of(left, load(one)) == WANT
