"""Keycloak, which gives tokens to clients (OAuth2's client credentials) and says which are good."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from . import cache, jdk, maven
from .process import Server, free_port, http_ok
from .tls import Authority
from .versions import VERSIONS

REALM = "lake"
TOKEN_SECONDS = 4
KAFKA = "kafka"
ADMIN = "keeper"
STEADY_SECONDS = 3600


def unpacked() -> Path:
    return cache.root() / "keycloak" / VERSIONS["keycloak"]["server"]


def install() -> None:
    """Unpacks the distribution, once."""
    folder = unpacked()
    if folder.exists():
        return
    (archive,) = maven.classpath("keycloak")
    scratch = folder.with_suffix(".part")
    shutil.rmtree(scratch, ignore_errors=True)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(scratch)
    (inner,) = scratch.iterdir()
    inner.rename(folder)
    scratch.rmdir()


class Keycloak(Server):
    """One realm: a client that asks for tokens, one whose tokens are good for an hour, and one that asks which are good.

    Tokens of the first two are meant for that one, and for brokers. With an authority it speaks TLS, too: `secure_token_uri`.
    """

    name = "keycloak"
    start_seconds = 180.0

    def __init__(self, authority: Authority | None = None) -> None:
        super().__init__()
        self.port = free_port()
        self.authority, self.secure_port = authority, free_port()
        self.client, self.secret = "isk", "s3cret:with/signs&="
        self.steady = "steady"
        self.judge, self.judge_secret = "gate", "another secret"
        path = f"/realms/{REALM}/protocol/openid-connect"
        protocol = f"http://127.0.0.1:{self.port}{path}"
        self.token_uri, self.introspection, self.keys = f"{protocol}/token", f"{protocol}/token/introspect", f"{protocol}/certs"
        # It calls itself as it is called.
        self.secure_issuer = f"https://127.0.0.1:{self.secure_port}/realms/{REALM}"
        self.secure_token_uri = f"https://127.0.0.1:{self.secure_port}{path}/token"

    def prepare(self) -> None:
        # It writes beside its own jars while it starts.
        shutil.copytree(unpacked(), self.work / "home", copy_function=_link_or_copy)
        clients = [
            {"clientId": name, "secret": secret, "serviceAccountsEnabled": True, "standardFlowEnabled": False}
            for name, secret in ((self.client, self.secret), (self.steady, self.secret), (self.judge, self.judge_secret))
        ]
        clients[1]["attributes"] = {"access.token.lifespan": str(STEADY_SECONDS)}
        # Who is asked about a token answers only whom the token was meant for.
        meant = [{"included.client.audience": self.judge, "access.token.claim": "true", "introspection.token.claim": "true"}]
        meant.append({"included.custom.audience": KAFKA, "access.token.claim": "true"})
        mapper = {"protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper"}
        for client in clients[:2]:
            client["protocolMappers"] = [mapper | {"name": f"audience {n}", "config": audience} for n, audience in enumerate(meant)]
        realm = {"realm": REALM, "enabled": True, "sslRequired": "none", "accessTokenLifespan": TOKEN_SECONDS, "clients": clients}
        folder = self.work / "home" / "data" / "import"
        folder.mkdir(parents=True)
        (folder / "realm.json").write_text(json.dumps(realm))

    def command(self) -> list[str]:
        options = ("--http-host=127.0.0.1", f"--http-port={self.port}", "--import-realm", "--cache=local", "--log-level=warn")
        if self.authority:
            certificate, key = self.authority.issue("keycloak")
            options += (f"--https-port={self.secure_port}", f"--https-certificate-file={certificate}", f"--https-certificate-key-file={key}")
        return ["bash", str(self.work / "home" / "bin" / "kc.sh"), "start-dev", *options]

    def environment(self) -> dict[str, str]:
        own = {"JAVA_HOME": str(jdk.home("keycloak")), "JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx512m", "JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1"}
        return own | {"KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN, "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN}

    def steady_token(self) -> str:
        """A token that outlives the tests."""
        import requests

        form = {"grant_type": "client_credentials", "client_id": self.steady, "client_secret": self.secret}
        answer = requests.post(self.token_uri, data=form, timeout=30)
        answer.raise_for_status()
        return answer.json()["access_token"]

    def set_secret(self, client: str, secret: str) -> None:
        """Another secret for a client; the one before is not good any more."""
        import requests

        base = f"http://127.0.0.1:{self.port}"
        form = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN, "password": ADMIN}
        answer = requests.post(f"{base}/realms/master/protocol/openid-connect/token", data=form, timeout=30)
        answer.raise_for_status()
        known = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        clients = f"{base}/admin/realms/{REALM}/clients"
        answer = requests.get(clients, params={"clientId": client}, headers=known, timeout=30)
        answer.raise_for_status()
        (found,) = answer.json()
        requests.put(f"{clients}/{found['id']}", json=found | {"secret": secret}, headers=known, timeout=30).raise_for_status()

    def is_ready(self) -> bool:
        return http_ok(f"http://127.0.0.1:{self.port}/realms/{REALM}")


def _link_or_copy(source: str, target: str) -> str:
    """Jars take no place twice."""
    if source.endswith(".jar"):
        Path(target).symlink_to(source)
        return target
    return shutil.copy2(source, target)
