"""A proxy before an object store that lies, stalls or goes away, from some object of a scan on."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import random
import threading
import time
import urllib.parse
from collections.abc import Callable

HEADS = {"connection", "content-length", "transfer-encoding"}


class Liar:
    """`url` stands for `upstream`. All is passed on as it came, the signed name of the host as well, until `lie`."""

    def __init__(self, upstream: str) -> None:
        parts = urllib.parse.urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self.mood = self.of = ""
        self.after = self.told = 0
        self._lock = threading.Lock()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def lie(self, mood: str | Callable[[], None], of: str = "", after: int = 0) -> None:
        """What is said of objects whose path has `of` in it, once so many of them were passed on. A function is called, once."""
        with self._lock:
            self.mood, self.of, self.after, self.told = mood, of, after, 0

    def be_honest(self) -> int:
        """How many lies were told."""
        with self._lock:
            self.mood = ""
            return self.told

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _mood(self, path: str) -> str:
        """The mood for this request."""
        with self._lock:
            if not self.mood or self.of not in path:
                return ""
            if self.after:
                self.after -= 1
                return ""
            self.told += 1
            if callable(self.mood):
                act, self.mood = self.mood, "dead"
                act()
            return self.mood

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        liar = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                mood = liar._mood(self.path)
                length = int(self.headers.get("Content-Length", 0))
                sent = self.rfile.read(length) if length else None
                if mood == "dead":
                    self.close_connection = True
                    return
                if mood == "slow":
                    time.sleep(4)
                if mood == "late":
                    time.sleep(random.uniform(0, 0.5))
                with contextlib.closing(http.client.HTTPConnection(*liar._upstream, timeout=30)) as real:
                    try:
                        real.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                        for name, value in self.headers.items():
                            real.putheader(name, value)
                        real.endheaders(sent)
                        answer = real.getresponse()
                        body = answer.read()
                    except (OSError, http.client.HTTPException):
                        self.close_connection = True
                        return
                status, headers = answer.status, [(n, v) for n, v in answer.getheaders() if n.lower() not in HEADS]
                promised = int(answer.headers.get("Content-Length", 0)) if self.command == "HEAD" else len(body)
                if mood == "broken":
                    status, body = 500, b""
                elif mood == "absent":
                    status, body = 404, b"<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>"
                elif mood == "html":
                    status, body = 200, b"<html>please log in</html>"
                    headers = [("Content-Type", "text/html")]
                elif mood == "another range":
                    headers = [(n, f"bytes 4-{4 + len(body) - 1}/999999" if n.lower() == "content-range" else v) for n, v in headers]
                elif mood == "less":
                    body = body[: len(body) // 2]
                if mood and mood != "cut" and self.command != "HEAD":
                    promised = len(body)
                with contextlib.suppress(OSError):
                    self.send_response_only(status)
                    for name, value in headers:
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(promised))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(body[: len(body) // 2] if mood == "cut" else body)
                    if mood == "cut":
                        self.close_connection = True

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

            def log_message(self, *_: object) -> None:
                pass

        return Handler
