"""`merged` is one table: all of cold, and of the topic what cold does not cover. Each record once, whatever moved it and whatever befell cold."""

import contextlib
import datetime
import io
import os
import threading
import time

import pyarrow.parquet
import pytest
import requests
from confluent_kafka import KafkaException
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.types import BinaryType, IntegerType, ListType, LongType, StringType
from stack import clients, records
from stack.canonical import METADATA_COLUMNS
from stack.connect import IcebergSink
from stack.engines import ClickHouse
from stack.isk import Isk
from stack.lake import BUCKET, Lake
from stack.moves import ALL_READERS, SPARK_COLUMNS, Deeds
from stack.pair import FIELDS, Field, Pair, holds, sql
from stack.readers import Readers, assert_same
from stack.relay import Relay

QUICK = ("pyiceberg", "duckdb")


@pytest.fixture
def make(make_deeds):
    return make_deeds


def before(offset, partition=None):
    return [("kafka_offset", "<", offset), *([("kafka_partition", "=", partition)] if partition is not None else [])]


# Nothing moved, a prefix moved, all moved.


def test_a_topic_without_a_cold_table_is_merged(make):
    deeds = make()
    deeds.check()
    assert deeds.pair.topic in deeds.pyiceberg.tables("merged")


def test_a_cold_table_without_a_topic_is_merged(lake, readers, make_topic):
    """Nothing says that it has to have Kafka's columns, as long as there is no topic."""
    name, rows = "cold_only_table", [{"n": n, "s": f"s{n}"} for n in range(100)]
    table = lake.pyiceberg().create_table(f"coldset.{name}", schema=pyarrow.schema([("n", pyarrow.int64()), ("s", pyarrow.string())]))
    table.append(pyarrow.Table.from_pylist(rows))
    for reader in ALL_READERS:
        assert_same(readers[reader], f"merged.{name}", {"n": "long", "s": "string"}, rows)
    assert name in readers["pyiceberg"].tables("merged")


def test_an_empty_cold_table_changes_nothing(make):
    deeds = make()
    deeds.create()
    deeds.check(*QUICK)


@pytest.mark.parametrize("mover", ["pyiceberg", "duckdb", "spark"])
def test_rows_are_moved_and_merged_stays_the_same(make, mover):
    """A prefix, then the rest, from what is unmoved; what was moved is never moved twice."""
    deeds = make()
    deeds.create()
    assert deeds.move(before(70), by=mover, unmoved=False) == 140
    deeds.check()
    assert deeds.move(before(70), by=mover) == 0
    deeds.check(*QUICK)
    deeds.pair.produce(30)
    assert deeds.move(by=mover) == 160
    assert deeds.move(by=mover) == 0
    deeds.pair.produce(5)
    deeds.check()


def test_trino_moves_by_a_condition(make):
    """It keeps `$` in a table's name for its own use."""
    deeds = make()
    deeds.create()
    deeds.move(before(50), by="trino", unmoved=False)
    deeds.check()


@pytest.mark.parametrize(("reader", "mark"), [*((name, "$") for name in ALL_READERS if name != "trino"), *((name, "~") for name in ALL_READERS)])
def test_what_is_unmoved_is_a_table_for_engines(make, reader, mark):
    """Trino asks nobody for a table with `$` in its name, so there is another one."""
    deeds = make()
    deeds.create()
    deeds.move(before(50))
    unmoved = [deeds.pair.hot_row(position) for position in deeds.pair.unmoved()]
    assert_same(deeds.readers[reader], f"hotset.{deeds.pair.topic}{mark}unmoved", deeds.pair.hot_columns(), unmoved)


def test_rows_are_moved_through_the_service(make):
    """The engine knows one catalog alone."""
    deeds = make()
    deeds.create()
    topic = deeds.pair.topic
    deeds.spark(f"INSERT INTO live.coldset.{topic} SELECT * FROM live.hotset.`{topic}$unmoved` WHERE kafka_offset < 40")
    deeds.pair.moved(before(40))
    deeds.check()


def test_clickhouse_reads_every_namespace(make, lake_isk, broker):
    """Files of one merged table lie in two buckets."""
    deeds = make()
    deeds.create()
    deeds.move(before(50))
    deeds.delete([("kafka_offset", "=", 7)])
    topic = deeds.pair.topic
    records.produce(records.producer(broker.bootstrap), topic, [b"broken"], partition=1)
    with contextlib.closing(ClickHouse(lake_isk)) as clickhouse:

        def positions(namespace):
            return clickhouse.sql(f"SELECT kafka_partition, kafka_offset FROM isk.`{namespace}.{topic}` ORDER BY ALL")

        assert positions("errors") == [(1, 120)]
        assert positions("hotset") == [*((0, n) for n in range(120)), *((1, n) for n in range(121))]
        assert positions("coldset") == [(p, n) for p in (0, 1) for n in range(50) if n != 7]
        assert positions("merged") == [*deeds.pair.positions(), (1, 120)]


