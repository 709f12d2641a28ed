"""The floor of first touch: librdkafka takes every record of the topic and looks at none (`crates/bench`)."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from stack.kafka import Broker

from .measure import BUILT
from .topics import PARTITIONS, Topic

STAGES = BUILT / "stages"


def consume(broker: Broker, topic: Topic) -> dict[str, Any]:
    """Wall and CPU seconds of one run."""
    command = [STAGES, "--brokers", broker.bootstrap, "--topic", topic.name]
    command += ["--records", str(topic.records), "--consume-partitions", str(PARTITIONS), "--runs", "1"]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
    cost = json.loads(done.stdout.splitlines()[-1])["librdkafka"]
    return {"topic": topic.kind, "wall_s": cost["wall_s"], "cpu_s": cost["cpu_s"]}
