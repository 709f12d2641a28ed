"""Traces as a collector gets them: whose child what is, what a client began, what no span says, and a collector that is away."""

import base64
import concurrent.futures
import json
import re
import time

import pyarrow
import pytest
import requests
from stack import clients, records
from stack.collector import Collector
from stack.isk import Isk
from stack.process import free_port

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SCHEMA = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}, {"name": "note", "type": "string"}]}
COUNT = 500
SECRETS = {"client": "client-0123456789-secret", "collector": "collector-0123456789-secret"}
# What records hold, in keys, values and headers.
CONTENTS = ["content-of-a-note", "content-of-a-key", "content-of-a-header"]


def traceparent(trace=TRACE, flags="01"):
    return {"traceparent": f"00-{trace}-{PARENT}-{flags}"}


def metrics(isk):
    text = requests.get(f"{isk.catalog_uri}/metrics", timeout=10).text
    return {name: int(value) for name, value in re.findall(r"^(isk_trace_\w+) (\d+)$", text, re.MULTILINE)}


def children(spans, parent):
    """By name, those right below a span."""
    return {span.name: span for span in spans if span.parent == parent.id}


def below(spans, parent):
    """The names of all that is below a span."""
    near = [span for span in spans if span.parent == parent.id]
    return {span.name for span in near}.union(*[below(spans, span) for span in near])


@pytest.fixture(scope="module")
def collector():
    with Collector() as server:
        yield server


@pytest.fixture(scope="module")
def traced(broker, registry, lake, collector, tmp_path_factory):
    """The service with a collector, of which a client's secret and the collector's key are known, and the lake behind it."""
    folder = tmp_path_factory.mktemp("telemetry")
    (folder / "headers").write_text(f"api-key={SECRETS['collector']}\nx-tenant=a%20b\n")
    (folder / "clients").write_text(f"me:{SECRETS['client']}\n")
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_SERVICE_NAME": "isk-under-test",
        "ISK_TELEMETRY_HEADERS_FILE": str(folder / "headers"),
        "ISK_AUTH_CREDENTIALS_FILE": str(folder / "clients"),
        "ISK_AUTH_OPEN_METRICS": "true",
        "ISK_LOG_FORMAT": "json",
    }
    with Isk.beside(broker, registry, lake.isk_environment() | env) as server:
        yield server


@pytest.fixture(scope="module")
def token(traced):
    form = {"grant_type": "client_credentials", "client_id": "me", "client_secret": SECRETS["client"]}
    return requests.post(f"{traced.catalog_uri}/v1/oauth/tokens", data=form, timeout=10).json()["access_token"]


@pytest.fixture(scope="module")
def topic(broker, registry):
    name = records.create_topic(broker.bootstrap, "traced", 1)
    serialize = records.avro_serializer(registry.url, SCHEMA)
    rows = [{"id": n, "note": f"{CONTENTS[0]} {n}"} for n in range(COUNT)]
    headers = [("h", CONTENTS[2].encode())]
    writer = records.producer(broker.bootstrap)
    records.produce(writer, name, rows, serialize=serialize, key=lambda row: CONTENTS[1].encode(), headers=headers)
    return name


def load(isk, token, topic, headers=None, namespace="hotset"):
    url = f"{isk.catalog_uri}/v1/namespaces/{namespace}/tables/{topic}"
    return requests.get(url, headers={"authorization": f"Bearer {token}"} | (headers or {}), timeout=60)


def s3_of(isk, loaded, **settings):
    config = loaded["config"]
    keys = config["s3.access-key-id"], config["s3.secret-access-key"]
    return clients.boto3_client(isk.s3_endpoint, *keys, token=config["s3.session-token"], **settings)


def read(isk, loaded, topic, **headers):
    """The first data file of a table, with the client's headers in each request. What was read, and the keys that were used."""
    s3 = s3_of(isk, loaded)

    def with_headers(request, **_):
        for name, value in headers.items():
            request.headers[name] = value

    s3.meta.events.register("before-sign.s3.*", with_headers)
    listed = s3.list_objects_v2(Bucket="hotset", Prefix=f"{topic}/")["Contents"]
    key = next(item["Key"] for item in listed if "/data/" in item["Key"])
    return key, s3.get_object(Bucket="hotset", Key=key)["Body"].read()