def test_filtered_moves_out_of_order_and_from_the_middle(make):
    deeds = make(count=200)
    deeds.create()
    deeds.move([("kafka_offset", ">=", 80), ("kafka_offset", "<", 120)])
    deeds.check(*QUICK)
    deeds.move([("amount", ">", 9.5)], by="spark")
    deeds.check(*QUICK)
    deeds.move([("kafka_partition", "=", 1), ("id", "<", 300)], by="duckdb")
    deeds.check(*QUICK)
    deeds.move(before(20))
    deeds.check(*QUICK)
    deeds.pair.produce(10)
    deeds.check()
    deeds.move()
    deeds.check()
    assert not deeds.pair.unmoved()


def test_a_prefix_that_is_moved_twice_shows_as_often_as_cold_has_it(make):
    """Cold is shown as it is; what a careless mover doubled there is doubled, but hot adds nothing."""
    deeds = make()
    deeds.create()
    for _ in range(2):
        deeds.move(before(10), unmoved=False)
    assert len(deeds.pair.cold) == 40
    deeds.check()


# What befalls cold.


def test_cold_is_compacted(make):
    deeds = make()
    deeds.create()
    for end in (20, 50, 90):
        deeds.move(before(end))
    deeds.check(*QUICK)
    deeds.compact()
    deeds.check()
    deeds.rewrite()
    deeds.check(*QUICK)
    deeds.spark(f"CALL direct.system.expire_snapshots(table => 'coldset.{deeds.pair.topic}', older_than => TIMESTAMP '2100-01-01', retain_last => 1)")
    deeds.check()


def test_rows_deleted_from_cold_do_not_come_back_from_hot(make):
    deeds = make()
    deeds.create()
    deeds.move(before(90))
    deeds.check(*QUICK)
    assert deeds.delete([("id", "<", 20)]) > 10
    deeds.check()
    deeds.rewrite()
    deeds.check(*QUICK)
    assert deeds.move() == 2 * 30, "what was deleted is not moved again"
    deeds.check(*QUICK)
    deeds.delete([("kafka_offset", ">=", 0)])
    assert not deeds.pair.cold
    deeds.check()


def test_rows_moved_and_deleted_between_two_looks_do_not_come_back(make):
    """The snapshots in between are in the table's history still."""
    deeds = make()
    deeds.create()
    deeds.check("pyiceberg")
    deeds.move(before(60))
    deeds.delete([("kafka_offset", "<", 30)])
    deeds.move(before(80))
    deeds.rewrite()
    deeds.check(*QUICK)


def test_coverage_outlives_a_restart(make, lake_isk):
    deeds = make()
    deeds.create()
    deeds.move(before(60))
    deeds.check("pyiceberg")
    deeds.delete([("kafka_offset", "<", 30)])
    deeds.compact()
    lake_isk.restart()
    deeds.check("pyiceberg")


# Formats, partitions and deletes.


@pytest.mark.parametrize(
    ("version", "partitioned"),
    [
        ("1", ""),
        ("1", "days(at)"),
        ("2", "days(at)"),
        ("2", "kafka_partition, truncate(100, kafka_offset)"),
        ("2", "bucket(4, id), note"),
        ("3", ""),
        ("3", "kafka_partition, truncate(100, kafka_offset)"),
    ],
)
def test_formats_and_partitions(make, version, partitioned):
    deeds = make(count=150)
    deeds.create(by="spark", partitioned=partitioned, **{"format-version": version})
    deeds.move(before(70), by="spark")
    deeds.check(*reading(version))
    deeds.move([("id", ">=", 40), ("id", "<", 100)], by="spark")
    deeds.check(*QUICK)


def reading(version):
    """The clients that read a table of this version when the lake itself offers it."""
    return ALL_READERS


@pytest.mark.parametrize("version", ["2", "3"])
def test_merge_on_read_deletes(make, version):
    """Position deletes in version 2, deletion vectors in version 3, beside hot rows that they must not touch."""
    deeds = make()
    modes = {f"write.{what}.mode": "merge-on-read" for what in ("delete", "update", "merge")}
    deeds.create(by="spark", **{"format-version": version}, **modes)
    deeds.move(before(80), by="spark")
    deeds.check("pyiceberg")
    deeds.delete([("id", "<", 50)], by="spark")
    deeds.delete([("kafka_offset", "=", 60)], by="spark")
    files = deeds.spark(f"SELECT content, file_format FROM {deeds.cold}.all_delete_files")
    assert {(1, "PUFFIN" if version == "3" else "PARQUET")} == set(files)
    deeds.check(*reading(version))
    deeds.spark(f"UPDATE {deeds.cold} SET note = 'changed' WHERE id % 10 = 7")
    for row in deeds.pair.cold:
        if (row[deeds.pair.cold_columns["id"]] or 0) % 10 == 7:
            row[deeds.pair.cold_columns["note"]] = "changed"
    deeds.check(*reading(version))
    deeds.compact()
    deeds.check(*reading(version))


