"""TLS on both ports with real clients: a private authority, files that change under a scan, clients' certificates."""

import json
import os
import socket
import ssl
import subprocess
import sys
import time

import boto3
import botocore.config
import botocore.exceptions
import pytest
import requests
from cryptography import x509
from stack import client_files, clients, jdk, maven, records
from stack.isk import Isk, secret_of
from stack.tls import LOCAL, STORE_PASSWORD, Authority
from stack.trino import Trino, iceberg_catalog

ROWS = 20_000
VALUE = 400
SECRET = secret_of("all")
SPIFFE = "spiffe://example/reader"

RULES = """
[[principal]]
name = "reader"
certificates = ["uri:{spiffe}"]
[[principal]]
name = "named"
certificates = ["subject:CN=a named client"]
[[rule]]
principals = ["all"]
tables = ["*"]
allow = "read"
[[rule]]
principals = ["reader", "named"]
tables = ["hotset.{table}"]
allow = "read"
"""

# What a client does that was told to trust the authority by the environment, as an administrator of its machine would.
SCAN = """
import json, sys
from pyiceberg.catalog import load_catalog
uri, table, files, more = sys.argv[1:]
catalog = load_catalog("isk", uri=uri, **{"py-io-impl": files}, **json.loads(more))
loaded = catalog.load_table(("hotset", table))
assert loaded.io.properties["s3.endpoint"].startswith("https://"), loaded.io.properties["s3.endpoint"]
print(loaded.scan().to_arrow().num_rows)
"""

# A user's own Spark, by its conf/spark-defaults.conf: what Java trusts is said once for the whole process.
SPARK = """
import sys
from pyspark.sql import SparkSession
print(SparkSession.builder.master("local[2]").getOrCreate().sql(sys.argv[1]).first()[0])
"""


def make(settings, topic, tls):
    """A service that speaks TLS and tells callers apart."""
    return Isk(settings, tls=tls, rules=RULES.format(table=topic, spiffe=SPIFFE), known=["all"])


@pytest.fixture(scope="module")
def authority():
    return Authority("tls-of-isk")


@pytest.fixture(scope="module")
def stranger():
    return Authority("tls-of-a-stranger")


@pytest.fixture(scope="module")
def topic(broker):
    name = records.create_topic(broker.bootstrap, "transport")
    # What does not compress: a scan takes its time.
    records.produce(records.producer(broker.bootstrap), name, [os.urandom(VALUE) for _ in range(ROWS)])
    return name


@pytest.fixture(scope="module")
def settings(broker, authority):
    cert, key = authority.issue("server")
    return {
        "ISK_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap,
        "ISK_TLS_CERT_FILE": str(cert),
        "ISK_TLS_KEY_FILE": str(key),
        "ISK_TLS_CLIENT_CA_FILE": str(authority.ca_file),
        "ISK_AUTH_OPEN_METRICS": "true",
    }


@pytest.fixture(scope="module")
def secure(settings, authority, topic):
    with make(settings, topic, authority.trusting()) as server:
        yield server