def test_a_load_is_one_trace_that_the_client_began(traced, collector, topic, token):
    answer = load(traced, token, topic, traceparent() | {"tracestate": "vendor=x", "x-request-id": "of-the-proxy"})
    assert answer.status_code == 200
    request = collector.wait_for(lambda span: span.trace == TRACE and span.kind == "server")[0]
    assert (request.name, request.parent, request.state) == ("GET /v1/namespaces/{namespace}/tables/{table}", PARENT, "vendor=x")
    assert request.attributes.items() >= {
        "http.request.method": "GET",
        "http.route": "/v1/namespaces/{namespace}/tables/{table}",
        "http.response.status_code": 200,
        "url.path": f"/v1/namespaces/hotset/tables/{topic}",
        "isk.request_id": "of-the-proxy",
    }.items()
    assert request.resource.items() >= {"service.name": "isk-under-test", "deployment.environment.name": "test"}.items()
    assert request.resource["service.instance.id"]
    spans = collector.trace(TRACE)
    plan = children(spans, request)["plan"]
    assert plan.attributes.items() >= {"messaging.destination.name": topic, "isk.view": "hot", "isk.partitions": 1}.items()
    assert {"ask brokers", "ask registry", "tick", "manifests"} <= below(spans, plan)
    assert any(topic in span.attributes["isk.question"] for span in spans if span.name == "ask brokers")
    assert all(request.begin <= span.begin <= span.end for span in spans)
    # The ids are in the log, too.
    lines = [json.loads(line) for line in traced.log_text().splitlines() if "of-the-proxy" in line]
    assert (lines[0]["trace_id"], lines[0]["span_id"]) == (TRACE, request.id)


def test_a_read_is_fetched_decoded_encoded_once_and_found_then(traced, collector, topic, token):
    loaded = load(traced, token, topic).json()
    trace = "11" * 16
    key, body = read(traced, loaded, topic, **traceparent(trace))
    assert body[:4] == b"PAR1"
    gets = collector.wait_for(lambda span: span.trace == trace and span.name == "GET /{bucket}/{key}")
    assert gets[0].attributes.items() >= {"url.path": f"/hotset/{key}", "http.response.status_code": 200}.items()
    spans = collector.trace(trace)
    found = children(spans, gets[0])["find file"]
    assert found.attributes["isk.file"] == "begun"
    made = children(spans, found)["make file"]
    offsets = {"isk.offset.start": 0, "messaging.destination.name": topic, "messaging.destination.partition.id": "0"}
    assert made.attributes.items() >= (offsets | {"isk.file": "encoded", "isk.rows": COUNT, "isk.errand": "read"}).items()
    parts = children(spans, made)
    assert {"wait for a turn", "fetch", "decode", "encode"} <= parts.keys()
    assert parts["fetch"].attributes.items() >= (offsets | {"isk.records": COUNT}).items()
    assert parts["fetch"].attributes["isk.bytes"] > COUNT * len(CONTENTS[0])
    assert all(parts[name].attributes["busy_ns"] > 0 for name in ("decode", "encode"))
    # Once more: it lies open.
    again = "12" * 16
    read(traced, loaded, topic, **traceparent(again))
    collector.wait_for(lambda span: span.trace == again and span.name == "GET /{bucket}/{key}")
    assert {span.attributes["isk.file"] for span in collector.trace(again) if span.name == "find file"} == {"open"}
    assert not {"make file", "fetch"} & {span.name for span in collector.trace(again)}