def test_row_ids_of_a_version_3_table_stay(make):
    """Row lineage: cold's row ids are cold's, and a hot row keeps its own while there are files of it, whatever is cut out beside it."""
    deeds = make(count=200)
    deeds.create(by="spark", **{"format-version": "3"})
    deeds.move(before(60), by="spark")

    def row_ids(catalog, namespace):
        rows = deeds.spark(f"SELECT kafka_partition, kafka_offset, _row_id FROM {catalog}.{namespace}.{deeds.pair.topic}")
        ids = {(partition, offset): row_id for partition, offset, row_id in rows}
        assert len(rows) == len(ids) == len(set(ids.values())) and None not in ids.values()
        return ids

    cold, both = row_ids("direct", "coldset"), row_ids("live", "merged")
    assert len(cold) == 120 and len(both) == 400
    assert cold.items() <= both.items()
    hot = {position: row_id for position, row_id in both.items() if position not in cold}
    deeds.pair.produce(20)
    deeds.move([("amount", ">", 9.5)], by="duckdb")
    deeds.pair.delete_records(1, 67)
    deeds.move([("kafka_offset", ">=", 90), ("kafka_offset", "<", 95)], by="spark")
    cold, both = row_ids("direct", "coldset"), row_ids("live", "merged")
    assert cold.items() <= both.items()
    left = {position for position in hot if position in both and position not in cold}
    assert len(left) > 50 and {both[position] for position in left} == {hot[position] for position in left}
    assert all(both[position] == hot[position] for position in left)
    files = deeds.spark(f"SELECT first_row_id FROM live.merged.{deeds.pair.topic}.files")
    assert None not in {first for (first,) in files}


def test_equality_deletes(make, lake, readers):
    """By the value of a column that hot rows have too: they delete what is older, and hot is newer."""
    deeds = make()
    deeds.create()
    deeds.move(before(60, partition=0))
    deeds.check("pyiceberg")
    write_equality_delete(lake, deeds, "kafka_offset", 7)
    assert deeds.pair.deleted_from_cold([("kafka_offset", "=", 7)]) == 1
    assert (1, 7) in deeds.pair.unmoved()
    for name in ("spark", "trino", "duckdb"):
        assert_same(readers[name], f"merged.{deeds.pair.topic}", deeds.pair.columns(), deeds.pair.rows())


def write_equality_delete(lake, deeds, column, number):
    """Deletes the rows whose column has this value, as streaming writers do; Iceberg's own library commits it."""
    table, key = deeds.cold_table(), "warehouse/equality-deletes.parquet"
    field_id = table.schema().find_field(column).field_id
    deleted = pyarrow.field(column, pyarrow.int64(), metadata={"PARQUET:field_id": str(field_id)})
    body = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table([[number]], schema=pyarrow.schema([deleted])), body)
    lake.boto3().put_object(Bucket=BUCKET, Key=key, Body=body.getvalue())
    context = deeds.readers["spark"].session.sparkContext
    jvm, session = context._jvm, deeds.readers["spark"].session._jsparkSession
    loaded = jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(session, deeds.cold)
    ids = context._gateway.new_array(jvm.int, 1)
    ids[0] = field_id
    file = jvm.org.apache.iceberg.FileMetadata.deleteFileBuilder(loaded.spec()).ofEqualityDeletes(ids)
    file = file.withPath(f"s3://{BUCKET}/{key}").withFormat("parquet").withFileSizeInBytes(len(body.getvalue())).withRecordCount(1).build()
    loaded.newRowDelta().addDeletes(file).commit()


# Columns.


def test_cold_columns_evolve(make):
    """Added, renamed, dropped, reordered, widened: the next query is right, and so are older files."""
    deeds = make()
    pair = deeds.pair
    deeds.create()
    deeds.move(before(40))
    deeds.check("pyiceberg")
    with deeds.cold_table().update_schema() as schema:
        schema.add_column("origin", StringType(), "of cold alone")
        schema.update_column("quantity", LongType())
    pair.cold_added("origin", "string")
    pair.cold_kinds[pair.cold_columns["quantity"]] = "long"
    deeds.check(*QUICK)
    deeds.move(before(60))
    deeds.check(*QUICK)
    with deeds.cold_table().update_schema() as schema:
        schema.rename_column("note", "remark")
        schema.move_first("kafka_offset")
    pair.cold_renamed("note", "remark")
    pair.cold_ordered(["kafka_offset", *(name for name in pair.cold_columns if name != "kafka_offset")])
    deeds.check()
    deeds.move(before(80))
    deeds.check(*QUICK)
    with deeds.cold_table().update_schema() as schema:
        schema.delete_column("tags")
        schema.delete_column("origin")
    pair.cold_dropped("tags")
    pair.cold_dropped("origin")
    deeds.check()
    deeds.move()
    deeds.check(*QUICK)
    with deeds.cold_table().update_schema() as schema:
        schema.add_column("tags", ListType(0, StringType(), element_required=False))
    pair.cold_added("tags", ["string"])
    deeds.pair.produce(20)
    deeds.check()


