"""A small HTTP proxy that a test puts before a real server, to change its answers, to note its questions, or to be gone."""

import contextlib
import http.server
import threading
import urllib.parse
from collections.abc import Callable

import requests

Answer = tuple[int, str, bytes]


class Proxy:
    """Passes GET and HEAD on. `url` stands for `upstream`; `asked` holds paths and queries as they came.

    `rewrite` gets a path and the body that upstream answered with, and gives the body to send. `instead` names parts of
    paths and what upstream is asked for in their place.
    """

    def __init__(self, upstream: str, rewrite: Callable[[str, bytes], bytes] | None = None) -> None:
        parts = urllib.parse.urlsplit(upstream)
        self.upstream = f"{parts.scheme}://{parts.netloc}"
        self.rewrite = rewrite
        self.instead: dict[str, str] = {}
        self.asked: list[str] = []
        self._port = 0
        self._server: http.server.HTTPServer | None = None
        self.resume()
        self.url = f"http://127.0.0.1:{self._port}{parts.path}"

    def answer(self, path: str) -> Answer:
        """Status, content type and body."""
        asked = path
        for part, other in self.instead.items():
            asked = asked.replace(part, other)
        real = requests.get(self.upstream + asked, timeout=30)
        body = self.rewrite(path, real.content) if self.rewrite else real.content
        return real.status_code, real.headers.get("Content-Type", ""), body

    def refuse(self) -> None:
        """From here on connections are refused. What was accepted is answered."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def resume(self) -> None:
        """Listens again, on the same port."""
        if self._server is None:
            self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
            self._server.daemon_threads = True
            self._port = self._server.server_port
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.refuse()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                proxy.asked.append(self.path)
                status, kind, body = proxy.answer(self.path)
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        return Handler
