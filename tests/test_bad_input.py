"""What producers, registries, brokers and users get wrong: a named error or a row that says so, and never a wrong count."""

import contextlib
import json
import os
import re
import struct
import time

import botocore.exceptions
import pytest
import requests
from confluent_kafka.serialization import MessageField, SerializationContext
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
from stack import clients, records
from stack.isk import Isk
from stack.kafka import Broker
from stack.proxy import Proxy

NUMBER = json.dumps({"type": "record", "name": "Number", "fields": [{"name": "n", "type": "long"}, {"name": "word", "type": ["null", "string"]}]})


def value(n):
    return {"n": n, "word": f"word {n}"}


def write(broker, registry, topic, values, schema=NUMBER, **more):
    records.produce(records.producer(broker.bootstrap), topic, values, serialize=records.avro_serializer(registry.url, schema), **more)


def rows(catalog, topic, *columns):
    """The rows of a table by offset."""
    table = catalog.load_table(f"hotset.{topic}").scan(selected_fields=("kafka_partition", "kafka_offset", *columns)).to_arrow()
    names = ("kafka_partition", "kafka_offset", *columns)
    return sorted(zip(*(table[name].to_pylist() for name in names), strict=True), key=lambda row: row[:2])


def load(isk, topic):
    return requests.get(f"{isk.catalog_uri}/v1/namespaces/hotset/tables/{topic}", timeout=60)


def eventually(check, seconds=30):
    """What `check` gives once it holds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


# ---- records


def test_a_topic_without_a_schema_has_raw_values(broker, pyiceberg, make_topic):
    topic = make_topic()
    records.produce(records.producer(broker.bootstrap), topic, [b"plain", b"\xff\xfe", b"", None])
    assert [row[2] for row in rows(pyiceberg, topic, "kafka_value")] == [b"plain", b"\xff\xfe", b"", None]


def test_poison_among_good_records(broker, registry, isk, pyiceberg, duckdb, make_topic):
    """Its row stays, with null value fields; its neighbours keep theirs; it is counted and logged."""
    topic = make_topic()
    framed = {}
    serialize = records.avro_serializer(registry.url, NUMBER)
    for n in range(200):
        framed[n] = serialize(value(n), SerializationContext(topic, MessageField.VALUE))
    poison = {
        20: framed[20][:-3],  # ends within the string
        21: framed[21][:5],  # ends after the header
        50: framed[50][:1] + struct.pack(">I", 987_654) + framed[50][5:],  # a schema nobody registered
        80: b"garbage",
        81: b"",
        100: framed[100] + framed[101],  # more than one record
        101: framed[101][:6] + b"\xff" * 12,  # a union branch that does not exist
        199: b"\x00\x00",
    }
    records.produce(records.producer(broker.bootstrap), topic, [poison.get(n, framed[n]) for n in range(200)])
    want = [(0, n, None, None) if n in poison else (0, n, n, f"word {n}") for n in range(200)]
    query = f"SELECT count(*), count(n), sum(n) FROM isk.hotset.{topic}"
    counts = [(200, 200 - len(poison), sum(n for n in range(200) if n not in poison))]
    assert duckdb.execute(query).fetchall() == counts
    assert rows(pyiceberg, topic, "n", "word") == want
    assert duckdb.execute(query).fetchall() == counts
    metric = f'isk_decode_failures_total{{topic="{topic}",stage='
    samples = dict(line.rsplit(" ", 1) for line in requests.get(f"{isk.catalog_uri}/metrics", timeout=10).text.splitlines())
    assert sum(int(count) for name, count in samples.items() if name.startswith(metric)) >= len(poison)
    lines = [line for line in isk.log_text().splitlines() if topic in line and "did not decode" in line]
    # One of each stage is told of; the table has all of them.
    for stage, offset in (("decode", 20), ("lookup", 50), ("framing", 80)):
        told = [line for line in map(plain, lines) if f"stage={json.dumps(stage)}" in line or f"stage={stage} " in line]
        assert len(told) == 1 and f"offset={offset} " in told[0] and "partition=0" in told[0], stage
    assert pyiceberg.load_table(f"errors.{topic}").scan().to_arrow()["kafka_offset"].to_pylist() == sorted(poison)


def plain(line):
    """A log line without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def test_a_large_message(broker, registry, pyiceberg, duckdb, make_topic):
    topic = make_topic(config={"max.message.bytes": "12000000"})
    schema = json.dumps({"type": "record", "name": "Blob", "fields": [{"name": "blob", "type": "bytes"}]})
    blobs = [b"small", os.urandom(10_000_000), b"", os.urandom(5_000_000)]
    write(broker, registry, topic, [{"blob": blob} for blob in blobs], schema)
    assert [row[2] for row in rows(pyiceberg, topic, "blob")] == blobs
    assert duckdb.execute(f"SELECT octet_length(blob) FROM isk.hotset.{topic} ORDER BY kafka_offset").fetchall() == [(len(b),) for b in blobs]


