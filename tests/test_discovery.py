"""Topics of JSON that nobody describes: columns found in their records, kept, evolving, pinned and overridden over HTTP."""

import json
import time

import pytest
import requests
from stack import clients, records
from stack.isk import Isk, secret_of

METADATA = {"kafka_partition", "kafka_offset", "kafka_timestamp", "kafka_timestamp_type", "kafka_key", "kafka_headers"}


def url(isk, topic):
    return f"{isk.catalog_uri}/api/v1/topics/{topic}/schema"


def schema(isk, topic, method="GET", status=200, token=None, **body):
    headers = {"authorization": f"Bearer {token}"} if token else {}
    answer = requests.request(method, url(isk, topic), json=body or None, headers=headers, timeout=60)
    assert answer.status_code == status, answer.text
    return answer.json()


def produce(broker, topic, values, partition=-1):
    values = [v if v is None or isinstance(v, bytes) else json.dumps(v).encode() for v in values]
    records.produce(records.producer(broker.bootstrap), topic, values, partition=partition)


def load(catalog, topic):
    return catalog.load_table(("hotset", topic))


def columns(table):
    return {f.name: str(f.field_type) for f in table.schema().fields if f.name not in METADATA}


def rows(table):
    return [{k: v for k, v in row.items() if k not in METADATA} for row in table.scan().to_arrow().to_pylist()]


def eventually(check, seconds=30):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


# ---- a messy topic

RECORDS = 1000


def messy(n):
    value = {
        "id": n,
        "name": f"né {n}",
        "price": n if n % 2 else n / 4,
        "mixed": n if n % 3 else f"text {n}",
        "big": n << 64,
        "at": "2030-01-01T00:00:00Z",
        "by_user": {f"u{n % 500}": n},
        "items": [{"sku": f"s{i}", "qty": i} for i in range(n % 3)],
        "nothing": None,
        f"key{n}": {"n": n},
    }
    if n % 4 == 0:
        value["user"] = {"name": f"u{n}", "tags": ["a", "b"][: n % 3], "address": {"zip": n} if n % 8 == 0 else None}
    return value


JSON_TEXT = {"mixed", "big", "by_user"}


def expected(n):
    """The row of a record, without JSON text."""
    value = messy(n)
    row = {name: value[name] for name in ("id", "name", "at", "items")}
    row["price"] = float(value["price"])
    user = value.get("user")
    row["user"] = user
    row |= {name: value[name] for name in JSON_TEXT}
    return row | {"_rest": {"nothing": None, f"key{n}": {"n": n}}}


def plain(row):
    """A row as any engine gives it, its JSON text read."""
    row = {k: v for k, v in row.items() if k not in METADATA}
    return row | {k: json.loads(row[k]) for k in [*JSON_TEXT, "_rest"] if row[k] is not None}


@pytest.fixture(scope="module")
def messy_topic(broker):
    topic = records.create_topic(broker.bootstrap, "discovery_messy", 3)
    # Few enough in each to be seen all.
    for partition in range(3):
        produce(broker, topic, [messy(n) for n in range(partition, RECORDS, 3)], partition)
    produce(broker, topic, [b"{broken", b"\xff\xfe poison", None])
    return topic


TYPES = {
    "id": "long",
    "name": "string",
    "price": "double",
    "mixed": "string",
    "big": "string",
    "at": "string",
    "by_user": "string",
    "_rest": "string",
}


