"""Every principal, every object, every verb: each cell is asserted. And signatures, tokens and keys that are not what they should be."""

import base64
import datetime
import http.client
import json
import pathlib
import time
import urllib.parse

import boto3
import botocore.config
import pyarrow
import pytest
import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from stack import clients, records
from stack.isk import Isk, secret_of

# The principals, and what each rule gives them.
SECRETS = {name: secret_of(name) for name in ("lister", "reader", "both", "partial", "writer", "stranger")}
RULES = """
[[rule]]
principals = ["lister"]
tables = ["*"]
allow = "list"
[[rule]]
principals = ["reader", "both"]
tables = ["hotset.{topic}"]
allow = "read"
[[rule]]
principals = ["both"]
tables = ["coldset.{topic}"]
allow = "read"
[[rule]]
principals = ["partial"]
tables = ["*.{topic}"]
allow = "write"
[[columns]]
principals = ["partial"]
tables = ["hotset.{topic}", "coldset.{topic}"]
hide = ["kafka_key"]
[[rule]]
principals = ["writer"]
tables = ["*"]
allow = "write"
"""
OBJECTS = ("hotset", "errors", "coldset", "merged", "other")
VERBS = ("exists", "load", "keys", "plan", "commit")
# One row a principal and object, one column a verb.
NOT_KNOWN, HIDDEN = (401,) * 5, (404,) * 5
CATALOG = {
    "nobody": dict.fromkeys(OBJECTS, NOT_KNOWN),
    "wrong token": dict.fromkeys(OBJECTS, NOT_KNOWN),
    "lister": dict.fromkeys(OBJECTS, (204, 403, 403, 403, 403)),
    "reader": dict.fromkeys(OBJECTS, HIDDEN) | {"hotset": (204, 200, 200, 200, 403)},
    "both": dict.fromkeys(OBJECTS, HIDDEN)
    | {"hotset": (204, 200, 200, 200, 403), "coldset": (204, 200, 200, 406, 403), "merged": (204, 200, 200, 406, 403)},
    # Who may not see all columns sees a topic's own table, and nothing that shows records or files as they are.
    "partial": dict.fromkeys(OBJECTS, (204, 403, 403, 403, 403)) | {"hotset": (204, 200, 200, 200, 403), "other": HIDDEN},
    "writer": dict.fromkeys(OBJECTS, (204, 200, 200, 200, 403)) | {"coldset": (204, 200, 200, 406, 200), "merged": (204, 200, 200, 406, 403)},
    "stranger": dict.fromkeys(OBJECTS, HIDDEN),
}


@pytest.fixture(scope="module")
def topics(broker, lake):
    names = {object: records.create_topic(broker.bootstrap, f"matrix_{object}") for object in ("hotset", "other")}
    for name in names.values():
        records.produce(records.producer(broker.bootstrap), name, [str(n).encode() for n in range(50)])
    schema = pyarrow.schema(
        [pyarrow.field("kafka_value", pyarrow.binary()), ("kafka_partition", pyarrow.int32()), ("kafka_offset", pyarrow.int64())]
    )
    cold = lake.pyiceberg().create_table(("coldset", names["hotset"]), schema)
    cold.append(pyarrow.table({"kafka_value": [b"0"], "kafka_partition": [0], "kafka_offset": [0]}, schema))
    return names


@pytest.fixture(scope="module")
def guarded(broker, lake, topics, tmp_path_factory):
    audit = {"ISK_AUDIT_FILE": str(tmp_path_factory.mktemp("matrix") / "audit.jsonl"), "ISK_AUDIT_GATHER_SECONDS": "1"}
    with Isk.beside(broker, None, audit | lake.isk_environment(), rules=RULES.format(topic=topics["hotset"]), known=list(SECRETS)) as server:
        yield server


@pytest.fixture(scope="module")
def names(topics):
    """Namespace and table of each object."""
    table = topics["hotset"]
    return {object: (object, table) for object in OBJECTS} | {"other": ("hotset", topics["other"])}


