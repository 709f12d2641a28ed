"""What happens to a topic while scans of it run: records deleted, the topic made anew, transactions aborted and left open.

A scan shows the rows of one moment, or fails by name; never fewer rows, and never a mixture.
"""

import contextlib
import re
import threading
import time
from collections import Counter

import pytest
from confluent_kafka import KafkaException, TopicPartition
from pyiceberg.exceptions import NoSuchTableError
from stack import clients, records
from stack.isk import Isk

# What is said of a file that cannot be made any more; of a topic that is not there (any more).
GONE = r"(?i)RecordsExpired|retention|gone|expired|no longer|\b410\b"
ABSENT = GONE + r"|NoSuchKey|NoSuchTable|\b404\b|does not exist|not found|recreated"


def by_pyiceberg(isk):
    catalog = clients.pyiceberg_catalog(isk.catalog_uri)

    def scan(topic):
        rows = catalog.load_table(f"hotset.{topic}").scan().to_arrow()
        return list(zip(*(rows[name].to_pylist() for name in ("kafka_partition", "kafka_offset", "kafka_value")), strict=True))

    return scan


def by_duckdb(isk):
    def scan(topic):
        # A new one each time: it keeps what it has read.
        with clients.duckdb_connection(isk.catalog_uri) as duckdb:
            return duckdb.execute(f"SELECT kafka_partition, kafka_offset, kafka_value FROM isk.hotset.{topic}").fetchall()

    return scan


class Scans:
    """Readers that scan a topic over and over while the block runs. `check` gets what `before` gave ahead of a scan, and its rows."""

    def __init__(self, isk, topic, before, check, named):
        self.topic, self.before, self.check, self.named = topic, before, check, named
        self.right, self.errors, self.wrong = 0, [], []
        self._ending = threading.Event()
        scans = [by_pyiceberg(isk), by_pyiceberg(isk), by_duckdb(isk)]
        self._threads = [threading.Thread(target=self._read, args=(scan,)) for scan in scans]

    def _read(self, scan):
        while not self._ending.is_set():
            known = self.before()
            try:
                rows = scan(self.topic)
            except Exception as problem:  # noqa: BLE001: looked at when all is over
                self.errors.append(f"{type(problem).__name__}: {problem}")
                continue
            try:
                self.check(known, rows)
                self.right += 1
            except Exception as problem:  # noqa: BLE001: so are these
                self.wrong.append(repr(problem))

    def __enter__(self):
        [thread.start() for thread in self._threads]
        return self

    def __exit__(self, *_):
        self._ending.set()
        [thread.join() for thread in self._threads]
        print(f"{self.right} scans, {len(self.errors)} errors: {self.errors[:1]}")

    def verdict(self):
        assert not self.wrong, self.wrong[:3]
        assert self.right >= 3
        unnamed = [error for error in self.errors if not re.search(self.named, error)]
        assert not unnamed, unnamed[:3]


@pytest.fixture
def isk(broker):
    """One that keeps no file longer than it has to."""
    with Isk.beside(broker, None, {"ISK_CACHE_BYTES": "1"}) as server:
        yield server


def test_records_are_deleted_while_scans_run(broker, isk, make_topic):
    """Each scan has all from where the log began at some moment of it, or fails."""
    count, step, steps = 2000, 100, 15
    topic = make_topic(2)
    target = records.producer(broker.bootstrap)
    for partition in range(2):
        records.produce(target, topic, (n.to_bytes(4, "big") * 4096 for n in range(count)), partition=partition)
    admin = records.admin(broker.bootstrap)
    # What was asked to be deleted, and what is surely gone.
    asked = gone = 0
    spanned = 0

    def check(began, rows):
        nonlocal spanned
        high = asked
        for partition in range(2):
            seen = sorted((offset, value[:4]) for p, offset, value in rows if p == partition)
            start = seen[0][0]
            assert began <= start <= high, f"from {start}, and the log began between {began} and {high}"
            assert seen == [(n, n.to_bytes(4, "big")) for n in range(start, count)], f"{len(seen)} rows from {start}"
        spanned += began < high

    with Scans(isk, topic, lambda: gone, check, GONE) as scans:
        time.sleep(1)
        for _ in range(steps):
            asked += step
            [future.result(30) for future in admin.delete_records([TopicPartition(topic, p, asked) for p in range(2)]).values()]
            gone = asked
            time.sleep(0.4)
    scans.verdict()
    assert spanned + len(scans.errors) > 3, "nothing was deleted in the middle of a scan"
    check(gone, by_pyiceberg(isk)(topic))


