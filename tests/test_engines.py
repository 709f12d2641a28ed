"""Every engine sees every topic as an independent consumer does: names, types, counts, rows. And what makes it so: manifests."""

import collections
import contextlib
import datetime
import json
import re
import urllib.parse

import pytest
from confluent_kafka import Consumer, TopicPartition
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFileContent, ManifestContent
from pyiceberg.types import DateType, FixedType, ListType, MapType, StructType, UUIDType
from stack import clients, datasets, records
from stack.canonical import canonical, checksums
from stack.engines import ENGINES, PyIceberg, Spark, TrinoEngine, holds
from stack.isk import Isk
from stack.proxy import Proxy

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

LISTING = [engine for engine in ENGINES if engine.lists]
# The page size that a client asks for, and the one that the catalog names to clients without a setting of their own.
PAGE, NAMED_PAGE = 7, 9


@pytest.fixture(scope="module")
def topics(broker, registry):
    return {name: getattr(datasets, name)(broker.bootstrap, registry.url) for name in (*TOPICS, "odd")}


@pytest.fixture(scope="module")
def crowd(broker):
    """Topics for several pages."""
    return {records.create_topic(broker.bootstrap, f"crowd_{n:02}") for n in range(25)}


@pytest.fixture(scope="module")
def engine_isk(broker, registry, topics, crowd):
    """A service of this file's own: tests make it forget what it learnt. Its registry spells the fields of `odd` oddly."""
    with contextlib.closing(Proxy(registry.url, datasets.odd_spelling)) as proxy:
        with Isk.beside(broker, None, {"ISK_REGISTRY_URL": proxy.url}) as server:
            yield server


@pytest.fixture(scope="module")
def paged_catalog(engine_isk):
    """The catalog as a proxy shows it that notes what is asked and names a page size."""

    def name_a_page_size(path, body):
        if not path.startswith("/v1/config"):
            return body
        config = json.loads(body)
        config["defaults"]["rest-page-size"] = str(NAMED_PAGE)
        return json.dumps(config).encode()

    with contextlib.closing(Proxy(engine_isk.catalog_uri, name_a_page_size)) as proxy:
        yield proxy


@pytest.fixture(scope="module", params=ENGINES, ids=lambda engine: engine.name)
def engine(request, engine_isk, paged_catalog):
    started = request.param(engine_isk, paged_catalog.url)
    yield started
    started.close()


def some_engines(chosen):
    return pytest.mark.parametrize("engine", chosen, ids=lambda engine: engine.name, indirect=True)


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


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions_tell_rows_apart(topics, topic, condition):
    """A filter that every row passes, or none, would show nothing of the engines."""
    rows = topics[topic].rows
    is_trivial = condition == "plain" or (condition == "by partition" and topic == "compacted")
    assert 0 < len(expected(topics[topic], CONDITIONS[condition])) < len(rows) + is_trivial


@some_engines(LISTING)
def test_namespaces_and_tables_are_listed(engine):
    assert engine.namespaces().count("hotset") == 1
    listed = engine.tables()
    assert set(TOPICS) <= set(listed)
    assert len(set(listed)) == len(listed)