def test_who_waits_for_anothers_encoding_is_linked_to_it(traced, collector, broker, token):
    topic = records.create_topic(broker.bootstrap, "traced_together", 1)
    records.produce(records.producer(broker.bootstrap), topic, [b"%d" % n * 100 for n in range(20_000)])
    loaded = load(traced, token, topic).json()
    traces = [f"{number:02x}" * 16 for number in range(0x20, 0x28)]
    with concurrent.futures.ThreadPoolExecutor(len(traces)) as pool:
        list(pool.map(lambda trace: read(traced, loaded, topic, **traceparent(trace)), traces))
    for trace in traces:
        collector.wait_for(lambda span, trace=trace: span.trace == trace and span.name == "GET /{bucket}/{key}")
    made = [span for span in collector.spans if span.name == "make file" and span.trace in traces]
    joined = [span for span in collector.spans if span.trace in traces and span.attributes.get("isk.file") == "joined"]
    assert len(made) == 1 and joined
    assert all(span.links == [(made[0].trace, made[0].id)] for span in joined)
    assert {span.trace for span in joined} - {made[0].trace}


def test_the_upstream_catalog_is_told_the_trace(traced, collector, token, lake):
    table = lake.pyiceberg().create_table("coldset.traced", schema=pyarrow.schema([("name", pyarrow.string())]))
    table.append(pyarrow.table({"name": ["content-of-cold"]}))
    trace = "31" * 16
    assert load(traced, token, "traced", traceparent(trace), namespace="coldset").status_code == 200
    request = collector.wait_for(lambda span: span.trace == trace and span.kind == "server")[0]
    asked = children(collector.trace(trace), request)["ask upstream catalog"]
    assert asked.kind == "client" and asked.attributes.items() >= {"http.request.method": "GET", "http.response.status_code": 200}.items()
    assert asked.attributes["url.path"].endswith("/coldset/tables/traced")


def test_what_a_client_does_not_sample_is_not_told_and_what_is_no_trace_is_not_believed(traced, collector, topic, token):
    unsampled = "41" * 16
    assert load(traced, token, topic, traceparent(unsampled, "00")).status_code == 200
    for wrong in ("00-zz-00f067aa0ba902b7-01", f"00-{'0' * 32}-{PARENT}-01", "x" * 5000):
        assert load(traced, token, topic, {"traceparent": wrong, "user-agent": f"wrong {wrong[:9]}", "tracestate": "a=" + "b" * 5000}).status_code == 200
        own = collector.wait_for(lambda span, wrong=wrong: span.attributes.get("user_agent.original") == f"wrong {wrong[:9]}")
        assert not own[0].parent and len(own[0].state) < 600
    long = load(traced, token, "x" * 9000)
    assert long.status_code == 404
    gone = collector.wait_for(lambda span: span.attributes.get("http.response.status_code") == 404)
    assert not any(span.failed for span in gone) and all(len(span.attributes["url.path"]) <= 512 for span in gone)
    probes = ("/healthz", "/readyz", "/metrics")
    for probe in probes:
        requests.get(traced.catalog_uri + probe, timeout=10)
    load(traced, token, topic, traceparent("42" * 16))
    collector.wait_for(lambda span: span.trace == "42" * 16)
    assert not [span for span in collector.spans if span.trace == unsampled or span.attributes.get("url.path") in probes]


