"""Versity's S3 gateway over a folder: a store that gives bytes as fast as a disk's cache does, for the benchmark alone.

It is built from its Go module, which wants Go.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from . import cache, clients
from .process import Server, free_port
from .versions import VERSIONS

MODULE = "github.com/versity/versitygw/cmd/versitygw"


def binary() -> Path:
    return cache.root() / "versitygw" / VERSIONS["versitygw"]["version"] / "versitygw"


def install() -> None:
    """Builds it, once."""
    if binary().exists():
        return
    if not shutil.which("go"):
        raise RuntimeError("the benchmark's object store is built from a Go module: install Go 1.25 or newer")
    scratch = cache.root() / "versitygw" / "go"
    own = {"GOBIN": str(binary().parent), "GOPATH": str(scratch), "GOCACHE": str(scratch / "cache"), "GOFLAGS": "-modcacherw"}
    subprocess.run(["go", "install", f"{MODULE}@v{VERSIONS['versitygw']['version']}"], env=os.environ | own, check=True)
    shutil.rmtree(scratch)


class VersityGateway(Server):
    """Objects of one bucket are files of one folder."""

    name = "versitygw"

    def __init__(self, bucket: str) -> None:
        super().__init__()
        self.bucket = bucket
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.access_key, self.secret_key = "lake-access-key", "lake-secret-key"

    def prepare(self) -> None:
        (self.work / "objects" / self.bucket).mkdir(parents=True)

    def command(self) -> list[str]:
        return [str(binary()), "--port", f"127.0.0.1:{self.port}", "--quiet", "--keep-alive", "posix", str(self.work / "objects")]

    def environment(self) -> dict[str, str]:
        return {"ROOT_ACCESS_KEY_ID": self.access_key, "ROOT_SECRET_ACCESS_KEY": self.secret_key}

    def is_ready(self) -> bool:
        try:
            self.boto3().head_bucket(Bucket=self.bucket)
        except Exception:  # noqa: BLE001 - whatever the client says of a server that is not there yet
            return False
        return True

    def boto3(self):
        return clients.boto3_client(self.endpoint, self.access_key, self.secret_key)
