"""The clients of the soak. Each runs in a thread, asks again and again, checks what it gets, and notes how each question ended.

Outcomes: `ok`; `expired` (credentials ran out, as they must, and new ones were taken); `refused` (an error of the service, with its
words); `WRONG` (an answer that is not what Kafka holds: the soak has failed).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from stack import clients

from .feeds import GROWING, KEYS, PARTITIONS, ROWS_OF_A_TRANSACTION, Settled

# How long DuckDB and PyIceberg keep a connection; then they come as a new client does.
CONNECTION_SECONDS = 45
# The kind of each of eight clients.
KINDS = ("duckdb", "duckdb", "duckdb", "pyiceberg", "duckdb", "s3", "pyiceberg", "metadata")


@dataclass(frozen=True)
class Service:
    """Where the service is, and who asks."""

    catalog_uri: str
    s3_endpoint: str
    name: str
    secret: str


class Wrong(Exception):
    """An answer that is not what Kafka holds."""


class Expired(Exception):
    """Credentials ran out."""


def processes(clients: int) -> list[list[int]]:
    """Which clients share a process: those that measure have one of their own, so that they do not wait for others' Python."""
    measuring = [n for n in range(clients) if KINDS[n % 8] == Metadata.kind]
    rest = [n for n in range(clients) if n not in measuring]
    return [measuring] * bool(measuring) + [rest[at : at + 4] for at in range(0, len(rest), 4)]


def run(service: Service, array: Any, numbers: list[int], seconds: float, out: str) -> None:
    """A process with a client for each number; what they saw goes to a file of JSON lines."""
    settled, until = Settled(array), time.time() + seconds
    # In production they are on other machines: here those that scan have what the servers leave of this one.
    _stand_alone(behind=0 if KINDS[numbers[0] % 8] == Metadata.kind else 5)
    with Path(out).open("a") as file:

        def note(one: dict) -> None:
            # A line is one write, so that threads do not mix theirs.
            file.write(json.dumps(one) + "\n")
            file.flush()

        threads = [threading.Thread(target=_keep_asking, args=(CLIENTS[KINDS[n % 8]](service, settled, n), until, note)) for n in numbers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _stand_alone(behind: int) -> None:
    """Sets the process so far behind others. Linux shares cores among sessions before it looks at their processes."""
    os.setsid()
    os.nice(behind)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(behind))


def _keep_asking(client: Client, until: float, tell: Callable[[dict], None]) -> None:
    while time.time() < until:
        began = time.time()
        note = {"at": began, "kind": client.kind}
        try:
            note |= {"outcome": "ok"} | client.ask()
        except Wrong as problem:
            note |= {"outcome": "WRONG", "words": str(problem)}
        except Expired:
            note |= {"outcome": "expired"}
        except Exception as problem:  # noqa: BLE001: whatever a client raises is looked at afterwards
            words = str(problem) or "".join(traceback.format_exception_only(problem))
            note |= {"outcome": "refused", "words": words[-600:]}
            client.close()
            time.sleep(0.5)
        tell({"question": client.question} | note | {"ms": round((time.time() - began) * 1000, 1)})
        time.sleep(client.pause())
    client.close()


class Client:
    kind = "client"

    def __init__(self, service: Service, settled: Settled, number: int) -> None:
        self.service, self.settled, self.question = service, settled, ""
        self.random = random.Random(number)
        self.opened = 0.0

    def ask(self) -> dict:
        raise NotImplementedError

    def close(self) -> None:
        """Gives up what it holds; the next question opens it again."""

    def pause(self) -> float:
        return self.random.uniform(0, 0.4)

    def ends(self, topic: str) -> list[int]:
        return [self.settled.get(topic, partition) for partition in range(PARTITIONS)]

    def table(self, topic: str) -> str:
        return f"{'merged' if topic == 'moved' else 'hotset'}.{topic}"

    def token(self) -> str:
        form = {"grant_type": "client_credentials", "client_id": self.service.name, "client_secret": self.service.secret, "scope": "catalog"}
        answer = requests.post(f"{self.service.catalog_uri}/v1/oauth/tokens", data=form, timeout=30)
        answer.raise_for_status()
        return answer.json()["access_token"]