def test_hot_columns_evolve(make):
    """A new version of the Avro schema adds, widens and drops fields; cold has what it was made with."""
    deeds = make()
    pair = deeds.pair
    deeds.create()
    deeds.move(before(40))
    deeds.check(*QUICK)
    fields = {name: f for name, f in FIELDS.items() if name != "tags"}
    fields["quantity"] = Field("long", "long", 0)
    pair.evolve(fields | {"level": Field("int", "int", 7), "extra": Field(["null", "string"], "string", None)})
    pair.produce(20)
    deeds.check()
    with deeds.cold_table().update_schema() as schema:
        schema.update_column("quantity", LongType())
    pair.cold_kinds[pair.cold_columns["quantity"]] = "long"
    deeds.move(before(60))
    deeds.check(*QUICK)
    with deeds.cold_table().update_schema() as schema:
        schema.add_column("level", IntegerType())
    pair.cold_added("level", "int")
    deeds.check(*QUICK)
    deeds.move()
    pair.produce(20)
    deeds.check()


def test_both_evolve_between_two_queries(make):
    deeds = make()
    pair = deeds.pair
    deeds.create()
    deeds.move(before(40))
    pair.evolve(FIELDS | {"extra": Field(["null", "long"], "long", None)})
    pair.produce(20)
    with deeds.cold_table().update_schema() as schema:
        schema.add_column("EXTRA", LongType())
        schema.delete_column("quantity")
    pair.cold_added("EXTRA", "long")
    pair.cold_dropped("quantity")
    deeds.check(*QUICK)
    deeds.move(before(100))
    deeds.check()


def test_columns_are_matched_whatever_their_case(make):
    """Engines that know no upper case made the cold table."""
    fields = {"orderId": Field("long", "long"), "Amount": Field("double", "double")}
    deeds = make(0, fields=fields)
    deeds.pair.produce(60, make=lambda n: {"id": n, "orderId": n, "Amount": n / 4})
    columns = {"orderid": "bigint", "amount": "double"} | {name: SPARK_COLUMNS[name] for name in METADATA_COLUMNS}
    deeds.create(by="spark", columns=columns)
    deeds.move(before(30))
    deeds.check()


def test_a_cold_table_with_fewer_and_wider_columns(make):
    """As people make them by hand: three columns of Kafka's, some of the record's, types that are wide enough."""
    deeds = make()
    columns = {"kafka_offset": "bigint", "id": "bigint", "quantity": "bigint", "kafka_partition": "int", "loaded_by": "string"}
    deeds.create(by="spark", columns=columns)
    deeds.move(before(50))
    deeds.check()


def test_types_that_do_not_fit_are_refused_with_both_sides(make, lake_isk):
    deeds = make()
    deeds.create(by="spark", columns=SPARK_COLUMNS | {"amount": "string"})
    message = refusal(lake_isk, deeds.pair.topic)
    assert "amount" in message and "double" in message and "string" in message
    assert len(deeds.pyiceberg.rows(f"hotset.{deeds.pair.topic}", ["id"])) == 240
    assert deeds.pyiceberg.rows(deeds.pair.cold_table, ["id"]) == []


@pytest.mark.parametrize("missing", ["kafka_partition", "kafka_offset"])
def test_a_cold_table_without_kafkas_columns_is_refused(make, lake_isk, missing):
    deeds = make()
    deeds.create(by="spark", columns={name: kind for name, kind in SPARK_COLUMNS.items() if name != missing})
    deeds.spark(f"INSERT INTO {deeds.cold} (id) VALUES (1)")
    message = refusal(lake_isk, deeds.pair.topic)
    assert missing in message and deeds.pair.topic in message
    assert len(deeds.pyiceberg.rows(f"hotset.{deeds.pair.topic}", ["id"])) == 240


def test_a_cold_table_without_kafkas_columns_may_state_what_it_holds(make):
    """The end offset of each partition, in a property of the table."""
    deeds = make()
    columns = {"id": "bigint", "note": "string", "amount": "double"}
    deeds.create(by="spark", columns=columns, **{"isk.covered-offsets": "0:40,1:25"})
    for partition, end in ((0, 40), (1, 25)):
        deeds.move(before(end, partition), by="spark", unmoved=False)
    deeds.check()


