"""Several brokers: leaders that move, brokers that die, logs that are cut back, replicas that are nearer."""

import contextlib
import json
import shutil
import threading
import time
import urllib.request

import botocore.exceptions
import pyarrow.parquet
import pytest
from confluent_kafka import Producer
from stack import clients, records
from stack.cluster import Cluster
from stack.isk import Isk
from stack.ranged import RangedFile

SCHEMA = json.dumps({"type": "record", "name": "Leg", "fields": [{"name": "n", "type": "long"}, {"name": "pad", "type": "bytes"}]})
PAD = 200


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as brokers:
        yield brokers


@pytest.fixture
def whole(cluster):
    """The cluster with all brokers up, before and after."""
    for node in cluster.nodes.values():
        node.start()
    yield cluster
    for node in cluster.nodes.values():
        node.start()


@pytest.fixture
def fresh(whole, registry):
    """A service that has seen nothing."""
    with Isk.beside(whole, registry) as server:
        yield server


def write(cluster, registry, topic, numbers, partition=0, acks="all", pad=PAD):
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": acks, "linger.ms": 5, "message.timeout.ms": 30_000})
    serialize = records.avro_serializer(registry.url, SCHEMA)
    records.produce(producer, topic, [{"n": n, "pad": bytes(pad)} for n in numbers], serialize=serialize, partition=partition)


def copies(cluster, registry, topic, count, partitions):
    """Many records, quickly: one value over and over."""
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    serialize = records.avro_serializer(registry.url, SCHEMA)
    from confluent_kafka.serialization import MessageField, SerializationContext

    value = serialize({"n": 1, "pad": bytes(PAD)}, SerializationContext(topic, MessageField.VALUE))
    for n in range(count):
        while True:
            try:
                producer.produce(topic, value, partition=n % partitions)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def numbers(table):
    return sorted(table.scan().to_arrow()["n"].to_pylist())


def load(isk, topic):
    return clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"hotset.{topic}")


