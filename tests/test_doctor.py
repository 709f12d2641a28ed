"""`isk doctor`: what is wrong with a table is named with its remedy, and what is not is said to be well."""

import re
import subprocess

import pytest
from stack import records
from stack.isk import Isk, binary

SCHEMA = {"type": "record", "name": "Beat", "fields": [{"name": "n", "type": "long"}]}


@pytest.fixture(scope="module")
def topic(broker, registry):
    topic = records.create_topic(broker.bootstrap, "doctor_beats")
    serializer = records.avro_serializer(registry.url, SCHEMA)
    producer = records.producer(broker.bootstrap)
    records.produce(producer, topic, [{"n": n} for n in range(500)], serialize=serializer)
    return topic


@pytest.fixture
def doctor(broker, registry, isk):
    def run(table, *options, **environment):
        own = {"ISK_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap, "ISK_REGISTRY_URL": registry.url, "ISK_REQUEST_TIMEOUT_MS": "4000"}
        server = Isk(own | environment)
        server.work.mkdir(parents=True, exist_ok=True)
        command = [str(binary()), "doctor", table, *(options or ("--catalog", isk.catalog_uri))]
        done = subprocess.run(command, cwd=server.work, env=server.environment(), capture_output=True, text=True, timeout=120)
        verdicts = dict(re.findall(r"^(?:ok|WARN|FAIL) +(\w+): (.*)$", done.stdout, re.MULTILINE))
        marks = {what: mark for mark, what in re.findall(r"^(ok|WARN|FAIL) +(\w+):", done.stdout, re.MULTILINE)}
        return done.returncode, marks, verdicts, done.stdout + done.stderr

    return run


def test_a_table_that_is_well(doctor, topic):
    code, marks, verdicts, said = doctor(f"hotset.{topic}")
    assert code == 0, said
    for what in ("kafka", "registry", "topic", "transactions", "retention", "table", "schema", "chunk", "records"):
        assert marks[what] == "ok", said
    assert "up to 500 records" in verdicts["topic"] and "avro" in verdicts["schema"]
    assert re.search(r"fetch \d+\.\d+, decode \d+\.\d+, encode \d+\.\d+", verdicts["chunk"]), said
    assert "loads the table" in verdicts["service"] and "of 1 files" in verdicts["proven"], said


def test_what_is_wrong_is_named_with_its_remedy(doctor, topic, broker):
    code, marks, _, said = doctor("no_such_topic")
    assert (code, marks["kafka"], marks["topic"]) == (1, "ok", "FAIL") and "DESCRIBE" in said
    code, marks, _, said = doctor(topic, ISK_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert (code, marks) == (1, {"kafka": "FAIL"}) and "docs/kafka.md" in said
    code, marks, _, said = doctor(topic, ISK_TOPICS_EXCLUDE=topic)
    assert (code, marks["topic"]) == (1, "FAIL") and "topics.exclude" in said
    records.produce(records.producer(broker.bootstrap), topic, [b"\0\0\0\0\0poison"])
    code, marks, verdicts, said = doctor(topic, "--catalog", "http://127.0.0.1:1")
    assert code == 0, said
    assert (marks["records"], marks["service"]) == ("WARN", "WARN")
    assert f"errors.{topic}" in said and "1 keys or values" in verdicts["records"]
