"""Secrets from files that somebody renews, and that none of them is in a log, an answer or an error."""

import base64
import http.server
import subprocess
import threading
import time

import botocore.exceptions
import pyarrow
import pytest
import requests
from stack import clients, records
from stack.gate import Gate, sigv4
from stack.isk import Isk, binary
from stack.lake import Lake

SECRETS = {name: f"{name}-0123456789-abcdef-secret" for name in ("client", "registry", "registry-2", "signing", "signing-2", "s3", "lake", "sasl")}


class Registry(http.server.ThreadingHTTPServer):
    """Passes on what has the right password."""

    def __init__(self, upstream, password):
        self.upstream, self.password, self.refused = upstream, password, 0
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        expected = base64.b64encode(f"isk:{self.server.password}".encode()).decode()
        if self.headers.get("authorization") != f"Basic {expected}":
            self.server.refused += 1
            self.send_response(401)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        answer = requests.get(self.server.upstream + self.path, timeout=10)
        self.send_response(answer.status_code)
        self.send_header("content-length", str(len(answer.content)))
        self.send_header("content-type", answer.headers["content-type"])
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_):
        pass


def wait_for(what, seconds=20):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to this"
        time.sleep(0.3)


@pytest.fixture
def folder(tmp_path):
    for name, secret in SECRETS.items():
        (tmp_path / name).write_text(secret + "\n")
    (tmp_path / "clients").write_text(f"me:{SECRETS['client']}\n")
    (tmp_path / "keys").write_text(SECRETS["signing"])
    return tmp_path


def test_what_is_renewed_is_taken_and_nothing_is_shown(broker, registry, folder, make_topic):
    guard = Registry(registry.url, SECRETS["registry"])
    topic = make_topic()
    records.produce(records.producer(broker.bootstrap), topic, [b"1", b"2"])
    lake = Lake()
    files = {
        "ISK_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap,
        "ISK_REGISTRY_URL": guard.url,
        "ISK_LOG": "trace,librdkafka=debug",
        "ISK_REGISTRY_USERNAME": "isk",
        "ISK_REGISTRY_PASSWORD_FILE": str(folder / "registry"),
        "ISK_AUTH_CREDENTIALS_FILE": str(folder / "clients"),
        "ISK_AUTH_SIGNING_KEY_FILE": str(folder / "keys"),
        "ISK_COLDSET_CLIENT_URI": lake.catalog_uri,
        "ISK_COLDSET_CLIENT_S3_ENDPOINT": lake.s3_endpoint,
        "ISK_COLDSET_CLIENT_S3_ACCESS-KEY-ID": "isk",
        "ISK_COLDSET_CLIENT_S3_SECRET-ACCESS-KEY-FILE": str(folder / "lake"),
    }
    shown = []
    with Isk(files) as isk:
        def load(secret):
            catalog = clients.pyiceberg_catalog(isk.catalog_uri, credential=f"me:{secret}")
            table = catalog.load_table(("hotset", topic))
            shown.extend([table.io.properties["s3.secret-access-key"], table.io.properties["s3.session-token"]])
            assert table.scan().to_arrow().num_rows == 2
            return catalog

        catalog = load(SECRETS["client"])
        # The registry's password.
        guard.password = SECRETS["registry-2"]
        (folder / "registry").write_text(SECRETS["registry-2"])
        time.sleep(3)
        guard.refused = 0
        load(SECRETS["client"])
        assert guard.refused == 0
        # The signing key, with the old one behind it: what was signed before is good.
        (folder / "keys").write_text(f"{SECRETS['signing-2']}\n{SECRETS['signing']}\n")
        wait_for(lambda: "signing keys have changed" in isk.log_text())
        assert catalog.list_tables("hotset")
        # A client's secret.
        (folder / "clients").write_text("me:another-0123456789-abcdef-secret\n")

        def refused():
            form = {"grant_type": "client_credentials", "client_id": "me", "client_secret": SECRETS["client"]}
            return requests.post(f"{isk.catalog_uri}/v1/oauth/tokens", data=form, timeout=10).status_code == 401

        wait_for(refused)
        load("another-0123456789-abcdef-secret")
        # What fails, and what says so.
        for table in ("coldset", "merged"):
            requests.get(f"{isk.catalog_uri}/v1/namespaces/{table}/tables/x", headers={"authorization": f"Bearer {SECRETS['client']}"}, timeout=60)
        log = isk.log_text()
    guard.shutdown()
    assert "catalog request" in log and "gateway request" in log
    for secret in [*SECRETS.values(), "another-0123456789-abcdef-secret", *shown]:
        assert secret not in log, secret
        assert base64.b64encode(f"isk:{secret}".encode()).decode() not in log


