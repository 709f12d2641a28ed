"""Secrets from files that somebody renews, and that none of them is in a log, an answer or an error."""

import base64
import http.server
import subprocess
import threading
import time

import pytest
import requests
from stack import clients, records
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