@pytest.fixture(scope="module")
def tokens(guarded):
    known = {}
    for name, secret in SECRETS.items():
        form = {"grant_type": "client_credentials", "client_id": name, "client_secret": secret}
        known[name] = requests.post(f"{guarded.catalog_uri}/v1/oauth/tokens", data=form, timeout=10).json()["access_token"]
    return known | {"wrong token": known["reader"][:-6] + "AAAAAA"}


def ask(guarded, token, method, path, body=None):
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return requests.request(method, f"{guarded.catalog_uri}/v1/{path}", headers=headers, json=body, timeout=30)


def do(guarded, token, verb, namespace, table):
    path = f"namespaces/{namespace}/tables/{table}"
    identifier = {"namespace": [namespace], "name": table}
    return {
        "exists": lambda: ask(guarded, token, "HEAD", path),
        "load": lambda: ask(guarded, token, "GET", path),
        "keys": lambda: ask(guarded, token, "GET", f"{path}/credentials"),
        "plan": lambda: ask(guarded, token, "POST", f"{path}/plan", {}),
        "commit": lambda: ask(guarded, token, "POST", path, {"identifier": identifier, "requirements": [], "updates": []}),
    }[verb]()


def test_the_catalogs_cells(guarded, names, tokens):
    seen = {
        who: {object: tuple(do(guarded, tokens.get(who), verb, *names[object]).status_code for verb in VERBS) for object in OBJECTS}
        for who in CATALOG
    }
    assert seen == CATALOG


def test_listings_show_what_may_be_listed(guarded, topics, tokens):
    table, other = topics["hotset"], topics["other"]
    for who, expected in {
        "lister": {"hotset": {table, other}, "errors": {table, other}, "coldset": {table}, "merged": {table, other}},
        "reader": {"hotset": {table}, "errors": set(), "coldset": set(), "merged": set()},
        "partial": {"hotset": {table}, "errors": {table}, "coldset": {table}, "merged": {table}},
        "both": {"hotset": {table}, "errors": set(), "coldset": {table}, "merged": {table}},
        "stranger": {"hotset": set(), "errors": set(), "coldset": set(), "merged": set()},
    }.items():
        for namespace, tables in expected.items():
            listed = {one["name"] for one in ask(guarded, tokens[who], "GET", f"namespaces/{namespace}/tables").json()["identifiers"]}
            assert {one for one in listed if one in (table, other)} == tables, (who, namespace)


def test_everything_takes_everything(guarded, tokens):
    for who, expected in {None: 401, "reader": 403, "both": 403, "partial": 403, "lister": 200, "writer": 200}.items():
        headers = {"authorization": f"Bearer {tokens[who]}"} if who else {}
        assert requests.get(f"{guarded.catalog_uri}/metrics", headers=headers, timeout=10).status_code == expected, who
    for who, expected in {None: 401, "reader": 403, "both": 403, "lister": 403, "writer": 200}.items():
        assert ask(guarded, tokens.get(who), "GET", "coldset/namespaces").status_code == expected, who


# The gateway.


class Signer:
    """Signs as AWS does, and sends paths as they are written."""

    def __init__(self, guarded, key, secret, token=None):
        self.guarded, self.credentials = guarded, Credentials(key, secret, token)

    def headers(self, method, path, headers=None, signed_path=None):
        request = AWSRequest(method, f"{self.guarded.s3_endpoint}{signed_path or path}", headers=dict(headers or {}))
        S3SigV4Auth(self.credentials, "s3", clients.REGION).add_auth(request)
        return dict(request.headers)

    def send(self, method, path, headers=None, **more):
        return send(self.guarded, method, path, self.headers(method, path, headers, **more))


def send(guarded, method, path, headers):
    connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def vended(guarded, token, namespace, table):
    config = do(guarded, token, "load", namespace, table).json()["config"]
    return Signer(guarded, config["s3.access-key-id"], config["s3.secret-access-key"], config["s3.session-token"])


