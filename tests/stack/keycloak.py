"""Keycloak, which gives tokens to clients (OAuth2's client credentials) and says which are good."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from . import cache, jdk, maven
from .process import Server, free_port, http_ok
from .versions import VERSIONS

REALM = "lake"
TOKEN_SECONDS = 4
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
    """One realm: a client that asks for tokens, one whose tokens are good for an hour, and one that asks which are good."""

    name = "keycloak"
    start_seconds = 180.0

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        self.client, self.secret = "isk", "s3cret:with/signs&="
        self.steady = "steady"
        self.judge, self.judge_secret = "gate", "another secret"
        protocol = f"http://127.0.0.1:{self.port}/realms/{REALM}/protocol/openid-connect"
        self.token_uri, self.introspection = f"{protocol}/token", f"{protocol}/token/introspect"

    def prepare(self) -> None:
        # It writes beside its own jars while it starts.
        shutil.copytree(unpacked(), self.work / "home", copy_function=_link_or_copy)
        clients = [
            {"clientId": name, "secret": secret, "serviceAccountsEnabled": True, "standardFlowEnabled": False}
            for name, secret in ((self.client, self.secret), (self.steady, self.secret), (self.judge, self.judge_secret))
        ]
        clients[1]["attributes"] = {"access.token.lifespan": str(STEADY_SECONDS)}
        # Who is asked about a token answers only whom the token was meant for.
        audience = {"included.client.audience": self.judge, "access.token.claim": "true", "introspection.token.claim": "true"}
        mapper = {"name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper", "config": audience}
        for client in clients[:2]:
            client["protocolMappers"] = [mapper]
        realm = {"realm": REALM, "enabled": True, "sslRequired": "none", "accessTokenLifespan": TOKEN_SECONDS, "clients": clients}
        folder = self.work / "home" / "data" / "import"
        folder.mkdir(parents=True)
        (folder / "realm.json").write_text(json.dumps(realm))

    def command(self) -> list[str]:
        options = ("--http-host=127.0.0.1", f"--http-port={self.port}", "--import-realm", "--cache=local", "--log-level=warn")
        return ["bash", str(self.work / "home" / "bin" / "kc.sh"), "start-dev", *options]

    def environment(self) -> dict[str, str]:
        return {"JAVA_HOME": str(jdk.home("keycloak")), "JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx512m", "JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1"}

    def steady_token(self) -> str:
        """A token that outlives the tests."""
        import requests

        form = {"grant_type": "client_credentials", "client_id": self.steady, "client_secret": self.secret}
        answer = requests.post(self.token_uri, data=form, timeout=30)
        answer.raise_for_status()
        return answer.json()["access_token"]

    def is_ready(self) -> bool:
        return http_ok(f"http://127.0.0.1:{self.port}/realms/{REALM}")


def _link_or_copy(source: str, target: str) -> str:
    """Jars take no place twice."""
    if source.endswith(".jar"):
        Path(target).symlink_to(source)
        return target
    return shutil.copy2(source, target)