def test_a_large_message_after_small_ones(broker, registry, pyiceberg, make_topic):
    """The size that was declared by what the first records were like still holds it."""
    topic = make_topic(config={"max.message.bytes": "12000000"})
    schema = json.dumps({"type": "record", "name": "Blob", "fields": [{"name": "blob", "type": "bytes"}]})
    write(broker, registry, topic, [{"blob": b"x"}] * 100, schema)
    assert len(rows(pyiceberg, topic)) == 100
    big = os.urandom(10_000_000)
    write(broker, registry, topic, [{"blob": big}], schema)
    assert rows(pyiceberg, topic, "blob")[-1] == (0, 100, big)


# ---- topics


@pytest.mark.parametrize("partitions", [1, 3])
def test_an_empty_topic(registry, isk, pyiceberg, duckdb, make_topic, partitions):
    topic = make_topic(partitions)
    records.registry_client(registry.url).register_schema(f"{topic}-value", records.Schema(NUMBER, "AVRO"))
    assert rows(pyiceberg, topic, "n") == []
    assert pyiceberg.load_table(f"hotset.{topic}").scan().count() == 0
    assert duckdb.execute(f"SELECT count(*), sum(n) FROM isk.hotset.{topic}").fetchall() == [(0, None)]


def test_two_hundred_partitions(broker, registry, isk, pyiceberg, duckdb, make_topic):
    topic = make_topic(200)
    writer, serialize = records.producer(broker.bootstrap), records.avro_serializer(registry.url, NUMBER)
    # Every other partition is empty.
    for partition in range(0, 200, 2):
        records.produce(writer, topic, [value(partition)], serialize=serialize, partition=partition)
    assert duckdb.execute(f"SELECT count(*), sum(n) FROM isk.hotset.{topic}").fetchall() == [(100, sum(range(0, 200, 2)))]
    assert rows(pyiceberg, topic, "n") == [(partition, 0, partition) for partition in range(0, 200, 2)]
    assert duckdb.execute(f"SELECT count(*) FROM isk.hotset.{topic} WHERE kafka_partition < 100").fetchall() == [(50,)]


def test_names_that_differ_in_case_only(broker, registry, pyiceberg, duckdb, make_topic):
    """SQL engines could not tell them apart, nor from a column of ours."""
    topic = make_topic()
    names = ["name", "Name", "NAME", "kafka_offset", "Kafka_Partition"]
    schema = json.dumps({"type": "record", "name": "Cases", "fields": [{"name": name, "type": "string"} for name in names]})
    write(broker, registry, topic, [{name: f"{name}!" for name in names}], schema)
    columns = pyiceberg.load_table(f"hotset.{topic}").schema().column_names
    assert len({name.lower() for name in columns}) == len(columns)
    (row,) = duckdb.execute(f"SELECT * FROM isk.hotset.{topic}").fetchall()
    assert list(row[:5]) == [f"{name}!" for name in names]
    (row,) = pyiceberg.load_table(f"hotset.{topic}").scan().to_arrow().to_pylist()
    assert list(row.values())[:5] == [f"{name}!" for name in names]
    assert (row["kafka_partition"], row["kafka_offset"]) == (0, 0)


def test_names_in_unicode(broker, registry, pyiceberg, duckdb, make_topic):
    """Java's Avro takes any letter in a name, so a registry may hold them. Confluent's serializer does not: bytes by hand."""
    topic = make_topic()
    schema = json.dumps({"type": "record", "name": "Rec", "fields": [{"name": "größe", "type": "long"}, {"name": "名前", "type": "string"}]})
    answer = requests.post(f"{registry.url}/subjects/{topic}-value/versions", json={"schema": schema}, timeout=30)
    answer.raise_for_status()
    framed = struct.pack(">bI", 0, answer.json()["id"]) + b"\x54" + b"\x04ab"
    records.produce(records.producer(broker.bootstrap), topic, [framed])
    assert rows(pyiceberg, topic, "größe", "名前") == [(0, 0, 42, "ab")]
    assert duckdb.execute(f'SELECT "größe", "名前" FROM isk.hotset.{topic}').fetchall() == [(42, "ab")]


