"""Who may in, with real clients: credentials, an issuer's tokens, API keys, rules, and the keys that come with a table."""

import base64
import contextlib
import hmac
import json
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import botocore.config
import botocore.exceptions
import pytest
import requests
from joserfc import jwk, jwt
from pyiceberg.exceptions import NoSuchTableError, OAuthError, UnauthorizedError
from stack import clients, engines, flink, records
from stack.isk import Isk, binary, secret_of

SECRETS = {name: secret_of(name) for name in ("all", "one")}
API_KEY = "api-key-0123456789abcdef"
ROWS = 50

RULES = """
[[principal]]
name = "one"
secrets = [{{ file = "one" }}]
api_keys = [{{ file = "api-key" }}]
s3_keys = [{{ access_key_id = "one", file = "one" }}]
[[rule]]
principals = ["all"]
tables = ["*"]
allow = "write"
[[rule]]
principals = ["one", "of-the-issuer"]
groups = ["analysts"]
tables = ["hotset.{table}"]
allow = "read"
"""


class Issuer:
    """An OpenID Connect issuer: its keys over HTTP, and tokens."""

    def __init__(self):
        self.keys = [jwk.RSAKey.generate_key(2048, {"kid": "1", "use": "sig"})]
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                keys = {"keys": [key.as_dict(private=False) for key in issuer.keys]}
                found = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
                body = json.dumps(found if "well-known" in self.path else keys).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def token(self, **claims):
        now = int(time.time())
        claims = {"iss": self.url, "aud": "isk", "sub": "of-the-issuer", "exp": now + 600} | claims
        return jwt.encode({"alg": "RS256", "kid": "1"}, claims, self.keys[0], algorithms=["RS256"])


@pytest.fixture(scope="module")
def issuer():
    issuer = Issuer()
    yield issuer
    issuer.server.shutdown()


@pytest.fixture(scope="module")
def topics(broker):
    names = [records.create_topic(broker.bootstrap, name) for name in ("access_one", "access_two")]
    for name in names:
        records.produce(records.producer(broker.bootstrap), name, [str(n).encode() for n in range(ROWS)])
    return names


@pytest.fixture(scope="module")
def guarded(broker, topics, issuer):
    oidc = {"ISK_AUTH_OIDC_ISSUER": issuer.url, "ISK_AUTH_OIDC_AUDIENCE": "isk"}
    server = Isk.beside(broker, None, oidc, rules=RULES.format(table=topics[0]), known=["all"])
    (server.work / "one").write_text(SECRETS["one"] + "\n")
    (server.work / "api-key").write_text(API_KEY)
    with server:
        yield server


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def count(catalog, table):
    return catalog.load_table(("hotset", table)).scan().to_arrow().num_rows


def test_pyiceberg_with_a_credential_sees_what_its_principal_may(guarded, topics):
    everything = clients.pyiceberg_catalog(guarded.catalog_uri, credential=f"all:{SECRETS['all']}")
    assert [count(everything, topic) for topic in topics] == [ROWS, ROWS]
    one = clients.pyiceberg_catalog(guarded.catalog_uri, credential=f"one:{SECRETS['one']}")
    assert count(one, topics[0]) == ROWS
    assert one.list_tables("hotset") == [("hotset", topics[0])]
    with pytest.raises(NoSuchTableError):
        one.load_table(("hotset", topics[1]))
    with pytest.raises(OAuthError, match="invalid_client"):
        clients.pyiceberg_catalog(guarded.catalog_uri, credential="one:wrong").list_namespaces()
    with pytest.raises(UnauthorizedError):
        clients.pyiceberg_catalog(guarded.catalog_uri).list_namespaces()