@pytest.mark.parametrize("in_summary", [True, False], ids=["snapshot", "table"])
def test_a_boundary_in_time_parts_cold_from_hot(make, lake_isk, in_summary):
    """A cold table without Kafka's columns says up to which time it has all. Records out of order around it are told by their own times."""
    start = int(time.time()) - 7200

    def timestamp(row):
        n = row["id"] if row else 0
        return (start + n + (n * 7919 % 61) - 30) * 1000 + n % 1000

    def at(seconds):
        return datetime.datetime.fromtimestamp(start + seconds, datetime.UTC)

    deeds = make(count=0)
    deeds.pair.produce(200, timestamp=timestamp)
    deeds.create(by="spark", columns={"id": "bigint", "note": "string", "amount": "double"})
    assert deeds.load_before(at(120), in_summary=in_summary) > 100
    deeds.check()
    ends = [max(offset for p, offset in deeds.pair.covered if p == partition) for partition in range(2)]
    assert any((partition, offset) not in deeds.pair.covered for partition in range(2) for offset in range(ends[partition])), "none is out of order"
    deeds.load_before(at(250), since=at(120), in_summary=in_summary)
    deeds.pair.produce(100, timestamp=timestamp)
    deeds.pair.covered |= {p for p, row in deeds.pair.hot.items() if row["kafka"]["kafka_timestamp"] < at(250)}
    deeds.check(*QUICK)
    with deeds.cold_table().transaction() as commit:
        commit.set_properties({"isk.boundary-timestamp": at(100).isoformat()})
    lake_isk.restart()
    deeds.check(*QUICK)
    assert deeds.load_before(at(100_000), since=at(250), in_summary=in_summary) > 100
    deeds.check(*QUICK)
    assert deeds.pyiceberg.load(f"merged.{deeds.pair.topic}").inspect.files().num_rows == deeds.cold_table().inspect.files().num_rows, "nothing is left to look through"
    deeds.pair.produce(10)
    deeds.pair.covered |= {p for p, row in deeds.pair.hot.items() if row["kafka"]["kafka_timestamp"] < at(100_000)}
    deeds.check(*QUICK)


def test_a_boundary_that_is_no_time_is_refused(make, lake_isk):
    deeds = make()
    deeds.create(by="spark", columns={"id": "bigint"}, **{"isk.boundary-timestamp": "last week"})
    message = refusal(lake_isk, deeds.pair.topic)
    assert "isk.boundary-timestamp" in message and "last week" in message


def test_an_operator_takes_coverage_back(make, lake_isk):
    """Rows that were deleted from cold by mistake are shown from Kafka again; those that cold has still are not shown twice."""
    deeds = make()
    deeds.create()
    deeds.move(before(60))
    deeds.delete(before(40))
    deeds.rewrite()
    deeds.check(*QUICK)
    with pytest.raises(RuntimeError, match="runs on this data_dir"):
        lake_isk.run("coverage", "show")
    lake_isk.stop()
    try:
        table = ("--table", deeds.pair.topic)
        assert "partition 0: 60 offsets: 0..60" in lake_isk.run("coverage", "show", *table)
        said = lake_isk.run("coverage", "forget", *table, "--partition", "0", "--offsets", "10..50")
        assert "40 offsets are covered no longer" in said
    finally:
        lake_isk.start()
    deeds.pair.covered -= {(0, offset) for offset in range(10, 40)}
    deeds.check()
    lake_isk.stop()
    try:
        lake_isk.run("coverage", "forget", *table)
    finally:
        lake_isk.start()
    deeds.pair.covered -= {(partition, offset) for partition in range(2) for offset in range(40)}
    deeds.check(*QUICK)
    deeds.move()
    deeds.check(*QUICK)


def test_a_mover_may_state_what_it_moved(make):
    """In a property of its snapshot: it dropped records on its way, and they are not to be shown."""
    deeds = make()
    deeds.create()
    rows = deeds.pyiceberg.load(f"hotset.{deeds.pair.topic}").scan(row_filter="kafka_offset < 40 AND amount > 3").to_arrow()
    deeds.cold_table().append(rows, snapshot_properties={"isk.covered-offsets": "0:40,1:40"})
    deeds.pair.moved([*before(40), ("amount", ">", 3)])
    deeds.pair.covered |= {(partition, offset) for partition in range(2) for offset in range(40)}
    deeds.check(*QUICK)


