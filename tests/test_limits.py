"""What slow, many and long-winded clients come to, on both ports, over sockets of their own."""

import os
import re
import socket
import time

import boto3
import botocore.config
import pytest
import requests
from stack import clients, records
from stack.isk import Isk, secret_of

SECRET = secret_of("all")
SHORT = {
    "ISK_CONNECTIONS": "6",
    "ISK_HEAD_BYTES": "20480",
    "ISK_HEAD_SECONDS": "1",
    "ISK_IDLE_SECONDS": "2",
    "ISK_BODY_STALL_SECONDS": "1",
    "ISK_READER_STALL_SECONDS": "2",
    "ISK_REQUESTS_PER_PRINCIPAL": "1",
}
RULES = """
[[rule]]
principals = ["all"]
tables = ["*"]
allow = "read"
"""


@pytest.fixture(scope="module")
def topic(broker):
    name = records.create_topic(broker.bootstrap, "limits")
    records.produce(records.producer(broker.bootstrap), name, [os.urandom(2000) for _ in range(10_000)])
    return name


@pytest.fixture(scope="module")
def short(broker, topic):
    with Isk.beside(broker, None, SHORT | {"ISK_AUTH_OPEN_METRICS": "true"}, rules=RULES, known=["all"]) as server:
        yield server


@pytest.fixture(scope="module")
def key(short, topic):
    """A data file of some 16 MB, the first of two."""
    catalog = clients.pyiceberg_catalog(short.catalog_uri, credential=f"all:{SECRET}")
    files = [task.file for task in catalog.load_table(("hotset", topic)).scan().plan_files()]
    path = max(files, key=lambda file: file.record_count).file_path
    return path.removeprefix("s3://hotset/")


def ports(short):
    return {"catalog": short.catalog_port, "s3": short.port}


def connect(port):
    return socket.create_connection(("127.0.0.1", port), 10)


def to_end(connection, patience=10):
    """All that comes until the server closes, and how long that took."""
    start, parts = time.monotonic(), []
    connection.settimeout(patience)
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts).decode(errors="replace"), time.monotonic() - start


def says(port, text):
    with connect(port) as connection:
        connection.sendall(text)
        return to_end(connection)[0]


def counted(short, name, port):
    text = requests.get(f"{short.catalog_uri}/metrics", timeout=10, headers={"connection": "close"}).text
    return int(re.search(rf'^{name}{{port="{port}"}} (\d+)$', text, re.MULTILINE)[1])


def s3(short, **config):
    signing = botocore.config.Config(signature_version="s3v4", retries={"total_max_attempts": 1}, **config)
    return boto3.client("s3", endpoint_url=short.s3_endpoint, region_name=clients.REGION, config=signing, aws_access_key_id="all", aws_secret_access_key=SECRET)


@pytest.mark.parametrize("port", ["catalog", "s3"])
def test_heads_that_are_slow_long_or_ambiguous(short, port):
    number, before = ports(short)[port], counted(short, "isk_connections_timed_out_total", port)
    with connect(number) as connection:
        text, took = to_end(connection)
        assert (text, 0.8 < took < 4) == ("", True), took
    with connect(number) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
        text, took = to_end(connection)
        assert text.startswith("HTTP/1.1 408 ") and took < 4
    assert counted(short, "isk_connections_timed_out_total", port) == before + 2
    assert says(number, b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 30_000 + b"\r\n\r\n").startswith("HTTP/1.1 431 ")
    assert says(number, b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n").startswith("HTTP/1.1 431 ")
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    for shape in (
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"GET /x HTTP/1.1\nHost: a\n\n",
    ):
        text = says(number, shape + smuggled)
        assert text.startswith("HTTP/1.1 400 ") and text.count("HTTP/1.1 ") == 1, (shape, text)


@pytest.mark.parametrize("port", ["catalog", "s3"])
def test_an_idle_connection_ends(short, port):
    with connect(ports(short)[port]) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        text, took = to_end(connection)
        assert text.startswith("HTTP/1.1 ") and 1.6 < took < 5, took


def test_a_body_that_stalls(short):
    token = f"authorization: Basic {'x' * 8}"
    text = says(short.catalog_port, f"POST /v1/oauth/tokens HTTP/1.1\r\nHost: a\r\n{token}\r\nContent-Length: 900\r\n\r\ngrant_type=".encode())
    assert text.startswith("HTTP/1.1 408 ") and "stalled" in text, text
    # Unsigned, and so nobody reads it.
    text = says(short.port, b"PUT /hotset/x HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\nabc")
    assert text.startswith("HTTP/1.1 403 ") and "connection: close" in text.lower(), text


def test_a_reader_that_does_not_read_gives_its_place_back(short, key):
    url = s3(short).generate_presigned_url("get_object", {"Bucket": "hotset", "Key": key}, ExpiresIn=60)
    path = url.removeprefix(short.s3_endpoint)
    with connect(short.port) as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        stalled.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{short.port}\r\n\r\n".encode())
        assert stalled.recv(100).startswith(b"HTTP/1.1 200 ")
        # Its owner may have one request under way.
        busy = requests.get(url, headers={"range": "bytes=0-3"}, timeout=10)
        assert busy.status_code == 503 and "<Code>SlowDown</Code>" in busy.text and busy.headers["retry-after"] == "1"
        deadline = time.monotonic() + 8
        while requests.get(url, headers={"range": "bytes=0-3"}, timeout=10).status_code == 503:
            assert time.monotonic() < deadline, "the place is still taken"
            time.sleep(0.2)
        # What it had got is all there is: it ends before its time.
        received = to_end(stalled)[0]
        assert len(received) < 19_000_000
    # One that is slow, and reads, gets all of it.
    size = s3(short).head_object(Bucket="hotset", Key=key)["ContentLength"]
    body, read = s3(short).get_object(Bucket="hotset", Key=key)["Body"], 0
    while part := body.read(3_000_000):
        read += len(part)
        time.sleep(0.8)
    assert read == size


@pytest.mark.parametrize("port", ["catalog", "s3"])
def test_connections_beyond_the_bound(short, port):
    number, ask = ports(short)[port], b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    time.sleep(2.5)  # connections of other tests are idle no longer
    before = counted(short, "isk_connections_refused_total", port)
    held = [connect(number) for _ in range(6)]
    try:
        for connection in held:
            connection.sendall(ask)
            assert connection.recv(1000).startswith(b"HTTP/1.1 ")
        text = says(number, ask)
        expected = ("HTTP/1.1 429 ", "TooManyRequestsException") if port == "catalog" else ("HTTP/1.1 503 ", "<Code>SlowDown</Code>")
        assert text.startswith(expected[0]) and expected[1] in text and "retry-after: 1" in text.lower(), text
    finally:
        for connection in held:
            connection.close()
    time.sleep(0.3)
    assert counted(short, "isk_connections_refused_total", port) == before + 1
    assert not says(number, ask.replace(b"Host: a", b"Host: a\r\nConnection: close")).startswith(expected[0])
