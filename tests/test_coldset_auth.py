"""The upstream wants to know who asks, and speaks TLS: tokens, signatures and certificates, each judged by code that nobody here wrote."""

import time

import pyarrow
import pytest
import requests
from stack.gate import Gate, anonymous, bearer, sigv4
from stack.isk import Isk
from stack.keycloak import TOKEN_SECONDS, Keycloak
from stack.lake import Lake
from stack.process import start_together
from stack.tls import Authority

CATALOG = "ISK_COLDSET_CLIENT_"
ROWS = pyarrow.table({"n": pyarrow.array(range(1000), pyarrow.int64())})
REGION, SERVICE = "eu-central-1", "s3tables"
KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def upstream(authority):
    """A lake of its own, whose store also speaks TLS, with a table whose name has to be escaped in a path."""
    with Lake(authority) as servers:
        catalog = servers.pyiceberg()
        catalog.create_namespace("coldset")
        catalog.create_table("coldset.a table+1", schema=ROWS.schema).append(ROWS)
        yield servers


@pytest.fixture
def serve(broker, upstream, authority):
    """The service over the upstream behind a gate, with these settings of the coldset's."""
    started = []

    def start(uri, **settings):
        environment = upstream.isk_environment() | {CATALOG + "URI": uri}
        environment |= {name if name.startswith("ISK_") else CATALOG + name: str(value) for name, value in settings.items()}
        started.append(Isk.beside(broker, None, environment).start())
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def keycloak():
    with Keycloak() as server:
        yield server


def check(isk):
    """Lists, reads and commits through the service."""
    uri = f"{isk.catalog_uri}/v1/namespaces/coldset/tables"
    assert [table["name"] for table in requests.get(uri).json()["identifiers"]] == ["a table+1"]
    from stack import clients

    table = clients.pyiceberg_catalog(isk.catalog_uri).load_table("coldset.a table+1")
    before = len(table.scan().to_arrow())
    table.append(ROWS)
    assert len(table.refresh().scan().to_arrow()) == before + 1000


def refusal(isk):
    answer = requests.get(f"{isk.catalog_uri}/v1/namespaces/coldset/tables/t")
    return answer.status_code, answer.json()["error"]["message"]


def test_who_asks_without_credentials_says_nothing_of_themselves(upstream, serve):
    with Gate(upstream.catalog_uri, anonymous) as gate:
        check(serve(gate.url))
        assert gate.passed > 5 and not gate.refused


def test_a_token_is_shown_as_it_was_given(upstream, serve, keycloak):
    with Gate(upstream.catalog_uri, bearer(keycloak.introspection, keycloak.judge, keycloak.judge_secret)) as gate:
        token = keycloak.steady_token()
        isk = serve(gate.url, TOKEN=token)
        check(isk)
        assert gate.passed > 5 and not gate.refused
        assert token not in isk.log_text()
        wrong = serve(gate.url, TOKEN=token[:-8])
        status, message = refusal(wrong)
        assert status >= 400 and "coldset's credentials" in message, (status, message)
        assert token[:-8] not in wrong.log_text() + message


def test_a_catalogs_own_token_endpoint_serves_where_no_other_is_named(upstream, serve):
    def judge(method, path, headers, _body):
        if path == "/v1/oauth/tokens" and method == "POST":
            return None
        # What the upstream's own endpoint gives out.
        return None if headers.get("Authorization", "").startswith("Bearer client-credentials-token:") else "there is no token of the upstream's own"

    with Gate(upstream.catalog_uri, judge) as gate:
        check(serve(gate.url, CREDENTIAL="user:12345"))
        assert gate.passed > 5 and not gate.refused


@pytest.mark.parametrize("told", ["by the catalog", "by the configuration"])
def test_a_warehouse_has_its_prefix(upstream, serve, told):
    """A catalog of several warehouses, each below a prefix of its own."""
    prefixes = {"s3://lake/a b?": "main%7Ca%20b"} | ({"": ""} if told == "by the configuration" else {})
    with Gate(upstream.catalog_uri, prefixes=prefixes) as gate:
        named = {"WAREHOUSE": "s3://lake/a b?"} if told == "by the catalog" else {"PREFIX": "main%7Ca%20b"}
        check(serve(gate.url, **named))
        assert gate.passed > 5 and not gate.refused
        other = serve(gate.url, WAREHOUSE="other")
        status, message = refusal(other)
        assert status >= 400 and "coldset.warehouse" in message, (status, message)
        assert gate.refused


def test_tokens_of_a_real_server_are_fetched_and_renewed(upstream, serve, keycloak):
    with Gate(upstream.catalog_uri, bearer(keycloak.introspection, keycloak.judge, keycloak.judge_secret)) as gate:
        assert requests.get(f"{gate.url}/v1/config").status_code == 401
        gate.refused.clear()
        isk = serve(gate.url, CREDENTIAL=f"{keycloak.client}:{keycloak.secret}", **{"OAUTH2-SERVER-URI": keycloak.token_uri})
        check(isk)
        # The first token is over, and the service has noticed it by itself: nothing was refused.
        time.sleep(TOKEN_SECONDS + 1)
        check(isk)
        assert gate.passed > 5 and not gate.refused
        wrong = serve(gate.url, CREDENTIAL=f"{keycloak.client}:mistyped", **{"OAUTH2-SERVER-URI": keycloak.token_uri})
        status, message = refusal(wrong)
        assert status == 403 and "gave no token" in message and "coldset.credential" in message, (status, message)
        assert "mistyped" not in wrong.log_text() + message
        assert keycloak.secret not in isk.log_text()


def test_signatures_are_those_of_awss_own_library(upstream, serve):
    with Gate(upstream.catalog_uri, sigv4(KEY, SECRET, REGION, SERVICE)) as gate:
        signing = {"REST_SIGV4-ENABLED": "true", "REST_SIGNING-REGION": REGION, "REST_SIGNING-NAME": SERVICE, "REST_ACCESS-KEY-ID": KEY}
        isk = serve(gate.url, **signing, **{"REST_SECRET-ACCESS-KEY": SECRET})
        check(isk)
        assert gate.passed > 5 and not gate.refused
        wrong = serve(gate.url, **signing, **{"REST_SECRET-ACCESS-KEY": SECRET[:-1]})
        assert refusal(wrong)[0] >= 400
        assert set(gate.refused) == {"the signature is another one"}


def test_catalog_and_store_speak_tls_under_a_private_authority(upstream, authority, serve):
    with Gate(upstream.catalog_uri, tls=authority.context) as gate:
        secure = {"S3_ENDPOINT": upstream.store.secure_endpoint}
        isk = serve(gate.url, ISK_COLDSET_CA_FILE=authority.ca_file, **secure)
        check(isk)
        assert gate.passed > 5
        # Without the authority's certificate neither is believed, and it is said why.
        stranger = serve(gate.url, **secure)
        status, message = refusal(stranger)
        assert status >= 500 and "certificate" in message.lower(), (status, message)