def test_cold_files_may_be_read_from_the_store_itself(broker, registry, lake, make_pair, readers):
    """With `coldset.direct`, by clients that know credentials for several prefixes: cold bytes pass the gateway by."""
    pair = make_pair()
    pair.produce(60)
    isk = Isk.beside(broker, registry, lake.isk_environment() | {"ISK_COLDSET_DIRECT": "true"})
    relay = Relay(isk.s3_endpoint)
    isk.env["ISK_EXTERNAL_URL"] = relay.url
    with contextlib.closing(relay), isk, Readers(isk, lake) as own:
        deeds = Deeds(pair, own)
        deeds.create()
        with deeds.cold_table().update_schema() as schema:
            schema.add_column("filling", BinaryType())
        pair.cold_added("filling", "binary")
        rows = deeds.pyiceberg.load(f"hotset.{pair.topic}").scan(row_filter="kafka_offset < 40").to_arrow()
        filling = [os.urandom(64 << 10) for _ in range(rows.num_rows)]
        deeds.cold_table().append(rows.append_column("filling", pyarrow.array(filling, pyarrow.binary())))
        pair.moved(before(40))
        answer = requests.get(f"{isk.catalog_uri}/v1/namespaces/merged/tables/{pair.topic}", timeout=60).json()
        keys = {one["prefix"]: one["config"]["s3.endpoint"] for one in answer["storage-credentials"]}
        assert keys == {f"s3://merged/{pair.topic}": f"{relay.url}/", f"s3://{BUCKET}/": lake.s3_endpoint}

        through = f"through_{isk.port}"
        session = readers["spark"].session
        for key, value in clients.spark_catalog(through, isk.catalog_uri, **{"io-impl": "org.apache.iceberg.aws.s3.S3FileIO"}).items():
            session.conf.set(key, value)
        relayed = relay.received
        read = session.sql(f"SELECT kafka_partition, kafka_offset, filling FROM {through}.merged.{pair.topic}").collect()
        assert sorted((p, o) for p, o, _ in read) == pair.positions()
        assert sorted(bytes(f) for *_, f in read if f is not None) == sorted(filling)
        assert relay.received - relayed < 1 << 20, "cold bytes came through the gateway"
        [file] = {task.file.file_path for task in deeds.cold_table().scan().plan_files()}
        s3 = clients.boto3_client(relay.url, isk.access_key, isk.secret_key)
        whole = s3.get_object(Bucket=BUCKET, Key=file.removeprefix(f"s3://{BUCKET}/"))["Body"].read()
        assert relay.received - relayed > len(whole) > 5 << 20, "the relay sees what does"


