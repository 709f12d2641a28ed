"""Fuzzes both ports of the service over HTTP: `make fuzz-http`, `python tests/fuzz_http.py FUZZER [--requests 1000000] [--seed 1]`.

FUZZER is the program of `fuzz/http`. It makes the requests and judges the answers (none may be a 500, or stay away). Here the service is
started over a real broker and registry; afterwards it must serve a query as before, have logged no panic, and hold no more memory than it may.
"""

import argparse
import subprocess
import sys

from stack import clients, records
from stack.isk import Isk
from stack.kafka import Broker
from stack.registry import Registry

SCHEMA = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}, {"name": "word", "type": ["null", "string"]}]}
COUNT = 5000
# What may be held at the end beyond what a quarter of the requests left.
MOST_GROWTH = 128 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fuzzer")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    # Its own lines, one a request, would be most of the work.
    quiet = {"ISK_LOG": "warn"}
    with Broker() as broker, Registry() as registry, Isk.beside(broker, registry, quiet) as isk:
        topic = records.create_topic(broker.bootstrap, "orders", 2)
        values = [{"id": n, "word": None if n % 3 else f"w{n}"} for n in range(COUNT)]
        records.produce(records.producer(broker.bootstrap), topic, values, serialize=records.avro_serializer(registry.url, SCHEMA))

        def count() -> int:
            return clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"hotset.{topic}").scan().to_arrow().num_rows

        assert count() == COUNT
        table = clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"hotset.{topic}")
        files = [task.file.file_path for task in table.scan().plan_files()]
        keys = [path.removeprefix("s3://") for path in (table.metadata_location, table.current_snapshot().manifest_list, *files)]
        failed = False
        # The first quarter fills caches; memory is compared with what it left.
        held = 0
        for part, share in enumerate((options.requests // 4, options.requests - options.requests // 4)):
            command = [
                options.fuzzer, "--catalog", f"127.0.0.1:{isk.catalog_port}", "--gateway", f"127.0.0.1:{isk.port}", "--topic", topic,
                "--access-key", isk.access_key, "--secret-key", isk.secret_key, "--keys", "\n".join(keys),
                "--requests", str(share), "--seed", str(options.seed * 2 + part), "--connections", str(options.connections),
            ]  # fmt: skip
            failed |= subprocess.run(command).returncode != 0
            now = isk.resident_bytes()
            print(f"memory: {now >> 20} MiB resident, {isk.peak_resident_bytes() >> 20} MiB at the most", flush=True)
            if part and now > held + MOST_GROWTH:
                print(f"memory grew from {held >> 20} MiB", flush=True)
                failed = True
            held = now
        panics = [line for line in isk.log_text().splitlines() if "panicked" in line]
        print("\n".join(panics[:20]) or "no panic in the log", flush=True)
        assert count() == COUNT
        print("the table reads as before", flush=True)
        return int(failed or bool(panics))


if __name__ == "__main__":
    sys.exit(main())
