"""Spark's Kafka source as a contender, with the registry's Avro decoded by Spark's own functions."""

from __future__ import annotations

import json

from stack.kafka import Broker

from .engines import SparkEngine
from .topics import Topic


class SparkKafka:
    """A view for each topic: the value without its five framing bytes, decoded, its fields as columns."""

    name, short = "Kafka source", "kafka"
    few = True
    time = "kafka_timestamp"

    def __init__(self, engine: SparkEngine, broker: Broker) -> None:
        self.engine = engine
        self.broker = broker

    def prepare(self, topic: Topic) -> None:
        self._view(topic, topic.name, {})
        # The source does not turn a condition on the time into offsets; who knows it says the time like this.
        self._view(topic, f"{topic.name}_last", {"startingTimestamp": str(topic.since_ms), "startingOffsetsByTimestampStrategy": "latest"})

    def _view(self, topic: Topic, name: str, options: dict[str, str]) -> None:
        from pyspark.sql.avro.functions import from_avro
        from pyspark.sql.functions import expr

        source = self.engine.session.read.format("kafka").option("kafka.bootstrap.servers", self.broker.bootstrap)
        source = source.option("subscribe", topic.name).options(**(options or {"startingOffsets": "earliest"}))
        value = from_avro(expr("substring(value, 6)"), json.dumps(topic.schema)).alias("v")
        rows = source.load().select(value, "partition", "offset", "timestamp")
        columns = ["v.*", "partition AS kafka_partition", "offset AS kafka_offset", "timestamp AS kafka_timestamp"]
        rows.selectExpr(*columns).createOrReplaceTempView(f"kafka_{name}")

    def before(self) -> None:
        pass

    def table(self, topic: Topic, query: str) -> str:
        return f"kafka_{topic.name}_last" if query == "last hour" else f"kafka_{topic.name}"

    def processes(self) -> dict[str, int]:
        return {"engine": self.engine.pid, "broker": self.broker.process.pid}
