"""Hidden and masked columns, read by real clients: what is hidden is in no schema, bound, statistic or file."""

import io
import json
import time

import boto3
import botocore.config
import pyarrow.parquet
import pytest
import requests
from stack import clients, records
from stack.isk import Isk, secret_of

ROWS = 40
RULES = """
[[rule]]
principals = ["*"]
tables = ["*"]
allow = "read"
[[columns]]
principals = ["partial"]
tables = ["hotset.columns_*"]
hide = ["CARD", "kafka_key"]
mask = ["email", "address"]
[[columns]]
principals = ["listed"]
tables = ["hotset.*"]
show = ["id"]
"""
SCHEMA = {
    "type": "record",
    "name": "Payment",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "card", "type": "string", "doc": "the number of a card"},
        {"name": "email", "type": "string"},
        {"name": "address", "type": {"type": "record", "name": "Address", "fields": [{"name": "street", "type": "string"}]}},
    ],
}
SECRET_VALUES = ("4111-", "@secret.example", "Hidden Street")


@pytest.fixture(scope="module")
def topic(broker, registry):
    topic = records.create_topic(broker.bootstrap, "columns_payments")
    serializer = records.avro_serializer(registry.url, SCHEMA)
    payments = [
        {"id": n, "card": f"4111-{n:04}", "email": f"{n}@secret.example", "address": {"street": f"{n} Hidden Street"}}
        for n in range(ROWS)
    ]
    producer = records.producer(broker.bootstrap)
    records.produce(producer, topic, payments, serialize=serializer, key=lambda payment: payment["card"].encode())
    records.produce(producer, topic, [b"4111-broken"])
    return topic


@pytest.fixture(scope="module")
def guarded(broker, registry, topic):
    with Isk.beside(broker, registry, rules=RULES, known=["all", "partial", "listed"]) as server:
        yield server


def catalog(guarded, who):
    return clients.pyiceberg_catalog(guarded.catalog_uri, credential=f"{who}:{secret_of(who)}")


def objects(guarded, table):
    """Each file of a table, with the bytes of it: metadata, manifests and data."""
    keys = table.io.properties
    s3 = boto3.client(
        "s3",
        endpoint_url=guarded.s3_endpoint,
        region_name=clients.REGION,
        config=botocore.config.Config(s3={"addressing_style": "path"}),
        aws_access_key_id=keys["s3.access-key-id"],
        aws_secret_access_key=keys["s3.secret-access-key"],
        aws_session_token=keys["s3.session-token"],
    )
    snapshot = table.current_snapshot()
    named = [table.metadata_location, snapshot.manifest_list, *(m.manifest_path for m in snapshot.manifests(table.io))]
    named += [task.file.file_path for task in table.scan().plan_files()]
    return {uri: s3.get_object(Bucket="hotset", Key=uri.removeprefix("s3://hotset/"))["Body"].read() for uri in named}


def test_readers_see_what_the_rules_leave(guarded, topic):
    everything = catalog(guarded, "all").load_table(("hotset", topic)).scan().to_arrow()
    assert sorted(value for value in everything["card"].to_pylist() if value) == [f"4111-{n:04}" for n in range(ROWS)]
    # The second time, what was read has become statistics.
    for _ in range(2):
        table = catalog(guarded, "partial").load_table(("hotset", topic))
        rows = table.scan().to_arrow()
        names = ["id", "email", "address", "kafka_partition", "kafka_offset", "kafka_timestamp", "kafka_timestamp_type", "kafka_headers"]
        assert rows.column_names == names == table.schema().column_names[:2] + names[2:]
        assert sorted(value for value in rows["id"].to_pylist() if value is not None) == list(range(ROWS))
        assert rows["email"].null_count == rows["address"].null_count == rows.num_rows == ROWS + 1
        seen = objects(guarded, table)
        for uri, content in seen.items():
            assert f"/{topic}~" in uri
            assert not any(value.encode() in content for value in (*SECRET_VALUES, "card", "number of a card")), uri
            if uri.endswith(".parquet"):
                decoded = pyarrow.parquet.read_table(io.BytesIO(content))
                assert decoded.column_names == names
                assert not any(value in str(decoded.to_pylist()) for value in SECRET_VALUES)
        files = table.inspect.files().to_pylist()
        assert not any(value in str(files) for value in SECRET_VALUES)
        counted = {field for file in files for field, _ in file["value_counts"] or []}
        assert counted <= set(table.schema().field_ids)
    assert counted > {1, 2, 3}, "there are no statistics to look at"
    listed = catalog(guarded, "listed").load_table(("hotset", topic)).scan().to_arrow()
    assert listed.column_names == ["id", "kafka_partition", "kafka_offset", "kafka_timestamp"]


def test_duckdb_sees_the_same(guarded, topic):
    with clients.duckdb_connection(guarded.catalog_uri, f"partial:{secret_of('partial')}") as connection:
        table = f"isk.hotset.{topic}"
        assert connection.execute(f"SELECT count(*), count(id), sum(id), count(email) FROM {table}").fetchone() == (ROWS + 1, ROWS, sum(range(ROWS)), 0)
        with pytest.raises(Exception, match="(?i)card"):
            connection.execute(f"SELECT card FROM {table}")


def test_no_answer_depends_on_what_is_hidden(guarded, topic):
    form = {"grant_type": "client_credentials", "client_id": "partial", "client_secret": secret_of("partial")}
    token = requests.post(f"{guarded.catalog_uri}/v1/oauth/tokens", data=form, timeout=10).json()["access_token"]
    path = f"{guarded.catalog_uri}/v1/namespaces/hotset/tables/{topic}"

    def plan(filter):
        answer = requests.post(f"{path}/plan", json={"filter": filter, "stats-fields": ["card", "id"]}, headers={"authorization": f"Bearer {token}"}, timeout=30)
        assert answer.status_code == 200, answer.text
        return [file["data-file"]["file-path"] for file in answer.json().get("file-scan-tasks", [])]

    equal = [plan({"type": "eq", "term": "card", "value": value}) for value in ("4111-0001", "nobody's")]
    assert equal[0] == equal[1] == plan(True) != []
    body = requests.get(path, headers={"authorization": f"Bearer {token}"}, timeout=30).text
    assert "card" not in body and "email" in body
    assert json.loads(body)["metadata"]["properties"]["isk.view"] == "restricted"


def test_a_rule_counts_from_the_moment_it_is_there(guarded, topic):
    """Runs last: it changes the rules."""
    table = catalog(guarded, "partial").load_table(("hotset", topic))
    everything = catalog(guarded, "all").load_table(("hotset", topic))
    guarded.access.write_text(guarded.access.read_text().replace('["partial"]', '["all"]'))
    deadline = time.monotonic() + 15
    while "card" not in catalog(guarded, "partial").load_table(("hotset", topic)).schema().column_names:
        assert time.monotonic() < deadline, "the access file was not read again"
        time.sleep(0.2)
    # Keys that were got before open nothing that their owners do not see now.
    for loaded in (table, everything):
        with pytest.raises(Exception, match="(?i)access.?denied"):
            objects(guarded, loaded)
    assert "card" not in catalog(guarded, "all").load_table(("hotset", topic)).schema().column_names
