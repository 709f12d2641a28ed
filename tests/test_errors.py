"""Records that do not decode: the tables of `errors`, and what the policies keep, skip and fail make of them."""

import contextlib
import json
import struct
import time

import pytest
import requests
from confluent_kafka.serialization import MessageField, SerializationContext
from stack import clients, records
from stack.isk import Isk
from stack.proxy import Proxy
from stack.trino import Trino, iceberg_catalog

NUMBER = json.dumps({"type": "record", "name": "Number", "fields": [{"name": "n", "type": "long"}, {"name": "word", "type": ["null", "string"]}]})
KEY = json.dumps({"type": "record", "name": "Key", "fields": [{"name": "k", "type": "long"}]})
# An id that no registry here comes to.
NOBODYS = 900_000_001
RECORDS = 40


def framed(registry, topic, n):
    return records.avro_serializer(registry.url, NUMBER)({"n": n, "word": f"word {n}"}, SerializationContext(topic, MessageField.VALUE))


def fill(broker, registry, topic):
    """Records of which some do not decode; gives those by offset: part, stage, schema id."""
    serialize = records.avro_serializer(registry.url, NUMBER)
    key_of = records.avro_serializer(registry.url, KEY)
    good = {n: serialize({"n": n, "word": f"word {n}"}, SerializationContext(topic, MessageField.VALUE)) for n in range(RECORDS)}
    keys = {n: key_of({"k": n}, SerializationContext(topic, MessageField.KEY)) for n in range(RECORDS)}
    own_id = struct.unpack(">I", good[0][1:5])[0]
    values, bad = dict(good), {}
    values[3], bad[3] = good[3][:-3], ("value", "decode", own_id)
    values[7], bad[7] = b"\x05" + good[7][1:], ("value", "framing", None)
    values[11], bad[11] = b"\0" + struct.pack(">I", NOBODYS) + good[11][5:], ("value", "lookup", NOBODYS)
    values[12] = values[13] = None  # tombstones are none of them
    keys[13] = None
    keys[20], bad[20] = b"key", ("key", "framing", None)
    keys[21], values[21], bad[21] = b"", b"\0", ("value, key", "framing", None)
    writer = records.producer(broker.bootstrap)
    for n in range(RECORDS):
        records.produce(writer, topic, [values[n]], key=lambda _, n=n: keys[n], headers=[("trace", b"%d" % n)])
    return bad, keys, values


def table(catalog, name):
    return catalog.load_table(name).scan().to_arrow().sort_by("kafka_offset").to_pylist()


def eventually(check, seconds=40):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


@pytest.fixture(scope="module")
def policies(broker, registry):
    """One service whose topics' names say their policy, behind a registry that can be taken away."""
    with contextlib.closing(Proxy(registry.url)) as proxy:
        env = {
            "ISK_REGISTRY_URL": proxy.url,
            "ISK_REQUEST_TIMEOUT_MS": "2000",
            "ISK_ERRORS_SKIP": ".*_skip_.*",
            "ISK_ERRORS_FAIL": ".*_fail_.*",
        }
        with Isk.beside(broker, None, env) as server:
            yield server, proxy


def named(broker, policy):
    return records.create_topic(broker.bootstrap, f"errors_{policy}_{time.monotonic_ns()}")


