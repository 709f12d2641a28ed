"""A cluster that asks who comes in: every way in, and what its ACLs leave of the topics."""

import re
import subprocess
import time

import pytest
import requests
from stack import clients, records
from stack.isk import Isk, binary, secret_of
from stack.secure_kafka import PASSWORD, USER, SecureBroker
from stack.tls import Authority

ROWS = 300
EXPECTED = sorted(b"%d" % n for n in range(ROWS))
OPEN, CLOSED, UNDESCRIBED = "open", "closed", "undescribed"


@pytest.fixture(scope="module")
def authority():
    return Authority("secure-kafka")


@pytest.fixture(scope="module")
def cluster(authority):
    with SecureBroker(authority) as server:
        server.add_user()
        writer = records.producer(server.bootstrap)
        for topic in (OPEN, CLOSED, UNDESCRIBED):
            records.create_topic(server.bootstrap, topic, 2)
            records.produce(writer, topic, EXPECTED)
        for principal in (USER, "CN=isk"):
            server.allow(principal, OPEN, "READ", "DESCRIBE_CONFIGS")
            server.allow(principal, UNDESCRIBED, "READ")
        yield server


def sasl(cluster, mechanism, tls=True, password=PASSWORD):
    env = {"ISK_KAFKA_BOOTSTRAP_SERVERS": cluster.sasl_plain, "ISK_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "ISK_KAFKA_SASL_MECHANISM": mechanism}
    if tls:
        env["ISK_KAFKA_BOOTSTRAP_SERVERS"] = cluster.sasl_ssl
        env["ISK_KAFKA_SECURITY_PROTOCOL"] = "SASL_SSL"
        env["ISK_KAFKA_SSL_CA_LOCATION"] = str(cluster.authority.ca_file)
    if mechanism == "OAUTHBEARER":
        # Tokens that nobody signed, which a broker takes unless it is told of an issuer.
        env["ISK_KAFKA_ENABLE_SASL_OAUTHBEARER_UNSECURE_JWT"] = "true"
        env["ISK_KAFKA_SASL_OAUTHBEARER_CONFIG"] = f"principal={USER}"
    else:
        env |= {"ISK_KAFKA_SASL_USERNAME": USER, "ISK_KAFKA_SASL_PASSWORD": password}
    return env


def mtls(cluster, subject=USER):
    certificate, key = cluster.authority.issue(f"client-{subject}", subject)
    return {
        "ISK_KAFKA_BOOTSTRAP_SERVERS": cluster.mtls,
        "ISK_KAFKA_SECURITY_PROTOCOL": "SSL",
        "ISK_KAFKA_SSL_CA_LOCATION": str(cluster.authority.ca_file),
        "ISK_KAFKA_SSL_CERTIFICATE_LOCATION": str(certificate),
        "ISK_KAFKA_SSL_KEY_LOCATION": str(key),
    }


WAYS = {
    "mtls": mtls,
    "tls-plain": lambda cluster: sasl(cluster, "PLAIN"),
    "tls-scram-256": lambda cluster: sasl(cluster, "SCRAM-SHA-256"),
    "tls-scram-512": lambda cluster: sasl(cluster, "SCRAM-SHA-512"),
    "tls-oauthbearer": lambda cluster: sasl(cluster, "OAUTHBEARER"),
    "plain": lambda cluster: sasl(cluster, "PLAIN", tls=False),
    "scram-512": lambda cluster: sasl(cluster, "SCRAM-SHA-512", tls=False),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_cluster_decides_what_is_there(cluster, way):
    env = WAYS[way](cluster)
    with Isk(env) as server:
        catalog = clients.pyiceberg_catalog(server.catalog_uri)
        assert {name for _, name in catalog.list_tables("hotset")} == {OPEN, UNDESCRIBED}
        rows = catalog.load_table(f"hotset.{OPEN}").scan().to_arrow()
        assert sorted(rows["kafka_value"].to_pylist()) == EXPECTED
        answer = requests.get(f"{server.catalog_uri}/v1/namespaces/hotset/tables/{CLOSED}", timeout=30)
        assert answer.status_code == 403
        assert answer.json()["error"]["type"] == "ForbiddenException"
        assert "needs DESCRIBE and READ on the topic" in answer.json()["error"]["message"]
        # What a topic's settings are it may not ask: then it is taken for compacted, and counted by reading.
        rows = catalog.load_table(f"hotset.{UNDESCRIBED}").scan().to_arrow()
        assert sorted(rows["kafka_value"].to_pylist()) == EXPECTED
        assert f"the topic's configuration is unknown; it is taken for compacted topic={UNDESCRIBED}" in server.log_text()
        log = server.log_text()
    assert PASSWORD not in log
    # All but tokens is spoken by the fetch path of our own.
    assert ("librdkafka fetches the records" in log) == (way == "tls-oauthbearer")


def test_a_certificate_that_only_librdkafka_takes():
    """It is the server's and its authority's in one. The fetch path of our own refuses that, and leaves the records to librdkafka."""
    with SecureBroker(Authority("self-signed", self_signed=True)) as own:
        own.add_user()
        records.create_topic(own.bootstrap, OPEN, 2)
        records.produce(records.producer(own.bootstrap), OPEN, EXPECTED)
        own.allow(USER, OPEN, "READ", "DESCRIBE_CONFIGS")
        with Isk(sasl(own, "SCRAM-SHA-512")) as server:
            rows = clients.pyiceberg_catalog(server.catalog_uri).load_table(f"hotset.{OPEN}").scan().to_arrow()
            assert sorted(rows["kafka_value"].to_pylist()) == EXPECTED
            log = server.log_text()
        assert log.count("librdkafka fetches the records: a broker's TLS is not taken here") == 1
        assert "CaUsedAsEndEntity" in log


def test_a_password_that_is_renewed_while_it_runs(authority, tmp_path):
    """Both clients of the service, its own and librdkafka, log in with what the file says now."""
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")
    with SecureBroker(authority) as own:
        own.add_user()
        for topic in ("first", "second"):
            records.create_topic(own.bootstrap, topic, 2)
            records.produce(records.producer(own.bootstrap), topic, EXPECTED)
            own.allow(USER, topic, "READ", "DESCRIBE_CONFIGS")
        env = sasl(own, "SCRAM-SHA-256") | {"ISK_KAFKA_SASL_PASSWORD_FILE": str(secret), "ISK_REQUEST_TIMEOUT_MS": "4000"}
        del env["ISK_KAFKA_SASL_PASSWORD"]
        with Isk(env) as server:

            def rows(topic):
                return sorted(clients.pyiceberg_catalog(server.catalog_uri).load_table(f"hotset.{topic}").scan().to_arrow()["kafka_value"].to_pylist())

            assert rows("first") == EXPECTED
            renewed = "another-horse-battery"
            own.add_user(USER, renewed)
            # Connections that are there go on; these end with the broker.
            own.restart()
            table = f"{server.catalog_uri}/v1/namespaces/hotset/tables/second"
            refused = requests.get(table, timeout=30)
            assert refused.status_code == 503, refused.text
            assert "refused to authenticate" in refused.json()["error"]["message"]
            secret.write_text(f"{renewed}\n")
            deadline = time.monotonic() + 30
            while requests.get(table, timeout=30).status_code != 200:
                assert time.monotonic() < deadline, "the file is not read again"
            assert rows("second") == EXPECTED
            log = server.log_text()
        assert "librdkafka fetches the records" not in log
        assert PASSWORD not in log and renewed not in log


@pytest.mark.parametrize("what", ["password", "authority", "certificate"])
def test_who_is_not_let_in_is_told(cluster, what):
    if what == "password":
        env = sasl(cluster, "SCRAM-SHA-512", password="another-secret-of-mine")
    elif what == "authority":
        env = sasl(cluster, "PLAIN") | {"ISK_KAFKA_SSL_CA_LOCATION": str(Authority("another").ca_file)}
    else:
        env = mtls(cluster)
        del env["ISK_KAFKA_SSL_CERTIFICATE_LOCATION"], env["ISK_KAFKA_SSL_KEY_LOCATION"]
    server = Isk(env | {"ISK_REQUEST_TIMEOUT_MS": "4000"})
    server.work.mkdir(parents=True, exist_ok=True)
    command = [str(binary()), "check"]
    done = subprocess.run(command, cwd=server.work, env=server.environment(), capture_output=True, text=True, timeout=90)
    said = done.stdout + done.stderr
    assert done.returncode
    (line,) = re.findall(r"^FAIL +kafka: .*$", said, re.MULTILINE)
    assert re.search({"password": "refused to authenticate us", "authority": "certificate verify failed", "certificate": "alert (bad certificate|certificate required)"}[what], line), said
    assert "another-secret-of-mine" not in said and PASSWORD not in said


RULES = """
[[rule]]
principals = ["*"]
tables = ["*"]
allow = "read"
""" + "".join(
    f"""
[[kafka]]
principals = ["{name}"]
properties = {{ "sasl.mechanism" = "SCRAM-SHA-512", "sasl.username" = "{name}", "sasl.password.file" = "{name}" }}
"""
    for name in ("reads", "describes", "wrong")
)


def test_principals_with_logins_of_their_own_see_what_kafka_lets_them(cluster):
    env = sasl(cluster, "PLAIN") | {"ISK_REQUEST_TIMEOUT_MS": "5000"}
    guarded = Isk(env, rules=RULES, known=["service", "reads", "describes", "wrong"])
    for name in ("reads", "describes", "wrong"):
        cluster.add_user(name, f"kafka-secret-of-{name}")
        (guarded.work / name).write_text("another" if name == "wrong" else f"kafka-secret-of-{name}\n")
    cluster.allow("reads", OPEN, "READ")
    cluster.allow("describes", OPEN, "DESCRIBE")
    cluster.allow("wrong", OPEN, "READ")
    with guarded as server:

        def ask(who, path):
            headers = {"authorization": f"Bearer {secret_of(who)}"}
            return requests.get(f"{server.catalog_uri}{path}", headers=headers, timeout=30)

        def status(who, table):
            return ask(who, f"/v1/namespaces/{table.replace('.', '/tables/')}").status_code

        def catalog(who):
            return clients.pyiceberg_catalog(server.catalog_uri, token=secret_of(who))

        assert {name for _, name in catalog("service").list_tables("hotset")} == {OPEN, UNDESCRIBED}
        rows = catalog("service").load_table(f"hotset.{OPEN}").scan().to_arrow()
        assert rows.num_rows == ROWS
        for namespace in ("hotset", "errors"):
            assert [name for _, name in catalog("reads").list_tables(namespace)] == [OPEN]
            assert [name for _, name in catalog("describes").list_tables(namespace)] == [OPEN]
        table = catalog("reads").load_table(f"hotset.{OPEN}")
        assert sorted(table.scan().to_arrow()["kafka_value"].to_pylist()) == EXPECTED
        (path, *_) = (task.file.file_path.removeprefix("s3://hotset/") for task in table.scan().plan_files())
        # A file that another one's reading has made, to be read with each one's own keys.
        s3 = {name: clients.boto3_client(server.s3_endpoint, name, secret_of(name)) for name in ("reads", "describes", "wrong")}
        assert s3["reads"].head_object(Bucket="hotset", Key=path)["ContentLength"] > 0
        for name in ("describes", "wrong"):
            with pytest.raises(Exception, match="403"):
                s3[name].head_object(Bucket="hotset", Key=path)
        for who, seen in {"reads": (200, 404, 404), "describes": (403, 404, 404), "wrong": (403, 403, 403)}.items():
            assert tuple(status(who, f"hotset.{table}") for table in (OPEN, UNDESCRIBED, CLOSED)) == seen, who
        assert "needs READ" in ask("describes", f"/v1/namespaces/hotset/tables/{OPEN}").json()["error"]["message"]
        assert ask("wrong", "/v1/namespaces/hotset/tables").status_code == 403
        assert ask("describes", f"/api/v1/topics/{OPEN}/schema").json()["samples"] == []
        # What lists all topics is for nobody whom Kafka lets see some.
        assert (ask("reads", "/metrics").status_code, ask("service", "/metrics").status_code) == (403, 200)
        # What Kafka takes away, it takes from whoever has a table's keys, too; and a password may change.
        cluster.allow_nothing("reads")
        deadline = time.monotonic() + 30
        while status("reads", f"hotset.{OPEN}") == 200:
            assert time.monotonic() < deadline, "an answer is remembered for ever"
            time.sleep(0.5)
        with pytest.raises(Exception, match="(?i)access.?denied"):
            table.scan().to_arrow()
        (server.work / "wrong").write_text("kafka-secret-of-wrong")
        while status("wrong", f"hotset.{OPEN}") != 200:
            assert time.monotonic() < deadline + 30, "the login's file is not read again"
            time.sleep(0.5)
        log = server.log_text()
    assert not any(secret in log for secret in (PASSWORD, "secret-of-"))
