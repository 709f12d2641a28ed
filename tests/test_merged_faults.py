"""Registry and object store go, stall and lie in the middle of scans of a merged table: all rows, or an error; and all rows afterwards."""

import concurrent.futures
import contextlib
import json
import re
import threading
import time

import botocore.exceptions
import pytest
import requests
from confluent_kafka.serialization import MessageField, SerializationContext
from pyiceberg.exceptions import ServiceUnavailableError
from pyiceberg.manifest import ManifestContent
from stack import clients, records
from stack.isk import Isk
from stack.lake import BUCKET, Lake
from stack.liar import Liar
from stack.moves import Deeds
from stack.pair import Pair
from stack.proxy import Proxy
from stack.readers import Readers

TOPIC, FILES, FILE_ROWS = "merged_faults", 4, 100
# What the service says of what stands behind it; of a HEAD's answer clients show the status.
NAMED = r"(?i)upstream|coldset|object store|registry|\b50[0-9]\b|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|NO_?SUCH_?KEY|RESOURCE_NOT_FOUND|\b404\b|FileNotFound"
# A body that ends early has nothing left to say it with.
BROKEN_OFF = r"|NETWORK_CONNECTION|Transferred a partial file|IncompleteRead|IncompleteBody|HTTP GET error"


class MoodyRegistry(Proxy):
    mood = ""
    told = 0

    def answer(self, path):
        if not self.mood or "/schemas/ids/" not in path:
            return super().answer(path)
        self.told += 1
        if self.mood == "slow":
            time.sleep(4)
            return super().answer(path)
        return {
            "html": (200, "text/html", b"<html>please log in</html>"),
            "broken": (500, "application/json", b'{"error_code": 50001, "message": "broken"}'),
            "no schema": (200, "application/json", b'{"schema": 7}'),
        }[self.mood]


class Merged:
    """The table, what stands behind it, and what it has to show."""

    def __init__(self, isk, lake, store, schemas, registry, deeds):
        self.isk, self.lake, self.store, self.schemas, self.registry, self.deeds = isk, lake, store, schemas, registry, deeds
        self.rows = 0

    def produce(self, count):
        self.deeds.pair.produce(count)
        self.rows += count

    def want(self):
        return [(0, offset) for offset in range(self.rows)]

    def load(self):
        return clients.pyiceberg_catalog(self.isk.catalog_uri).load_table(f"merged.{TOPIC}")

    def by_pyiceberg(self, table=None):
        read = (table or self.load()).scan(selected_fields=("kafka_partition", "kafka_offset", "id")).to_arrow()
        return self.positions(zip(*(read[name].to_pylist() for name in ("kafka_partition", "kafka_offset", "id")), strict=True))

    def by_duckdb(self):
        with clients.duckdb_connection(self.isk.catalog_uri) as duckdb:
            duckdb.execute("SET enable_external_file_cache = false")
            return self.positions(duckdb.execute(f"SELECT kafka_partition, kafka_offset, id FROM isk.merged.{TOPIC}").fetchall())

    @staticmethod
    def positions(rows):
        rows = sorted(rows)
        # Every fiftieth is a tombstone; all else has its id.
        assert all((id is None) == (offset % 50 == 49) for _, offset, id in rows), "a row of nulls"
        return [(partition, offset) for partition, offset, _ in rows]

    def attempt(self, *scans):
        """What a fault made of scans: all rows, or why not."""
        outcomes = []
        for scan in scans:
            began = time.monotonic()
            try:
                assert scan() == self.want()
                outcomes.append("right")
            except AssertionError:
                raise
            except Exception as problem:  # noqa: BLE001: an error is what may come, a wrong answer is not
                outcomes.append(f"{type(problem).__name__}: {problem}")
            assert time.monotonic() - began < 60
        return outcomes

    def recovers(self, *scans, seconds=15):
        deadline = time.monotonic() + seconds
        for scan in scans:
            while (outcome := self.attempt(scan)) != ["right"]:
                assert time.monotonic() < deadline, outcome
                time.sleep(0.2)