def check_growing(topic: str, found: dict[int, tuple[int, int, int, int, int]], ends: list[int], first: list[int | None]) -> None:
    """`found`: rows, distinct offsets, least and greatest offset, and rows that do not say what they should, by partition."""
    for partition, end in enumerate(ends):
        if end <= (first[partition] or 0):
            continue
        if partition not in found:
            raise Wrong(f"{topic}: nothing of partition {partition}, which ends at {end} or later")
        rows, distinct, least, greatest, bad = found[partition]
        if not rows == distinct == greatest - least + 1:
            raise Wrong(f"{topic}-{partition}: {rows} rows, {distinct} offsets from {least} to {greatest}")
        if bad:
            raise Wrong(f"{topic}-{partition}: {bad} rows do not say what was produced")
        if greatest + 1 < end:
            raise Wrong(f"{topic}-{partition}: the last offset is {greatest}, {end - 1} was there before")
        if first[partition] is not None and least > first[partition]:
            raise Wrong(f"{topic}-{partition}: the first offset is {least} and not {first[partition]}")


class DuckDb(Client):
    kind = "duckdb"
    connection = None

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def ask(self) -> dict:
        if self.connection is None or time.monotonic() - self.opened > CONNECTION_SECONDS:
            self.close()
            self._open()
        topic = self.random.choice((*GROWING, "steady", "transactional", "compacted"))
        return getattr(self, f"_{topic}", lambda: self._growing(topic))()

    def _open(self) -> None:
        self.question = "connect"
        service = self.service
        connection = clients.duckdb_connection()
        connection.execute("SET threads = 1; SET memory_limit = '400MB'; SET enable_progress_bar = false")
        clients.attach(connection, service.catalog_uri, f"{service.name}:{service.secret}")
        self.connection, self.opened = connection, time.monotonic()

    def _rows(self, query: str) -> list[tuple]:
        return self.connection.execute(query).fetchall()

    def _growing(self, topic: str) -> dict:
        ends = self.ends(topic)
        whole = topic in ("moved", "evolving") or self.random.random() < 0.3
        first: list[int | None] = [0 if topic != "retained" else None] * PARTITIONS
        condition = "true"
        if not whole:
            # The last of each partition.
            first = [max(end - 3000, 0) if topic != "retained" else None for end in ends]
            condition = " OR ".join(f"(kafka_partition = {p} AND kafka_offset >= {max(end - 3000, 0)})" for p, end in enumerate(ends))
        self.question = f"{topic}: {'all' if whole else 'latest'}"
        found = self._rows(
            "SELECT kafka_partition, count(n), count(DISTINCT kafka_offset), min(kafka_offset), max(kafka_offset),"
            " count(*) FILTER (WHERE n IS DISTINCT FROM kafka_offset OR text NOT LIKE 'row ' || kafka_offset || ' %')"
            f" FROM isk.{self.table(topic)} WHERE {condition} GROUP BY 1"
        )
        check_growing(topic, {partition: rest for partition, *rest in found}, ends, first)
        return {"rows": sum(row[1] for row in found)}

    def _transactional(self) -> dict:
        self.question = "transactional"
        known = self.settled.get("transactional")
        aborted, odd, last = self._rows(
            "SELECT coalesce(sum(bad), 0), count(*) FILTER (WHERE c <> %d), coalesce(max(number), -1) FROM (SELECT number, count(*) c,"
            " count(*) FILTER (WHERE aborted) bad FROM isk.hotset.transactional GROUP BY 1)" % ROWS_OF_A_TRANSACTION
        )[0]
        if aborted or odd or last + 1 < known:
            raise Wrong(f"transactional: {aborted} aborted rows, {odd} transactions in part, the last is {last} where {known - 1} was there")
        return {"rows": last + 1}

    def _compacted(self) -> dict:
        self.question = "compacted"
        known = self.settled.get("compacted")
        began = time.monotonic()
        found = {k: (rows, latest, bad) for k, rows, latest, bad in self._rows(
            f"SELECT k, count(*), max(n), count(*) FILTER (WHERE n % {KEYS} <> k) FROM isk.hotset.compacted GROUP BY 1"
        )}
        if any(bad for _, _, bad in found.values()):
            raise Wrong("compacted: rows under the key of others")
        # A query that takes longer than Kafka keeps what was replaced may miss a key.
        if time.monotonic() - began < 25:
            for k in range(min(KEYS, known)):
                latest = known - 1 - (known - 1 - k) % KEYS
                if k not in found or found[k][1] < latest:
                    raise Wrong(f"compacted: key {k} has {found.get(k)}, its record {latest} was there")
        return {"rows": sum(rows for rows, _, _ in found.values()), "compacted": sum(rows for rows, _, _ in found.values())}


