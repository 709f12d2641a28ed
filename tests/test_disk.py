"""The disk under the service: full, read-only, lost, written to by somebody else. Rows are exact or there is an error that says so; no restart is needed."""

import contextlib
import random
import re
import shutil
import threading
import time

import botocore.exceptions
import pytest
import requests
from stack import clients, records
from stack.disk import MIB, SmallDisk
from stack.isk import Isk

BUCKET = "hotset"
# What the error of a disk says, whichever part of the service met it first.
DISK = r"(?i)data_dir|cache folder|disk"
# How engines show it: where the message does not fit into their buffer, by its code alone.
SHOWN = DISK + "|SERVICE_UNAVAILABLE|\\b503\\b"


class Values:
    """A topic whose values cannot be made smaller: a file of each of its partitions is about as large as they are."""

    def __init__(self, broker, topic, partitions, mib):
        self.topic, self.partitions = topic, partitions
        self.count = mib * 64
        values = random.Random(topic)
        for partition in range(partitions):
            records.produce(records.producer(broker.bootstrap), topic, (values.randbytes(MIB // 64) for _ in range(self.count)), partition=partition)

    def want(self):
        return [(partition, offset) for partition in range(self.partitions) for offset in range(self.count)]

    def load(self, isk):
        return clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"{BUCKET}.{self.topic}")

    def keys(self, isk):
        """One file for each Kafka partition."""
        files = sorted(task.file.file_path.removeprefix(f"s3://{BUCKET}/") for task in self.load(isk).scan().plan_files())
        assert len(files) == self.partitions
        return files


def rows(table):
    """Where the rows stand, of a scan that reads the values, too."""
    read = table.scan(selected_fields=("kafka_partition", "kafka_offset", "kafka_value")).to_arrow()
    assert read["kafka_value"].null_count == 0
    return sorted(zip(read["kafka_partition"].to_pylist(), read["kafka_offset"].to_pylist(), strict=True))


def gateway(isk):
    return clients.boto3_client(isk.s3_endpoint, isk.access_key, isk.secret_key)


def body(s3, key):
    return s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()


def refusal(s3, key):
    """The error of an object that cannot be made: 503, which clients try again, and what is wrong."""
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        body(s3, key)
    answer = refused.value.response
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == (503, "ServiceUnavailable"), answer
    return answer["Error"]["Message"]


@pytest.fixture
def isk(broker):
    """One whose folders may be mounted over before it starts."""
    server = Isk.beside(broker, None)
    yield server
    server.stop()


def test_a_full_disk_under_the_cache(broker, isk, make_topic):
    """A read that finds no room is an error with the disk's name, in the middle of scans, too; with room again all is as before."""
    values = Values(broker, make_topic(4), 4, 3)
    with SmallDisk(isk.work / "data" / "cache", 16) as disk, isk:
        planned, keys, s3 = values.load(isk), values.keys(isk), gateway(isk)
        disk.fill(leave=MIB)
        assert re.search(DISK, refusal(s3, keys[0]))
        with pytest.raises(OSError, match=SHOWN):
            rows(planned)
        # Not even with files of the cache to drop is there room for what is larger.
        disk.empty()
        kept = body(s3, keys[0])
        assert body(s3, keys[0]) == kept
        disk.fill()
        # What is kept is served from the full disk. What comes after it takes its place.
        assert body(s3, keys[0]) == kept
        assert len(body(s3, keys[1])) > 3 * MIB
        disk.empty()
        assert rows(planned) == values.want()

        # The disk is full for a moment while files are made that nobody has read.
        outcomes = []
        for moment in range(6):
            values = Values(broker, make_topic(4), 4, 2)
            ending = threading.Event()

            def scan(values=values, ending=ending):
                while not ending.is_set():
                    try:
                        outcomes.append(rows(values.load(isk)) == values.want())
                    except OSError as problem:
                        outcomes.append(str(problem))

            thread = threading.Thread(target=scan)
            thread.start()
            try:
                time.sleep(moment / 10)
                until = time.monotonic() + 0.7
                while time.monotonic() < until:
                    # What older files leave is taken, too.
                    disk.fill(leave=MIB // 2)
                    time.sleep(0.005)
            finally:
                ending.set()
                thread.join()
                disk.empty()
            assert rows(values.load(isk)) == values.want()
        refused = [outcome for outcome in outcomes if isinstance(outcome, str)]
        print(f"{len(outcomes) - len(refused)} scans, {len(refused)} errors: {refused[:1]}")
        assert False not in outcomes
        assert refused and all(re.search(SHOWN, problem) for problem in refused), refused


def test_a_full_disk_under_what_is_known(broker, isk, make_topic):
    """Plans and facts have no room: errors that say so, and all is well without a restart once there is room."""
    values = Values(broker, make_topic(2), 2, 1)
    wide = make_topic(100)
    more = records.producer(broker.bootstrap)
    for partition in range(100):
        records.produce(more, wide, [b"%d" % partition], partition=partition)
    with SmallDisk(isk.work / "data", 32) as disk, SmallDisk(isk.work / "data" / "cache", 32), isk:
        planned = values.load(isk)
        assert rows(planned) == values.want()

        # The files of a plan. More than 60 loads with something new would be answered with a plan of before.
        added, refused = 0, 0
        for pages in range(4):
            disk.fill(leave=4096 * pages)
            for _ in range(8):
                records.produce(more, values.topic, [bytes(10)], partition=0)
                added += 1
                answer = requests.get(f"{isk.catalog_uri}/v1/namespaces/{BUCKET}/tables/{values.topic}", timeout=30)
                if answer.status_code != 200:
                    refused += 1
                    assert answer.status_code == 503 and re.search(DISK, answer.json()["error"]["message"]), answer.text
            assert requests.get(f"{isk.catalog_uri}/healthz", timeout=5).status_code == 200
            assert rows(planned) == values.want()
            disk.empty()
            want = sorted([*values.want(), *((0, values.count + n) for n in range(added))])
            eventually(lambda want=want: rows(values.load(isk)), want, 5)
        assert refused, "the disk was never too small"

        # What is learnt of files: it is in the store, which has to be opened again.
        unread = clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"{BUCKET}.{wide}")
        keys = [task.file.file_path.removeprefix(f"s3://{BUCKET}/") for task in unread.scan().plan_files()]
        disk.fill()
        outcomes, s3 = [], gateway(isk)
        for key in keys:
            try:
                outcomes.append(len(body(s3, key)) > 0)
            except botocore.exceptions.ClientError as problem:
                answer = problem.response
                assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == (503, "ServiceUnavailable"), answer
                outcomes.append(answer["Error"]["Message"])
        told = [outcome for outcome in outcomes if outcome is not True]
        print(f"{refused} loads and {len(told)} reads refused: {told[:1]}")
        assert told and all("isk.redb" in message and re.search(DISK, message) for message in told), told
        assert rows(planned) == values.want()
        disk.empty()
        eventually(lambda: rows(unread), [(partition, 0) for partition in range(100)], 5)

        before = values.load(isk).metadata.snapshots
        # What was kept after the disk had failed is there after a restart.
        isk.restart()
        assert {s.snapshot_id for s in before} <= {s.snapshot_id for s in values.load(isk).metadata.snapshots}
        assert rows(values.load(isk)) == want
        assert rows(planned) == values.want()


def eventually(ask, right, seconds):
    """Asks until there is an answer, which must be right."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = ask()
        except Exception:  # noqa: BLE001: an error is what may come, a wrong answer is not
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            assert answer == right
            return


def test_a_cache_on_a_read_only_disk(broker, isk, make_topic):
    """What is there is served, what is not is an error that names the folder."""
    values = Values(broker, make_topic(2), 2, 2)
    with SmallDisk(isk.work / "data" / "cache", 32) as disk, isk:
        keys, s3 = values.keys(isk), gateway(isk)
        kept = body(s3, keys[0])
        # Files that were just made are open for writing still.
        isk.restart()
        disk.read_only()
        assert body(s3, keys[0]) == kept
        assert re.search(DISK, refusal(s3, keys[1]))
        with pytest.raises(OSError, match=SHOWN):
            rows(values.load(isk))
        disk.writable()
        assert rows(values.load(isk)) == values.want()
        assert body(s3, keys[0]) == kept


def test_cached_files_are_damaged_and_lost_while_they_are_read(broker, isk, make_topic):
    """Bytes are changed, files cut, folders removed: readers get the bytes of ever, or their answer breaks off."""
    values = Values(broker, make_topic(4), 4, 2)
    with isk:
        planned, keys, s3 = values.load(isk), values.keys(isk), gateway(isk)
        want = {key: body(s3, key) for key in keys}
        ending, right, wrong, broken = threading.Event(), [], [], []

        def read(number):
            own = gateway(isk)
            while not ending.is_set():
                key = keys[number % len(keys)]
                try:
                    got = body(own, key)
                except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as problem:
                    broken.append(problem)
                else:
                    if got == want[key]:
                        right.append(key)
                    else:
                        at = next((n for n, (a, b) in enumerate(zip(got, want[key], strict=False)) if a != b), -1)
                        wrong.append(f"{len(got)} of {len(want[key])} bytes, from {at} on: {got[at:at + 70]!r}")

        threads = [threading.Thread(target=read, args=(n,)) for n in range(4)]
        [thread.start() for thread in threads]
        cache, chance, deeds = isk.work / "data" / "cache", random.Random(7), 0
        until = time.monotonic() + 5
        try:
            # Longer on a busy machine.
            while (now := time.monotonic()) < until or (now < until + 60 and min(deeds, len(right)) <= 20):
                time.sleep(chance.uniform(0.02, 0.1))
                files = sorted(cache.rglob("*.parquet"))
                if not files:
                    continue
                file = chance.choice(files)
                with contextlib.suppress(FileNotFoundError), file.open("r+b") as damaged:
                    half = file.stat().st_size // 2
                    if chance.random() < 0.3:
                        damaged.truncate(half)
                    else:
                        damaged.seek(half)
                        damaged.write(b"\xff" * 64)
                    deeds += 1
            # What is removed is read on by those who have it open.
            shutil.rmtree(cache / values.topic)
            time.sleep(1)
        finally:
            ending.set()
            [thread.join() for thread in threads]
        print(f"{deeds} deeds: {len(right)} files were right, {len(broken)} answers broke off")
        assert not wrong, wrong
        assert deeds > 20 and len(right) > 20
        assert {key: body(s3, key) for key in keys} == want
        assert rows(planned) == values.want()