def test_topics_and_tables_of_other_names(broker, registry, lake, make_pair, tmp_path):
    """By patterns in the configuration."""
    pair = make_pair()
    pair.produce(60)
    other = f"table_of_{pair.topic}"
    config = tmp_path / "isk.toml"
    config.write_text("[merged]\ntopics = [{ topic = '(test_topics_and_tables.*)', table = 'table_of_${1}' }]\n")
    isk = Isk(
        {"ISK_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap, "ISK_REGISTRY_URL": registry.url} | lake.isk_environment(),
        ["--config", str(config)],
    )
    with isk, Readers(isk, lake) as readers:
        table = Deeds(pair, readers)
        schema = table.pyiceberg.load(f"hotset.{pair.topic}").schema()
        table.pyiceberg.direct.create_table(f"coldset.{other}", schema=schema)
        pair.cold_created()
        rows = table.pyiceberg.load(f"hotset.{pair.topic}$unmoved").scan(row_filter="kafka_offset < 20").to_arrow()
        table.pyiceberg.load(f"coldset.{other}", direct=True).append(rows)
        pair.moved(before(20))
        for name in QUICK:
            assert_same(readers[name], f"merged.{other}", pair.columns(), pair.rows())
        listed = table.pyiceberg.tables("merged")
        assert other in listed and pair.topic not in listed


def refusal(isk, table, namespace="merged"):
    """The message with which a table is refused."""
    answer = requests.get(f"{isk.catalog_uri}/v1/namespaces/{namespace}/tables/{table}", timeout=60)
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    return answer.json()["error"]["message"]


# Kafka's edges.


def test_records_that_kafka_forgets_after_a_move_are_colds(make):
    deeds = make()
    deeds.create()
    deeds.move(before(60))
    deeds.check(*QUICK)
    deeds.pair.delete_records(0, 60)
    deeds.pair.delete_records(1, 40)
    deeds.check()
    assert "isk.holes" not in deeds.properties()


def test_a_hole_is_reported_and_nothing_else_is_lost(make, lake_isk):
    deeds = make()
    deeds.create()
    deeds.move(before(60))
    deeds.check("pyiceberg")
    deeds.pair.delete_records(0, 75)
    deeds.check()
    assert deeds.properties()["isk.holes"] == "0:60-75"
    assert deeds.properties()["isk.hole-offsets"] == "15"
    deeds.pair.delete_records(1, 61)
    deeds.check(*QUICK)
    assert deeds.properties()["isk.holes"] == "0:60-75,1:60-61"
    metrics = requests.get(f"{lake_isk.catalog_uri}/metrics", timeout=30).text
    holes = [line for line in metrics.splitlines() if "hole" in line and deeds.pair.topic in line]
    assert any(line.endswith(" 16") for line in holes), holes
    assert "0:60-75" in lake_isk.log.read_text()


def test_new_records_are_there_at_once(make):
    deeds = make()
    deeds.create()
    deeds.move(before(60))
    for _ in range(5):
        deeds.pair.produce(3)
        deeds.check("pyiceberg")
    deeds.check()


def test_a_recreated_topic_is_refused(broker, registry, make, lake_isk):
    """Its offsets began anew: taken for the old ones they would be dropped without a word."""
    deeds = make()
    deeds.create()
    deeds.move(before(60))
    deeds.check("pyiceberg")
    recreate(broker, deeds.pair.topic)
    again = Pair.make(broker, registry, deeds.pair.topic)
    again.produce(20)
    message = refusal(lake_isk, deeds.pair.topic)
    assert "recreated" in message and deeds.pair.topic in message
    again.produce(150)
    assert "recreated" in refusal(lake_isk, deeds.pair.topic), "long enough that all of cold's offsets are there again"
    assert "recreated" in refusal(lake_isk, f"{deeds.pair.topic}$unmoved", "hotset")
    assert_same(deeds.pyiceberg, f"hotset.{deeds.pair.topic}", again.hot_columns(), again.hot_rows())
    assert_same(deeds.pyiceberg, deeds.pair.cold_table, deeds.pair.cold_columns_and_kinds(), deeds.pair.cold_rows())


def recreate(broker, topic):
    admin = records.admin(broker.bootstrap)  # must live until the answer is there
    admin.delete_topics([topic], operation_timeout=30)[topic].result(30)
    deadline = time.monotonic() + 30
    while True:
        try:
            records.create_topic(broker.bootstrap, topic, 2)
            return time.sleep(1)  # the service asks again for what topics there are
        except KafkaException:
            assert time.monotonic() < deadline
            time.sleep(0.2)


# While queries run.


def test_a_planned_query_keeps_its_rows_while_cold_commits(make):
    """Planned before a move, a compaction and a deletion, read after them."""
    deeds = make()
    deeds.create()
    deeds.move(before(40))
    planned, want = deeds.pyiceberg.load(f"merged.{deeds.pair.topic}"), deeds.pair.positions()
    deeds.move(before(90))
    deeds.pair.produce(10)
    deeds.rewrite()
    deeds.delete([("kafka_offset", "<", 20)])
    got = planned.scan(selected_fields=("kafka_partition", "kafka_offset")).to_arrow()
    assert sorted(zip(*(got[name].to_pylist() for name in ("kafka_partition", "kafka_offset")), strict=True)) == want
    deeds.check(*QUICK)


def test_queries_see_every_record_once_while_rows_are_moved(make, readers):
    """A mover, a producer and three kinds of readers at once; a count is never less than before, and never has a row twice."""
    deeds = make(count=300)
    deeds.create()
    topic, stop, seen = deeds.pair.topic, threading.Event(), {"pyiceberg": [], "duckdb": []}
    failures = []

    def watch(name):
        try:
            while not stop.is_set():
                got = readers[name].rows(f"merged.{topic}", ["kafka_partition", "kafka_offset"])
                assert len(set(got)) == len(got), f"{name}: {len(got) - len(set(got))} rows are there twice"
                seen[name].append(len(got))
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=watch, args=(name,)) for name in seen]
    [thread.start() for thread in threads]
    try:
        for end in (100, 180, 240, 300):
            deeds.move(before(end), by="pyiceberg")
            deeds.pair.produce(10)
        deeds.rewrite()
    finally:
        stop.set()
        [thread.join() for thread in threads]
    assert not failures, failures
    for name, counts in seen.items():
        assert len(counts) >= 3 and counts == sorted(counts) and counts[0] >= 600, (name, counts)
    deeds.check()