# ---- users


def test_unknown_names(isk, pyiceberg, duckdb, make_topic):
    make_topic()
    with pytest.raises(NoSuchTableError):
        pyiceberg.load_table("hotset.no_such_topic")
    with pytest.raises(NoSuchNamespaceError):
        pyiceberg.list_tables("no_such_namespace")
    with pytest.raises(Exception, match="no_such_topic"):
        duckdb.execute("SELECT * FROM isk.hotset.no_such_topic")
    for table in ("no_such_topic", "..", "a b", "%00", "a%1Fb", "x" * 300, "__consumer_offsets"):
        answer = load(isk, table)
        assert answer.status_code == 404, table
        assert set(answer.json()["error"]) >= {"message", "type", "code"}
    assert requests.get(f"{isk.catalog_uri}/v1/namespaces/no_such/tables/x", timeout=30).status_code == 404


def test_writes_are_refused_by_the_catalog(isk, pyiceberg, make_topic):
    topic = make_topic()
    # PyIceberg goes by the list of endpoints and does not even ask.
    with pytest.raises(NotImplementedError):
        pyiceberg.drop_table(f"hotset.{topic}")
    address = f"{isk.catalog_uri}/v1/namespaces"
    for method, path, body in (
        ("POST", "", {"namespace": ["another"]}),
        ("POST", f"/hotset/tables/{topic}", {"requirements": [], "updates": []}),
        ("DELETE", f"/hotset/tables/{topic}", None),
    ):
        answer = requests.request(method, address + path, json=body, timeout=30)
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "ForbiddenException"), (method, path)
    assert load(isk, topic).status_code == 200


# ---- upstream


class MoodyRegistry(Proxy):
    """Stands before the real registry and answers by its mood."""

    mood = "good"
    # When this many schemas were asked for by their ids, the next connection is refused.
    refuse_after = None

    def answer(self, path):
        if self.mood == "html":
            return 200, "text/html", b"<html>please log in</html>"
        if self.mood == "broken":
            return 500, "application/json", b'{"error_code": 50001, "message": "broken"}'
        if self.mood == "slow":
            time.sleep(6)
        answer = super().answer(path)
        if "/schemas/ids/" in path and self.refuse_after:
            self.refuse_after -= 1
            if self.refuse_after == 0:
                self.refuse()
        return answer


@pytest.fixture(scope="module")
def moody(broker, registry):
    with contextlib.closing(MoodyRegistry(registry.url)) as proxy:
        env = {"ISK_REGISTRY_URL": proxy.url, "ISK_REQUEST_TIMEOUT_MS": "2000"}
        with Isk.beside(broker, None, env) as server:
            yield proxy, server


@pytest.mark.parametrize("mood", ["html", "broken", "slow"])
def test_a_registry_that_fails_fails_the_load(broker, registry, moody, make_topic, mood):
    proxy, server = moody
    topic = make_topic()
    write(broker, registry, topic, [value(n) for n in range(10)])
    proxy.mood = mood
    try:
        answer = load(server, topic)
    finally:
        proxy.mood = "good"
    assert answer.status_code == 503, answer.text
    assert "registry" in answer.json()["error"]["message"]
    catalog = clients.pyiceberg_catalog(server.catalog_uri)
    assert eventually(lambda: rows(catalog, topic, "n")) == [(0, n, n) for n in range(10)]


@pytest.mark.parametrize("mood", ["html", "broken", "slow"])
def test_a_registry_that_fails_fails_the_read(broker, registry, moody, make_topic, mood):
    """A record's schema is asked for while a file is made. That nobody answers makes no nulls."""
    proxy, server = moody
    topic = make_topic()
    # The record names a schema of another subject: planning does not need it, reading does.
    stranger = make_topic()
    other = json.dumps({"type": "record", "name": "Number", "fields": [{"name": "n", "type": "int"}, {"name": "extra", "type": "long"}]})
    write(broker, registry, stranger, [{"n": 1, "extra": hash(mood)}], other)
    framed = records.read_topic(broker.bootstrap, stranger)[0].value
    write(broker, registry, topic, [value(0)])
    records.produce(records.producer(broker.bootstrap), topic, [framed])
    catalog = clients.pyiceberg_catalog(server.catalog_uri)
    server.restart()  # schemas it has seen in another test are forgotten
    planned = catalog.load_table(f"hotset.{topic}")
    proxy.mood = mood
    try:
        with pytest.raises(OSError):
            planned.scan().to_arrow()
    finally:
        proxy.mood = "good"
    assert "registry" in server.log_text()
    assert eventually(lambda: sorted(planned.scan().to_arrow()["n"].to_pylist())) == [0, 1]