def test_no_span_says_what_is_secret_or_in_records(traced, collector, topic, token, lake):
    loaded = load(traced, token, topic).json()
    read(traced, loaded, topic)
    # A presigned URL, a predicate with a literal, an error that names a secret, a cold file below a folder called after a value.
    s3 = s3_of(traced, loaded, signature_version="s3v4")
    listed = s3.list_objects_v2(Bucket="hotset", Prefix=f"{topic}/")["Contents"]
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "hotset", "Key": listed[0]["Key"]})
    assert requests.get(url, headers={"user-agent": "the-presigned"}, timeout=30).status_code == 200
    scan = {"filter": {"type": "eq", "term": "note", "value": CONTENTS[0]}}
    plan = f"{traced.catalog_uri}/v1/namespaces/hotset/tables/{topic}/plan"
    assert requests.post(plan, json=scan, headers={"authorization": f"Bearer {token}", "user-agent": "the-planner"}, timeout=30).status_code == 200
    requests.get(f"{traced.catalog_uri}/v1/config", headers={"authorization": f"Bearer {SECRETS['client']}"}, timeout=30)
    requests.get(f"{traced.s3_endpoint}/lake/a/name=content-of-cold/file.parquet", headers={"user-agent": "the-cold"}, timeout=30)
    for agent in ("the-presigned", "the-planner", "the-cold"):
        collector.wait_for(lambda span, agent=agent: span.attributes.get("user_agent.original") == agent)
    told = b"".join(collector.raw)
    config = loaded["config"]
    secrets = [*SECRETS.values(), token, config["s3.secret-access-key"], config["s3.session-token"], lake.secret_key, *CONTENTS, "content-of-cold"]
    assert b"file.parquet" in told and topic.encode() in told
    for secret in secrets:
        assert secret.encode() not in told and base64.b64encode(secret.encode()) not in told, secret
    assert b"X-Amz-" not in told and b"authorization" not in told.lower()
    assert collector.paths == {"/v1/traces"}
    assert all((sent["api-key"], sent["x-tenant"]) == (SECRETS["collector"], "a b") for sent in collector.headers)
    for secret in (*SECRETS.values(), *CONTENTS):
        assert secret not in traced.log_text()


def test_a_collector_that_is_away_costs_spans_and_a_line(broker, registry, topic):
    port = free_port()
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_TRACES_SAMPLER_ARG": "1"}
    with Isk.beside(broker, registry, env) as isk:
        catalog = clients.pyiceberg_catalog(isk.catalog_uri)
        begun = time.monotonic()
        while not metrics(isk)["isk_trace_spans_dropped_total"]:
            assert catalog.load_table(("hotset", topic)).scan().to_arrow().num_rows == COUNT
            assert time.monotonic() < begun + 60
        for _ in range(20):
            began = time.monotonic()
            assert catalog.load_table(("hotset", topic)).scan().to_arrow().num_rows == COUNT
            assert time.monotonic() - began < 5
        log = isk.log_text()
        assert log.count("spans were not taken") == 1 and "OTEL_EXPORTER_OTLP_ENDPOINT" in log
        assert re.search(r"catalog request.* trace_id=[0-9a-f]{32} span_id=[0-9a-f]{16}", log)
        with Collector(port) as back:
            deadline = time.monotonic() + 30
            while "takes traces again" not in isk.log_text():
                catalog.load_table(("hotset", topic))
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert back.spans and metrics(isk)["isk_trace_spans_sent_total"]
            # What it does not answer does not hold up the end.
            back.pause = 30
            catalog.load_table(("hotset", topic))
            time.sleep(1.5)
            began = time.monotonic()
            isk.stop()
            assert time.monotonic() - began < 15
            assert "the last spans could not be sent in time" in isk.log_text()


def test_what_waits_is_sent_at_the_end_and_what_is_refused_is_counted(broker, registry, topic):
    with Collector() as collector:
        with Isk.beside(broker, registry, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/elsewhere"}) as isk:
            collector.rejected = 2
            load(isk, "", topic)
            collector.wait_for(lambda span: span.kind == "server")
            deadline = time.monotonic() + 10
            while metrics(isk)["isk_trace_spans_dropped_total"] < 2:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert "too many of them" in isk.log_text()
            collector.rejected = 0
            load(isk, "", topic, traceparent("51" * 16))
            isk.stop()
        assert collector.trace("51" * 16) and collector.paths == {"/elsewhere"}


def test_traces_are_off_unless_asked_for_and_what_cannot_be_sent_is_said_at_the_start(broker, registry, topic):
    with Collector() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        for off in ({"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_TRACES_SAMPLER": "always_off"}):
            with Isk.beside(broker, registry, env | off) as isk:
                load(isk, "", topic, traceparent())
                time.sleep(1.5)
                if "OTEL_TRACES_SAMPLER" not in off:
                    assert "trace_id" not in isk.log_text()
        assert not collector.spans
        with pytest.raises(RuntimeError, match="http/protobuf"):
            Isk.beside(broker, registry, env | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}).start()