def test_an_api_key_and_an_issuers_token_are_bearer_tokens(guarded, topics, issuer):
    for token in (API_KEY, issuer.token(), issuer.token(sub="x", groups=["analysts"])):
        catalog = clients.pyiceberg_catalog(guarded.catalog_uri, token=token)
        assert count(catalog, topics[0]) == ROWS
        with pytest.raises(NoSuchTableError):
            catalog.load_table(("hotset", topics[1]))
    assert clients.pyiceberg_catalog(guarded.catalog_uri, token=issuer.token(sub="x")).list_tables("hotset") == []
    # By hand: a library that knows the attack refuses to make this one.
    claims = {"iss": issuer.url, "aud": "isk", "sub": "of-the-issuer", "exp": int(time.time()) + 600}
    signed = b".".join(base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "kid": "1"}, claims))
    public = issuer.keys[0].as_pem(private=False)
    forged = (signed + b"." + base64url(hmac.digest(public, signed, "sha256"))).decode()
    for bad in (issuer.token(aud="other"), issuer.token(exp=1), issuer.token(sub="all"), issuer.token()[:-4] + "AAAA", forged):
        answer = requests.get(f"{guarded.catalog_uri}/v1/config", headers={"authorization": f"Bearer {bad}"}, timeout=10)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["error"]["type"] == "NotAuthorizedException"


def test_duckdb_with_a_secret(guarded, topics):
    with clients.duckdb_connection(guarded.catalog_uri, f"one:{SECRETS['one']}") as connection:
        assert connection.execute(f"SELECT count(kafka_offset) FROM isk.hotset.{topics[0]}").fetchone() == (ROWS,)
        with pytest.raises(Exception, match=topics[1]):
            connection.execute(f"SELECT count(*) FROM isk.hotset.{topics[1]}")


def test_spark_with_a_credential(guarded, topics, spark):
    settings = clients.spark_catalog("guarded", guarded.catalog_uri, credential=f"one:{SECRETS['one']}")
    for key, value in settings.items():
        spark.conf.set(key, value)
    # Reading the column makes it open the files, not only the manifests.
    assert spark.sql(f"SELECT max(kafka_value) FROM guarded.hotset.{topics[0]}").count() == 1
    assert spark.sql(f"SELECT * FROM guarded.hotset.{topics[0]}").count() == ROWS
    with pytest.raises(Exception, match="TABLE_OR_VIEW_NOT_FOUND"):
        spark.sql(f"SELECT * FROM guarded.hotset.{topics[1]}").count()


def test_flink_with_a_credential(guarded, topics):
    options = {"streaming": "false"}
    with flink.FlinkReader(guarded.catalog_uri, topics[0], "kafka_offset", options, f"one:{SECRETS['one']}") as reader:
        deadline = time.monotonic() + 60
        while len(reader.rows()) < ROWS and time.monotonic() < deadline:
            time.sleep(0.2)
        assert sorted(int(offset) for (offset,) in reader.rows()) == list(range(ROWS))


def test_clickhouse_with_a_credential(guarded, topics):
    with contextlib.closing(engines.ClickHouse(guarded, credential=f"one:{SECRETS['one']}")) as clickhouse:
        assert clickhouse.tables() == [topics[0]]
        # With the keys that come with the table.
        assert clickhouse.sql(f"SELECT count(), max(kafka_offset) FROM isk.`hotset.{topics[0]}` WHERE kafka_value != ''") == [(ROWS, ROWS - 1)]
        with pytest.raises(Exception, match="UNKNOWN_TABLE"):
            clickhouse.count(topics[1])
    with pytest.raises(Exception, match="401|invalid_client"):
        engines.ClickHouse(guarded, credential="one:wrong")


