"""A registry that speaks TLS by a private authority, asks for a client's certificate and a token; schemas that refer to others, and a key's subject of another name."""

import contextlib
import json
import ssl
import urllib.parse

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, record_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from pyiceberg.exceptions import RESTError
from stack import clients, records
from stack.gate import Gate
from stack.isk import Isk
from stack.tls import Authority

TOKEN = "token-of-the-registry-0123456789"

PLACE = {"type": "record", "name": "Place", "namespace": "test", "fields": [{"name": "x", "type": "double"}]}
VISIT = {"type": "record", "name": "Visit", "namespace": "test", "fields": [{"name": "n", "type": "long"}, {"name": "place", "type": ["null", "test.Place"]}]}
WHO = {"type": "record", "name": "Who", "namespace": "test", "fields": [{"name": "id", "type": "int"}]}


@pytest.fixture(scope="module")
def authority():
    return Authority("registry_tls")


@pytest.fixture(scope="module")
def guarded(registry, authority):
    """The registry behind a gate, and the file of a client that the gate knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("registry"))
    context.load_verify_locations(authority.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    identity = authority.folder / "isk.pem"
    identity.write_text("".join(file.read_text() for file in authority.issue("isk", "isk")))
    parts = urllib.parse.urlsplit(registry.url)

    def judge(_method, _path, headers, _body):
        return None if headers.get("Authorization") == f"Bearer {TOKEN}" else "no token of the registry's"

    with Gate(f"{parts.scheme}://{parts.netloc}", judge, context) as gate:
        yield gate, gate.url + parts.path, identity


@pytest.fixture(scope="module")
def visits(broker, registry):
    """Values whose schema refers to another subject's, keys under the name of their record."""
    client = records.registry_client(registry.url)
    client.register_schema("place", Schema(json.dumps(PLACE), "AVRO"))
    value = AvroSerializer(client, Schema(json.dumps(VISIT), "AVRO", [SchemaReference("test.Place", "place", 1)]))
    key = AvroSerializer(client, json.dumps(WHO), conf={"subject.name.strategy": record_subject_name_strategy})
    topic = records.create_topic(broker.bootstrap, "visits")
    context = SerializationContext(topic, MessageField.KEY)
    values = [{"n": n, "place": {"x": n / 4} if n % 3 else None} for n in range(50)]
    records.produce(records.producer(broker.bootstrap), topic, values, serialize=value, key=lambda v: key({"id": v["n"] % 7}, context))
    return topic, values


@contextlib.contextmanager
def serving(broker, url, folder, **settings):
    config = folder / "isk.toml"
    config.write_text("[formats]\ntopics = [{ topic = 'visits', key_subject = \"test.Who\" }]\n")
    env = {"ISK_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap, "ISK_REGISTRY_URL": url} | {f"ISK_REGISTRY_{name.upper()}": str(value) for name, value in settings.items()}
    with Isk(env, ["--config", str(config)]) as isk:
        yield isk


def test_rows_through_mutual_tls(broker, guarded, authority, visits, tmp_path):
    gate, url, identity = guarded
    topic, values = visits
    with serving(broker, url, tmp_path, ca_file=authority.ca_file, identity_file=identity, token=TOKEN) as isk:
        rows = clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"hotset.{topic}").scan().to_arrow().sort_by("kafka_offset").to_pylist()
        assert [{"n": row["n"], "place": row["place"]} for row in rows] == values
        assert [row["kafka_key"] for row in rows] == [{"id": n % 7} for n in range(50)]
        assert TOKEN not in isk.log_text()
    assert gate.passed and not gate.refused


@pytest.mark.parametrize("lacking", ["ca_file", "identity_file", "token"])
def test_who_is_not_let_in_gets_no_table(broker, guarded, authority, visits, tmp_path, lacking):
    """Not one of bytes, either: the registry was not asked."""
    gate, url, identity = guarded
    passed, settings = gate.passed, {"ca_file": authority.ca_file, "identity_file": identity, "token": TOKEN}
    del settings[lacking]
    with serving(broker, url, tmp_path, **settings) as isk, pytest.raises(RESTError) as refused:
        clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"hotset.{visits[0]}")
    assert url.partition("//")[2].partition("/")[0] in str(refused.value), refused.value
    assert gate.passed == passed
