"""Every engine sees every topic as an independent consumer does: names, types, counts, rows."""

import datetime

import pytest
from stack import datasets
from stack.canonical import checksums
from stack.engines import ENGINES, holds
from stack.isk import Isk

TOPICS = ("plain", "transactional", "compacted")

BY_PARTITION = [("kafka_partition", "=", 0)]
BY_OFFSET = [("kafka_offset", ">=", 700), ("kafka_offset", "<", 1500)]
BY_TIME = [("kafka_timestamp", ">=", datetime.datetime(2024, 5, 1, 0, 10, tzinfo=datetime.UTC))]
CONDITIONS = {
    "plain": [],
    "by partition": BY_PARTITION,
    "by offset": BY_OFFSET,
    "by partition and offset": [*BY_PARTITION, *BY_OFFSET],
    "by time": BY_TIME,
    "by value": [("quantity", "<", 1_000_000)],
}


@pytest.fixture(scope="module")
def topics(broker, registry):
    return {name: getattr(datasets, name)(broker.bootstrap, registry.url) for name in TOPICS}


@pytest.fixture(scope="module")
def engine_isk(broker, registry, topics):
    """A service of this file's own: tests make it forget what it learnt."""
    with Isk.beside(broker, registry) as server:
        yield server


@pytest.fixture(scope="module", params=ENGINES, ids=lambda engine: engine.name)
def engine(request, engine_isk):
    started = request.param(engine_isk)
    yield started
    started.close()


def forget(engine):
    """From here on nothing is known of any topic."""
    engine.isk.forget()
    engine.reconnect()


def expected(dataset, condition):
    return [row for row in dataset.rows if holds(condition, {k: v if v is not None else NEVER for k, v in row.items()})]


class _Never:
    """SQL's null: it compares with nothing."""

    def __lt__(self, other):
        return False

    __ge__ = __eq__ = __lt__


NEVER = _Never()


def test_namespaces_and_tables_are_listed(engine):
    assert "hotset" in engine.namespaces()
    assert set(TOPICS) <= set(engine.tables())


def test_describe(engine):
    assert list(engine.describe("plain").items()) == list(TYPES[engine.name].items())


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_first_touch_counts_right(engine, topics, topic, condition):
    """Nothing of the topic was ever read; only markers, gaps and spans are known. Counts then and once more."""
    forget(engine)
    want = len(expected(topics[topic], CONDITIONS[condition]))
    assert 0 < want or topic == "compacted"
    assert engine.count(topic, CONDITIONS[condition]) == want
    assert engine.count(topic, CONDITIONS[condition]) == want


@pytest.mark.parametrize("topic", TOPICS)
def test_rows_are_the_consumers_and_counts_stay_right(engine, topics, topic):
    """A full read at first touch has every value of every column; after it all chunks are proven."""
    forget(engine)
    dataset = topics[topic]
    columns = {name: kind for name, kind in dataset.columns.items() if name not in engine.skipped}
    assert checksums(columns, engine.rows(topic, list(columns))) == checksums(columns, dataset.rows)
    for condition in CONDITIONS.values():
        assert engine.count(topic, condition) == len(expected(dataset, condition)), condition


@pytest.mark.parametrize("topic", TOPICS)
def test_projections_filters_and_aggregates(engine, topics, topic):
    dataset = topics[topic]
    columns = {name: dataset.columns[name] for name in ("kafka_offset", "price", "name")}
    for condition in CONDITIONS.values():
        assert checksums(columns, engine.rows(topic, list(columns), condition)) == checksums(columns, expected(dataset, condition))
    want = []
    for partition in sorted({row["kafka_partition"] for row in dataset.rows}):
        rows = [row for row in dataset.rows if row["kafka_partition"] == partition]
        offsets = [row["kafka_offset"] for row in rows]
        want.append((partition, len(rows), min(offsets), max(offsets), max(row["kafka_timestamp"] for row in rows)))
    kinds = {"partition": "int", "rows": "long", "min": "long", "max": "long", "time": "timestamptz"}
    assert checksums(kinds, engine.aggregate(topic)) == checksums(kinds, want)


