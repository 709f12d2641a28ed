"""A gate before a catalog that asks nobody who they are: each request is judged by somebody else's code, and the gate speaks TLS if told to.

It may also be a catalog of several warehouses: then each has a prefix in all paths, as in Polaris and Nessie.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Mapping

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import requests

# The method, the path with its query, the headers and the body: why it is refused, or None.
Judge = Callable[[str, str, Mapping[str, str], bytes], str | None]

HOP_BY_HOP = {"connection", "content-length", "host", "transfer-encoding", "accept-encoding", "content-encoding"}


class Gate:
    """`url` stands for `upstream`. What `judge` lets pass goes on and is counted in `passed`; why others did not is kept in `refused`.

    With `prefixes`, the configuration tells each warehouse its prefix, and all else is found below that of one of them.
    """

    def __init__(
        self, upstream: str, judge: Judge | None = None, tls: ssl.SSLContext | None = None, prefixes: Mapping[str, str] | None = None
    ) -> None:
        self.upstream = upstream
        self.judge = judge
        self.prefixes = dict(prefixes or {})
        self.passed = 0
        self.refused: list[str] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def beyond(self, path: str) -> str | None:
        """The path that the upstream knows; None where there is no such warehouse."""
        if not self.prefixes or _warehouse(path) in self.prefixes:
            return path
        for prefix in self.prefixes.values():
            if path.startswith(f"/v1/{prefix}/"):
                return path.replace(f"{prefix}/", "", 1)
        return None

    def configured(self, path: str, answer: bytes) -> bytes:
        """The configuration with the warehouse's prefix; any other answer as it is."""
        prefix = self.prefixes.get(_warehouse(path))
        if not prefix:
            return answer
        config = json.loads(answer)
        return json.dumps(config | {"overrides": config.get("overrides", {}) | {"prefix": prefix}}).encode()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        gate = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                why = gate.judge(self.command, self.path, self.headers, body) if gate.judge else None
                if why:
                    return self.refuse(401, "NotAuthorizedException", why)
                path = gate.beyond(self.path)
                if path is None:
                    return self.refuse(404, "NotFoundException", f"no warehouse has {self.path}")
                gate.passed += 1
                headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP | {"authorization"}}
                real = requests.request(self.command, gate.upstream + path, headers=headers, data=body, timeout=30)
                self.send(real.status_code, real.headers, gate.configured(self.path, real.content))

            do_GET = do_HEAD = do_POST = do_DELETE = do

            def refuse(self, status: int, kind: str, why: str) -> None:
                gate.refused.append(why)
                error = {"error": {"message": why, "type": kind, "code": status}}
                self.send(status, {"Content-Type": "application/json"}, json.dumps(error).encode())

            def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    for name, value in headers.items():
                        if name.lower() not in HOP_BY_HOP:
                            self.send_header(name, value)
                    if status != 204:
                        self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _warehouse(path: str) -> str | None:
    """The warehouse whose configuration is asked for."""
    url = urllib.parse.urlsplit(path)
    return urllib.parse.parse_qs(url.query).get("warehouse", [""])[0] if url.path == "/v1/config" else None


def anonymous(_method: str, _path: str, headers: Mapping[str, str], _body: bytes) -> str | None:
    """Refuses whoever says who they are."""
    said = {"authorization", "x-amz-date", "cookie"} & {name.lower() for name in headers}
    return f"it says who it is: {said}" if said else None


def sigv4(key: str, secret: str, region: str, service: str) -> Judge:
    """Signs what came once more, with AWS's own library, and compares."""
    signer = botocore.auth.SigV4Auth(botocore.credentials.Credentials(key, secret), service, region)

    def judge(method: str, path: str, headers: Mapping[str, str], body: bytes) -> str | None:
        scheme, _, rest = headers.get("Authorization", "").partition(" ")
        if scheme != "AWS4-HMAC-SHA256":
            return "the request is not signed"
        claims = dict(part.strip().split("=", 1) for part in rest.split(","))
        if claims["Credential"] != f"{key}/{headers['X-Amz-Date'][:8]}/{region}/{service}/aws4_request":
            return f"signed by another key or for another service: {claims['Credential']}"
        digest = hashlib.sha256(body).hexdigest()
        if headers.get("X-Amz-Content-Sha256", digest) not in (digest, "UNSIGNED-PAYLOAD"):
            return "the digest is not the body's"
        signed = {name: headers[name] for name in claims["SignedHeaders"].split(";")}
        if not {"host", "x-amz-date"} <= signed.keys():
            return "host and date are not signed"
        request = botocore.awsrequest.AWSRequest(method, f"http://{headers['Host']}{path}", signed, body)
        request.context["timestamp"] = headers["X-Amz-Date"]
        again = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        return None if again == claims["Signature"] else "the signature is another one"

    return judge


def bearer(introspection: str, client: str, secret: str) -> Judge:
    """Asks the server that gave the token whether it is good (RFC 7662)."""
    own = base64.b64encode(f"{client}:{secret}".encode()).decode()

    def judge(_method: str, _path: str, headers: Mapping[str, str], _body: bytes) -> str | None:
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer":
            return "there is no token"
        answer = requests.post(introspection, data={"token": token}, headers={"Authorization": f"Basic {own}"}, timeout=10)
        answer.raise_for_status()
        return None if answer.json()["active"] else "the token is not good, or not any more"

    return judge