class PyIceberg(Client):
    kind = "pyiceberg"
    catalog = None

    def close(self) -> None:
        self.catalog = None

    def ask(self) -> dict:
        service = self.service
        if self.catalog is None or time.monotonic() - self.opened > CONNECTION_SECONDS:
            self.question = "connect"
            self.catalog = clients.pyiceberg_catalog(service.catalog_uri, credential=f"{service.name}:{service.secret}")
            self.opened = time.monotonic()
        topic = self.random.choice(GROWING)
        self.question = f"{topic}: {'latest' if topic != 'evolving' else 'all'}"
        ends, partition = self.ends(topic), self.random.randrange(PARTITIONS)
        start = 0 if topic == "evolving" else max(ends[partition] - 2000, 0)
        table = self.catalog.load_table(self.table(topic))
        fields = len(table.schema().fields)
        rows = table.scan(row_filter=f"kafka_partition = {partition} and kafka_offset >= {start}", selected_fields=("n", "text", "kafka_offset")).to_arrow()
        offsets, numbers = rows["kafka_offset"].to_pylist(), rows["n"].to_pylist()
        bad = sum(n != o or not t.startswith(f"row {o} ") for n, o, t in zip(numbers, offsets, rows["text"].to_pylist(), strict=True))
        least, greatest = min(offsets, default=start), max(offsets, default=start - 1)
        first = [None] * PARTITIONS if topic == "retained" else [start] * PARTITIONS
        looked = [end if p == partition else 0 for p, end in enumerate(ends)]
        check_growing(topic, {partition: (len(offsets), len(set(offsets)), least, greatest, bad)}, looked, first)
        return {"rows": len(offsets), "fields": fields}


class Metadata(Client):
    """Loads tables over plain HTTP and keeps a token until it is refused."""

    kind = "metadata"
    session = None

    def close(self) -> None:
        self.session = None

    def pause(self) -> float:
        return 0.05

    def ask(self) -> dict:
        if self.session is None:
            self.question = "token"
            token = self.token()
            self.session = requests.Session()
            self.session.headers["authorization"] = f"Bearer {token}"
        topic = self.random.choice(GROWING)
        self.question = f"load {self.table(topic)}"
        namespace, _, name = self.table(topic).partition(".")
        answer = self.session.get(f"{self.service.catalog_uri}/v1/namespaces/{namespace}/tables/{name}", timeout=60)
        if answer.status_code in (401, 419):
            self.session = None
            raise Expired
        if answer.status_code != 200:
            raise RuntimeError(f"{answer.status_code}: {answer.text[:300]}")
        return {"server_ms": round(answer.elapsed.total_seconds() * 1000, 1)}


class S3(Client):
    """Reads files of tables by the keys that came with the table, whole and in ranges, and keeps the keys until they are refused."""

    kind = "s3"
    client = None

    def close(self) -> None:
        self.client = None

    def ask(self) -> dict:
        from botocore.exceptions import ClientError

        if self.client is None:
            self._open()
        try:
            return self._read(*self.random.choice(self.files))
        except ClientError as problem:
            if problem.response["Error"]["Code"] in ("ExpiredToken", "InvalidAccessKeyId", "InvalidToken"):
                self.client = None
                raise Expired from problem
            raise

    def _open(self) -> None:
        self.question = "s3: keys"
        catalog = clients.pyiceberg_catalog(self.service.catalog_uri, credential=f"{self.service.name}:{self.service.secret}")
        table = catalog.load_table("hotset.steady")
        planned = [task.file for task in table.scan().plan_files()]
        self.bucket = table.location().removeprefix("s3://").partition("/")[0]
        self.files = [(file.file_path.removeprefix(f"s3://{self.bucket}/"), file.file_size_in_bytes) for file in planned]
        keys = table.config
        self.client = clients.boto3_client(
            self.service.s3_endpoint, keys["s3.access-key-id"], keys["s3.secret-access-key"], token=keys.get("s3.session-token")
        )

    def _read(self, key: str, size: int) -> dict:
        import pyarrow.parquet as parquet

        self.question = "s3: ranges"
        start = self.random.randrange(size)
        end = min(start + 200_000, size) - 1
        part = self._get(key, f"bytes={start}-{end}")
        self.question = "s3: file"
        whole = self._get(key)
        if len(whole) != size or part != whole[start : end + 1]:
            raise Wrong(f"{key}: {len(whole)} bytes of {size}, or bytes {start} to {end} are others in the whole than by themselves")
        rows = parquet.read_table(io.BytesIO(whole), columns=["n", "kafka_offset"])
        offsets = rows["kafka_offset"].to_pylist()
        if rows["n"].to_pylist() != offsets or offsets != list(range(offsets[0], offsets[0] + len(offsets))):
            raise Wrong(f"{key}: rows with a gap, or others than were produced")
        return {"rows": len(offsets), "bytes": size}

    def _get(self, key: str, span: str | None = None) -> bytes:
        more = {"Range": span} if span else {}
        return self.client.get_object(Bucket=self.bucket, Key=key, **more)["Body"].read()


CLIENTS = {client.kind: client for client in (DuckDb, PyIceberg, Metadata, S3)}
