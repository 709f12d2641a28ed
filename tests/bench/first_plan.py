"""What the first plan of a topic costs that was never seen: 100 partitions, 1,000 full chunks, lookups by time included.

The service forgets all between two rounds. Sampling the size of records (a few hundred are read, once) is part of the first plan, so the
lookups' own share is taken from the service's log.
"""

import json
import os
import re
import statistics
import time
import urllib.request

from stack import datasets, records
from stack.isk import Isk
from stack.kafka import Broker
from stack.versions import TESTS

PARTITIONS = int(os.environ.get("BENCH_PLAN_PARTITIONS", 100))
# Chunks are 1,024 offsets wide: the last records of the longest partitions, which are sampled, are large.
CHUNK, CHUNKS, SAMPLED = 1024, 10, 3
MONTH = 30 * 86_400_000
ROUNDS = 9
OUT = TESTS.parent / "target" / "bench"


def fill(bootstrap, topic):
    writer, now = records.producer(bootstrap, linger_ms=50, acks=1), int(time.time() * 1000)
    for partition in range(PARTITIONS):
        length = CHUNK * CHUNKS + (120 if partition < SAMPLED else 100)
        for n in range(length):
            large = partition < SAMPLED and n >= length - datasets.FILLERS
            value, timestamp = bytes(datasets.FILLER if large else 20), now - MONTH + n * MONTH // length
            while True:
                try:
                    writer.produce(topic, value, partition=partition, timestamp=timestamp)
                    break
                except BufferError:
                    writer.poll(0.1)
        writer.poll(0)
    assert writer.flush(120) == 0


def load(isk, topic):
    """Milliseconds and the metadata of one loadTable."""
    begun = time.perf_counter()
    with urllib.request.urlopen(f"{isk.catalog_uri}/v1/namespaces/hotset/tables/{topic}") as answer:
        body = answer.read()
    return (time.perf_counter() - begun) * 1000, json.loads(body)["metadata"]


def main():
    first, second, settled, lookups = [], [], [], []
    with Broker() as broker:
        topic = records.create_topic(broker.bootstrap, "planned", PARTITIONS, datasets.KEEP)
        fill(broker.bootstrap, topic)
        with Isk.beside(broker, None, {"ISK_LOG": "warn,isk_virtual_table=debug"}) as isk:
            for _ in range(ROUNDS):
                # Its connections are up, as a running service's are.
                urllib.request.urlopen(f"{isk.catalog_uri}/readyz").read()
                urllib.request.urlopen(f"{isk.catalog_uri}/v1/namespaces/hotset/tables").read()
                taken, metadata = load(isk, topic)
                files = int(metadata["snapshots"][0]["summary"]["total-data-files"])
                assert files == PARTITIONS * (CHUNKS + 1), files
                first.append(taken)
                second.append(load(isk, topic)[0])
                time.sleep(5)
                settled.append(load(isk, topic)[0])
                looked_up = re.findall(r"looked up by time.*?\bms=(\d+)", re.sub(r"\x1b\[[0-9;]*m", "", isk.log_tail(1000)))
                lookups.append(int(looked_up[-1]))
                isk.forget()
    result = {
        "partitions": PARTITIONS,
        "chunks": PARTITIONS * (CHUNKS + 1),
        "first_plan_ms": statistics.median(first),
        "of_it_lookups_ms": statistics.median(lookups),
        "second_plan_ms": statistics.median(second),
        "after_refining_ms": statistics.median(settled),
        "first_plans_ms": first,
        "lookups_ms": lookups,
    }
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "first_plan.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
