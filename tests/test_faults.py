"""What goes wrong around the service while it is read: it is killed, the network stalls and resets, another cluster takes over, clocks jump.

After each, rows are exact or there was an error; never fewer rows.
"""

import re
import shutil
import threading
import time
from pathlib import Path

import pytest
from stack import clients, records
from stack.isk import Isk
from stack.kafka import FarBroker

SCHEMA = {"type": "record", "name": "Row", "fields": [{"name": "n", "type": "long"}, {"name": "pad", "type": "bytes"}]}
# So that a chunk takes several fetches.
PAD = bytes(range(256)) * 40


def fill(broker, registry, topic, count, first=0):
    records.create_topic(broker.bootstrap, topic, 2)
    write(broker, registry, topic, count, first)


def write(broker, registry, topic, count, first=0):
    for partition in range(2):
        rows = ({"n": n, "pad": PAD} for n in range(first, first + count))
        serialize = records.avro_serializer(registry.url, SCHEMA)
        records.produce(records.producer(broker.bootstrap), topic, rows, serialize=serialize, partition=partition)


def numbers(table):
    rows = table.scan(selected_fields=("kafka_partition", "n")).to_arrow().to_pydict()
    return sorted(zip(rows["kafka_partition"], rows["n"], strict=True))


def expected(count, first=0):
    return [(partition, n) for partition in range(2) for n in range(first, first + count)]


def until_right(question, right, seconds):
    """Asks until there is an answer, which must be right. How often it failed, and the seconds it took."""
    began, failures = time.monotonic(), 0
    while True:
        try:
            answer = question()
        except Exception:  # noqa: BLE001: an error is what may come, a wrong answer is not
            failures += 1
            if time.monotonic() - began > seconds:
                raise
            time.sleep(0.1)
            continue
        assert answer == right
        return failures, time.monotonic() - began


def test_it_is_killed_while_files_are_read(broker, registry):
    """Readers get whole files, the same ones as ever, or errors. It is back within seconds."""
    fill(broker, registry, "killed", 2000)
    with Isk.beside(broker, registry) as isk:
        catalog = clients.pyiceberg_catalog(isk.catalog_uri)
        table = catalog.load_table("hotset.killed")
        keys = [task.file.file_path.removeprefix("s3://hotset/") for task in table.scan().plan_files()]
        sizes = {task.file.file_path.removeprefix("s3://hotset/"): task.file.file_size_in_bytes for task in table.scan().plan_files()}
        s3 = clients.boto3_client(isk.s3_endpoint, isk.access_key, isk.secret_key)
        right = {key: s3.get_object(Bucket="hotset", Key=key)["Body"].read() for key in keys}
        assert {key: len(body) for key, body in right.items()} == sizes
        ending, wrong, good, failed = threading.Event(), [], [], []

        def read(number):
            own = clients.boto3_client(isk.s3_endpoint, isk.access_key, isk.secret_key)
            while not ending.is_set():
                key = keys[number % len(keys)]
                try:
                    body = own.get_object(Bucket="hotset", Key=key)["Body"].read()
                except Exception as problem:  # noqa: BLE001: counted
                    failed.append(problem)
                    time.sleep(0.05)
                    continue
                (good if body == right[key] else wrong).append(key)

        threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        try:
            for again in range(3):
                before = len(good)
                if again == 1:
                    # What it kept of encoded files is gone, too.
                    shutil.rmtree(isk.work / "data" / "cache", ignore_errors=True)
                while len(good) < before + 8:
                    time.sleep(0.02)
                isk.kill()
                began = time.monotonic()
                isk.start()
                until_right(lambda: numbers(catalog.load_table("hotset.killed")), expected(2000), 20)
                assert time.monotonic() - began < 10
        finally:
            ending.set()
            for thread in threads:
                thread.join()
        assert not wrong
        assert failed, "nobody was reading when it was killed"
        # What was planned before all that.
        assert numbers(table) == expected(2000)


# What the service says where it does not get at Kafka, as clients show it. Of a HEAD's answer they show the status.
NAMED = r"(?i)kafka|broker|\b503\b|SERVICE_UNAVAILABLE"