@pytest.fixture(scope="module")
def merged(broker, registry):
    with contextlib.ExitStack() as stack:
        lake = stack.enter_context(Lake())
        store = stack.enter_context(contextlib.closing(Liar(lake.s3_endpoint)))
        schemas = stack.enter_context(contextlib.closing(MoodyRegistry(registry.url)))
        settings = lake.isk_environment() | {
            "ISK_COLDSET_CLIENT_S3_ENDPOINT": store.url,
            "ISK_COLDSET_REQUEST_TIMEOUT_MS": "2000",
            "ISK_REGISTRY_URL": schemas.url,
            "ISK_REQUEST_TIMEOUT_MS": "2000",
        }
        isk = stack.enter_context(Isk.beside(broker, None, settings))
        readers = stack.enter_context(Readers(isk, lake))
        lake.pyiceberg().create_namespace("coldset")
        records.create_topic(broker.bootstrap, TOPIC)
        made = Merged(isk, lake, store, schemas, registry, Deeds(Pair.make(broker, registry, TOPIC, 1), readers))
        made.produce((FILES + 1) * FILE_ROWS)
        made.deeds.create()
        for file in range(FILES):
            made.deeds.move([("kafka_offset", "<", (file + 1) * FILE_ROWS)])
        made.recovers(made.by_pyiceberg, made.by_duckdb)
        yield made
MOODS = ["dead", "slow", "broken", "absent", "html", "another range", "less", "cut"]


@pytest.mark.parametrize("mood", MOODS)
def test_the_store_fails_in_the_middle_of_a_scan(merged, mood):
    """From the second cold file on, and while a plan reads what is new in cold."""
    planned = merged.load()
    data = f"{TOPIC}/data/"
    outcomes = []
    for scan in (lambda: merged.by_pyiceberg(planned), merged.by_duckdb):
        merged.store.lie(merged.lake.store.kill if mood == "dead" else mood, of=data, after=1)
        try:
            outcomes += merged.attempt(scan)
        finally:
            told = merged.store.be_honest()
            merged.lake.store.start()
        assert told, "nothing was asked for any more"
        merged.recovers(scan)
    print(f"{mood}: {outcomes}")
    named = NAMED + BROKEN_OFF if mood in ("cut", "less") else NAMED
    assert all(outcome == "right" or re.search(named, outcome) for outcome in outcomes), outcomes

    # One object, without an engine between: its bytes, or an error.
    cold = f"s3://{BUCKET}/"
    key = next(task.file.file_path for task in planned.scan().plan_files() if task.file.file_path.startswith(cold)).removeprefix(cold)
    s3 = clients.boto3_client(merged.isk.s3_endpoint, merged.isk.access_key, merged.isk.secret_key)
    read = lambda: s3.get_object(Bucket=BUCKET, Key=key, Range="bytes=100-299")["Body"].read()
    right = read()
    merged.store.lie("dead" if mood == "dead" else mood, of=data)
    try:
        assert read() == right
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as problem:
        if isinstance(problem, botocore.exceptions.ClientError):
            status = problem.response["ResponseMetadata"]["HTTPStatusCode"]
            assert status == 404 if mood == "absent" else status >= 500, problem
            assert mood == "absent" or re.search(NAMED, str(problem)), problem
        outcome = f"{type(problem).__name__}: {problem}"
    else:
        outcome = "right"
    finally:
        merged.store.be_honest()
    print(f"one range: {outcome}")

    if mood == "another range":
        return  # plans read whole objects
    # A plan that has to read a manifest list and a manifest that are new.
    merged.produce(20)
    merged.deeds.move([("kafka_offset", "<", merged.rows - 10)])
    merged.store.lie("dead" if mood == "dead" else mood, of=".avro")
    try:
        answer = requests.get(f"{merged.isk.catalog_uri}/v1/namespaces/merged/tables/{TOPIC}", timeout=60)
    finally:
        told = merged.store.be_honest()
    assert told, "the plan had nothing to ask for"
    # What the store says it does not have may be missing, and what it says is in a file may be there.
    assert answer.status_code == {"absent": 404, "html": 406, "less": 406}.get(mood, 503), answer.text[:1000]
    assert re.search(NAMED + "|\\.avro cannot be shown", answer.json()["error"]["message"]), answer.text
    print(f"a plan: {answer.status_code} {answer.json()['error']['message']}")
    merged.recovers(merged.by_pyiceberg, merged.by_duckdb)


