"""Brokers that take an identity provider's tokens: a real one gives them, a real broker judges them, and they live for seconds."""

import re
import subprocess
import time

import pytest
import requests
from stack import clients, records
from stack.isk import Isk, binary
from stack.keycloak import TOKEN_SECONDS, Keycloak
from stack.secure_kafka import PASSWORD, USER, TokenBroker
from stack.tls import Authority

ROWS, WIDE_ROWS, WIDTH = 300, 12_000, 1000
EXPECTED = sorted(b"%d" % n for n in range(ROWS))
WIDE = [b"%0*d" % (WIDTH, n) for n in range(WIDE_ROWS)]
OPEN, ANOTHER, THIRD, CLOSED = "open", "another", "third", "closed"
LONG = "long"
REFUSED = "refuses with 401"


@pytest.fixture(scope="module")
def authority():
    return Authority("kafka-oauth")


@pytest.fixture(scope="module")
def keycloak(authority):
    with Keycloak(authority) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(authority, keycloak):
    with TokenBroker(authority, keycloak) as server:
        writer = records.producer(server.bootstrap)
        for topic in (OPEN, ANOTHER, THIRD, CLOSED, LONG):
            records.create_topic(server.bootstrap, topic, 2)
            records.produce(writer, topic, WIDE if topic == LONG else EXPECTED)
        for topic in (OPEN, ANOTHER, THIRD, LONG):
            server.allow(keycloak.client, topic, "READ", "DESCRIBE_CONFIGS")
        yield server


def login(cluster, keycloak, client, **more):
    """librdkafka's own properties, as they are in any of its users' configuration."""
    properties = {
        "bootstrap.servers": cluster.far,
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(cluster.authority.ca_file),
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": keycloak.secure_token_uri,
        "sasl.oauthbearer.client.id": client,
        "sasl.oauthbearer.client.secret": keycloak.secret,
        "sasl.oauthbearer.scope": "profile email",
        "sasl.oauthbearer.extensions": "logicalCluster=lkc-1,identityPoolId=pool-2",
        "https.ca.location": str(keycloak.authority.ca_file),
    } | more
    env = {"ISK_KAFKA_" + key.upper().replace(".", "_"): value for key, value in properties.items() if value}
    return env | {"ISK_REQUEST_TIMEOUT_MS": "6000"}


def values(server, topic):
    # A file that comes slowly is waited for.
    rows = clients.pyiceberg_catalog(server.catalog_uri, **{"s3.request-timeout": "60"}).load_table(f"hotset.{topic}").scan().to_arrow()
    return sorted(rows["kafka_value"].to_pylist())


def load(server, topic):
    return requests.get(f"{server.catalog_uri}/v1/namespaces/hotset/tables/{topic}", timeout=30)


def check(env):
    """What `isk check` says of Kafka."""
    server = Isk(env)
    done = subprocess.run([str(binary()), "check"], cwd=server.work, env=server.environment(), capture_output=True, text=True, timeout=90)
    said = done.stdout + done.stderr
    (line,) = re.findall(r"^\w+ +kafka: .*$", said, re.MULTILINE)
    return line, said


def shows_nothing(log, keycloak):
    # All JSON Web Tokens begin so.
    return keycloak.secret not in log and "eyJ" not in log


def test_a_scan_that_outlives_its_tokens(cluster, keycloak):
    with Isk(login(cluster, keycloak, keycloak.client)) as server:
        listed = {name for _, name in clients.pyiceberg_catalog(server.catalog_uri).list_tables("hotset")}
        assert listed == {OPEN, ANOTHER, THIRD, LONG}
        answer = load(server, CLOSED)
        assert answer.status_code == 403 and "needs DESCRIBE and READ on the topic" in answer.json()["error"]["message"]
        begun, before = time.monotonic(), cluster.relay.received
        cluster.relay.pace = 2 * WIDE_ROWS * WIDTH / (6 * TOKEN_SECONDS)
        try:
            assert values(server, LONG) == WIDE
        finally:
            cluster.relay.pace = None
        assert time.monotonic() - begun > 2 * TOKEN_SECONDS
        assert cluster.relay.received - before > WIDE_ROWS * WIDTH
        log = server.log_text()
    assert "librdkafka fetches the records" not in log
    # librdkafka renews a session with what is left of a token, which is too late for tokens of seconds: it connects anew.
    assert all(" isk_kafka::librdkafka: " in line for line in log.splitlines() if " WARN " in line), log
    assert " ERROR " not in log, log
    assert shows_nothing(log, keycloak)