def test_a_messy_topic_is_a_table_in_every_engine(isk, pyiceberg, duckdb, spark, messy_topic):
    table = load(pyiceberg, messy_topic)
    shown = columns(table)
    assert set(shown) == {*TYPES, "items", "user"}
    assert {name: shown[name] for name in TYPES} == TYPES
    assert [f.name for f in table.schema().find_field("user").field_type.fields] == ["name", "tags", "address"]
    assert table.properties["isk.schema-origin"] == "discovered"
    assert table.properties["isk.value-format"] == "bare json"
    want = [expected(n) for n in range(RECORDS)]

    got = table.scan().to_arrow().to_pylist()
    assert len(got) == RECORDS + 3
    good = sorted((plain(row) for row in got if row["id"] is not None), key=lambda row: row["id"])
    assert good == want
    # PyIceberg shows a null list of structs as an empty one.
    bad = [{k: v for k, v in row.items() if v is not None and k not in METADATA} for row in got if row["id"] is None]
    assert bad == [{"items": []}] * 3

    cursor = duckdb.execute(f"SELECT * FROM isk.hotset.{messy_topic} WHERE id IS NOT NULL ORDER BY id")
    names = [column[0] for column in cursor.description]
    assert [plain(dict(zip(names, row, strict=True))) for row in cursor.fetchall()] == want
    assert set(names) - METADATA == set(shown)
    no_columns = " AND ".join(f'"{name}" IS NULL' for name in shown)
    assert duckdb.sql(f"SELECT count(*) FROM isk.hotset.{messy_topic} WHERE {no_columns}").fetchone() == (3,)

    collected = spark.sql(f"SELECT * FROM isk.hotset.{messy_topic} WHERE id IS NOT NULL ORDER BY id").collect()
    assert [plain(row.asDict(recursive=True)) for row in collected] == want
    nested = spark.sql(f"SELECT sum(user.address.zip) AS zips, count(*) AS n FROM isk.hotset.{messy_topic}").collect()[0]
    assert (nested.zips, nested.n) == (sum(range(0, RECORDS, 8)), RECORDS + 3)

    errors = pyiceberg.load_table(("errors", messy_topic)).scan().to_arrow().to_pylist()
    assert sorted(row["kafka_value"] for row in errors) == [b"{broken", b"\xff\xfe poison"]