def test_a_registry_that_goes_in_the_middle_of_a_read(broker, registry, moody, make_topic):
    """Two of a chunk's three schemas came, and for the third nobody listens: no row is made of that, and none is lost."""
    proxy, server = moody
    # The records name three schemas of another subject: planning does not need them, reading does.
    topic, stranger = make_topic(), make_topic()
    number, thousand = {"name": "n", "type": "long"}, 1000
    for i, extra in enumerate(("one", "two", "three")):
        fields = [number, {"name": extra, "type": "long", "default": 0}]
        values = [{"n": n, extra: n} for n in range(i * thousand, (i + 1) * thousand)]
        write(broker, registry, stranger, values, json.dumps({"type": "record", "name": "Number", "fields": fields}))
    framed = [record.value for record in records.read_topic(broker.bootstrap, stranger)]
    assert len({value[:5] for value in framed}) == 3
    plain = json.dumps({"type": "record", "name": "Number", "fields": [number]})
    records.registry_client(registry.url).register_schema(f"{topic}-value", records.Schema(plain, "AVRO"))
    records.produce(records.producer(broker.bootstrap), topic, framed)
    server.restart()  # schemas it has seen in another test are forgotten
    catalog = clients.pyiceberg_catalog(server.catalog_uri)
    planned = catalog.load_table(f"hotset.{topic}")
    (file,) = planned.scan().plan_files()
    bucket, key = file.file.file_path.removeprefix("s3://").split("/", 1)
    s3 = clients.boto3_client(server.s3_endpoint, server.access_key, server.secret_key)
    proxy.refuse_after = 2
    try:
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        with pytest.raises(OSError):
            planned.scan().to_arrow()
    finally:
        proxy.resume()
    assert proxy.refuse_after == 0, "the read was not under way when the registry went"
    answer = refused.value.response
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == (503, "ServiceUnavailable")
    assert "schema registry" in answer["Error"]["Message"] and "cannot be reached" in answer["Error"]["Message"]
    assert eventually(lambda: sorted(planned.scan().to_arrow()["n"].to_pylist())) == list(range(3 * thousand))
    assert rows(catalog, topic, "n") == [(0, n, n) for n in range(3 * thousand)]


def test_unknown_ids_do_not_flood_the_registry(broker, registry, moody, make_topic):
    proxy, server = moody
    topic = make_topic()
    write(broker, registry, topic, [value(0)])
    records.produce(records.producer(broker.bootstrap), topic, [struct.pack(">bI", 0, 876_543) + b"\x02\x00"] * 500)
    catalog = clients.pyiceberg_catalog(server.catalog_uri)
    assert len(rows(catalog, topic, "n")) == 501
    assert sum("876543" in path for path in proxy.asked) < 5


def test_a_broker_that_comes_later(registry):
    broker = Broker()  # has an address, and is not started
    with Isk.beside(broker, registry) as server:
        answer = load(server, "late")
        assert answer.status_code == 503, answer.text
        assert "Kafka" in answer.json()["error"]["message"]
        with broker:
            records.create_topic(broker.bootstrap, "late")
            write(broker, registry, "late", [value(n) for n in range(10)])
            catalog = clients.pyiceberg_catalog(server.catalog_uri)
            assert eventually(lambda: rows(catalog, "late", "n")) == [(0, n, n) for n in range(10)]


def test_a_broker_that_goes_and_comes_back(registry, own_broker):
    topic = records.create_topic(own_broker.bootstrap, "wavering")
    write(own_broker, registry, topic, [value(n) for n in range(10)])
    with Isk.beside(own_broker, registry, {"ISK_FETCH_PROGRESS_TIMEOUT_MS": "3000", "ISK_REQUEST_TIMEOUT_MS": "3000"}) as server:
        catalog = clients.pyiceberg_catalog(server.catalog_uri)
        planned = catalog.load_table(f"hotset.{topic}")
        own_broker.kill()
        # Not a table that looks empty: the question for offsets goes unanswered at first, all others after it.
        for _ in range(2):
            answer = load(server, topic)
            assert answer.status_code == 503, answer.json()["metadata"]["snapshots"]
        with pytest.raises(OSError):
            planned.scan().to_arrow()
        own_broker.start()
        assert eventually(lambda: rows(catalog, topic, "n"), 60) == [(0, n, n) for n in range(10)]
        assert planned.scan().to_arrow().num_rows == 10, "the plan made before is as good as ever"
