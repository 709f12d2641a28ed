"""Two services with data folders of their own and one folder that they share, behind balancers that ask them by turns."""

from __future__ import annotations

import contextlib
import itertools
import socket
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from .isk import Isk
from .kafka import Broker
from .registry import Registry
from .relay import Relay


class Balancer(Relay):
    """Hands each connection to the next of its upstreams, and to another where that one is gone."""

    def __init__(self, *upstreams: str) -> None:
        self._turns = itertools.cycle(upstreams)
        self._all = len(upstreams)
        super().__init__(upstreams[0])

    def _connect(self):
        for _ in range(self._all):
            parts = urllib.parse.urlsplit(next(self._turns))
            with contextlib.suppress(OSError):
                return socket.create_connection((parts.hostname, parts.port))
        raise OSError("nobody answers")


class Replica(Isk):
    """No secret is configured: replicas share the one that they make."""

    def environment(self):
        return {key: value for key, value in super().environment().items() if key != "ISK_S3_SECRET_ACCESS_KEY"}


class Replicas:
    """To clients they are one service. `restart` restarts one of them, by turns."""

    tls = None

    def __init__(self, broker: Broker, registry: Registry | None, shared: Path, env: Mapping[str, str] | None = None) -> None:
        self.both = [Replica.beside(broker, registry, {"ISK_SHARED_DIR": str(shared)} | dict(env or {})) for _ in range(2)]
        self._turns = itertools.cycle(self.both)

    def __enter__(self) -> Replicas:
        with contextlib.ExitStack() as stack:
            s3 = stack.enter_context(contextlib.closing(Balancer(*(isk.s3_endpoint for isk in self.both))))
            catalog = stack.enter_context(contextlib.closing(Balancer(*(isk.catalog_uri for isk in self.both))))
            self.s3_endpoint, self.catalog_uri = s3.url, catalog.url
            for isk in self.both:
                isk.env["ISK_EXTERNAL_URL"] = s3.url
                stack.enter_context(isk)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def restart(self) -> None:
        next(self._turns).restart()