def test_what_was_seen_is_told(isk, pyiceberg, messy_topic):
    load(pyiceberg, messy_topic)
    said = schema(isk, messy_topic)
    assert (said["origin"], said["schemaType"]) == ("discovered", "JSON")
    assert 3000 <= said["version"] < 5000
    sample = said["sample"]
    assert sample["values"] == {"object": RECORDS, "otherJson": 0, "text": 1, "binary": 1}
    assert (sample["records"], sample["tombstones"]) == (RECORDS + 3, 1)
    assert 0.99 < sample["confidence"] < 1
    by_name = {column["name"]: column for column in said["columns"]}
    ids = {f.name: f.field_id for f in load(pyiceberg, messy_topic).schema().fields}
    assert by_name["id"]["fieldId"] == ids["id"]
    seen = {name: column["seen"] for name, column in by_name.items()}
    assert seen["id"]["types"] == {"long": RECORDS}
    assert (seen["id"]["nullable"], seen["user"]["nullable"]) == (False, True)
    assert 0.99 < seen["id"]["confidence"] < 1
    assert (seen["user"]["of"], seen["user"]["types"]) == (RECORDS, {"object": RECORDS // 4})
    assert (seen["user.name"]["of"], seen["user.name"]["nullable"]) == (RECORDS // 4, False)
    assert seen["user.address"]["types"] == {"null": RECORDS // 8, "object": RECORDS // 8}
    assert seen["user.address"]["confidence"] < seen["id"]["confidence"]
    assert set(seen["price"]["types"]) == {"long", "double"}
    assert set(seen["mixed"]["types"]) == {"long", "string"}
    assert seen["items.element.qty"]["nullable"] is False
    assert [name for name, column in by_name.items() if column["jsonText"]] == ["mixed", "big", "by_user", "_rest"]
    assert len(said["samples"]) == 3
    assert "null" not in [s.get("text") for s in said["samples"]]


# ---- over time


@pytest.fixture(scope="module")
def own(broker, registry):
    """A service of this module's own, which is started again."""
    with Isk.beside(broker, registry) as server:
        yield server


@pytest.fixture
def catalog(own):
    return clients.pyiceberg_catalog(own.catalog_uri)


def test_a_restart_changes_nothing(broker, own, catalog, make_topic):
    topic = make_topic(2)
    produce(broker, topic, [{"b": {"y": n}, "a": n} for n in range(50)])
    before, said = load(catalog, topic), schema(own, topic)
    assert list(columns(before)) == ["b", "a", "_rest"]
    own.stop()
    own.start()
    after = load(clients.pyiceberg_catalog(own.catalog_uri), topic)
    assert after.metadata_location == before.metadata_location
    assert after.schema() == before.schema()
    assert schema(own, topic) == said


def test_columns_grow_between_two_queries(broker, own, catalog, make_topic):
    """What is new is in the rest at once, and soon a column; a wider type is an error at once, and soon a row."""
    topic = make_topic(1)
    produce(broker, topic, [{"id": n, "n": n} for n in range(50)])
    first = load(catalog, topic)
    assert columns(first) == {"id": "long", "n": "long", "_rest": "string"}
    assert len(rows(first)) == 50
    produce(broker, topic, [{"id": 50, "n": 50, "new": {"x": 1}}, {"id": 51, "n": "fifty-one"}, {"id": 52, "n": 0.5}])

    second = load(catalog, topic)
    assert columns(second) == columns(first)
    got = rows(second)
    assert got[50] == {"id": 50, "n": 50, "_rest": '{"new":{"x": 1}}'}
    assert got[51] == got[52] == {"id": None, "n": None, "_rest": None}

    def grown():
        table = load(catalog, topic)
        assert set(columns(table)) == {"id", "n", "new", "_rest"}
        return table

    third = eventually(grown)
    assert columns(third)["n"] == "string"
    got = rows(third)
    assert got[50] == {"id": 50, "n": "50", "new": {"x": 1}, "_rest": None}
    assert got[51] == {"id": 51, "n": '"fifty-one"', "new": None, "_rest": None}
    assert len(got) == 53 and got[52]["n"] == "0.5"
    assert len(catalog.load_table(("errors", topic)).scan().to_arrow()) == 0
    ids = [{f.name: f.field_id for f in table.schema().fields} for table in (first, third)]
    assert ids[0]["id"] == ids[1]["id"] and ids[0]["_rest"] == ids[1]["_rest"] and ids[0]["n"] != ids[1]["n"]
    said = schema(own, topic)
    assert said["sample"]["noticed"] >= 3 and said["origin"] == "discovered"
    # What was planned before reads as it was planned.
    assert rows(second)[50]["_rest"] == '{"new":{"x": 1}}'
    old = third.scan(snapshot_id=first.current_snapshot().snapshot_id).to_arrow()
    assert len(old) == 50 and old.schema.field("n").type == "int64"


def test_later_samples_find_more(broker, make_topic):
    """A topic of which little was seen at first, with nobody reading it."""
    topic = make_topic(1)
    produce(broker, topic, [{"a": 1}])
    with Isk.beside(broker, None, {"ISK_PROVER_SAMPLE_AHEAD": "true"}) as isk:
        catalog = clients.pyiceberg_catalog(isk.catalog_uri)
        assert set(columns(load(catalog, topic))) == {"a", "_rest"}
        produce(broker, topic, [{"a": 1, "b": n} for n in range(20)])

        def more():
            said = schema(isk, topic)
            assert [column["name"] for column in said["columns"]] == ["a", "b", "_rest"]
            return said

        said = eventually(more, 60)
        assert (said["sample"]["records"], said["sample"]["noticed"]) == (21, 0)


# ---- pins


def test_a_schema_is_pinned_overridden_and_found_anew(broker, own, catalog, make_topic):
    topic = make_topic(1)
    produce(broker, topic, [{"id": n, "at": "2030-01-01T00:00:00Z", "who": {"name": "x"}} for n in range(20)])
    first = load(catalog, topic)
    number = schema(own, topic)["version"]

    said = schema(own, topic, "PUT")
    assert (said["origin"], said["version"]) == ("pinned", number)
    assert load(catalog, topic).properties["isk.schema-origin"] == "pinned"
    produce(broker, topic, [{"id": 20, "new": 1}])
    for wait in (0, 2.5):
        time.sleep(wait)
        pinned = load(catalog, topic)
        assert columns(pinned) == columns(first)
        assert rows(pinned)[20]["_rest"] == '{"new":1}'

    override = {"type": "object", "isk.rest": "others", "properties": {"id": {"type": "integer"}, "at": {"type": "string", "format": "date-time"}}}
    said = schema(own, topic, "PUT", schemaType="JSON", schema=override)
    assert (said["origin"], said["version"]) == ("pinned", number + 1)
    table = load(catalog, topic)
    assert columns(table) == {"id": "long", "at": "timestamptz", "others": "string"}
    assert json.loads(rows(table)[0]["others"]) == {"who": {"name": "x"}}
    assert rows(table)[0]["at"].year == 2030
    # At once for new plans, and not for old ones.
    assert columns(pinned) != columns(table) and len(rows(pinned)) == 21
    assert schema(own, topic, "PUT", schemaType="JSON", schema=override)["version"] == number + 1
    own.stop()
    own.start()
    assert schema(own, topic)["origin"] == "pinned"
    assert columns(load(catalog, topic)) == columns(table)

    for body, named in [
        ({"schemaType": "JSON", "schema": "{"}, "JSON"),
        ({"schemaType": "AVRO", "schema": {"type": "record", "name": "R"}}, "fields"),
        ({"schemaType": "AVRO", "schema": {"type": "record", "name": "R", "fields": [{"name": "n", "type": "Unknown"}]}}, "Unknown"),
        ({"schemaType": "XML", "schema": "x"}, "XML"),
        ({"schema": "x"}, "schemaType"),
        ({"schemaType": "JSON"}, "schema"),
    ]:
        error = schema(own, topic, "PUT", 400, **body)["error"]
        assert error["type"] == "BadRequestException" and named in error["message"], error
    assert schema(own, topic)["version"] == number + 1

    said = schema(own, topic, "DELETE")
    assert said["origin"] == "discovered"
    assert [column["name"] for column in said["columns"] if "." not in column["name"]] == ["id", "at", "new", "who", "_rest"]
    ids = {f.name: f.field_id for f in load(catalog, topic).schema().fields}
    assert ids["id"] == {f.name: f.field_id for f in first.schema().fields}["id"]
    assert rows(load(catalog, topic))[20]["new"] == 1

    # A wrong one makes errors of all records, which go when it does.
    schema(own, topic, "PUT", schemaType="JSON", schema={"type": "object", "properties": {"id": {"type": "string"}}})
    errors = lambda: catalog.load_table(f"errors.{topic}").scan().to_arrow().num_rows  # noqa: E731
    assert {row["id"] for row in rows(load(catalog, topic))} == {None} and errors() == 21
    schema(own, topic, "DELETE")
    assert errors() == 0
    schema(own, "no_such_topic", status=404)


def test_an_avro_override_reads_bare_avro(broker, own, catalog, make_topic):
    topic = make_topic(1)
    produce(broker, topic, [bytes([n * 2, 6]) + b"abc" for n in range(10)])
    assert columns(load(catalog, topic)) == {"kafka_value": "binary"}
    error = schema(own, topic, "PUT", 409)["error"]
    assert "no schema was discovered" in error["message"]
    avro = {"type": "record", "name": "R", "fields": [{"name": "n", "type": "int"}, {"name": "s", "type": "string"}]}
    assert schema(own, topic, "PUT", schemaType="AVRO", schema=avro)["origin"] == "pinned"
    assert rows(load(catalog, topic)) == [{"n": n, "s": "abc"} for n in range(10)]
    assert schema(own, topic, "DELETE")["origin"] == "raw"
    assert columns(load(catalog, topic)) == {"kafka_value": "binary"}


def test_what_the_registry_describes_is_its_own(broker, registry, own, make_topic):
    topic = make_topic(1)
    avro = {"type": "record", "name": "R", "fields": [{"name": "n", "type": "long"}]}
    records.produce(records.producer(broker.bootstrap), topic, [{"n": 1}], serialize=records.avro_serializer(registry.url, avro))
    said = schema(own, topic)
    assert (said["origin"], said["version"], said["sample"]) == ("registry", 1, None)
    assert [(column["name"], column["type"]) for column in said["columns"]] == [("n", "long")]
    for method in ("PUT", "DELETE"):
        error = schema(own, topic, method, 409)["error"]
        assert error["type"] == "ConflictException" and f"{topic}-value" in error["message"]


# ---- settings and rules


def test_what_is_not_json_stays_bytes_unless_it_is_asked_for(broker, make_topic):
    topics = {name: make_topic(1) for name in ("numbers", "text", "arrays", "bytes", "mostly", "json")}
    values = {"numbers": [b"1", b"2"], "text": [b"some text", b"more"], "arrays": [b"[1]"] * 3, "bytes": [b"\x00\x01{}"], "json": [b"{}", b'{"a": 1}']}
    values["mostly"] = [b'{"a": 1}'] * 15 + [b"x"]
    for name, topic in topics.items():
        produce(broker, topic, values[name])
    with Isk.beside(broker, None, {"ISK_DISCOVERY_TEXT": "true", "ISK_DISCOVERY_EXCLUDE": topics["json"]}) as isk:
        catalog = clients.pyiceberg_catalog(isk.catalog_uri)
        shown = {name: columns(load(catalog, topic)) for name, topic in topics.items()}
        assert shown["bytes"] == shown["json"] == {"kafka_value": "binary"}
        assert shown["text"] == shown["numbers"] == shown["arrays"] == shown["mostly"] == {"value": "string"}
        assert [row["value"] for row in rows(load(catalog, topics["text"]))] == ["some text", "more"]
    with Isk.beside(broker, None) as isk:
        catalog = clients.pyiceberg_catalog(isk.catalog_uri)
        shown = {name: columns(load(catalog, topic)) for name, topic in topics.items()}
        assert shown.pop("json") == {"a": "long", "_rest": "string"}
        assert all(column == {"kafka_value": "binary"} for column in shown.values()), shown
        assert schema(isk, topics["mostly"])["sample"]["values"]["text"] == 1
    with Isk.beside(broker, None, {"ISK_DISCOVERY_ENABLED": "false"}) as isk:
        assert columns(load(clients.pyiceberg_catalog(isk.catalog_uri), topics["json"])) == {"kafka_value": "binary"}
        assert schema(isk, topics["json"])["origin"] == "raw"


def test_columns_have_a_limit(broker, make_topic):
    topic = make_topic(1)
    produce(broker, topic, [{f"c{n}": n for n in range(40)} | {f"c{k}": 1} for k in range(3)] + [{"c7": 1, "c30": 2}] * 5)
    with Isk.beside(broker, None, {"ISK_DISCOVERY_MAX_COLUMNS": "11"}) as isk:
        table = load(clients.pyiceberg_catalog(isk.catalog_uri), topic)
        shown = columns(table)
        assert len(shown) == 11 and {"c7", "c30", "_rest"} <= set(shown)
        rest = json.loads(rows(table)[0]["_rest"])
        assert set(rest) | set(shown) - {"_rest"} == {f"c{n}" for n in range(40)} and len(rest) == 30


RULES = """
[[rule]]
principals = ["lister"]
tables = ["hotset.{topic}"]
allow = "list"
[[rule]]
principals = ["reader"]
tables = ["hotset.{topic}"]
allow = "read"
[[rule]]
principals = ["writer"]
tables = ["hotset.{topic}"]
allow = "write"
"""


def test_who_may_see_and_who_may_pin(broker, make_topic):
    topic = make_topic(1)
    produce(broker, topic, [{"secret": "value"}])
    keys = {name: secret_of(name) for name in ("lister", "reader", "writer", "stranger")}
    with Isk.beside(broker, None, rules=RULES.format(topic=topic), known=list(keys)) as isk:
        schema(isk, topic, status=401)
        schema(isk, topic, "PUT", status=401)
        schema(isk, topic, status=404, token=keys["stranger"])
        for name, samples in (("lister", 0), ("reader", 1), ("writer", 1)):
            said = schema(isk, topic, token=keys[name])
            assert len(said["samples"]) == samples and said["columns"][0]["name"] == "secret"
            assert ("value" in json.dumps(said["samples"])) == bool(samples)
        for method in ("PUT", "DELETE"):
            schema(isk, topic, method, 404, keys["stranger"])
            schema(isk, topic, method, 403, keys["lister"])
            schema(isk, topic, method, 403, keys["reader"])
            schema(isk, topic, method, 200, keys["writer"])