@pytest.fixture(scope="module")
def files(guarded, names, tokens):
    """A file of each object, as the path of a request; of a merged table, one of its own."""
    found = {}
    for object, (namespace, table) in names.items():
        location = do(guarded, tokens["writer"], "load", namespace, table).json()["metadata-location"]
        found[object] = "/" + location.split("://", 1)[1]
    return found


# Whose keys of which table open files of which objects.
OPENS = {
    "hotset": {"hotset"},
    "errors": {"errors"},
    "coldset": {"coldset"},
    # The files of cold are part of it.
    "merged": {"merged", "coldset"},
    "other": {"other"},
}


def test_the_gateways_cells(guarded, names, tokens, files):
    for who in SECRETS:
        for object, cells in CATALOG[who].items():
            if cells[1] != 200 or who == "partial":
                continue
            signer = vended(guarded, tokens[who], *names[object])
            for target, path in files.items():
                status = signer.send("GET", path)[0]
                assert (status == 200) == (target in OPENS[object]), (who, object, target, status)
                assert status in (200, 403), (who, object, target, status)
                assert signer.send("HEAD", path)[0] == status
                writes = [signer.send(method, f"{path}-not-there")[0] for method in ("PUT", "DELETE")]
                allowed = who == "writer" and object == target == "coldset"
                assert writes == ([200, 204] if allowed else [403, 403]), (who, object, target, writes)


def test_files_are_those_of_the_columns_that_are_seen(guarded, names, tokens, files):
    location = do(guarded, tokens["partial"], "load", *names["hotset"]).json()["metadata-location"]
    own = "/" + location.split("://", 1)[1]
    folder, whole = (path.rsplit("/", 2)[0] for path in (own, files["hotset"]))
    assert folder.startswith(f"{whole}~") and folder != whole
    for signer in (vended(guarded, tokens["partial"], *names["hotset"]), Signer(guarded, "partial", SECRETS["partial"])):
        assert signer.send("GET", own)[0] == 200
        for path in (*files.values(), own.replace(folder, f"{whole}~"), own.replace(folder, whole), own.replace("/hotset/", "/errors/"), f"{whole}~{'0' * 32}/x"):
            status, body = signer.send("GET", path)
            assert (status, b"schemas" in body) == (403, False), path
        for prefix in ("", f"{whole.split('/')[2]}/", whole.split("/")[2]):
            assert signer.send("GET", f"/hotset?list-type=2&prefix={prefix}")[0] == 403, prefix
    # Nor does anybody else find what was made for them.
    for signer in (vended(guarded, tokens["writer"], *names["hotset"]), Signer(guarded, "writer", SECRETS["writer"])):
        assert signer.send("GET", own)[0] == 403
    topic = names["hotset"][1]
    for method, who, expected in [("GET", "partial", 403), ("PUT", "partial", 403), ("DELETE", "partial", 403), ("GET", "reader", 200)]:
        headers = {"authorization": f"Bearer {tokens[who]}"}
        assert requests.request(method, f"{guarded.catalog_uri}/api/v1/topics/{topic}/schema", headers=headers, timeout=30).status_code == expected
    for suffix in ("$raw", "~json", "$unmoved"):
        answer = do(guarded, tokens["partial"], "load", "hotset", topic + suffix)
        assert answer.status_code == 403 and "own table" in answer.json()["error"]["message"], suffix


def test_own_keys_read_what_their_principal_may(guarded, files):
    may = {"lister": set(), "reader": {"hotset"}, "both": {"hotset", "merged"}, "partial": set(), "writer": set(OBJECTS), "stranger": set()}
    for who, secret in SECRETS.items():
        signer = Signer(guarded, who, secret)
        for target, path in files.items():
            assert signer.send("GET", path)[0] == (200 if target in may[who] else 403), (who, target)
        assert signer.send("PUT", files["hotset"])[0] == 403


