"""The topics of the soak and what befalls them. A record says where it is, so that a reader can check each row by itself.

| topic | what befalls it | what a reader must find |
|---|---|---|
| steady | grows | offsets from nought without a gap, `n` is the offset |
| retained | its start is deleted again and again | the same, from the log's start |
| evolving | its schema gets a field again and again | the same, and the fields that were there some seconds ago |
| moved | its rows are moved to a cold table and their offsets deleted | in `merged`, the same as steady |
| transactional | a third of its transactions aborts | ten rows of each that did not, and none of those |
| compacted | only each key's last record stays | of each key the last one, or a later one |
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from multiprocessing.sharedctypes import SynchronizedArray

from confluent_kafka import KafkaException, TopicPartition

from stack import records
from stack.kafka import Broker
from stack.lake import Lake
from stack.registry import Registry

PARTITIONS = 4
GROWING = ("steady", "retained", "evolving", "moved")
TOPICS = (*GROWING, "transactional", "compacted")
KEYS = 200
ROWS_OF_A_TRANSACTION = 10
# What was acknowledged this long ago must be shown: a table that is loaded all the time may be a second old.
SETTLED_SECONDS = 3.0
# Kafka deletes no record of a compacted topic that was replaced less than this long ago, so no query loses one on its way.
COMPACTION_LAG_MS = 30_000
FILLER = "0123456789abcdef" * 6


def schema(fields: int = 0) -> dict:
    """A record of the growing topics, with this many fields more."""
    more = [{"name": f"more_{i}", "type": ["null", "long"], "default": None} for i in range(fields)]
    return {"type": "record", "name": "Row", "fields": [{"name": "n", "type": "long"}, {"name": "text", "type": "string"}, *more]}


TRANSACTIONAL = {
    "type": "record",
    "name": "Part",
    "fields": [{"name": "number", "type": "long"}, {"name": "aborted", "type": "boolean"}],
}
COMPACTED = {"type": "record", "name": "Latest", "fields": [{"name": "k", "type": "long"}, {"name": "n", "type": "long"}]}


class Settled:
    """How far each topic is for certain: an end offset by partition, or a number. Shared with the readers' processes."""

    def __init__(self, array: SynchronizedArray) -> None:
        self.array = array

    def get(self, topic: str, partition: int = 0) -> int:
        return self.array[TOPICS.index(topic) * PARTITIONS + partition]

    def set(self, topic: str, partition: int, value: int) -> None:
        self.array[TOPICS.index(topic) * PARTITIONS + partition] = value