def test_kafkas_password_comes_from_a_file_and_is_in_no_error(folder):
    env = {
        "ISK_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "ISK_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "ISK_KAFKA_SASL_MECHANISM": "PLAIN",
        "ISK_KAFKA_SASL_USERNAME": "isk",
        "ISK_KAFKA_SASL_PASSWORD_FILE": str(folder / "sasl"),
        "ISK_DATA_DIR": str(folder / "data"),
        "ISK_REQUEST_TIMEOUT_MS": "1500",
        "ISK_LOG": "trace,librdkafka=debug",
    }
    done = subprocess.run([str(binary()), "check"], env=env, capture_output=True, text=True, timeout=60)
    said = done.stdout + done.stderr
    assert "FAIL  kafka" in said and SECRETS["sasl"] not in said
    missing = subprocess.run([str(binary()), "check"], env=env | {"ISK_KAFKA_SASL_PASSWORD_FILE": "/none"}, capture_output=True, text=True, timeout=60)
    assert missing.returncode and "/none" in missing.stderr and "sasl.password.file" in missing.stderr


REGION, SERVICE = "eu-central-1", "s3tables"
ROWS = pyarrow.table({"n": pyarrow.array(range(1000), pyarrow.int64())})
UPSTREAMS = {name: f"{name}-0123456789-abcdef" for name in ("token-1", "token-2", "KEY-1", "KEY-2", "sign-1", "sign-2", "STORE-1", "STORE-2", "store-1", "store-2")}


def tokens(*good):
    """Lets pass who shows one of these."""
    return lambda _method, _path, headers, _body: None if headers.get("Authorization") in {f"Bearer {token}" for token in good} else "the token is none"


def signatures(*pairs):
    """Lets pass what is signed by one of these pairs of keys."""
    judges = [sigv4(*pair, REGION, SERVICE) for pair in pairs]

    def judge(*request):
        whys = [judge(*request) for judge in judges]
        return None if None in whys else whys[0]

    return judge