def test_the_tokens_client_is_whom_acls_know(cluster, keycloak):
    with Isk(login(cluster, keycloak, keycloak.steady)) as server:
        assert clients.pyiceberg_catalog(server.catalog_uri).list_tables("hotset") == []
        answer = load(server, OPEN)
        assert answer.status_code == 403 and answer.json()["error"]["type"] == "ForbiddenException", answer.text
        assert shows_nothing(server.log_text(), keycloak)


def test_librdkafka_fetches_with_tokens_too(cluster, keycloak):
    """With those that are good for an hour: it renews a session too late for tokens of seconds."""
    cluster.allow(keycloak.steady, ANOTHER, "READ", "DESCRIBE_CONFIGS")
    with Isk(login(cluster, keycloak, keycloak.steady, fetch="librdkafka")) as server:
        assert values(server, ANOTHER) == EXPECTED
        log = server.log_text()
    cluster.allow_nothing(keycloak.steady)
    assert " WARN " not in log and shows_nothing(log, keycloak), log


def test_a_token_that_was_not_meant_for_brokers(cluster, keycloak):
    secret = {"sasl.oauthbearer.client.secret": keycloak.judge_secret}
    line, said = check(login(cluster, keycloak, keycloak.judge, **secret))
    assert line.startswith("FAIL") and "refused to authenticate us" in line and "invalid_token" in line, said
    assert keycloak.judge_secret not in said and "eyJ" not in said


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"sasl.oauthbearer.client.secret": "mistyped-by-hand"}, f"{REFUSED} .*check sasl.oauthbearer.client.id"),
        ({"sasl.oauthbearer.scope": "no-such-scope"}, "refuses with 400 .*invalid_scope.*sasl.oauthbearer.scope"),
        ({"https.ca.location": ""}, "does not answer: .*certificate.*https.ca.location"),
        ({"sasl.oauthbearer.token.endpoint.url": "http://127.0.0.1:1/token"}, "http://127.0.0.1:1/token: it does not answer: .*refused"),
        ({"sasl.oauthbearer.client.id": ""}, "sasl.oauthbearer.client.id"),
    ],
    ids=["secret", "scope", "authority", "nobody", "incomplete"],
)
def test_what_is_wrong_with_the_provider_is_said(cluster, keycloak, wrong, expected):
    begun = time.monotonic()
    env = login(cluster, keycloak, keycloak.client, **wrong)
    server = Isk(env)
    done = subprocess.run([str(binary()), "check"], cwd=server.work, env=server.environment(), capture_output=True, text=True, timeout=90)
    said = done.stdout + done.stderr
    assert done.returncode and re.search(expected, said), said
    assert time.monotonic() - begun < 10
    assert shows_nothing(said, keycloak) and "mistyped-by-hand" not in said


def test_a_secret_that_is_renewed_while_it_runs(cluster, keycloak, tmp_path):
    file = tmp_path / "secret"
    file.write_text(f"{keycloak.secret}\n")
    from_file = {"sasl.oauthbearer.client.secret": "", "sasl.oauthbearer.client.secret.file": str(file)}
    renewed = "another-secret-of-the-client"
    with Isk(login(cluster, keycloak, keycloak.client, **from_file)) as server:
        assert values(server, OPEN) == EXPECTED
        try:
            keycloak.set_secret(keycloak.client, renewed)
            deadline = time.monotonic() + 30
            while (answer := load(server, ANOTHER)).status_code == 200:
                assert time.monotonic() < deadline, "an old secret is good for ever"
                time.sleep(0.5)
            message = answer.json()["error"]["message"]
            assert answer.status_code == 503 and REFUSED in message and "sasl.oauthbearer.client.secret" in message, message
            file.write_text(f"{renewed}\n")
            while load(server, ANOTHER).status_code != 200:
                assert time.monotonic() < deadline + 15, "the file is not read again"
                time.sleep(0.2)
            assert values(server, ANOTHER) == EXPECTED
        finally:
            keycloak.set_secret(keycloak.client, keycloak.secret)
        log = server.log_text()
    assert shows_nothing(log + message, keycloak) and renewed not in log + message