def scan(secure, authority, topic, files="pyiceberg.io.pyarrow.PyArrowFileIO", **properties):
    trusted = dict.fromkeys(["SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"], str(authority.ca_file))
    command = [sys.executable, "-c", SCAN, secure.catalog_uri, topic, files, json.dumps(properties)]
    return subprocess.run(command, env=os.environ | trusted, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("files", ["pyiceberg.io.pyarrow.PyArrowFileIO", "pyiceberg.io.fsspec.FsspecFileIO"])
def test_pyiceberg(secure, authority, stranger, topic, files):
    done = scan(secure, authority, topic, files, credential=f"all:{SECRET}")
    assert done.stdout.strip() == str(ROWS), done.stderr
    refused = scan(secure, stranger, topic, files, credential=f"all:{SECRET}")
    assert refused.returncode and "CERTIFICATE_VERIFY_FAILED" in refused.stderr


def test_duckdb(secure, authority, topic):
    with clients.duckdb_connection() as connection:
        connection.execute("SET enable_server_cert_verification = true")
        connection.execute(f"SET ca_cert_file = '{authority.ca_file}'")
        clients.attach(connection, secure.catalog_uri, f"all:{SECRET}")
        assert connection.execute(f"SELECT count(kafka_value) FROM isk.hotset.{topic}").fetchone() == (ROWS,)


def java(authority):
    """What Java's options are to trust it."""
    return [f"-Djavax.net.ssl.trustStore={authority.truststore}", f"-Djavax.net.ssl.trustStorePassword={STORE_PASSWORD}"]


def spark(secure, authority, topic, folder):
    settings = client_files.text("spark-defaults.conf", secure.catalog_uri, credential=f"all:{SECRET}")
    settings += f"spark.driver.extraJavaOptions {' '.join([*jdk.BRIEF, *java(authority)])}\n"
    settings += f"spark.driver.extraClassPath {':'.join(map(str, maven.classpath('spark-iceberg')))}\nspark.ui.enabled false\n"
    (folder / "spark-defaults.conf").write_text(settings)
    own = {"SPARK_CONF_DIR": str(folder), "JAVA_HOME": str(jdk.home("spark")), "SPARK_LOCAL_IP": "127.0.0.1"}
    command = [sys.executable, "-c", SPARK, f"SELECT count(kafka_value) FROM isk.hotset.{topic}"]
    return subprocess.run(command, env=os.environ | own, cwd=folder, capture_output=True, text=True, timeout=180)


def test_spark(secure, authority, topic, tmp_path):
    done = spark(secure, authority, topic, tmp_path)
    assert done.stdout.strip() == str(ROWS), done.stderr


def test_trino(secure, authority, topic):
    catalog = iceberg_catalog(secure.catalog_uri, secure.s3_endpoint, credential=f"all:{SECRET}")
    with Trino({"isk": catalog}, java=java(authority)) as trino:
        assert trino.query(f"SELECT count(kafka_value) FROM isk.hotset.{topic}") == [[ROWS]]


def s3(secure, authority, **config):
    signing = botocore.config.Config(signature_version="s3v4", retries={"total_max_attempts": 1}, **config)
    keys = {"aws_access_key_id": "all", "aws_secret_access_key": SECRET}
    return boto3.client("s3", endpoint_url=secure.s3_endpoint, region_name=clients.REGION, config=signing, verify=str(authority.ca_file), **keys)


def data_files(secure, authority, topic):
    """The keys and sizes of the table's files."""
    pages = s3(secure, authority).list_objects_v2(Bucket="hotset", Prefix=f"{topic}/data/")
    return [(one["Key"], one["Size"]) for one in pages["Contents"]]


def serial(port, authority):
    """The number of the certificate that new connections are shown."""
    with socket.create_connection(("127.0.0.1", port), 5) as plain, authority.trusting().wrap_socket(plain, server_hostname="127.0.0.1") as shown:
        return x509.load_der_x509_certificate(shown.getpeercert(binary_form=True)).serial_number


def test_certificates_change_in_the_middle_of_a_scan(secure, authority, topic):
    # The table's files are there once somebody has asked for it.
    assert scan(secure, authority, topic, credential=f"all:{SECRET}").stdout.strip() == str(ROWS)
    client = s3(secure, authority, max_pool_connections=1)
    key, size = data_files(secure, authority, topic)[0]
    ports = (secure.catalog_port, secure.port)
    before = [serial(port, authority) for port in ports]
    body = client.get_object(Bucket="hotset", Key=key)["Body"]
    read = len(body.read(100_000))
    assert read < size
    # The key alone, of another certificate: what was there holds, and the log says why.
    cert, key_file = authority.folder / "server.crt", authority.folder / "server.key"
    old = cert.read_bytes()
    authority.issue("server")
    new = cert.read_bytes()
    cert.write_bytes(old)
    wait_for(lambda: "not taken" in secure.log_text())
    assert [serial(port, authority) for port in ports] == before
    cert.write_bytes(new)
    wait_for(lambda: all(serial(port, authority) != was for port, was in zip(ports, before, strict=True)))
    # The answer that was under way goes on to its end, and so does the connection.
    while part := body.read(100_000):
        read += len(part)
    assert read == size
    assert len(client.get_object(Bucket="hotset", Key=key)["Body"].read()) == size
    assert key_file.read_text() not in secure.log_text() and "PRIVATE KEY" not in secure.log_text()


def wait_for(what, seconds=15):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to this"
        time.sleep(0.2)


def ask(secure, authority, cert=None, path="/v1/namespaces/hotset/tables", **headers):
    return requests.get(secure.catalog_uri + path, cert=cert, headers=headers, verify=str(authority.ca_file), timeout=10)


def test_a_clients_certificate_says_who_it_is(secure, authority, stranger, topic):
    reader = authority.issue("reader", "whoever", [x509.UniformResourceIdentifier(SPIFFE)])
    named = authority.issue("named", "a named client", [x509.DNSName("irrelevant")])
    for pair in (reader, named):
        tables = ask(secure, authority, pair)
        assert tables.status_code == 200 and [one["name"] for one in tables.json()["identifiers"]] == [topic]
        assert ask(secure, authority, pair, "/v1/namespaces/coldset/tables/x").status_code == 404
    # Its table's files, too, with the keys that come with it.
    cert, key = reader
    shown = {"cabundle": str(authority.ca_file), "client": {"cert": str(cert), "key": str(key)}}
    # Without a word about it, PyIceberg sends the token "None".
    done = scan(secure, authority, topic, ssl=shown, auth={"type": "noop"})
    assert done.stdout.strip() == str(ROWS), done.stderr
    # Nobody's, or of no kind that counts: nobody is known by it.
    for name in (x509.UniformResourceIdentifier(SPIFFE + "/x"), x509.DNSName(SPIFFE), LOCAL, x509.RFC822Name("reader@example.com")):
        answer = ask(secure, authority, authority.issue("nobody", "CN=a named client", [name]))
        assert answer.status_code == 401, name
    assert ask(secure, authority).status_code == 401
    # A token says more than the connection it comes on.
    assert ask(secure, authority, reader, authorization="Bearer wrong").status_code == 401
    # Of another authority: there is no connection.
    with pytest.raises(requests.exceptions.ConnectionError):
        ask(secure, authority, stranger.issue("reader", "whoever", [x509.UniformResourceIdentifier(SPIFFE)]))
    assert ask(secure, authority, path="/healthz").status_code == 200


def test_a_certificate_may_be_required(settings, authority, topic):
    required = settings | {"ISK_TLS_CLIENT_CERTIFICATE": "required"}
    reader = authority.issue("reader", "whoever", [x509.UniformResourceIdentifier(SPIFFE)])
    context = authority.trusting()
    context.load_cert_chain(*reader)
    with make(required, topic, context) as server:
        assert ask(server, authority, reader).status_code == 200
        with pytest.raises(requests.exceptions.ConnectionError):
            ask(server, authority, path="/healthz")
        with pytest.raises((botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError)):
            s3(server, authority).list_buckets()


def test_plain_http_and_old_tls_are_not_answered(secure):
    with socket.create_connection(("127.0.0.1", secure.catalog_port), 5) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"HTTP/1.1 200" not in plain.recv(1000)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", secure.catalog_port), 5) as plain, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(plain)


def test_what_is_wrong_with_the_files_is_said_at_the_start(settings, authority, topic, tmp_path):
    other_key = authority.issue("other")[1]
    for change, said in [
        ({"ISK_TLS_KEY_FILE": str(tmp_path / "none")}, "none"),
        ({"ISK_TLS_KEY_FILE": str(other_key)}, "cannot be used"),
        ({"ISK_TLS_KEY_FILE": settings["ISK_TLS_CERT_FILE"]}, "no private key"),
        ({"ISK_TLS_CERT_FILE": settings["ISK_TLS_KEY_FILE"]}, "no certificate"),
        ({"ISK_TLS_CLIENT_CERTIFICATE": "sometimes"}, "tls.client_certificate"),
    ]:
        server = make(settings | change, topic, authority.trusting())
        with pytest.raises(RuntimeError, match="while starting") as error:
            server.start()
        assert said in str(error.value), error.value
