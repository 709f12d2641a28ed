"""Iceberg's own compatibility kit for REST catalogs, run against any address."""

import os
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping

from . import jdk, lake, maven
from .process import work_root

SUITE = "org.apache.iceberg.rest.RESTCompatibilityKitCatalogTests"


def run(uri: str, properties: Mapping[str, str], seconds: float = 240) -> dict[str, str]:
    """Each test's name and how it went: empty where it passed, `skipped`, or the first line of why it failed."""
    reports = work_root() / "rest-kit"
    jars = ":".join(str(jar) for jar in [*maven.classpath("rest-kit"), *lake.catalog_jars()])
    options = {"uri": uri, "rck.local": "false", "rck.purge-test-namespaces": "true"} | dict(properties)
    command = [
        jdk.java("broker"), "-Xmx512m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
        *(f"-D{key}={value}" for key, value in options.items()),
        "-cp", jars, "org.junit.platform.console.ConsoleLauncher", "execute",
        "--select-class", SUITE, "--details", "none", "--disable-banner", "--reports-dir", str(reports),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=work_root(), env=os.environ, capture_output=True, text=True, timeout=seconds)
    report = reports / "TEST-junit-jupiter.xml"
    if not report.exists():
        raise RuntimeError(f"the kit did not run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return {case.get("name").removesuffix("()"): _outcome(case) for case in ElementTree.parse(report).getroot().iter("testcase")}


def _outcome(case: ElementTree.Element) -> str:
    if case.find("skipped") is not None:
        return "skipped"
    failed = next((e for e in (case.find("failure"), case.find("error")) if e is not None), None)
    if failed is None:
        return ""
    return (failed.get("message") or failed.get("type") or "failed").strip().splitlines()[0]
