"""What befalls a topic while it is a table: open transactions, more partitions, other settings."""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from confluent_kafka.admin import NewPartitions
from pyiceberg.manifest import ManifestContent
from stack import datasets, records
from stack.isk import binary

SCHEMA = json.dumps({"type": "record", "name": "Edge", "fields": [{"name": "n", "type": "long"}]})


@pytest.fixture
def add(broker, registry):
    """Adds numbers to a topic: add(topic, numbers, partition)."""
    serialize = records.avro_serializer(registry.url, SCHEMA)
    writer = records.producer(broker.bootstrap)

    def add(topic, numbers, partition=0, writer=writer, **more):
        records.produce(writer, topic, [{"n": n} for n in numbers], serialize=serialize, partition=partition, **more)

    return add


def numbers(table):
    return sorted(table.scan().to_arrow()["n"].to_pylist())


def delete_entries(table):
    snapshot = table.current_snapshot()
    return sum(m.existing_files_count + m.added_files_count for m in snapshot.manifests(table.io) if m.content == ManifestContent.DELETES)


def eventually(what, check, seconds=60):
    deadline = time.monotonic() + seconds
    while not (seen := check()):
        assert time.monotonic() < deadline, what
        time.sleep(0.5)
    return seen


def lag(isk, topic):
    with urllib.request.urlopen(f"{isk.catalog_uri}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    name = f'isk_lso_lag_offsets{{topic="{topic}"}} '
    return next((int(line.removeprefix(name)) for line in lines if line.startswith(name)), 0)


def test_an_open_transaction_holds_the_table_back_and_is_told_of(broker, registry, isk, pyiceberg, make_topic, add):
    topic = make_topic()
    add(topic, range(10))
    writer = records.producer(broker.bootstrap, transactional_id=topic)
    writer.init_transactions(30)
    writer.begin_transaction()
    add(topic, range(10, 15), writer=writer)
    add(topic, range(15, 20))
    load = lambda: pyiceberg.load_table(f"hotset.{topic}")
    assert numbers(load()) == list(range(10))
    eventually("the metric", lambda: load() and lag(isk, topic) == 10)

    environment = os.environ | isk.environment() | {"ISK_PORT": "0", "ISK_CATALOG_PORT": "0", "ISK_DATA_DIR": str(isk.work / "check")}
    checked = subprocess.run([str(binary()), "check"], env=environment, text=True, capture_output=True, timeout=60)
    print(checked.stdout, checked.stderr)
    held = next(line for line in checked.stdout.splitlines() if topic in line)
    assert "0:10" in held and "kafka-transactions.sh" in held

    told = eventually("the property", lambda: load().properties.get("isk.held-back"))
    assert told == "0:10"
    assert "kafka-transactions.sh" in load().properties["isk.held-back.remedy"]
    # However often it is loaded, nothing new is the same snapshot.
    assert load().current_snapshot().snapshot_id == load().current_snapshot().snapshot_id
    writer.commit_transaction(30)
    eventually("the end of the transaction", lambda: numbers(load()) == list(range(20)))
    eventually("the metric's end", lambda: load() and lag(isk, topic) == 0)
    assert "isk.held-back" not in load().properties


def test_partitions_that_are_added_show(broker, pyiceberg, make_topic, add):
    topic = make_topic(1)
    add(topic, range(10))
    assert numbers(pyiceberg.load_table(f"hotset.{topic}")) == list(range(10))
    admin = records.admin(broker.bootstrap)
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(30)
    eventually("the new partitions", lambda: len(records.admin(broker.bootstrap).list_topics(topic, 30).topics[topic].partitions) == 3)
    add(topic, range(10, 20), partition=2, writer=records.producer(broker.bootstrap))
    seen = eventually("the new rows", lambda: numbers(pyiceberg.load_table(f"hotset.{topic}")) == list(range(20)))
    assert seen


def test_a_policy_that_becomes_compact_and_delete_again(broker, isk, pyiceberg, make_topic, add):
    """What was counted before the cleaner came is not answered from its count, also when the cleaner has gone again."""
    topic = make_topic(1, datasets.KEEP | datasets.RESTING_CLEANER)
    keyed = {"key": lambda value: b"%d" % (value["n"] % 10)}
    add(topic, range(1000), **keyed)
    load = lambda: pyiceberg.load_table(f"hotset.{topic}")
    assert numbers(load()) == list(range(1000))
    assert delete_entries(load()) == 0 and load().scan().count() == 1000
    datasets.configure(broker.bootstrap, topic, {"cleanup.policy": "compact"})
    eventually("the delete entry", lambda: delete_entries(load()) == 1, seconds=10)
    datasets.configure(broker.bootstrap, topic, records.FAST_COMPACTION)
    eventually("the cleaner", lambda: add(topic, [0], **keyed) or len(records.read_topic(broker.bootstrap, topic)) < 500)
    datasets.configure(broker.bootstrap, topic, {"cleanup.policy": "delete"})
    time.sleep(6)
    fresh = load()
    assert delete_entries(fresh) >= 1
    left = {record.offset for record in records.read_topic(broker.bootstrap, topic)}
    # The file of the first records is kept from before the cleaner came: it is served as it was, counted by reading.
    kept = sorted(fresh.scan(selected_fields=("kafka_offset",)).to_arrow()["kafka_offset"].to_pylist())
    assert len(kept) == len(set(kept)) == fresh.scan().count() and left <= set(kept)
    # Without it, the bytes that were served under the old name are gone; the next plan has another.
    isk.stop()
    shutil.rmtree(Path(isk.environment()["ISK_DATA_DIR"]) / "cache")
    isk.start()
    eventually("a plan of what is left", lambda: _offsets(load()) == sorted(left))


def _offsets(table):
    try:
        return sorted(table.scan(selected_fields=("kafka_offset",)).to_arrow()["kafka_offset"].to_pylist())
    except OSError:
        return None


def test_who_dates_the_records_changes_under_way(broker, pyiceberg, make_topic, add):
    topic = make_topic(1, datasets.KEEP)
    add(topic, range(10), timestamp=lambda value: 1_000_000 + value["n"])
    datasets.configure(broker.bootstrap, topic, {"message.timestamp.type": "LogAppendTime"})
    eventually("the other clock", lambda: add(topic, [99], timestamp=lambda value: 5) or records.read_topic(broker.bootstrap, topic)[-1].timestamp > 5)
    stored = records.read_topic(broker.bootstrap, topic)
    rows = pyiceberg.load_table(f"hotset.{topic}").scan().to_arrow().sort_by("kafka_offset").to_pylist()
    assert [int(row["kafka_timestamp"].timestamp() * 1000) for row in rows] == [r.timestamp for r in stored]
    assert len({row["kafka_timestamp_type"] for row in rows}) == 2