def test_signatures_that_are_forged_replayed_or_late(guarded, names, tokens, files):
    signer, path, other = vended(guarded, tokens["reader"], *names["hotset"]), files["hotset"], files["other"]
    good = signer.headers("GET", path)
    assert send(guarded, "GET", path, good)[0] == 200
    foreign = vended(guarded, tokens["both"], *names["hotset"])
    late = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=20)).strftime("%Y%m%dT%H%M%SZ")
    payload, tag = signer.credentials.token.split(".")
    scope = json.loads(base64.urlsafe_b64decode(payload + "=="))
    wider = scope | {"p": ["s3://hotset/"], "e": scope["e"] + 10**6}
    forged = base64.urlsafe_b64encode(json.dumps(wider, separators=(",", ":")).encode()).rstrip(b"=").decode() + "." + tag
    for what, method, target, headers in [
        ("another object", "GET", other, good),
        ("another method", "DELETE", path, good),
        ("another date", "GET", path, good | {"X-Amz-Date": late}),
        ("another signature", "GET", path, good | {"Authorization": good["Authorization"][:-4] + "0000"}),
        ("another secret", "GET", path, Signer(guarded, signer.credentials.access_key, "x" * 40, signer.credentials.token).headers("GET", path)),
        ("another one's token", "GET", path, Signer(guarded, signer.credentials.access_key, signer.credentials.secret_key, foreign.credentials.token).headers("GET", path)),
        ("a wider token", "GET", other, Signer(guarded, signer.credentials.access_key, signer.credentials.secret_key, forged).headers("GET", other)),
        ("no token", "GET", path, Signer(guarded, signer.credentials.access_key, signer.credentials.secret_key).headers("GET", path)),
        ("a bearer token", "GET", path, {"Authorization": f"Bearer {tokens['reader']}"}),
        ("an unknown key", "GET", path, Signer(guarded, "nobody", SECRETS["reader"]).headers("GET", path)),
        ("nothing", "GET", path, {}),
        ("a path signed for another", "GET", other, signer.headers("GET", other, signed_path=path)),
    ]:
        status, body = send(guarded, method, target, headers)
        assert status in (400, 403), (what, status)
        assert b"PAR1" not in body and b'"schemas"' not in body, what


def test_presigned_addresses_end(guarded, names, tokens, files):
    signer = vended(guarded, tokens["reader"], *names["hotset"])
    keys = {"aws_access_key_id": signer.credentials.access_key, "aws_secret_access_key": signer.credentials.secret_key}
    config = botocore.config.Config(signature_version="s3v4", s3={"addressing_style": "path"})
    s3 = boto3.client("s3", endpoint_url=guarded.s3_endpoint, region_name=clients.REGION, config=config, aws_session_token=signer.credentials.token, **keys)
    bucket, key = files["hotset"].lstrip("/").split("/", 1)
    url = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key}, ExpiresIn=60)
    assert requests.get(url, timeout=10).status_code == 200
    date = urllib.parse.parse_qs(urllib.parse.urlparse(url).query)["X-Amz-Date"][0]
    earlier = (datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ") - datetime.timedelta(hours=1)).strftime("%Y%m%dT%H%M%SZ")
    for change in (("X-Amz-Expires=60", "X-Amz-Expires=6000"), (date, earlier), (key, files["other"].split("/", 2)[2])):
        assert requests.get(url.replace(*change), timeout=10).status_code == 403, change
    brief = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key}, ExpiresIn=1)
    time.sleep(2.5)
    assert requests.get(brief, timeout=10).status_code == 403


