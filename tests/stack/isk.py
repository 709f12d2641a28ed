"""The service under test: `isk serve` on free ports."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .kafka import Broker
from .process import Server, free_port, http_ok, work_root
from .registry import Registry
from .versions import TESTS

BUILT = TESTS.parent / "target" / "release" / "isk"


def binary() -> Path:
    """The binary to test: $ISK_BIN, or the release build of this tree."""
    path = Path(os.environ.get("ISK_BIN") or BUILT)
    if not path.exists():
        raise RuntimeError(f"{path} is missing: run `make build`, or set ISK_BIN")
    return path


def with_another_profile() -> Path:
    """The binary as its successor would be that writes files in another way: its profile's name and the name in its files are
    other ones of the same length. All else is the same, so that only this can tell the two apart.
    """
    made = work_root() / "isk-successor"
    if not made.exists():
        code = binary().read_bytes()
        # The one empty file of deletes is the same in all versions.
        for old, new in ((rb"render-profile ", b"render-profilf "), (rb"isk-render version (?!1\.0\.0)", b"isk-rendes version ")):
            code, times = re.subn(old, new, code)
            assert times == 1, f"{binary()} names {old} {times} times"
        made.write_bytes(code)
        made.chmod(0o755)
    return made


def secret_of(name: str) -> str:
    """What a principal `name` shows that a service knows by its `known`."""
    return f"secret-of-{name}-0123456789"


class Isk(Server):
    """`env` and `arguments` are added to what chooses ports, keys and the data folder, and win over it.

    With `rules`, the text of an access file (kept at `access`), it asks who comes in. Those `known` have their `secret_of` as OAuth2
    clients and as API keys, and beside their own name as S3 keys.

    `catalog_uri`, `s3_endpoint`, `access_key` and `secret_key` are what clients are given. `tls` is what to trust, where the
    settings make it speak TLS. `binary` says which program it is from its next start on.
    """

    name = "isk"
    start_seconds = 30.0
    # It is what is tested.
    ends_politely = True

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        rules: str = "",
        known: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.tls = tls
        scheme = "https" if tls else "http"
        self.port = free_port()
        self.catalog_port = free_port()
        self.s3_endpoint = f"{scheme}://127.0.0.1:{self.port}"
        self.catalog_uri = f"{scheme}://127.0.0.1:{self.catalog_port}"
        self.access_key = "test-access-key"
        self.secret_key = "test-secret-key"
        self.env = dict(env or {})
        self.arguments = list(arguments)
        self.binary = binary
        self.access = self.work / "access.toml"
        if rules:
            self.env["ISK_AUTH_ACCESS_FILE"] = str(self.access)
            self.env |= {f"SECRET_OF_{name.upper()}": secret_of(name) for name in known}
            self.access.write_text(rules + "".join(map(_principal, known)))

    @classmethod
    def beside(cls, broker: Broker, registry: Registry | None, env: Mapping[str, str] | None = None, **more: Any) -> Isk:
        """One that reads this broker and registry; `more` is what `Isk` takes."""
        upstream = {"ISK_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap}
        if registry:
            upstream["ISK_REGISTRY_URL"] = registry.url
        return cls(upstream | dict(env or {}), **more)

    def command(self) -> list[str]:
        return [str(self.binary()), "serve", *self.arguments]

    def environment(self) -> dict[str, str]:
        own = {
            "ISK_PORT": str(self.port),
            "ISK_CATALOG_PORT": str(self.catalog_port),
            "ISK_DATA_DIR": str(self.work / "data"),
            # Tests count the records that are fetched.
            "ISK_PROVER_SAMPLE_AHEAD": "false",
        }
        # One that asks who comes in has no key for everything.
        if not self.env.keys() & {"ISK_AUTH_ACCESS_FILE", "ISK_AUTH_CREDENTIALS_FILE"}:
            own |= {"ISK_S3_ACCESS_KEY_ID": self.access_key, "ISK_S3_SECRET_ACCESS_KEY": self.secret_key}
        return own | self.env

    def is_ready(self) -> bool:
        return http_ok(f"{self.catalog_uri}/healthz", tls=self.tls)

    def run(self, *arguments: str) -> str:
        """Another command of the binary with the same settings; what it printed. It must succeed."""
        command = [str(self.binary()), *arguments]
        done = subprocess.run(command, cwd=self.work, env=os.environ | self.environment(), capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def forget(self) -> None:
        """Starts again with an empty data folder: no chunk is proven and no topic was seen."""
        self.stop()
        shutil.rmtree(self.work / "data", ignore_errors=True)
        self.start()

    def resident_bytes(self, field: str = "VmRSS") -> int:
        """The memory the process holds now; as RssAnon, without what files on disk stand for."""
        return self._status_bytes(field)

    def peak_resident_bytes(self) -> int:
        """The most memory the process has held since it started."""
        return self._status_bytes("VmHWM")

    def _status_bytes(self, field: str) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"no {field} for process {self.process.pid}")


def _principal(name: str) -> str:
    """One of an access file."""
    kept = f'env = "SECRET_OF_{name.upper()}"'
    lines = ["[[principal]]", f'name = "{name}"', f"secrets = [{{ {kept} }}]", f"api_keys = [{{ {kept} }}]", f's3_keys = [{{ access_key_id = "{name}", {kept} }}]']
    return "\n".join(["", *lines, ""])
