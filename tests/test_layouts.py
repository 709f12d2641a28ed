"""The same topic flat, raw and as JSON text, in every engine; and raw while the registry is away."""

import base64
import datetime
import decimal
import json

import pytest
from stack import clients, records
from stack.isk import Isk
from stack.registry import Registry

SCHEMA = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "note", "type": ["null", "string"]},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "tags", "type": {"type": "map", "values": {"type": "array", "items": "double"}}},
        {"name": "blob", "type": "bytes"},
    ],
}


def order(n):
    at = datetime.datetime.fromtimestamp(n, datetime.timezone.utc)
    tags = {f"k{i}": [n / 2, float("nan")][: n % 3] for i in range(n % 3)}
    return {"id": n, "note": None if n % 3 else f"né {n}", "price": decimal.Decimal(n) / 4, "at": at, "tags": tags, "blob": bytes([n])}


def as_json(value):
    """The text's meaning, by the documented rules, made without the service."""
    tags = {k: [x if x == x else "NaN" for x in v] for k, v in value["tags"].items()}
    at = value["at"].isoformat().replace("+00:00", "Z")
    price = float(value["price"])
    return value | {"price": price, "at": at, "tags": tags, "blob": base64.b64encode(value["blob"]).decode()}


@pytest.fixture
def orders(broker, registry, make_topic):
    """A topic of framed Avro with plain keys, a tombstone, a value of bare JSON and one of neither."""
    topic = make_topic(2)
    producer, values = records.producer(broker.bootstrap), [order(n) for n in range(50)]
    records.produce(producer, topic, values, serialize=records.avro_serializer(registry.url, SCHEMA), key=lambda v: f"key-{v['id']}".encode(), headers=[("h", b"1")])
    records.produce(producer, topic, [None, b'{"bare": 1}', b"neither"], key=lambda v: b"odd")
    return topic, values


def by_offset(rows):
    return sorted(rows, key=lambda row: (row["kafka_partition"], row["kafka_offset"]))


@pytest.mark.parametrize("name", ["{}$raw", "{}~raw"])
def test_raw_rows_are_the_bytes(broker, pyiceberg, orders, name):
    topic, _ = orders
    table = pyiceberg.load_table(("hotset", name.format(topic)))
    rows = by_offset(table.scan().to_arrow().to_pylist())
    written = sorted(records.read_topic(broker.bootstrap, topic), key=lambda r: (r.partition, r.offset))
    assert [(r["kafka_key"], r["kafka_value"], len(r["kafka_headers"])) for r in rows] == [(r.key, r.value, len(r.headers)) for r in written]
    assert table.metadata.table_uuid != pyiceberg.load_table(f"hotset.{topic}").metadata.table_uuid


def test_json_rows_are_what_was_written_in_every_engine(pyiceberg, duckdb, spark, trino, orders):
    topic, values = orders
    expected = {json.dumps(as_json(v), sort_keys=True) for v in values} | {'{"bare": 1}'}
    rows = pyiceberg.load_table(("hotset", f"{topic}$json")).scan().to_arrow().to_pylist()
    texts = [r["kafka_value"] for r in rows]
    assert len(rows) == 53 and texts.count(None) == 2  # the tombstone, and what is no JSON
    assert {json.dumps(json.loads(t), sort_keys=True) for t in texts if t} == expected
    assert {json.loads(r["kafka_key"]) for r in rows} == {f"key-{v['id']}" for v in values} | {"odd"}

    ids = {v["id"] for v in values}
    got = duckdb.sql(f"""SELECT CAST(kafka_value->>'$.id' AS BIGINT) FROM isk.hotset."{topic}$json" WHERE kafka_value LIKE '%price%'""").fetchall()
    assert {r[0] for r in got} == ids
    got = spark.sql(f"SELECT CAST(get_json_object(kafka_value, '$.id') AS BIGINT) AS id FROM isk.hotset.`{topic}$json` WHERE kafka_value LIKE '%price%'").collect()
    assert {r.id for r in got} == ids
    got = trino.query(f"""SELECT CAST(json_extract_scalar(kafka_value, '$.id') AS bigint) FROM isk.hotset."{topic}~json" WHERE kafka_value LIKE '%price%'""")
    assert {r[0] for r in got} == ids
    assert trino.query(f'SELECT count(*) FROM isk.hotset."{topic}~raw" WHERE kafka_value IS NULL')[0][0] == 1


def test_layouts_exist_and_are_not_listed(pyiceberg, orders):
    topic, _ = orders
    for name in [f"{topic}$raw", f"{topic}$json", f"{topic}$flat", f"{topic}~flat"]:
        assert pyiceberg.table_exists(("hotset", name)), name
    assert not pyiceberg.table_exists(("hotset", f"{topic}$other"))
    assert not pyiceberg.table_exists(("hotset", "nothing~raw"))
    assert [name for _, name in pyiceberg.list_tables("hotset") if name.startswith(topic)] == [topic]
    flat = pyiceberg.load_table(("hotset", f"{topic}$flat"))
    assert flat.metadata.table_uuid == pyiceberg.load_table(f"hotset.{topic}").metadata.table_uuid


def test_a_setting_chooses_the_tables_own_layout(broker, registry, orders, tmp_path):
    topic, values = orders
    settings = tmp_path / "isk.toml"
    settings.write_text(f"[[topics.settings]]\ntopic = '{topic}'\nlayout = 'json'\n")
    with Isk.beside(broker, registry, {"ISK_CONFIG": str(settings)}) as isk:
        catalog = clients.pyiceberg_catalog(isk.catalog_uri)
        rows = catalog.load_table(f"hotset.{topic}").scan().to_arrow().to_pylist()
        assert sum(r["kafka_value"] is not None for r in rows) == 51
        flat = catalog.load_table(("hotset", f"{topic}$flat")).scan().to_arrow()
        assert sorted(filter(None, flat["id"].to_pylist())) == [v["id"] for v in values if v["id"]]


def test_raw_needs_no_registry(broker, make_topic):
    topic = make_topic(1)
    with Registry() as own:
        with Isk.beside(broker, own) as isk:
            serialize = records.avro_serializer(own.url, SCHEMA)
            records.produce(records.producer(broker.bootstrap), topic, [order(n) for n in range(5)], serialize=serialize)
            own.stop()
            table = clients.pyiceberg_catalog(isk.catalog_uri).load_table(("hotset", f"{topic}$raw"))
            values = table.scan().to_arrow()["kafka_value"].to_pylist()
            assert len(values) == 5 and all(v[0] == 0 for v in values)