def test_rows_move_while_others_load(merged):
    """Loads learn from each other what cold covers: none leaves rows out that moved after it had asked for cold's snapshot."""
    merged.deeds.move()
    steps, each = 40, 5
    merged.produce(steps * each)
    moving = merged.deeds.cold_table()
    rows = merged.deeds.pyiceberg.load(f"hotset.{TOPIC}$unmoved").scan().to_arrow().sort_by("kafka_offset")
    done, seen = threading.Event(), []

    def look():
        """Where cold's rows end and where hot's begin."""
        while not done.is_set():
            try:
                table = merged.load()
            except ServiceUnavailableError as refused:
                # Rows moved each time the load looked at cold.
                assert "rows were moved to it" in str(refused), refused
                continue
            offset = table.schema().find_field("kafka_offset").field_id
            cold, hot = 0, [merged.rows]
            for manifest in table.current_snapshot().manifests(table.io):
                if BUCKET in manifest.manifest_path:
                    cold += manifest.added_rows_count + manifest.existing_rows_count
                elif manifest.content == ManifestContent.DATA:
                    bounds = [entry.data_file.lower_bounds[offset] for entry in manifest.fetch_manifest_entry(table.io)]
                    hot += [int.from_bytes(bound, "little") for bound in bounds]
            seen.append((cold, min(hot)))

    # A snapshot's list of manifests comes after the next one's, at times.
    merged.store.lie("late", of="/snap-")
    try:
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            looks = [pool.submit(look) for _ in range(6)]
            try:
                for step in range(steps):
                    moving.append(rows.slice(step * each, each))
            finally:
                done.set()
            for one in looks:
                one.result()
    finally:
        told = merged.store.be_honest()
    merged.deeds.pair.moved([("kafka_offset", "<", merged.rows)])
    between = [ends for ends in seen if merged.rows - steps * each < ends[0] < merged.rows]
    assert told and between, (told, seen)
    assert all(cold_ends == hot_begins for cold_ends, hot_begins in seen), sorted(set(seen))
    merged.recovers(merged.by_pyiceberg)


@pytest.mark.parametrize("mood", ["dead", "slow", "broken", "html", "no schema"])
def test_the_registry_fails_in_the_middle_of_a_scan(merged, broker, mood):
    """The schema of hot records, which the plan does not need, is asked for while their file is made."""
    field = re.sub(r"\W", "_", mood)
    stranger = json.dumps({"type": "record", "name": "Event", "fields": [{"name": "id", "type": "long"}, {"name": field, "type": "long"}]})
    serialize = records.avro_serializer(merged.registry.url, stranger)
    context = SerializationContext(f"stranger_{field}", MessageField.VALUE)
    added = [None if n % 50 == 49 else serialize({"id": n, field: n}, context) for n in range(merged.rows, merged.rows + 30)]
    records.produce(records.producer(broker.bootstrap), TOPIC, added, partition=0)
    merged.rows += len(added)
    planned = merged.load()
    told = merged.schemas.told
    if mood == "dead":
        merged.schemas.refuse()
    else:
        merged.schemas.mood = mood
    try:
        outcomes = merged.attempt(lambda: merged.by_pyiceberg(planned), merged.by_duckdb)
    finally:
        merged.schemas.mood = ""
        merged.schemas.resume()
    print(f"{mood}: {outcomes}")
    assert mood == "dead" or merged.schemas.told > told, "the registry was not asked"
    assert all(re.search(NAMED, outcome) for outcome in outcomes), outcomes
    merged.recovers(lambda: merged.by_pyiceberg(planned), merged.by_pyiceberg, merged.by_duckdb)