def test_kafka_connects_sink_moves_rows(broker, registry, lake, make, readers):
    """Iceberg's own sink makes the table and fills it while records are produced and queries run. It moves no tombstones: they stay hot."""
    fields = {name: FIELDS[name] for name in ("id", "quantity", "amount", "note", "tags")}
    deeds = make(count=100, fields=fields)
    topic, pair = deeds.pair.topic, deeds.pair

    def merged():
        return sorted(readers["pyiceberg"].rows(f"merged.{topic}", ["kafka_partition", "kafka_offset"]))

    def cold():
        try:
            return readers["pyiceberg"].rows(pair.cold_table, ["kafka_partition", "kafka_offset"], direct=True)
        except NoSuchTableError:
            return []

    with IcebergSink(broker, registry, lake, topic, pair.cold_table):
        counts = set()
        for _ in range(6):
            pair.produce(30)
            assert merged() == sorted(pair.hot)
            counts.add(len(cold()))
            time.sleep(1)
        values = [position for position, row in pair.hot.items() if row["value"] is not None]
        deadline = time.monotonic() + 90
        while len(cold()) < len(values):
            assert merged() == sorted(pair.hot)
            assert time.monotonic() < deadline, f"the sink has moved {len(cold())} of {len(values)} rows"
            counts.add(len(cold()))
    # On a busy machine, the sink moves all of it with one commit.
    assert sorted(cold()) == sorted(values) and len(counts) > 1
    made = {field.name: str(field.field_type) for field in deeds.cold_table().schema().fields}
    assert (made["kafka_partition"], made["kafka_offset"]) == ("int", "long")
    kinds = {name: pair.hot_columns()[name] for name in made}
    pair.cold_created(kinds)
    pair.moved([("kafka_offset", ">=", 0), ("id", ">=", 0)])
    deeds.check()
    assert pair.unmoved() and all(pair.hot[position]["value"] is None for position in pair.unmoved())


def test_merged_is_refused_while_the_upstream_is_down_and_hotset_goes_on(broker, registry, make_pair):
    pair = make_pair(partitions=1)
    pair.produce(50)
    with Lake() as own, Isk.beside(broker, registry, own.isk_environment()) as isk, Readers(isk, own) as readers:
        own.pyiceberg().create_namespace("coldset")
        deeds = Deeds(pair, readers)
        deeds.create()
        deeds.move(before(20))
        deeds.check("pyiceberg")
        own.catalog.stop()
        answer = requests.get(f"{isk.catalog_uri}/v1/namespaces/merged/tables/{pair.topic}", timeout=60)
        assert answer.status_code in (502, 503, 504) and "upstream" in answer.json()["error"]["message"], answer.text
        assert_same(deeds.pyiceberg, f"hotset.{pair.topic}", pair.hot_columns(), pair.hot_rows())
        own.catalog.start()
        deeds.check("pyiceberg")


# Names, and what may not be done.


def test_merged_is_read_only(make, lake_isk):
    deeds = make()
    deeds.create()
    address = f"{lake_isk.catalog_uri}/v1/namespaces/merged/tables/{deeds.pair.topic}"
    body = {"requirements": [], "updates": [{"action": "set-properties", "updates": {"a": "b"}}]}
    for answer in (requests.post(address, json=body, timeout=30), requests.delete(address, timeout=30)):
        assert 400 <= answer.status_code < 500 and "read-only" in answer.text


def test_absent_from_both(readers):
    with pytest.raises(NoSuchTableError):
        readers["pyiceberg"].load("merged.absent_from_both")


def test_snapshots_change_when_and_only_when_something_did(make):
    deeds = make()
    deeds.create()
    deeds.move(before(60))
    deeds.check("pyiceberg")
    first, second = (deeds.pyiceberg.load(f"merged.{deeds.pair.topic}") for _ in range(2))
    assert first.metadata_location == second.metadata_location
    assert first.current_snapshot() == second.current_snapshot()
    deeds.pair.produce(1)
    third = deeds.pyiceberg.load(f"merged.{deeds.pair.topic}")
    deeds.move(before(70))
    fourth = deeds.pyiceberg.load(f"merged.{deeds.pair.topic}")
    assert len({t.metadata_location for t in (second, third, fourth)}) == 3
    assert len({t.metadata.table_uuid for t in (second, third, fourth)}) == 1
    assert second.metadata.table_uuid not in (deeds.cold_table().metadata.table_uuid, deeds.pyiceberg.load(f"hotset.{deeds.pair.topic}").metadata.table_uuid)


def test_times_prune_and_rows_stay(make):
    """Conditions on every kind of column, over both sides, in every client."""
    deeds = make(count=200)
    deeds.create(by="spark", partitioned="days(at)")
    deeds.move(before(90), by="spark")
    deeds.check("pyiceberg")
    rows = deeds.pair.rows()
    for condition in (
        [("kafka_offset", ">=", 80), ("kafka_offset", "<", 100)],
        [("kafka_partition", "=", 1)],
        [("amount", ">", 20.25)],
        [("quantity", "<", 40), ("kafka_partition", "=", 0)],
    ):
        want = sorted((r["kafka_partition"], r["kafka_offset"]) for r in rows if holds(condition, r))
        for name in ALL_READERS:
            got = deeds.readers[name].rows(f"merged.{deeds.pair.topic}", ["kafka_partition", "kafka_offset"], where=sql(condition))
            assert sorted(got) == want, (name, condition)
            assert deeds.readers[name].count(f"merged.{deeds.pair.topic}", where=sql(condition)) == len(want), (name, condition)
