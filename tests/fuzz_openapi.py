"""Holds a service that runs against its own descriptions in `openapi/`: `make fuzz-http`, `python tests/fuzz_openapi.py [--examples 200] [--seed 1]`.

Schemathesis makes requests of what the descriptions allow, and of what they do not. No answer may be an error of the server's own, or have a
status, a content type or a body that is not described, and what is not allowed must be refused. Afterwards the service must serve a query as before, and have logged no panic.
"""

import argparse
import json
import subprocess
import sys

from stack import clients, records, venv
from stack.isk import Isk
from stack.kafka import Broker
from stack.registry import Registry
from stack.versions import TESTS, VERSIONS

SCHEMA = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}, {"name": "word", "type": ["null", "string"]}]}
COUNT = 5000
DESCRIPTIONS = ("isk-catalog.yaml", "isk-api.yaml")
# What has the form that is described may still be refused: the token of a page that nobody handed out, a schema that is none.
LEFT_OUT = "positive_data_acceptance"
# Some requests name what is there. A broker that is slow is no defect (503).
SETTINGS = """
request-timeout = 60

[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "503"]

[dictionaries.namespaces]
values = ["hotset", "errors", "merged"]

[dictionaries.tables]
values = ["orders", "orders$raw", "orders~json", "events", "nobody"]

[parameters]
"path.namespace" = { dictionary = "namespaces", probability = 0.8 }
"path.table" = { dictionary = "tables", probability = 0.8 }
"path.topic" = { dictionary = "tables", probability = 0.8 }
"query.parent" = { dictionary = "namespaces", probability = 0.5 }
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200, help="requests of each operation and kind")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    fuzzer = venv.tool(VERSIONS["openapi"]["fuzzer"]) / "schemathesis"
    with Broker() as broker, Registry() as registry, Isk.beside(broker, registry, {"ISK_LOG": "warn"}) as isk:
        orders = records.create_topic(broker.bootstrap, "orders", 2)
        values = [{"id": n, "word": None if n % 3 else f"w{n}"} for n in range(COUNT)]
        records.produce(records.producer(broker.bootstrap), orders, values, serialize=records.avro_serializer(registry.url, SCHEMA))
        # One that nobody describes, so that its schema can be pinned.
        events = records.create_topic(broker.bootstrap, "events")
        records.produce(records.producer(broker.bootstrap), events, [json.dumps({"id": n}).encode() for n in range(100)])

        def count() -> int:
            return clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"hotset.{orders}").scan().to_arrow().num_rows

        assert count() == COUNT
        settings = isk.work / "schemathesis.toml"
        settings.write_text(SETTINGS)
        failed = False
        for name in DESCRIPTIONS:
            command = [
                fuzzer, "--config-file", settings, "run", TESTS.parent / "openapi" / name, "--url", isk.catalog_uri, "--checks", "all", "--exclude-checks", LEFT_OUT,
                "--phases", "examples,coverage,fuzzing", "--max-examples", options.examples, "--seed", options.seed, "--continue-on-failure",
                "--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off", "--no-color",
            ]  # fmt: skip
            failed |= subprocess.run([str(word) for word in command], cwd=isk.work).returncode != 0
        panics = [line for line in isk.log_text().splitlines() if "panicked" in line]
        print("\n".join(panics[:20]) or "no panic in the log", flush=True)
        assert count() == COUNT
        print("the table reads as before", flush=True)
        return int(failed or bool(panics))


if __name__ == "__main__":
    sys.exit(main())