class Feeds:
    """Threads that produce, delete, evolve and move until they are stopped. `counts` says how often each thing happened."""

    def __init__(self, broker: Broker, registry: Registry, lake: Lake, settled: Settled, every: float, unmoved: Callable) -> None:
        self.broker, self.registry, self.lake, self.settled, self.every, self.unmoved = broker, registry, lake, settled, every, unmoved
        self.counts: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.ending = threading.Event()
        self.ends = {topic: [0] * PARTITIONS for topic in GROWING}
        self.fields = 0
        self.threads: list[threading.Thread] = []
        self.admin = records.admin(broker.bootstrap)

    def make(self, preloaded: int) -> None:
        """Makes the topics; `steady` begins with this many records."""
        for topic in GROWING:
            records.create_topic(self.broker.bootstrap, topic, PARTITIONS, {"retention.ms": "-1"})
        records.create_topic(self.broker.bootstrap, "transactional", 1)
        # By the broker's clock: a record that waited in its producer while the broker was away is no older than its arrival.
        compaction = {"message.timestamp.type": "LogAppendTime", "min.compaction.lag.ms": str(COMPACTION_LAG_MS), "max.compaction.lag.ms": str(COMPACTION_LAG_MS + 5000), "segment.ms": "5000"}
        records.create_topic(self.broker.bootstrap, "compacted", 1, records.FAST_COMPACTION | compaction)
        write = self._writer()
        for topic, count in {"steady": preloaded, "retained": 40_000, "evolving": 1000, "moved": 4000}.items():
            self._grow(write, topic, count // PARTITIONS)

    def start(self) -> None:
        for work in (self._growing, self._transactions, self._compacted, self._events):
            thread = threading.Thread(target=self._kept_up, args=(work,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def stop(self) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join(120)

    def _kept_up(self, work: Callable[[], None]) -> None:
        """A feed that fails is begun again: brokers go away in a soak."""
        while not self.ending.is_set():
            try:
                work()
            except Exception as problem:  # noqa: BLE001: told at the end
                self.failures.append(f"{work.__name__}: {problem}"[:300])
                self.ending.wait(2)

    def _writer(self, **config):
        # Nothing is lost or written twice while brokers come and go: `n` stays the offset.
        return records.producer(self.broker.bootstrap, **({"enable_idempotence": True, "message_timeout_ms": 300_000} | config))

    def _serialize(self, topic: str):
        text = schema(self.fields if topic == "evolving" else 0)
        return records.avro_serializer(self.registry.url, text)

    def _grow(self, write, topic: str, count: int) -> None:
        serialize = self._serialize(topic)
        for partition in range(PARTITIONS):
            first = self.ends[topic][partition]
            more = {f"more_{i}": i for i in range(self.fields)} if topic == "evolving" else {}
            rows = ({"n": n, "text": f"row {n} {FILLER}"} | more for n in range(first, first + count))
            records.produce(write, topic, rows, serialize=serialize, partition=partition)
            self.ends[topic][partition] = first + count

    def _growing(self) -> None:
        write = self._writer()
        known: collections.deque = collections.deque()
        while not self.ending.wait(0.5):
            for topic in GROWING:
                self._grow(write, topic, 25)
            known.append((time.monotonic(), {topic: list(ends) for topic, ends in self.ends.items()}))
            while known and known[0][0] < time.monotonic() - SETTLED_SECONDS:
                for topic, ends in known.popleft()[1].items():
                    for partition, end in enumerate(ends):
                        self.settled.set(topic, partition, end)

    def _transactions(self) -> None:
        write = self._writer(transactional_id="soak", transaction_timeout_ms=60_000, message_timeout_ms=60_000)
        write.init_transactions(60)
        serialize = records.avro_serializer(self.registry.url, TRANSACTIONAL)
        known: collections.deque = collections.deque()
        while not self.ending.wait(0.5):
            number, aborted = self.counts["transactions"], self.counts["transactions"] % 3 == 2
            write.begin_transaction()
            try:
                records.produce(write, "transactional", [{"number": number, "aborted": aborted}] * ROWS_OF_A_TRANSACTION, serialize=serialize)
                if aborted:
                    write.abort_transaction(60)
                else:
                    write.commit_transaction(60)
            except (KafkaException, RuntimeError):
                # Whether it was committed is not known: its number is not used again, and nobody asks for it.
                self.counts["transactions"] += 1
                raise
            self.counts["transactions"] += 1
            if not aborted:
                known.append((time.monotonic(), number))
            while known and known[0][0] < time.monotonic() - SETTLED_SECONDS:
                self.settled.set("transactional", 0, known.popleft()[1] + 1)

    def _compacted(self) -> None:
        write = self._writer()
        serialize = records.avro_serializer(self.registry.url, COMPACTED)
        known: collections.deque = collections.deque()
        while not self.ending.wait(0.5):
            first = self.counts["compacted records"]
            rows = [{"k": n % KEYS, "n": n} for n in range(first, first + 50)]
            records.produce(write, "compacted", rows, serialize=serialize, key=lambda row: b"%d" % row["k"], partition=0)
            self.counts["compacted records"] += len(rows)
            known.append((time.monotonic(), first + len(rows)))
            while known and known[0][0] < time.monotonic() - SETTLED_SECONDS:
                self.settled.set("compacted", 0, known.popleft()[1])

    def _events(self) -> None:
        cold = None
        while not self.ending.wait(self.every):
            self._delete("retained", [end - 2000 for end in self.ends["retained"]])
            self.counts["retention"] += 1
            self.fields += 1
            self.counts["schema versions"] += 1
            rows = self.unmoved()
            if cold is None:
                cold = self.lake.pyiceberg().create_table_if_not_exists("coldset.moved", schema=rows.schema)
            if rows.num_rows:
                cold.append(rows)
                self.counts["moves"] += 1
                # What was just moved stays for a while, so that hot and cold overlap.
                last = rows.group_by("kafka_partition").aggregate([("kafka_offset", "max")]).to_pydict()
                ends = dict(zip(last["kafka_partition"], last["kafka_offset_max"], strict=True))
                self._delete("moved", [ends.get(partition, 0) - 500 for partition in range(PARTITIONS)])

    def _delete(self, topic: str, ends: list[int]) -> None:
        """Deletes what lies before, as retention would."""
        wanted = [TopicPartition(topic, partition, end) for partition, end in enumerate(ends) if end > 0]
        for done in self.admin.delete_records(wanted).values():
            done.result(30)