def test_a_provider_that_goes_away_and_comes_back(cluster, keycloak):
    with Isk(login(cluster, keycloak, keycloak.client)) as server:
        assert values(server, OPEN) == EXPECTED
        keycloak.stop()
        try:
            time.sleep(TOKEN_SECONDS + 1)
            begun = time.monotonic()
            answer = load(server, THIRD)
            assert time.monotonic() - begun < 6
            message = answer.json()["error"]["message"]
            assert answer.status_code == 503 and keycloak.secure_token_uri in message and "does not answer" in message, message
            line, _ = check(login(cluster, keycloak, keycloak.client))
            assert line.startswith("FAIL") and "sasl.oauthbearer.token.endpoint.url" in line
        finally:
            keycloak.start()
        # Its first answers after a start are slow.
        deadline = time.monotonic() + 30
        while load(server, THIRD).status_code != 200:
            assert time.monotonic() < deadline, "it is not asked again"
            time.sleep(0.5)
        assert values(server, THIRD) == EXPECTED
        log = server.log_text()
    assert log.count("the brokers' token is not renewed") == 1 and "gives tokens again" in log
    assert shows_nothing(log, keycloak)


ACCESS = """
[[rule]]
principals = ["*"]
tables = ["*"]
allow = "read"
[[principal]]
name = "service"
api_keys = [{{ env = "KEY_OF_SERVICE" }}]
[[principal]]
name = "reads"
api_keys = [{{ env = "KEY_OF_READS" }}]
[[kafka]]
principals = ["reads"]
[kafka.properties]
"sasl.mechanism" = "OAUTHBEARER"
"sasl.oauthbearer.method" = "oidc"
"sasl.oauthbearer.token.endpoint.url" = "{endpoint}"
"sasl.oauthbearer.client.id" = "{client}"
"sasl.oauthbearer.client.secret.file" = "secret"
"""


def test_a_principal_with_a_token_of_its_own(cluster, keycloak, tmp_path):
    """Kafka knows the service by a password, and the principal by a token; the authority of the provider is the service's."""
    cluster.allow(keycloak.steady, ANOTHER, "READ")
    (tmp_path / "secret").write_text(keycloak.secret)
    (tmp_path / "access.toml").write_text(ACCESS.format(endpoint=keycloak.secure_token_uri, client=keycloak.steady))
    env = {key: value for key, value in login(cluster, keycloak, "").items() if "OAUTHBEARER" not in key}
    env["ISK_KAFKA_SASL_MECHANISM"] = "PLAIN"
    env |= {"ISK_KAFKA_SASL_USERNAME": USER, "ISK_KAFKA_SASL_PASSWORD": PASSWORD, "ISK_AUTH_ACCESS_FILE": str(tmp_path / "access.toml")}
    keys = {name: f"key-of-{name}-0123456789" for name in ("service", "reads")}
    env |= {f"KEY_OF_{name.upper()}": key for name, key in keys.items()}
    with Guarded(env) as server:

        def listed(who):
            return {name for _, name in clients.pyiceberg_catalog(server.catalog_uri, token=keys[who]).list_tables("hotset")}

        # The service's user has the name of the one client, and its rights; the principal is the other client.
        assert keycloak.client == USER
        assert listed("service") == {OPEN, ANOTHER, THIRD, LONG}
        assert listed("reads") == {ANOTHER}
        rows = clients.pyiceberg_catalog(server.catalog_uri, token=keys["reads"]).load_table(f"hotset.{ANOTHER}").scan().to_arrow()
        assert rows.num_rows == ROWS
        cluster.allow_nothing(keycloak.steady)
        assert shows_nothing(server.log_text(), keycloak)


class Guarded(Isk):
    def environment(self):
        return {name: value for name, value in super().environment().items() if not name.startswith("ISK_S3_")}
