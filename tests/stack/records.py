"""Topics and records, written and read by Confluent's own client: the independent side of every comparison."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import TIMESTAMP_CREATE_TIME, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

# A topic whose old records the cleaner removes within seconds.
FAST_COMPACTION = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.01",
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "100",
    "segment.ms": "100",
    "delete.retention.ms": "100",
}


@dataclass(frozen=True)
class Record:
    """A record as a consumer got it; `timestamp` in milliseconds, `value` decoded or bytes."""

    partition: int
    offset: int
    timestamp: int
    is_create_time: bool
    key: Any
    value: Any
    headers: list[tuple[str, bytes | None]]


def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap})


def create_topic(bootstrap: str, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
    """Makes the topic, waits until it is there, and gives its name back."""
    topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=dict(config or {}))
    client = admin(bootstrap)  # must live until the answer is there
    client.create_topics([topic], operation_timeout=30)[name].result(30)
    return name


def producer(bootstrap: str, **config: str | int | bool) -> Producer:
    """Takes librdkafka properties with `_` for the dots."""
    dotted = {key.replace("_", "."): value for key, value in config.items()}
    return Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "message.max.bytes": 32_000_000} | dotted)


def registry_client(url: str) -> SchemaRegistryClient:
    """A client that asks again where no answer comes: its own default waits for ever, and the registry was seen not to answer once."""
    return SchemaRegistryClient({"url": url, "timeout": 15})


def avro_serializer(registry_url: str, schema: Mapping[str, Any] | str, **config: Any) -> AvroSerializer:
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return AvroSerializer(registry_client(registry_url), text, conf=config or None)


def produce(
    target: Producer,
    topic: str,
    values: Iterable[Any],
    *,
    serialize: Callable[[Any, SerializationContext], bytes] | None = None,
    key: Callable[[Any], bytes | None] = lambda value: None,
    partition: int = -1,
    timestamp: Callable[[Any], int] = lambda value: 0,
    headers: list[tuple[str, bytes | None]] | None = None,
) -> None:
    """Produces all values and waits for their acknowledgement. Without a serializer they are bytes; None is a tombstone."""
    failures: list[KafkaError] = []

    def acknowledged(error: KafkaError | None, _: Message) -> None:
        if error:
            failures.append(error)

    context = SerializationContext(topic, MessageField.VALUE)
    for value in values:
        payload = serialize(value, context) if serialize and value is not None else value
        arguments = {"key": key(value), "value": payload, "partition": partition, "timestamp": timestamp(value)}
        while True:
            try:
                target.produce(topic, headers=headers, on_delivery=acknowledged, **arguments)
                break
            except BufferError:
                target.poll(0.1)
        target.poll(0)
    waiting = target.flush(60)
    if failures or waiting:
        raise RuntimeError(f"{len(failures)} records failed and {waiting} were not acknowledged: {failures[:1]}")


def read_topic(
    bootstrap: str,
    topic: str,
    registry_url: str | None = None,
    *,
    reader_schema: str | None = None,
    from_offsets: Mapping[int, int] | None = None,
    isolation: str = "read_committed",
    seconds: float = 60,
) -> list[Record]:
    """All records of a topic up to its end as it is now (with `read_committed`, its last stable offset).

    With a registry the values are decoded from Avro, and resolved to `reader_schema` if there is one; None stays None.
    """
    decode = AvroDeserializer(registry_client(registry_url), reader_schema) if registry_url else None
    context = SerializationContext(topic, MessageField.VALUE)
    records = []
    for message in _read_messages(bootstrap, topic, from_offsets or {}, isolation, seconds):
        kind, timestamp = message.timestamp()
        value = message.value()
        if decode and value is not None:
            value = decode(value, context)
        records.append(
            Record(
                partition=message.partition(),
                offset=message.offset(),
                timestamp=timestamp,
                is_create_time=kind == TIMESTAMP_CREATE_TIME,
                key=message.key(),
                value=value,
                headers=message.headers() or [],
            )
        )
    return records


def _read_messages(
    bootstrap: str, topic: str, from_offsets: Mapping[int, int], isolation: str, seconds: float
) -> list[Message]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reads-everything",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": isolation,
            "fetch.queue.backoff.ms": 5,
            # The end is told by a fetch that begins there, which the broker would hold for half a second.
            "fetch.wait.max.ms": 10,
            "fetch.message.max.bytes": 32_000_000,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=seconds).topics[topic].partitions
        if not partitions:
            raise RuntimeError(f"there is no topic {topic}")
        starts = []
        for partition in partitions:
            low, _ = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=seconds)
            starts.append(TopicPartition(topic, partition, from_offsets.get(partition, low)))
        consumer.assign(starts)
        unfinished = set(partitions)
        messages = []
        while unfinished:
            # A batch is waited for until it is full or time is up, so wait for one message and take what is there with it.
            first = consumer.poll(seconds)
            if first is None:
                raise RuntimeError(f"{topic}: no end of partitions {sorted(unfinished)} within {seconds} s")
            batch = [first, *consumer.consume(10_000, timeout=0)]
            for message in batch:
                error = message.error()
                if error is None:
                    if message.partition() in unfinished:
                        messages.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(message.partition())
                else:
                    raise KafkaException(error)
        return messages
    finally:
        consumer.close()
