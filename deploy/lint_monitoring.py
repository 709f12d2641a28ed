"""Holds what the chart renders for Prometheus' operator against its custom resource definitions, and looks at whom a ServiceMonitor scrapes.

usage: lint_monitoring.py <folder of definitions> <rendered chart>
"""

import sys
from pathlib import Path

import jsonschema
import yaml

GROUP = "monitoring.coreos.com/v1"


def strict(schema: object) -> object:
    """The same schema, which also refuses fields that it does not name: the API server drops them without a word."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        made.setdefault("additionalProperties", False)
    if isinstance(made.get("pattern"), str):
        # Go's regular expressions may have their flags behind the anchor.
        made["pattern"] = made["pattern"].replace("^(?i)", "(?i)^")
    return made


def schemas(folder: Path) -> dict[str, object]:
    """The schema of each kind."""
    definitions = [yaml.safe_load(path.read_text())["spec"] for path in folder.glob("*.yaml")]
    return {
        one["names"]["kind"]: strict(version["schema"]["openAPIV3Schema"])
        for one in definitions
        for version in one["versions"]
        if f"{one['group']}/{version['name']}" == GROUP
    }


def selects(selector: dict, labels: dict) -> bool:
    expressions = selector.get("matchExpressions", [])
    assert all(one["operator"] == "DoesNotExist" for one in expressions), "an operator that this script does not know"
    equal = selector.get("matchLabels", {}).items() <= labels.items()
    return equal and not any(one["key"] in labels for one in expressions)


def main() -> None:
    folder, rendered = map(Path, sys.argv[1:])
    kinds = schemas(folder)
    objects = [one for one in yaml.safe_load_all(rendered.read_text()) if one]
    ours = [one for one in objects if one["apiVersion"].startswith("monitoring.")]
    assert {one["kind"] for one in ours} == {"ServiceMonitor", "PrometheusRule"}, "the chart renders other kinds"
    for one in ours:
        assert one["apiVersion"] == GROUP, one["apiVersion"]
        jsonschema.validate(one, kinds[one["kind"]])

    # The operator makes a target of each pod behind a Service that it selects: one Service, else each pod would be scraped twice.
    (monitor,) = (one["spec"] for one in ours if one["kind"] == "ServiceMonitor")
    services = [one for one in objects if one["kind"] == "Service" and selects(monitor["selector"], one["metadata"]["labels"])]
    assert len(services) == 1, [one["metadata"]["name"] for one in services]
    (pods,) = (one["spec"]["template"] for one in objects if one["kind"] == "StatefulSet")
    assert services[0]["spec"]["selector"].items() <= pods["metadata"]["labels"].items()
    targets = {port["name"]: port["targetPort"] for port in services[0]["spec"]["ports"]}
    named = {port["name"] for container in pods["spec"]["containers"] for port in container["ports"]}
    assert all(targets[endpoint["port"]] in named for endpoint in monitor["endpoints"])


if __name__ == "__main__":
    main()