def test_a_topic_is_made_anew_while_scans_run(broker, isk, make_topic):
    """Rows of one topic, all that were there; never of both."""
    count = 400
    topic = make_topic(2)
    admin, target = records.admin(broker.bootstrap), records.producer(broker.bootstrap)
    # Which topic of this name is there, and which of them have all their records.
    newest, whole = 0, set()

    def fill(generation):
        for partition in range(2):
            records.produce(target, topic, (b"%d" % generation + bytes(8192) for _ in range(count)), partition=partition)
        whole.add(generation)

    def check(began, rows):
        generations = {int(value.split(b"\0")[0]) for _, _, value in rows}
        assert len(generations) <= 1, f"rows of {generations}"
        for partition in range(2):
            offsets = sorted(offset for p, offset, _ in rows if p == partition)
            assert offsets == list(range(len(offsets)))
        if generations & began:
            assert len(rows) == 2 * count, f"{len(rows)} rows of {generations}, which was whole"

    fill(0)
    with Scans(isk, topic, lambda: set(whole), check, ABSENT) as scans:
        for newest in range(1, 4):
            time.sleep(1.5)
            admin.delete_topics([topic], operation_timeout=30)[topic].result(30)
            deadline = time.monotonic() + 30
            while True:
                try:
                    records.create_topic(broker.bootstrap, topic, 2)
                    break
                except KafkaException:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            # It takes a producer a moment to learn where the new one is.
            target = records.producer(broker.bootstrap)
            fill(newest)
        time.sleep(1)
    scans.verdict()
    deadline = time.monotonic() + 15
    while True:
        with contextlib.suppress(OSError, NoSuchTableError):
            rows = by_pyiceberg(isk)(topic)
            if {value.split(b"\0")[0] for _, _, value in rows} == {b"%d" % newest}:
                break
        assert time.monotonic() < deadline, "the topic of before is still shown"
        time.sleep(0.2)
    assert len(rows) == 2 * count


def test_transactions_are_aborted_and_left_open_while_scans_run(broker, isk, make_topic):
    """Whole transactions, those that were committed, in their order, up to some point."""
    topic, size = make_topic(1), 50
    committed = []

    def writer(name):
        made = records.producer(broker.bootstrap, transactional_id=f"{topic}-{name}")
        made.init_transactions(30)
        return made

    def check(_, rows):
        seen = Counter(int(value.split(b"\0")[0]) for _, _, value in rows)
        parts = {number: amount for number, amount in seen.items() if amount != size}
        assert not parts, f"parts of transactions: {parts}"
        known = list(committed)
        assert sorted(seen) == known[: len(seen)], f"{sorted(seen)[-3:]} of {known[-3:]}"

    steady, hanging = writer("steady"), writer("hanging")
    begin = time.monotonic()
    number = 0
    with Scans(isk, topic, lambda: None, check, GONE) as scans:
        while time.monotonic() - begin < 8:
            hang = number % 7 == 3
            if hang:
                # It writes, and is not heard of again until another one of its name comes.
                hanging.begin_transaction()
                records.produce(hanging, topic, [b"%d\0" % 1_000_000] * 5, partition=0)
            for _ in range(3):
                steady.begin_transaction()
                records.produce(steady, topic, [b"%d\0" % number + bytes(2000)] * size, partition=0)
                if number % 3 == 2:
                    steady.abort_transaction(30)
                else:
                    # Readers may see it before this is told.
                    committed.append(number)
                    steady.commit_transaction(30)
                number += 1
            if hang:
                time.sleep(0.5)
                hanging = writer("hanging")
    scans.verdict()
    assert not scans.errors, scans.errors[:3]
    deadline = time.monotonic() + 20
    while len(rows := by_pyiceberg(isk)(topic)) < size * len(committed):
        assert time.monotonic() < deadline, "the open transaction is not over"
        time.sleep(0.2)
    check(None, rows)
    assert len(rows) == size * len(committed)
