"""What lies in deploy/ and docs/ speaks of metrics and settings that the service has. `deploy/lint.sh` checks its form."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import requests
from stack import client_files
from stack.isk import binary

DEPLOY = Path(__file__).parent.parent / "deploy"
# Prometheus' own, about each target.
OF_PROMETHEUS = {"up"}


@pytest.fixture(scope="module")
def metrics(isk):
    """The names of all metrics that the service describes, with their types."""
    text = requests.get(f"{isk.catalog_uri}/metrics", timeout=10).text
    found = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert found
    as_json = requests.get(f"{isk.catalog_uri}/metrics", headers={"accept": "application/json"}, timeout=10).json()
    assert {name: metric["type"] for name, metric in as_json.items()} == found
    assert as_json["isk_catalog_request_seconds"]["values"], "the first request was not counted"
    return found


def counted(metrics):
    """The same, with what a histogram is asked by."""
    of_histograms = {f"{name}{end}": "counter" for name, kind in metrics.items() if kind == "histogram" for end in ("_bucket", "_sum", "_count")}
    return metrics | of_histograms


@pytest.fixture(scope="module")
def settings():
    """The names of all environment variables that `isk serve --help` lists."""
    text = subprocess.run([str(binary()), "serve", "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"\bISK_[A-Z0-9_]+", text))


def alert_expressions():
    text = (DEPLOY / "prometheus/alerts.yaml").read_text()
    return re.findall(r"^ +expr: (.+)$", text, re.MULTILINE)


def dashboard_expressions():
    panels = json.loads((DEPLOY / "grafana/isk.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.mark.parametrize("expressions", [alert_expressions, dashboard_expressions])
def test_metrics_exist(expressions, metrics):
    asked = {name for expression in expressions() for name in re.findall(r"\bisk_[a-z_]+|\bup\b", expression)}
    assert len(asked - OF_PROMETHEUS) > 3
    assert asked - OF_PROMETHEUS <= counted(metrics).keys()


@pytest.mark.parametrize("expressions", [alert_expressions, dashboard_expressions])
def test_rates_are_of_counters(expressions, metrics):
    rated = {name for e in expressions() for name in re.findall(r"(?:rate|increase)\((isk_[a-z_]+)", e)}
    assert rated
    assert {counted(metrics)[name] for name in rated} == {"counter"}


def test_all_metrics_are_documented(metrics):
    rows = re.findall(r"^\| `(isk_[a-z0-9_]+)` \| (\w+) \| \S", (DEPLOY.parent / "docs/metrics.md").read_text(), re.MULTILINE)
    assert dict(rows) == metrics


@pytest.mark.parametrize("path", ["container/Dockerfile", "compose/compose.yaml", "systemd/isk.service", "helm/isk/templates/statefulset.yaml", "helm/isk/values.yaml"])
def test_settings_exist(path, settings):
    named = set(re.findall(r"\bISK_[A-Z0-9_]+", (DEPLOY / path).read_text()))
    assert named
    assert named <= settings


CLIENTS = sorted(path for path in client_files.FOLDER.rglob("*") if path.is_file())
NOT_RUN = {"credential/snowflake.sql"}


def parsed(path):
    """What a client's file says, as comparable parts."""
    text = path.read_text()
    if path.suffix == ".yaml":
        return set(client_files.pyiceberg(text).items())
    if path.suffix in {".conf", ".properties"}:
        return set(client_files.properties(text).items())
    found = client_files.statements(text)
    assert all(statement.split()[0] in {"ATTACH", "CREATE", "INSTALL", "LOAD", "SET"} for statement in found)
    return set(client_files.options(text).items()) or {statement.partition("(")[0] for statement in found}


@pytest.mark.parametrize("path", CLIENTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_clients_files_are_read(path):
    """They parse, comments say what they are, and their addresses are those that ISK has by default, or that tests replace."""
    text = path.read_text()
    assert text.startswith(("# ", "-- "))
    assert parsed(path)
    addresses = set(re.findall(r"https?://[^/'\s]+", text))
    assert addresses in ({"https://isk.example.com"}, {client_files.CATALOG}, {client_files.CATALOG, client_files.GATEWAY})
    name = f"{path.parent.name}/{path.name}"
    assert ("not run" in text.lower()) == (name in NOT_RUN)
    assert f"deploy/clients/{name}" in (DEPLOY.parent / "docs/engines.md").read_text()


def test_clients_files_with_a_credential_say_what_the_others_say():
    for name in {path.name for path in CLIENTS} - {"snowflake.sql"}:
        assert parsed(client_files.path(name)) <= parsed(client_files.path(name, "id:secret")), name


def test_clients_files_have_the_default_ports():
    """So that they work as they are where nothing was set."""
    text = subprocess.run([str(binary()), "serve", "--help"], capture_output=True, text=True, check=True).stdout
    ports = dict(re.findall(r"^ +port = (\d+) +(ISK_\w+)", text, re.MULTILINE))
    assert ports == {
        client_files.CATALOG.rpartition(":")[2]: "ISK_CATALOG_PORT",
        client_files.GATEWAY.rpartition(":")[2]: "ISK_PORT",
    }


def test_errors_that_are_explained_are_given():
    """A piece of an error's text in docs/troubleshoot.md stands in the source, so that a search for it finds the page."""
    rows = [line.split("|") for line in (DEPLOY.parent / "docs/troubleshoot.md").read_text().splitlines() if line.startswith("|")]
    pieces = {piece for row in rows for cell in row[1:-2] for piece in re.findall(r"`([a-z][^`_/]* [^`]*)`", cell)}
    assert len(pieces) > 25
    sources = (DEPLOY.parent / "crates").rglob("src/**/*.rs")
    joined = "\n".join(re.sub(r"\\\n\s*", "", path.read_text()) for path in sources)
    assert {piece for piece in pieces if piece not in joined} == set()