def metric(isk, name):
    with urllib.request.urlopen(f"{isk.catalog_uri}/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"isk_{name} "):
                return int(line.split()[1])
    raise AssertionError(f"no metric isk_{name}")


BIG, BIG_PARTITIONS = 1_000_000, 3


@pytest.fixture(scope="module")
def big(cluster, registry):
    """A topic whose scan takes some seconds; every broker leads a partition of it."""
    topic = cluster.create_topic("big", [(1, 2, 3), (2, 3, 1), (3, 1, 2)])
    copies(cluster, registry, topic, BIG, BIG_PARTITIONS)
    return topic


@pytest.mark.parametrize("how", ["moved", "killed", "killed and restarted"])
def test_a_broker_leaves_in_mid_scan(whole, registry, fresh, big, how):
    whole.wait_for(lambda: whole.in_sync(big, 0) == {1, 2, 3})
    whole.prefer(big)
    whole.wait_for(lambda: whole.leader(big, 0) == 1)
    node = whole.nodes[1]
    answers = []

    def scan():
        with clients.duckdb_connection(fresh.catalog_uri) as duckdb:
            answers.append(duckdb.execute(f"SELECT count(pad), count(DISTINCT (kafka_partition, kafka_offset)), sum(n) FROM isk.hotset.{big}").fetchone())

    thread = threading.Thread(target=scan)
    thread.start()
    while (fetched := metric(fresh, "kafka_records_fetched_total")) < BIG // 20:
        assert thread.is_alive(), "the scan was over before anything happened"
        time.sleep(0.005)
    if how == "moved":
        node.stop()  # which hands its partitions over first
    else:
        node.kill()
    after = metric(fresh, "kafka_records_fetched_total")
    if how == "killed and restarted":
        node.start()
    thread.join(120)
    assert answers == [(BIG, BIG, BIG)]
    # A broker that is asked to stop takes its time, so what was read by its end says nothing there.
    assert (fetched if how == "moved" else after) < BIG, "all had been read before the broker left"
    assert whole.leader(big, 0) != 1 or how == "killed and restarted"
    # What is planned now is read as well.
    assert load(fresh, big).scan(selected_fields=("n",)).to_arrow().num_rows == BIG
    print(f"\n{how}: {fetched} records were fetched before, {after} when it was gone")


def test_one_broker_of_three_away(whole, registry, fresh):
    topic = whole.create_topic("one_away", [(1, 2, 3), (2, 3, 1)])
    write(whole, registry, topic, range(100), 0)
    whole.nodes[1].kill()
    write(whole, registry, topic, range(100, 200), 0)
    write(whole, registry, topic, range(200, 300), 1)
    assert numbers(load(fresh, topic)) == list(range(300))


def test_two_brokers_of_three_away_is_an_error_in_time(whole, registry, fresh):
    topic = whole.create_topic("two_away", [(1, 2), (3, 1)])
    write(whole, registry, topic, range(100), 0)
    write(whole, registry, topic, range(100, 200), 1)
    table = load(fresh, topic)
    whole.nodes[1].kill()
    whole.nodes[2].kill()
    begun = time.monotonic()
    with pytest.raises(Exception, match=r"(?i)leader|partition|brokers|kafka") as refused:
        numbers(load(fresh, topic))
    took = time.monotonic() - begun
    print(f"\n{took:.1f} s: {refused.value}")
    assert took < 60
    with pytest.raises(Exception, match=r"(?i)unavailable|503|slow|timeout|timed"):
        numbers(table)
    whole.nodes[1].start()
    whole.nodes[2].start()
    whole.wait_for(lambda: numbers(load(fresh, topic)) == list(range(200)))


def test_a_partition_is_given_other_replicas(whole, registry, fresh):
    topic = whole.create_topic("reassigned", [(1, 2)])
    write(whole, registry, topic, range(1000))
    planned = load(fresh, topic)
    whole.move(topic, {0: [3]})
    assert numbers(planned) == list(range(1000))
    write(whole, registry, topic, range(1000, 1100))
    assert numbers(load(fresh, topic)) == list(range(1100))


def test_the_nearest_replica_is_read(whole, registry):
    topic = whole.create_topic("nearest", [(1, 2)])
    write(whole, registry, topic, range(20_000))
    size = 20_000 * PAD
    for rack, near in (("rack-2", 2), ("rack-1", 1), ("", 1)):
        environment = {"ISK_KAFKA_CLIENT_RACK": rack} if rack else {}
        with Isk.beside(whole, registry, environment) as isk:
            before = {id: node.relay.received for id, node in whole.nodes.items()}
            assert numbers(load(isk, topic)) == list(range(20_000))
            got = {id: node.relay.received - before[id] for id, node in whole.nodes.items()}
        print(f"\n{rack or 'no rack'}: {got}")
        assert got[near] > size
        assert all(amount < size // 4 for id, amount in got.items() if id != near)


def test_a_log_that_is_cut_back_shows_nothing_of_what_is_lost(whole, registry, fresh):
    """An unclean election: what the new leader does not have is gone, also from what was encoded and remembered."""
    topic = whole.create_topic("unclean", [(1, 2)], {"unclean.leader.election.enable": "true"})
    write(whole, registry, topic, range(1000))
    whole.nodes[2].kill()
    whole.wait_for(lambda: whole.in_sync(topic) == {1})
    write(whole, registry, topic, range(1000, 1500))
    before = load(fresh, topic)
    assert numbers(before) == list(range(1500))
    whole.nodes[1].kill()
    whole.nodes[2].start()
    whole.wait_for(lambda: whole.leader(topic) == 2)
    # More than was lost, so that the new log's end lies behind the old one's.
    write(whole, registry, topic, range(5000, 5800))
    left = [*range(1000), *range(5000, 5800)]
    assert [record.value["n"] for record in records.read_topic(whole.bootstrap, topic, registry.url)] == left
    seen = load(fresh, topic)
    # What was planned before is a named error or what it was; never a mixture.
    with contextlib.suppress(OSError):
        assert numbers(before) == list(range(1500))
    for _ in range(3):
        with contextlib.suppress(OSError):  # named, and the next plan knows
            rows = numbers(seen)
            break
        seen = load(fresh, topic)
    assert rows == left
    assert load(fresh, topic).scan().count() == len(left)


def test_a_log_is_cut_back_between_the_footer_and_the_pages(whole, registry, fresh):
    """Pages are those that the footer speaks of, or there is an error by name; also where the file has to be made again."""
    topic = whole.create_topic("unclean_pages", [(1, 2)], {"unclean.leader.election.enable": "true"})
    write(whole, registry, topic, range(1000))
    whole.nodes[2].kill()
    whole.wait_for(lambda: whole.in_sync(topic) == {1})
    write(whole, registry, topic, range(1000, 1500))
    keys = [task.file.file_path.removeprefix("s3://hotset/") for task in load(fresh, topic).scan().plan_files()]
    s3 = clients.boto3_client(fresh.s3_endpoint, fresh.access_key, fresh.secret_key)
    files = [pyarrow.parquet.ParquetFile(RangedFile(s3, key)) for key in keys]
    assert sum(file.metadata.num_rows for file in files) == 1500
    whole.nodes[1].kill()
    whole.nodes[2].start()
    whole.wait_for(lambda: whole.leader(topic) == 2)
    write(whole, registry, topic, range(5000, 5800))

    def pages():
        """What the files show, or the codes of their errors."""
        seen, codes = [], set()
        for file in files:
            try:
                seen += file.read(columns=["n"])["n"].to_pylist()
            except botocore.exceptions.ClientError as refused:
                codes.add(refused.response["Error"]["Code"])
        return (sorted(seen) if not codes else None), codes

    kept = pages()
    fresh.stop()
    shutil.rmtree(fresh.work / "data" / "cache")
    fresh.start()
    lost = pages()
    print(f"\nkept: {kept[1] or 'right'}, lost: {lost[1] or 'right'}")
    for seen, codes in (kept, lost):
        assert codes <= {"RecordsExpired"} and (codes or seen == list(range(1500)))
    # Nobody has the records any more.
    assert lost[1]
    left = [*range(1000), *range(5000, 5800)]
    whole.wait_for(lambda: numbers(load(fresh, topic)) == left, 20)
