"""Kafka to Parquet: the service's CPU time at first touch, beside each stage of it alone over the same records."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from .isk_tables import data_files, read_footers
from .measure import measured, summary
from .raw import STAGES
from .rig import Rig
from .topics import Topic

# What has to be done in any case: the CPU time of an encoding is held against the sum of these.
FLOOR = ("librdkafka", "arrow-avro", "encode")
# The stages are compared by the record, and each has all records in memory: so many at the most.
MOST = {"narrow": 4_000_000, "wide": 1_000_000}


def first_touch(rig: Rig, topic: Topic, concurrency: int) -> dict[str, Any]:
    """Encodes the whole topic by reading every file's footer, on a service that never saw it."""
    with rig.isk({"ISK_RENDER_CONCURRENCY": str(concurrency)}) as isk:
        data_files(isk, topic.name)
        files, cost = measured(lambda: read_footers(isk, topic.name, concurrency), {"isk": isk.process.pid})
        return cost | {"files": files}


def alone(rig: Rig, topic: Topic, folder, files: int, runs: int) -> dict[str, Any]:
    """CPU and wall seconds of each stage alone: the fastest of some runs."""
    file = folder / f"{topic.name}.avsc"
    file.write_text(json.dumps(topic.schema))
    rows = 1 << ((topic.records - 1) // files).bit_length()
    command = [STAGES, "--brokers", rig.broker.bootstrap, "--topic", topic.name, "--schema", file]
    command += ["--records", str(topic.records), "--file-records", str(rows), "--runs", str(runs)]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def run(rig: Rig, folder, rounds: int) -> dict[str, Any]:
    """For each topic: the stages alone on one partition, the first touch of it, and of the topic of several on one core and two."""
    results = {}
    for kind, size in rig.sizes.items():
        count = min(size, MOST[kind])
        one = rig.fill(kind, count, f"{kind}_one", partitions=1)
        touches = [first_touch(rig, one, 1) for _ in range(rounds)]
        cpu = min(touch["cpu_s"]["isk"] for touch in touches)
        stages = alone(rig, one, folder, touches[0]["files"], rounds)
        cores: dict[int, list] = {1: [], 2: []}
        for _ in range(rounds):
            for n, costs in cores.items():
                costs.append(first_touch(rig, rig.topic(kind), n))
        results[kind] = {
            "records": count,
            "cores_records": size,
            "bytes_per_record": one.bytes_per_record,
            "stages": stages,
            "cpu_s": cpu,
            "peak_mib": max(touch["isk_peak_mib"] for touch in [*touches, *cores[1], *cores[2]]),
            "of_stages": cpu / sum(stages[stage]["cpu_s"] for stage in FLOOR),
            "mib_per_cpu_s": count * one.bytes_per_record / cpu / 2**20,
            "cores": {str(n): {"cpu_s": summary([c["cpu_s"]["isk"] for c in costs]), "wall_s": summary([c["wall_s"] for c in costs])} for n, costs in cores.items()},
        }
        print(kind, f"{results[kind]['of_stages']:.2f} of the stages' sum", flush=True)
    return results
