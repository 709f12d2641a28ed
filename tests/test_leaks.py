"""What many readers that go away, and many reads that fail, leave behind in the process: nothing."""

import concurrent.futures
import os
import random
import socket
import time
import urllib.parse
from pathlib import Path
from typing import NamedTuple

import botocore.exceptions
from stack import clients, records
from stack.isk import Isk
from stack.kafka import FarBroker

BUCKET, TOPIC = "hotset", "leaks"
PARTITIONS, COUNT, SIZE = 40, 30, 60_000
ABORTED, FAILED = 200, 200
AT_ONCE = 20
MIB = 2**20
# Nothing is kept, so that each read fetches from Kafka, but for what was asked for within ten seconds.
SETTINGS = {
    "ISK_CACHE_BYTES": "1",
    "ISK_RENDER_CONCURRENCY": str(AT_ONCE),
    "ISK_REQUEST_TIMEOUT_MS": "1000",
    "ISK_FETCH_PROGRESS_TIMEOUT_MS": "1000",
}


class Held(NamedTuple):
    descriptors: int
    threads: int
    resident: int

    @classmethod
    def by(cls, isk):
        process = Path(f"/proc/{isk.process.pid}")
        return cls(len(os.listdir(process / "fd")), len(os.listdir(process / "task")), isk.resident_bytes())


class Reads:
    """Reads of one service's files, all at their first touch or past it."""

    def __init__(self, broker, isk):
        self.relay, self.isk = broker.relay, isk
        table = clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"{BUCKET}.{TOPIC}")
        self.keys = [task.file.file_path.removeprefix(f"s3://{BUCKET}/") for task in table.scan().plan_files()]
        assert len(self.keys) == PARTITIONS
        self.s3 = clients.boto3_client(isk.s3_endpoint, isk.access_key, isk.secret_key, max_pool_connections=AT_ONCE, signature_version="s3v4")

    def at_once(self, work, count):
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(work, range(count)))

    def whole(self):
        bodies = self.at_once(lambda n: self.patiently(self.keys[n]), PARTITIONS)
        assert all(len(body) > COUNT * SIZE for body in bodies)

    def patiently(self, key, **more):
        """Asks again after a 503, as S3 clients do by themselves: a broker that is busy may take longer than the short time here."""
        until = time.monotonic() + 30
        while True:
            try:
                return self.s3.get_object(Bucket=BUCKET, Key=key, **more)["Body"].read()
            except botocore.exceptions.ClientError as refused:
                if refused.response["ResponseMetadata"]["HTTPStatusCode"] != 503 or time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def aborted(self, n):
        """Goes away before there is an answer, within its head, or within the body."""
        url = self.s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": self.keys[n % PARTITIONS]}, ExpiresIn=600)
        path = urllib.parse.urlsplit(url)
        with socket.socket() as connection:
            # Less than a file, so that the service is in the middle of it; more than a segment of the loopback device.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 << 10)
            connection.connect(("127.0.0.1", self.isk.port))
            connection.sendall(f"GET {path.path}?{path.query} HTTP/1.1\r\nHost: 127.0.0.1:{self.isk.port}\r\n\r\n".encode())
            wanted = (0, 10, 50_000)[n % 3]
            if not wanted:
                time.sleep(random.random() / 20)
                return
            connection.settimeout(20)
            assert connection.recv(10).startswith(b"HTTP/1.1 2")
            while wanted > 10:
                assert (part := connection.recv(min(wanted, 8192))), "it was not sent what it had asked for"
                wanted -= len(part)

    def failing(self, count):
        """Fails in outages, of a few reads each."""
        for first in range(0, count, AT_ONCE):
            self.relay.pause()
            self.relay.reset()
            statuses = self.at_once(lambda n, first=first: self.failed(first + n), AT_ONCE)
            assert set(statuses) == {503}, statuses
            self.relay.resume()

    def failed(self, n):
        try:
            # The first was asked for a moment ago, and is open.
            self.s3.get_object(Bucket=BUCKET, Key=self.keys[1 + n % (PARTITIONS - 1)], Range="bytes=0-99")["Body"].read()
        except botocore.exceptions.ClientError as refused:
            assert "Kafka" in refused.response["Error"]["Message"], refused
            return refused.response["ResponseMetadata"]["HTTPStatusCode"]
        return 200

    def recovered(self):
        """Comes back once the broker is found again: by a file that is not open."""
        self.patiently(self.keys[-1], Range="bytes=0-99")

    def settled(self):
        """What is held once files that nobody asks for are closed, and threads that have nothing to do have ended."""
        time.sleep(11)
        # Files are closed when the next one is asked for.
        self.patiently(self.keys[0], Range="bytes=0-99")
        time.sleep(0.5)
        return Held.by(self.isk)


def test_nothing_is_left_of_reads_that_were_aborted_or_failed():
    with FarBroker() as broker:
        records.create_topic(broker.bootstrap, TOPIC, PARTITIONS)
        target, values = records.producer(broker.bootstrap), random.Random(1)
        for partition in range(PARTITIONS):
            records.produce(target, TOPIC, (values.randbytes(SIZE) for _ in range(COUNT)), partition=partition)
        with Isk.beside(broker, None, SETTINGS | {"ISK_KAFKA_BOOTSTRAP_SERVERS": broker.far}) as isk:
            reads = Reads(broker, isk)
            # The same, less often: what it takes to have done it at all. What fails comes first, while no file is open.
            reads.failing(2 * AT_ONCE)
            reads.whole()
            reads.at_once(reads.aborted, PARTITIONS)
            before = reads.settled()
            reads.failing(FAILED)
            reads.recovered()
            reads.at_once(reads.aborted, ABORTED)
            after = reads.settled()
            print(f"before {before}, after {after}")
            assert after.descriptors <= before.descriptors + 4
            assert after.threads <= before.threads + 4
            assert after.resident < before.resident + 48 * MIB
            reads.whole()
