"""nginx as a plain reverse proxy, for the benchmark: what any server costs that stands between a client and a store on one machine."""

from __future__ import annotations

import shutil
import socket

from .process import Server, free_port

CONFIGURATION = """
daemon off;
worker_processes {workers};
pid {work}/pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  upstream store {{ server {upstream}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://store;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      # Nothing through files, and as much at once as the store gives.
      proxy_max_temp_file_size 0;
      proxy_buffers 16 64k; proxy_buffer_size 64k; proxy_busy_buffers_size 512k;
    }}
  }}
}}
"""


def installed() -> bool:
    return shutil.which("nginx") is not None


class Nginx(Server):
    """Passes all on to `upstream`, `host:port`."""

    name = "nginx"

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self.upstream = upstream
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        text = CONFIGURATION.format(work=self.work, upstream=self.upstream, port=self.port, workers=2)
        (self.work / "nginx.conf").write_text(text)

    def command(self) -> list[str]:
        return [shutil.which("nginx"), "-e", str(self.work / "error.log"), "-c", str(self.work / "nginx.conf")]

    def is_ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
