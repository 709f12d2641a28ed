"""Two services with data folders of their own and one folder that they share, behind a balancer that asks them by turns."""

import threading

import pytest
from confluent_kafka import TopicPartition
from stack import clients, records
from stack.replicas import Replicas

BUCKET = "hotset"
COUNT = 3000
ROWS = 2 * COUNT


@pytest.fixture(scope="module")
def replicas(broker, tmp_path_factory):
    """Both, and the balancers before their catalogs and gateways."""
    with Replicas(broker, None, tmp_path_factory.mktemp("shared")) as together:
        yield together.both, together.catalog_uri, together.s3_endpoint


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
    assert table.io.properties["s3.endpoint"] == s3
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