@some_engines([PyIceberg, Spark, TrinoEngine])
def test_tables_are_listed_in_pages(engine, broker, paged_catalog, crowd):
    """Every table comes once, in as many pages as there must be."""
    paged_catalog.asked.clear()
    listed = engine.tables_in_pages(PAGE)
    there = {name for name in records.admin(broker.bootstrap).list_topics(timeout=30).topics if not name.startswith("__")}
    assert crowd <= there
    assert sorted(listed) == sorted(there)
    asked = [urllib.parse.urlsplit(path) for path in paged_catalog.asked]
    pages = [urllib.parse.parse_qs(a.query, keep_blank_values=True) for a in asked if a.path == "/v1/namespaces/hotset/tables"]
    size = NAMED_PAGE if engine.name == "trino" else PAGE
    assert {page["pageSize"][0] for page in pages} == {str(size)}
    if engine.name == "pyiceberg":
        # It names a size but begins without a token, and to that all tables are the answer.
        assert len(pages) == 1 and "pageToken" not in pages[0]
    else:
        assert len({page["pageToken"][0] for page in pages}) == -(-len(there) // size) > 2


def test_describe(engine, topics):
    described = [(name, bare(kind)) for name, kind in engine.describe("plain").items()]
    assert described == [(name, type_name(engine.name, kind)) for name, kind in topics["plain"].columns.items()]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_first_touch_counts_right(engine, topics, condition):
    """Nothing of the topics was ever read; only markers, gaps and spans are known. Counts then and once more."""
    # Once for all topics: what is learnt of one says nothing of the others.
    forget(engine)
    for topic in TOPICS:
        want = len(expected(topics[topic], CONDITIONS[condition]))
        for time in ("at first touch", "once more"):
            assert engine.count(topic, CONDITIONS[condition]) == want, f"{topic}, {time}"


@pytest.mark.parametrize("topic", TOPICS)
def test_rows_are_the_consumers_and_counts_stay_right(engine, topics, topic):
    """A full read at first touch has every value of every column; after it no count needs a delete file."""
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


def test_odd_names_of_fields(engine, topics):
    """Dots, blanks, signs, letters beyond ASCII, names that differ in case only: columns that every engine can ask for."""
    dataset = topics["odd"]
    fold = str.lower if engine.name == "trino" else str
    described = {name: fold(bare(kind)) for name, kind in engine.describe("odd").items()}
    want = {fold(name): fold(bare(type_name(engine.name, kind))) for name, kind in dataset.columns.items()}
    assert list(described.items()) == list(want.items())
    rows = engine.rows("odd", list(dataset.columns))
    assert checksums(dataset.columns, rows, engine.nested_nulls) == dataset.checksums(engine.nested_nulls)
    for column in (name for name, kind in dataset.columns.items() if kind == "long"):
        middle = sorted(row[column] for row in dataset.rows)[len(dataset.rows) // 3]
        condition = [(column, "<", middle)]
        assert engine.count("odd", condition) == len(expected(dataset, condition)) > 0, column


# ---- manifests, as PyIceberg reads them


class Plan:
    """A table's current snapshot: its entries by partition tuple, and what the model has in their places."""

    def __init__(self, isk, dataset):
        self.table = clients.pyiceberg_catalog(isk.catalog_uri).load_table(f"hotset.{dataset.topic}")
        self.summary = self.table.current_snapshot().summary.additional_properties
        self.data, self.deletes = {}, {}
        self.counted = 0
        for manifest in self.table.current_snapshot().manifests(self.table.io):
            for entry in manifest.fetch_manifest_entry(self.table.io):
                file = entry.data_file
                into = self.data if file.content == DataFileContent.DATA else self.deletes
                place = (file.partition[0], file.partition[1])
                assert place not in into
                into[place] = (manifest.partition_spec_id, entry)
            if manifest.content == ManifestContent.DATA:
                self.counted += manifest.added_rows_count + manifest.existing_rows_count
        self.width = self.table.spec().fields[1].transform.width
        self.rows = collections.defaultdict(list)
        for row in dataset.rows:
            self.rows[row["kafka_partition"], row["kafka_offset"] // self.width * self.width].append(row)

    def counts(self):
        return {place: entry.data_file.record_count for place, (_, entry) in self.data.items()}

    def check_deletes(self):
        """Beside each data entry stands one that deletes nothing: its own file, and nothing by which it could be left out."""
        assert self.deletes.keys() == self.data.keys()
        assert len({entry.data_file.file_path for _, entry in self.deletes.values()}) == len(self.deletes)
        for place, (spec, entry) in self.deletes.items():
            file = entry.data_file
            assert (file.content, file.record_count) == (DataFileContent.POSITION_DELETES, 1)
            assert not file.lower_bounds and not file.upper_bounds
            data_spec, data_entry = self.data[place]
            assert spec == data_spec
            assert entry.sequence_number >= data_entry.sequence_number

    def bounds(self, place):
        """Field id to least and greatest value."""
        file = self.data[place][1].data_file
        types = {field: kind for field, _, kind, _ in leaves(self.table.schema().as_struct())}
        known = (file.lower_bounds or {}, file.upper_bounds or {})
        return [{field: from_bytes(types[field], value) for field, value in bounds.items()} for bounds in known]


def leaves(struct, path=(), repeated=False):
    """All that is primitive: field id, path of names, type, and whether it lies in a list or a map."""
    for field in struct.fields:
        kind, inner = field.field_type, (*path, field.name)
        if isinstance(kind, ListType):
            yield from leaves(StructType(kind.element_field), inner, True)
        elif isinstance(kind, MapType):
            yield from leaves(StructType(kind.key_field, kind.value_field), inner, True)
        elif isinstance(kind, StructType):
            yield from leaves(kind, inner, repeated)
        else:
            yield field.field_id, inner, kind, repeated


def modelled(rows, path, kind):
    """The values of one column as bounds have them, without nulls."""
    for row in rows:
        value = row
        for name in path:
            value = None if value is None else value[name]
        if isinstance(value, datetime.datetime):
            yield canonical("timestamp", value)
        elif isinstance(kind, DateType) and value is not None:
            yield (value - datetime.date(1970, 1, 1)).days
        elif value is not None:
            yield value


def cut_below(value):
    """Iceberg keeps sixteen characters or bytes."""
    return value[:16] if isinstance(value, str | bytes) else value


def cut_above(value):
    """The least that is cut to sixteen and is not below the value."""
    if not isinstance(value, str | bytes) or len(value) <= 16:
        return value
    last = ord(value[15:16]) + 1
    return value[:15] + (chr(last) if isinstance(value, str) else bytes([last]))


@pytest.fixture(scope="module")
def log_ends(broker, topics):
    """Where the partitions of each topic end, for an independent consumer."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "ends"})
    partitions = {topic: {row["kafka_partition"] for row in topics[topic].rows} for topic in TOPICS}
    ends = {
        topic: {n: consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=30)[1] for n in numbers}
        for topic, numbers in partitions.items()
    }
    consumer.close()
    return ends


@pytest.mark.parametrize("topic", TOPICS)
def test_manifests_before_the_first_read(engine_isk, topics, log_ends, topic):
    """Nothing is claimed but what offsets say, and beside every chunk stands an empty delete file."""
    engine_isk.forget()
    plan = Plan(engine_isk, topics[topic])
    ends = log_ends[topic]
    spans = {(n, start): min(plan.width, end - start) for n, end in ends.items() for start in range(0, end, plan.width)}
    assert len(spans) > len(ends)
    assert plan.counts() == spans
    plan.check_deletes()
    assert "total-records" not in plan.summary
    assert plan.counted == sum(spans.values())
    for (partition, start), span in spans.items():
        lower, upper = plan.bounds((partition, start))
        # A bound for the time is as good as what it is made of; the least is not known.
        earliest, latest = lower.pop(3, None), upper.pop(3, None)
        assert lower == {1: partition, 2: start}
        assert (earliest is None) == (latest is None)
        assert upper == {1: partition, 2: start + span - 1}
        times = [canonical("timestamp", row["kafka_timestamp"]) for row in plan.rows[partition, start]]
        assert latest is None or latest >= max(times, default=latest)


@pytest.mark.parametrize("topic", TOPICS)
def test_manifests_after_a_full_read(engine_isk, topics, topic):
    """Every chunk is proven: exact counts and bounds, and no delete file; but what may be compacted again keeps it."""
    engine_isk.forget()
    dataset = topics[topic]
    before = Plan(engine_isk, dataset)
    assert before.table.scan().to_arrow().num_rows == len(dataset.rows)
    plan = Plan(engine_isk, dataset)
    assert plan.counts() == {place: len(rows) for place, rows in plan.rows.items()}
    assert plan.counted == len(dataset.rows)
    if topic == "compacted":
        plan.check_deletes()
        assert "total-records" not in plan.summary
    else:
        assert plan.deletes == {}
        assert plan.summary["total-records"] == str(len(dataset.rows))
    for place, rows in plan.rows.items():
        file, lowest, highest = plan.data[place][1].data_file, {}, {}
        for field, path, kind, repeated in leaves(plan.table.schema().as_struct()):
            # Clients order UUIDs differently, and bytes of fixed length have no bounds yet.
            if repeated or isinstance(kind, UUIDType | FixedType):
                continue
            values = list(modelled(rows, path, kind))
            assert file.value_counts[field] == len(rows), path
            assert file.null_value_counts[field] == len(rows) - len(values), path
            if values:
                lowest[field], highest[field] = cut_below(min(values)), cut_above(max(values))
        assert plan.bounds(place) == [lowest, highest], place
        assert file.file_size_in_bytes < before.data[place][1].data_file.file_size_in_bytes


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
LEFT_OUT = re.compile(r"\b\d+: |optional |required |element: | not null|Nullable\(([^()]*(?:\([^()]*\))?)\)|\\n|[\s\"`]")


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
