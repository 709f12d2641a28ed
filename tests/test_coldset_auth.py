"""The upstream wants to know who asks, and speaks TLS: tokens, signatures and certificates, each judged by code that nobody here wrote."""

import time

import pyarrow
import pytest
import requests
from stack.gate import Gate, bearer, sigv4
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


def test_tokens_of_a_real_server_are_fetched_and_renewed(upstream, serve):
    with Keycloak() as keycloak, Gate(upstream.catalog_uri, bearer(keycloak.introspection, keycloak.judge, keycloak.judge_secret)) as gate:
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