def test_every_record_has_a_row_or_a_reason(broker, registry, policies):
    server, _ = policies
    topic = named(broker, "keep")
    bad, keys, values = fill(broker, registry, topic)
    catalog = clients.pyiceberg_catalog(server.catalog_uri)
    for touch in ("first", "proven"):
        rows = table(catalog, f"errors.{topic}")
        assert [row["kafka_offset"] for row in rows] == sorted(bad), touch
        for row in rows:
            offset = row["kafka_offset"]
            assert (row["part"], row["stage"], row["schema_id"]) == bad[offset], row
            assert (row["kafka_key"], row["kafka_value"]) == (keys[offset], values[offset])
            assert row["kafka_headers"] == [{"key": "trace", "value": b"%d" % offset}]
            assert row["cause"] and row["kafka_timestamp"] and row["kafka_partition"] == 0
        assert catalog.load_table(f"errors.{topic}").scan().count() == len(bad), touch
        hot = table(catalog, f"hotset.{topic}")
        assert len(hot) == RECORDS
        assert [row["n"] for row in hot] == [None if "value" in bad.get(n, [""])[0] or values[n] is None else n for n in range(RECORDS)]
    properties = catalog.load_table(f"errors.{topic}").properties
    assert (properties["isk.errors"], properties["isk.known-errors"], properties["isk.unread-files"]) == ("keep", str(len(bad)), "0")
    assert (topic,) in {name[1:] for name in catalog.list_tables("errors")}
    assert requests.head(f"{server.catalog_uri}/v1/namespaces/errors/tables/{topic}", timeout=30).status_code == 204
    s3 = clients.boto3_client(server.s3_endpoint, server.access_key, server.secret_key)
    listed = s3.list_objects_v2(Bucket="errors", Prefix=f"{topic}/data/")["Contents"]
    assert len(listed) == 1
    metrics = requests.get(f"{server.catalog_uri}/metrics", timeout=30).text
    for stage in ("decode", "framing", "lookup"):
        assert f'isk_decode_failures_total{{topic="{topic}",stage="{stage}"}}' in metrics
    # More comes while somebody looks: each appears once.
    for n in range(3):
        records.produce(records.producer(broker.bootstrap), topic, [b"poison", framed(registry, topic, 1)])
        count = lambda: catalog.load_table(f"errors.{topic}").scan().count()  # noqa: E731
        assert count() == len(bad) + n + 1
        assert len(table(catalog, f"errors.{topic}")) == len(bad) + n + 1


def test_a_topic_without_errors_is_known_to_have_none(broker, registry, policies):
    server, _ = policies
    topic, raw = named(broker, "keep"), named(broker, "keep")
    records.produce(records.producer(broker.bootstrap), topic, [framed(registry, topic, n) for n in range(10)])
    records.produce(records.producer(broker.bootstrap), raw, [b"x"])
    catalog = clients.pyiceberg_catalog(server.catalog_uri)
    assert list(catalog.load_table(f"errors.{raw}").scan().plan_files()) == []
    assert len(list(catalog.load_table(f"errors.{topic}").scan().plan_files())) == 1
    assert len(table(catalog, f"hotset.{topic}")) == 10
    # Reading the topic has shown it: nothing of the table of errors is read.
    assert list(catalog.load_table(f"errors.{topic}").scan().plan_files()) == []
    assert catalog.load_table(f"errors.{topic}").scan().count() == 0


def test_what_is_skipped_is_counted_exactly(broker, registry, policies):
    server, _ = policies
    topic = named(broker, "skip")
    bad, _, _ = fill(broker, registry, topic)
    catalog = clients.pyiceberg_catalog(server.catalog_uri)
    spark = clients.spark_session(clients.spark_catalog("isk", server.catalog_uri))
    with (
        clients.duckdb_connection(server.catalog_uri) as duckdb,
        Trino({"isk": iceberg_catalog(server.catalog_uri, server.s3_endpoint)}) as trino,
    ):

        def counts():
            for name in ("hotset", "errors"):
                query = f"SELECT count(*) FROM isk.{name}.{topic}"
                yield (
                    catalog.load_table(f"{name}.{topic}").scan().count(),
                    duckdb.execute(query).fetchall()[0][0],
                    spark.sql(query).collect()[0][0],
                    trino.query(query)[0][0],
                )

        want = [(RECORDS - len(bad),) * 4, (len(bad),) * 4]
        for touch in ("first", "proven"):
            assert list(counts()) == want, touch
            assert [row["kafka_offset"] for row in table(catalog, f"hotset.{topic}")] == [n for n in range(RECORDS) if n not in bad]
            assert catalog.load_table(f"hotset.{topic}").properties["isk.errors"] == "skip"