def test_tricks_in_paths_open_nothing(guarded, names, tokens, files):
    signer = vended(guarded, tokens["reader"], *names["hotset"])
    bucket, own, *_ = files["hotset"].lstrip("/").split("/")
    other = files["other"].split("/", 2)[2]
    before = f"/{bucket}/{own}"
    fullwidth = urllib.parse.quote("．．")
    for path in [
        f"{before}/../{other}",
        f"{before}/%2e%2e/{other}",
        f"{before}/.%2e/{other}",
        f"{before}/%2E%2E%2F{other}",
        f"{before}/..%2f{other}",
        f"{before}/%252e%252e/{other}",
        f"{before}/./../{other}",
        f"{before}//../{other}",
        f"{before}%2f..%2f{other}",
        f"{before}/..\\{other}",
        f"{before}/%5c..%5c{other}",
        f"{before}/{fullwidth}/{other}",
        f"{before}/%c0%ae%c0%ae/{other}",
        f"{before}%00/../{other}",
        f"{before}/metadata/..;/{other}",
        f"/{bucket}/{other}",
        f"/{bucket}//{other}",
        f"//{bucket}/{other}",
        f"/{bucket}/%2f{other}",
        f"/{bucket}/./{other}",
        f"/{bucket}%2f{other}",
        f"/{bucket.upper()}/{other}",
        f"/./{bucket}/{other}",
        f"{before}/../../errors/{own}",
    ]:
        for answer in (signer.send("GET", path), signer.send("GET", path, signed_path=files["hotset"])):
            status, body = answer
            assert status in (400, 403, 404), (path, status)
            assert b'"schemas"' not in body, path
    # The same of the catalog: a name with a slash or dots is another name.
    for name in ("..", "%2e%2e", "x%2f..%2f" + names["other"][1], names["other"][1] + "%00", "." + names["other"][1]):
        path = f"namespaces/hotset/tables/{name}"
        connection = http.client.HTTPConnection("127.0.0.1", guarded.catalog_port, timeout=10)
        connection.request("GET", f"/v1/{path}", headers={"authorization": f"Bearer {tokens['reader']}"})
        assert connection.getresponse().status in (400, 404), name
        connection.close()


def test_the_audit_log_tells_who_did_what(guarded, names, tokens, files):
    audit = pathlib.Path(guarded.environment()["ISK_AUDIT_FILE"])
    begin = len(audit.read_text().splitlines())
    namespace, table = names["hotset"]
    do(guarded, tokens["reader"], "load", namespace, table)
    do(guarded, tokens["stranger"], "load", namespace, table)
    do(guarded, None, "plan", namespace, table)
    do(guarded, tokens["writer"], "commit", *names["coldset"])
    signer = vended(guarded, tokens["reader"], namespace, table)
    for _ in range(50):
        assert signer.send("GET", files["hotset"])[0] == 200
    signer.send("GET", files["other"])
    send(guarded, "GET", files["hotset"], signer.headers("GET", files["hotset"]) | {"Authorization": "AWS4-HMAC-SHA256 x"})
    time.sleep(2.5)
    lines = [json.loads(line) for line in audit.read_text().splitlines()[begin:]]
    seen = {(line["principal"], line["action"], *line["tables"], line["decision"], line["status"]) for line in lines}
    whole = f"hotset.{table}"
    for expected in [
        ("reader", "load", whole, "allowed", 200),
        ("stranger", "load", whole, "denied", 404),
        (None, "plan", whole, "denied", 401),
        ("writer", "commit", f"coldset.{table}", "allowed", 200),
        ("reader", "read object", whole, "allowed", 200),
        ("reader", "read object", whole, "denied", 403),
    ]:
        assert expected in seen, (expected, seen)
    assert any(line["principal"] is None and line["action"] == "read object" and line["decision"] == "denied" for line in lines)
    reads = [line for line in lines if line["action"] == "read object" and line["status"] == 200]
    assert sum(line["requests"] for line in reads) == 50 and len(reads) < 10
    assert all(line["from"] == "127.0.0.1" and line["at"].endswith("Z") for line in lines)
    text = audit.read_text()
    for secret in (*SECRETS.values(), *(tokens[who] for who in SECRETS), signer.credentials.secret_key, signer.credentials.token):
        assert secret not in text
