"""Every engine sees every topic as an independent consumer does: names, types, counts, rows."""

import datetime
import re

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


def test_describe(engine, topics):
    described = [(name, bare(kind)) for name, kind in engine.describe("plain").items()]
    assert described == [(name, type_name(engine.name, kind)) for name, kind in topics["plain"].columns.items()]


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
    rows = engine.rows(topic, list(dataset.columns))
    assert checksums(dataset.columns, rows, engine.nested_nulls) == dataset.checksums(engine.nested_nulls)
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


# What each engine calls our types, with blanks, quotes, ids and nullability left out.
PRIMITIVES = "int long float double boolean string binary fixed[4] date timestamptz timestamp uuid decimal(9,2) decimal(38,6)"
NAMES = {
    "pyiceberg": PRIMITIVES,
    "duckdb": "INTEGER BIGINT FLOAT DOUBLE BOOLEAN VARCHAR BLOB BLOB DATE TIMESTAMPWITHTIMEZONE TIMESTAMP UUID DECIMAL(9,2) DECIMAL(38,6)",
    "spark": "int bigint float double boolean string binary binary date timestamp timestamp_ntz string decimal(9,2) decimal(38,6)",
    "trino": "integer bigint real double boolean varchar varbinary varbinary date timestamp(6)withtimezone timestamp(6) uuid"
    " decimal(9,2) decimal(38,6)",
    "clickhouse": "Int32 Int64 Float32 Float64 Bool String String FixedString(4) Date32 DateTime64(6,'UTC') DateTime64(6) UUID"
    " Decimal(9,2) Decimal(38,6)",
    "polars": "Int32 Int64 Float32 Float64 Boolean String Binary Binary Date Datetime(time_unit='us',time_zone='UTC')"
    " Datetime(time_unit='us',time_zone=None) Binary Decimal(precision=9,scale=2) Decimal(precision=38,scale=6)",
    "datafusion": "int32 int64 float double bool string large_binary fixed_size_binary[4] date32[day] timestamp[us,tz=+00:00]"
    " timestamp[us] fixed_size_binary[16] decimal128(9,2) decimal128(38,6)",
}
SHAPES = {  # a list, a map, a struct, a struct's field
    "pyiceberg": ("list<{}>", "map<{},{}>", "struct<{}>", "{}:{}"),
    "duckdb": ("{}[]", "MAP({},{})", "STRUCT({})", "{}{}"),
    "spark": ("array<{}>", "map<{},{}>", "struct<{}>", "{}:{}"),
    "trino": ("array({})", "map({},{})", "row({})", "{}{}"),
    "clickhouse": ("Array({})", "Map({},{})", "Tuple({})", "{}{}"),
    "polars": ("List({})", "Map({},{})", "Struct({{{}}})", "'{}':{}"),
    "datafusion": ("list<{}>", "map<{},{}>", "struct<{}>", "{}:{}"),
}
LEFT_OUT = re.compile(r"\d+: |optional |required |element: | not null|Nullable\(([^()]*(?:\([^()]*\))?)\)|\\n|[\s\"]")


def bare(described):
    text = LEFT_OUT.sub(lambda match: match[1] or "", described)
    return text if text == described else bare(text)


def type_name(engine, kind):
    of_list, of_map, of_struct, of_field = SHAPES[engine]
    if isinstance(kind, list):
        return of_list.format(type_name(engine, kind[0]))
    if isinstance(kind, tuple):
        return of_map.format(type_name(engine, "string"), type_name(engine, kind[1]))
    if isinstance(kind, dict):
        return of_struct.format(",".join(of_field.format(name, type_name(engine, inner)) for name, inner in kind.items()))
    return dict(zip(PRIMITIVES.split(), NAMES[engine].split(), strict=True))[kind.replace(" ", "")]