def test_the_network_to_the_broker_stalls_and_resets(registry):
    settings = {"ISK_REQUEST_TIMEOUT_MS": "3000", "ISK_FETCH_PROGRESS_TIMEOUT_MS": "3000", "ISK_CACHE_BYTES": "1"}
    with FarBroker() as broker:
        relay = broker.relay
        fill(broker, registry, "stalled", 2000)
        with Isk.beside(broker, registry, settings | {"ISK_KAFKA_BOOTSTRAP_SERVERS": broker.far}) as isk:
            catalog = clients.pyiceberg_catalog(isk.catalog_uri)
            scan = lambda: numbers(catalog.load_table("hotset.stalled"))
            assert scan() == expected(2000)
            # Short stalls and resets in the middle of scans.
            ending = threading.Event()
            resets = 0

            def trouble():
                nonlocal resets
                while not ending.wait(0.2):
                    relay.stall()
                    ending.wait(0.4)
                    relay.flow()
                    ending.wait(0.1)
                    resets += relay.reset()

            thread = threading.Thread(target=trouble)
            thread.start()
            try:
                right, errors, longest = 0, [], 0.0
                until = time.monotonic() + 8
                while (began := time.monotonic()) < until or right + len(errors) < 2:
                    try:
                        rows = scan()
                    except Exception as problem:  # noqa: BLE001: looked at below
                        errors.append(f"{type(problem).__name__}: {problem}")
                    else:
                        assert rows == expected(2000)
                        right += 1
                    longest = max(longest, time.monotonic() - began)
            finally:
                ending.set()
                thread.join()
            print(f"{right} scans, {len(errors)} errors, {resets} connections reset; the longest took {longest:.1f} s: {errors[:1]}")
            assert resets, "nothing was reset"
            assert longest < 30
            assert all(re.search(NAMED, error) for error in errors), errors
            failed, seconds = until_right(scan, expected(2000), 30)
            assert seconds < 10
            # A stall that lasts: an error in time, and everything as before when it is over.
            relay.stall()
            began = time.monotonic()
            with pytest.raises(Exception, match=r"(?i)no answer|not available|brokers"):
                scan()
            assert time.monotonic() - began < 25
            relay.flow()
            failed, seconds = until_right(scan, expected(2000), 30)
            print(f"{failed} errors in {seconds:.1f} s after the stall")
            assert seconds < 10


def test_another_cluster_takes_over(broker, registry, own_broker):
    """Topics of the same name there are other topics: no row of one is ever shown as the other's."""
    fill(broker, registry, "moved_over", 50)
    fill(own_broker, registry, "moved_over", 70, first=1000)
    with Isk.beside(broker, registry) as isk:
        catalog = clients.pyiceberg_catalog(isk.catalog_uri)
        planned = catalog.load_table("hotset.moved_over")
        assert numbers(planned) == expected(50)
        isk.stop()
        isk.env["ISK_KAFKA_BOOTSTRAP_SERVERS"] = own_broker.bootstrap
        shutil.rmtree(isk.work / "data" / "cache", ignore_errors=True)
        isk.start()
        assert numbers(catalog.load_table("hotset.moved_over")) == expected(70, first=1000)
        with pytest.raises(Exception, match=r"(?i)404|not found|no such|gone|topic"):
            numbers(planned)
        # And back.
        isk.stop()
        isk.env["ISK_KAFKA_BOOTSTRAP_SERVERS"] = broker.bootstrap
        isk.start()
        assert numbers(catalog.load_table("hotset.moved_over")) == expected(50)


def test_the_clock_jumps(broker, registry):
    """Some minutes ahead and back, while it runs: rows stay exact, what is new shows, snapshots stay in order."""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    assert library, "libfaketime is missing: deploy/setup.sh --tests installs it"
    fill(broker, registry, "jumping", 50)
    isk = Isk.beside(broker, registry)
    clock = isk.work / "clock"
    clock.write_text("+0\n")
    # Clocks that count from the machine's start do not jump.
    isk.env |= {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with isk:
        catalog = clients.pyiceberg_catalog(isk.catalog_uri)
        assert numbers(catalog.load_table("hotset.jumping")) == expected(50)
        total = 50
        # Signatures are good for a quarter of an hour, and clients put their own clocks right by the service's answers: steps are
        # shorter than that.
        for jump in ("+4m", "+0", "-4m", "+0"):
            clock.write_text(f"{jump}\n")
            write(broker, registry, "jumping", 5, first=total)
            total += 5
            failures, seconds = until_right(lambda: numbers(catalog.load_table("hotset.jumping")), expected(total), 20)
            print(f"{jump}: {failures} errors, {seconds:.1f} s")
            # What was there before is not older than what comes after it.
            snapshots = catalog.load_table("hotset.jumping").metadata.snapshots
            assert [one.timestamp_ms for one in snapshots] == sorted(one.timestamp_ms for one in snapshots)