def test_a_read_that_is_to_fail_names_the_record(broker, registry, policies):
    server, _ = policies
    topic = named(broker, "fail")
    records.produce(records.producer(broker.bootstrap), topic, [framed(registry, topic, 0)])
    catalog = clients.pyiceberg_catalog(server.catalog_uri)
    assert [row["n"] for row in table(catalog, f"hotset.{topic}")] == [0]
    records.produce(records.producer(broker.bootstrap), topic, [b"\0\0\0\0"])
    with pytest.raises(OSError):
        table(catalog, f"hotset.{topic}")
    (_, file) = sorted(catalog.load_table(f"hotset.{topic}").scan().plan_files(), key=lambda task: task.file.file_path)
    bucket, key = file.file.file_path.removeprefix("s3://").split("/", 1)
    s3 = clients.boto3_client(server.s3_endpoint, server.access_key, server.secret_key)
    with pytest.raises(s3.exceptions.ClientError) as refused:
        s3.get_object(Bucket=bucket, Key=key, Range="bytes=-8")
    error = refused.value.response["Error"]
    assert error["Code"] == "RecordDoesNotDecode"
    for said in (topic, "partition 0", "offset 1", "framing alone", "ISK_ERRORS_SKIP"):
        assert said in error["Message"], said
    assert [row["kafka_offset"] for row in table(catalog, f"errors.{topic}")] == [1]
    # One that is not running, so that its ports are free.
    with contextlib.closing(Proxy(registry.url)) as proxy:
        idle = Isk.beside(broker, None, {"ISK_REGISTRY_URL": proxy.url, "ISK_ERRORS_FAIL": ".*_fail_.*"})
        idle.work.mkdir(parents=True, exist_ok=True)
        assert "ok    errors: records that do not decode: keep; fail: " in idle.run("check")


def test_the_table_empties_itself_when_the_schema_is_there(broker, registry, policies):
    """Also: a registry that does not answer makes no errors, and fails the reads of both tables."""
    server, proxy = policies
    topic, stranger = named(broker, "keep"), named(broker, "skip")
    catalog = clients.pyiceberg_catalog(server.catalog_uri)
    good = framed(registry, topic, 1)
    schema = records.Schema(json.dumps(json.loads(NUMBER) | {"doc": topic}), "AVRO")
    to_come = records.registry_client(registry.url).register_schema(f"{topic}-other", schema)
    later = b"\0" + struct.pack(">I", to_come) + good[5:]
    # Until somebody registers it, the registry says of this id what it says of one that it does not have.
    proxy.instead = {f"/schemas/ids/{to_come}": f"/schemas/ids/{NOBODYS}"}
    for name in (topic, stranger):
        framed(registry, name, 0)  # registers the subject
        records.produce(records.producer(broker.bootstrap), name, [good, later, good])
    proxy.refuse()
    try:
        for name in (f"hotset.{topic}", f"errors.{topic}"):
            with pytest.raises(Exception, match=r"(?i)registry|503|unavailable|IOError|AWS Error"):
                table(catalog, name)
    finally:
        proxy.resume()
    rows = eventually(lambda: table(catalog, f"errors.{topic}"))
    assert [(row["kafka_offset"], row["stage"], row["schema_id"]) for row in rows] == [(1, "lookup", to_come)]
    assert [row["n"] for row in table(catalog, f"hotset.{topic}")] == [1, None, 1]
    assert [row["kafka_offset"] for row in table(catalog, f"hotset.{stranger}")] == [0, 2]
    server.restart()
    assert len(table(catalog, f"errors.{topic}")) == 1
    proxy.instead = {}

    def emptied():
        assert catalog.load_table(f"errors.{topic}").scan().count() == 0
        assert table(catalog, f"errors.{topic}") == []
        assert [row["n"] for row in table(catalog, f"hotset.{topic}")] == [1, 1, 1]
        assert [row["n"] for row in table(catalog, f"hotset.{stranger}")] == [1, 1, 1]
        assert table(catalog, f"errors.{stranger}") == []

    eventually(emptied)
