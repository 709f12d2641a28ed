"""Trino's Kafka connector as a contender."""

from __future__ import annotations

from stack.kafka import Broker

from .engines import TrinoEngine
from .topics import Topic


class TrinoKafka:
    """The table's descriptions are files; see `stack.trino_kafka`."""

    name, short = "Kafka connector", "kafka"
    few = True
    # The connector asks the broker for the first offset of a time.
    time = "_timestamp"

    def __init__(self, engine: TrinoEngine, broker: Broker) -> None:
        self.engine = engine
        self.broker = broker

    def prepare(self, topic: Topic) -> None:
        pass

    def before(self) -> None:
        pass

    def table(self, topic: Topic, query: str) -> str:
        return f"kafka.default.{topic.name}"

    def processes(self) -> dict[str, int]:
        return {"engine": self.engine.pid, "broker": self.broker.process.pid}