def test_the_coldsets_secrets_are_renewed_while_it_runs(broker, tmp_path):
    """The store is S3Proxy, which checks signatures; those to the catalog are checked by AWS's own library."""
    of = UPSTREAMS

    def write(**secrets):
        for name, secret in secrets.items():
            (tmp_path / name).write_text(of[secret] + "\n")

    write(token="token-1", id="KEY-1", secret="sign-1", store_id="STORE-1", store_secret="store-1")
    lake = Lake()
    lake.store.access_key, lake.store.secret_key = of["STORE-1"], of["store-1"]
    lake.access_key, lake.secret_key = of["STORE-1"], of["store-1"]
    common = {
        "ISK_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap,
        "ISK_COLDSET_CLIENT_S3_ENDPOINT": lake.s3_endpoint,
        "ISK_COLDSET_CLIENT_S3_ACCESS_KEY_ID_FILE": str(tmp_path / "store_id"),
        "ISK_COLDSET_CLIENT_S3_SECRET_ACCESS_KEY_FILE": str(tmp_path / "store_secret"),
        "ISK_COLDSET_CLIENT_S3_REGION": clients.REGION,
        "ISK_LOG": "trace,librdkafka=debug",
    }
    bearer = {"ISK_COLDSET_CLIENT_TOKEN_FILE": str(tmp_path / "token")}
    signing = {
        "ISK_COLDSET_CLIENT_REST_SIGV4_ENABLED": "true",
        "ISK_COLDSET_CLIENT_REST_SIGNING_REGION": REGION,
        "ISK_COLDSET_CLIENT_REST_SIGNING_NAME": SERVICE,
        "ISK_COLDSET_CLIENT_REST_ACCESS_KEY_ID_FILE": str(tmp_path / "id"),
        "ISK_COLDSET_CLIENT_REST_SECRET_ACCESS_KEY_FILE": str(tmp_path / "secret"),
    }
    with lake, Gate(lake.catalog_uri) as by_token, Gate(lake.catalog_uri) as by_key:
        by_token.judge = tokens(of["token-1"])
        by_key.judge = signatures((of["KEY-1"], of["sign-1"]))
        direct = lake.pyiceberg()
        direct.create_namespace("coldset")
        table = direct.create_table("coldset.t", schema=ROWS.schema)
        table.append(ROWS)
        file = next(iter(table.scan().plan_files())).file.file_path
        uris = [{"ISK_COLDSET_CLIENT_URI": gate.url} for gate in (by_token, by_key)]
        with Isk(common | bearer | uris[0]) as told, Isk(common | signing | uris[1]) as signed:

            def scan(isk):
                assert len(clients.pyiceberg_catalog(isk.catalog_uri).load_table("coldset.t").scan().to_arrow()) == 1000

            def refusal(isk):
                answer = requests.get(f"{isk.catalog_uri}/v1/namespaces/coldset/tables/t", timeout=60)
                assert answer.status_code >= 400
                return answer.json()["error"]["message"]

            scan(told)
            scan(signed)
            assert by_token.passed and by_key.passed and not by_token.refused and not by_key.refused

            # The catalog's token, and what signs requests to it: refused while the files are old, and taken at once when they are new.
            by_token.judge = tokens(of["token-2"])
            by_key.judge = signatures((of["KEY-2"], of["sign-2"]))
            assert "the token is none" in refusal(told)
            assert "signed by another key" in refusal(signed)
            write(token="token-2", id="KEY-2", secret="sign-2")
            for gate, isk in ((by_token, told), (by_key, signed)):
                gate.refused.clear()
                scan(isk)
                assert not gate.refused

            # No request fails while the files change and old and new are good. Nothing is ever signed with halves of two keys.
            by_token.judge = tokens(of["token-1"], of["token-2"])
            by_key.judge = signatures((of["KEY-1"], of["sign-1"]), (of["KEY-2"], of["sign-2"]))
            over = threading.Event()
            failed, asked = [], [0]

            def ask():
                while not over.is_set():
                    for isk in (told, signed):
                        try:
                            scan(isk)
                            asked[0] += 1
                        except Exception as error:
                            failed.append(error)

            askers = [threading.Thread(target=ask) for _ in range(2)]
            for asker in askers:
                asker.start()
            for number in (1, 2, 1, 2, 1, 2):
                write(token=f"token-{number}", id=f"KEY-{number}")
                time.sleep(0.05)
                write(secret=f"sign-{number}")
                time.sleep(1)
            over.set()
            for asker in askers:
                asker.join(60)
            assert asked[0] > 8 and not failed and not by_token.refused and not by_key.refused

            # The store's keys. Its own catalog needs the new ones, too.
            lake.store.take_keys(of["STORE-2"], of["store-2"])
            lake.catalog.restart()
            bucket, key = file.removeprefix("s3://").split("/", 1)
            settings = clients.pyiceberg_catalog(told.catalog_uri).load_table("coldset.t").io.properties
            gateway = clients.boto3_client(told.s3_endpoint, settings["s3.access-key-id"], settings["s3.secret-access-key"])
            with pytest.raises(botocore.exceptions.ClientError) as refused:
                gateway.get_object(Bucket=bucket, Key=key)
            assert "coldset.s3.access-key-id" in str(refused.value)
            write(store_id="STORE-2", store_secret="store-2")
            for isk in (told, signed):
                scan(isk)
            assert gateway.get_object(Bucket=bucket, Key=key)["Body"].read()[:4] == b"PAR1"
            shown = told.log_text() + signed.log_text() + str(refused.value)
    assert "access keys have changed" in shown
    for name, secret in of.items():
        if name[0].islower():
            assert secret not in shown, name
