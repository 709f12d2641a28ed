"""A topic whose older segments lie in a remote store: Kafka's own remote log manager, over its tests' store on a local disk."""

import contextlib
import datetime
import json
import time
import urllib.request

import pytest
from pyiceberg.expressions import And, GreaterThan, LessThan
from stack import clients, records
from stack.isk import Isk
from stack.kafka import Broker

SCHEMA = json.dumps({"type": "record", "name": "Shelf", "fields": [{"name": "n", "type": "long"}, {"name": "pad", "type": "bytes"}]})
COUNT, PAD = 20_000, 250
DAY = 86_400_000
# Written first, so that it lies in the remote store, and dated later than all others.
LATE = 5


class TieredBroker(Broker):
    more_jars = True

    def __init__(self) -> None:
        super().__init__()
        self.remote = self.work / "remote"
        self.properties = {
            "remote.log.storage.system.enable": "true",
            "remote.log.storage.manager.class.name": "org.apache.kafka.server.log.remote.storage.LocalTieredStorage",
            "rsm.config.dir": str(self.remote),
            "remote.log.metadata.manager.listener.name": "CLIENT",
            "rlmm.config.remote.log.metadata.topic.replication.factor": "1",
            "rlmm.config.remote.log.metadata.topic.num.partitions": "1",
            "rlmm.config.remote.log.metadata.topic.min.isr": "1",
            "remote.log.manager.task.interval.ms": "300",
        }

    def is_ready(self) -> bool:
        # The store's package brings a configuration of its own for the log, which is silent of this.
        with contextlib.suppress(Exception):
            return bool(records.admin(self.bootstrap).list_topics(timeout=2).brokers)
        return False

    def local_start(self, topic: str) -> int:
        """The first offset of the partition's first segment on the broker's own disk."""
        return min(int(file.stem) for file in (self.work / "data" / f"{topic}-0").glob("*.log"))


@pytest.fixture(scope="module")
def tiered(registry):
    """The broker, the topic and the timestamps of its records."""
    with TieredBroker() as broker:
        config = {"remote.storage.enable": "true", "segment.bytes": str(2**20), "local.retention.bytes": str(2**20), "retention.ms": "-1"}
        topic = records.create_topic(broker.bootstrap, "tiered", 1, config)
        now = int(time.time() * 1000)
        times = [now - 20 * DAY + n * 1000 for n in range(COUNT)]
        times[LATE] = now - 2 * DAY
        serialize = records.avro_serializer(registry.url, SCHEMA)
        values = [{"n": n, "pad": bytes(PAD)} for n in range(COUNT)]
        records.produce(records.producer(broker.bootstrap), topic, values, serialize=serialize, timestamp=lambda value: times[value["n"]])
        deadline = time.monotonic() + 60
        while broker.local_start(topic) < COUNT // 2:
            assert time.monotonic() < deadline, f"the local log begins at {broker.local_start(topic)}\n{broker.log_tail()}"
            time.sleep(0.2)
        print(f"\nthe broker's own disk has offsets from {broker.local_start(topic)} on")
        yield broker, topic, times


def metric(isk, name):
    with urllib.request.urlopen(f"{isk.catalog_uri}/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"isk_{name} "):
                return int(line.split()[1])
    raise AssertionError(f"no metric isk_{name}")


def moment(ms):
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).isoformat()


def test_rows_in_the_remote_store_are_rows(tiered, registry):
    broker, topic, times = tiered
    with Isk.beside(broker, registry) as isk:
        catalog = clients.pyiceberg_catalog(isk.catalog_uri)
        table = catalog.load_table(f"hotset.{topic}")
        assert table.properties["isk.tiered"] == "true"
        # By time first, while nothing was read: what prunes is the brokers' answers alone, once they are all there.
        time.sleep(3)
        table = catalog.load_table(f"hotset.{topic}")
        for after, before in ((2.5, 0), (15, 3), (19.9, 1), (21, 19.95)):
            since, until = int(times[0] + (20 - after) * DAY), int(times[0] + (20 - before) * DAY)
            rows = table.scan(row_filter=And(GreaterThan("kafka_timestamp", moment(since)), LessThan("kafka_timestamp", moment(until)))).to_arrow()
            assert sorted(rows["n"].to_pylist()) == [n for n, t in enumerate(times) if since < t < until], (after, before)
        rows = table.scan().to_arrow().sort_by("kafka_offset")
        assert rows["n"].to_pylist() == rows["kafka_offset"].to_pylist() == list(range(COUNT))
        assert [int(t.timestamp() * 1000) for t in rows["kafka_timestamp"].to_pylist()[:100]] == times[:100]


def test_the_prover_leaves_it_alone_unless_told(tiered, registry):
    broker, topic, _ = tiered
    settings = {"ISK_PROVER_TOPICS": topic, "ISK_PROVER_INTERVAL_SECONDS": "1"}
    with Isk.beside(broker, registry, settings) as isk:
        time.sleep(4)
        assert metric(isk, "chunks_rendered_total") == 0
    with Isk.beside(broker, registry, settings | {"ISK_PROVER_TIERED": "true"}) as isk:
        deadline = time.monotonic() + 60
        while metric(isk, "rows_rendered_total") < COUNT:
            assert time.monotonic() < deadline, isk.log_tail()
            time.sleep(0.2)
        assert clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"hotset.{topic}").scan().count() == COUNT