def test_a_tables_keys_open_that_table_alone(guarded, topics):
    catalog = clients.pyiceberg_catalog(guarded.catalog_uri, credential=f"all:{SECRETS['all']}")
    files = {topic: [task.file.file_path for task in catalog.load_table(("hotset", topic)).scan().plan_files()] for topic in topics}
    key_of = {topic: path.removeprefix("s3://hotset/") for topic, (path, *_) in files.items()}
    config = catalog.load_table(("hotset", topics[0])).io.properties
    s3 = clients.boto3_client(guarded.s3_endpoint, config["s3.access-key-id"], config["s3.secret-access-key"])
    with_token = session(guarded, config)
    assert with_token.get_object(Bucket="hotset", Key=key_of[topics[0]])["ContentLength"] > 0
    assert with_token.list_objects_v2(Bucket="hotset", Prefix=f"{topics[0]}/")["KeyCount"] > 0
    url = with_token.generate_presigned_url("get_object", {"Bucket": "hotset", "Key": key_of[topics[0]]}, ExpiresIn=60)
    assert requests.get(url, headers={"range": "bytes=0-3"}, timeout=30).content == b"PAR1"
    for refused in (
        lambda: with_token.get_object(Bucket="hotset", Key=key_of[topics[1]]),
        lambda: with_token.list_objects_v2(Bucket="hotset"),
        lambda: with_token.list_objects_v2(Bucket="hotset", Prefix=topics[1]),
        lambda: with_token.put_object(Bucket="hotset", Key=key_of[topics[0]], Body=b"x"),
        lambda: s3.get_object(Bucket="hotset", Key=key_of[topics[0]]),
        lambda: session(guarded, config | {"s3.access-key-id": "one"}).get_object(Bucket="hotset", Key=key_of[topics[0]]),
    ):
        with pytest.raises(botocore.exceptions.ClientError) as error:
            refused()
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 403)
    own = clients.boto3_client(guarded.s3_endpoint, "one", SECRETS["one"])
    assert own.get_object(Bucket="hotset", Key=key_of[topics[0]])["ContentLength"] > 0
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        own.get_object(Bucket="hotset", Key=key_of[topics[1]])


def session(guarded, config):
    keys = {
        "aws_access_key_id": config["s3.access-key-id"],
        "aws_secret_access_key": config["s3.secret-access-key"],
        "aws_session_token": config["s3.session-token"],
    }
    # What is presigned has version 2 of the signature unless told otherwise.
    signing = botocore.config.Config(signature_version="s3v4")
    return boto3.client("s3", endpoint_url=guarded.s3_endpoint, region_name=clients.REGION, config=signing, **keys)


def test_pyiceberg_signs_its_requests(guarded, topics):
    def catalog(secret, key="one"):
        keys = {"client.access-key-id": key, "client.secret-access-key": secret}
        return clients.pyiceberg_catalog(guarded.catalog_uri, **{"rest.sigv4-enabled": "true", "rest.signing-region": clients.REGION}, **keys)

    one = catalog(SECRETS["one"])
    assert one.list_tables("hotset") == [("hotset", topics[0])]
    assert count(one, topics[0]) == ROWS
    with pytest.raises(NoSuchTableError):
        one.load_table(("hotset", topics[1]))
    vended = one.load_table(("hotset", topics[0])).io.properties
    for secret, key in ((SECRETS["all"], "one"), (SECRETS["one"], "nobody"), (vended["s3.secret-access-key"], vended["s3.access-key-id"])):
        with pytest.raises(UnauthorizedError):
            catalog(secret, key).list_namespaces()


def test_rules_change_live_and_nothing_secret_is_logged(guarded, topics):
    catalog = clients.pyiceberg_catalog(guarded.catalog_uri, credential=f"one:{SECRETS['one']}")
    config = catalog.load_table(("hotset", topics[0])).io.properties
    rules = guarded.access.read_text()
    guarded.access.write_text(rules.replace(f"hotset.{topics[0]}", f"hotset.{topics[1]}"))
    try:
        deadline = time.monotonic() + 15
        while catalog.list_tables("hotset") != [("hotset", topics[1])]:
            assert time.monotonic() < deadline, "the access file was not read again"
            time.sleep(0.2)
        with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
            session(guarded, config).list_objects_v2(Bucket="hotset", Prefix=f"{topics[0]}/")
    finally:
        guarded.access.write_text(rules)
    log = guarded.log_tail(100_000)
    for secret in (*SECRETS.values(), API_KEY, config["s3.secret-access-key"], config["s3.session-token"]):
        assert secret not in log


def test_nobody_listens_to_a_network_without_saying_who_may_in(broker, tmp_path):
    command = [str(binary()), "serve"]
    env = {"ISK_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap, "ISK_DATA_DIR": str(tmp_path / "data"), "ISK_BIND": "0.0.0.0"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "ISK_AUTH_CREDENTIALS" in done.stderr and "ISK_AUTH_INSECURE_BIND" in done.stderr
