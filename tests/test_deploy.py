"""What lies in deploy/ and docs/ speaks of metrics and settings that the service has. `deploy/lint.sh` checks its form."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import requests
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


@pytest.mark.parametrize("path", ["container/Dockerfile", "compose/compose.yaml", "systemd/isk.service", "helm/isk/templates/statefulset.yaml"])
def test_settings_exist(path, settings):
    named = set(re.findall(r"\bISK_[A-Z0-9_]+", (DEPLOY / path).read_text()))
    assert named
    assert named <= settings
