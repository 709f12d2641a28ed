"""The Python environment of the clients, kept in the cache under the digest of its requirements."""

import os
import subprocess
import sys
import venv
from pathlib import Path

from . import cache
from .versions import TESTS, VERSIONS

LOCK = TESTS / "requirements.txt"


def folder() -> Path:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return cache.root() / "venv" / f"py{version}-{cache.digest(LOCK.read_text())}"


def python() -> Path:
    return folder() / "bin" / "python"


def is_installed() -> bool:
    return (folder() / "complete").exists()


def install() -> None:
    """Makes the environment, if it is not there for these requirements."""
    if is_installed():
        return
    venv.create(folder(), with_pip=True, clear=True)
    _uv("pip", "sync", "--quiet", "--python", str(python()), str(LOCK))
    (folder() / "complete").touch()


def install_into(target: Path, packages: list[str]) -> None:
    """Unpacks packages into a plain folder."""
    _uv("pip", "install", "--quiet", "--target", str(target), "--no-deps", *packages)


def tool(requirement: str) -> Path:
    """The folder of a package's programs, in an environment of its own: it is too large for that of the clients, or wants other versions."""
    target = cache.root() / "tools" / cache.digest(requirement)
    if not (target / "complete").exists():
        venv.create(target, clear=True)
        _uv("pip", "install", "--quiet", "--python", str(target / "bin" / "python"), requirement)
        (target / "complete").touch()
    return target / "bin"


def lock() -> None:
    """Rewrites the full list of pins from the chosen ones in versions.toml."""
    chosen = cache.root() / "requirements.in"
    chosen.parent.mkdir(parents=True, exist_ok=True)
    chosen.write_text("\n".join(VERSIONS["python"]["requirements"]) + "\n")
    header = "# Written by `tests/stack/run lock` from stack/versions.toml. Do not edit.\n"
    pins = _uv("pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-emit-index-url", str(chosen), capture=True)
    LOCK.write_text(header + pins)


def _uv(*arguments: str, capture: bool = False) -> str:
    tools = cache.root() / "uv" / cache.digest(VERSIONS["python"]["installer"])
    program = tools / "bin" / "uv"
    if not program.exists():
        venv.create(tools, with_pip=True)
        subprocess.run([tools / "bin" / "pip", "install", "--quiet", VERSIONS["python"]["installer"]], check=True)
    # Its own cache would be three times as large as what is installed.
    environment = os.environ | {"UV_NO_CACHE": "1", "UV_NO_PROGRESS": "1"}
    done = subprocess.run([program, *arguments], env=environment, check=True, text=True, stdout=subprocess.PIPE if capture else None)
    return done.stdout or ""
