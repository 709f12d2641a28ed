"""Cold tables as they are in the wild, beside their topics: file formats, partition specs that changed, deletes of other writers."""

import pytest
import requests
from stack import flink
from stack.canonical import METADATA_COLUMNS
from stack.lake import BUCKET
from stack.moves import ALL_READERS, SPARK_COLUMNS
from stack.pair import Field, holds, sql
from stack.readers import assert_same

MERGE_ON_READ = {f"write.{what}.mode": "merge-on-read" for what in ("delete", "update", "merge")}


def before(offset):
    return [("kafka_offset", "<", offset)]


def files(deeds, namespace="cold", what="files"):
    """Rows of a metadata table, as Spark shows them."""
    table = deeds.cold if namespace == "cold" else f"live.merged.{deeds.pair.topic}"
    return f"{table}.{what}"


# File formats.


@pytest.mark.parametrize(("kind", "version"), [("orc", "2"), ("avro", "2")])
def test_data_files_of_other_formats(make_deeds, kind, version):
    """Their manifests do not prove which offsets they hold, so the two columns of the files are read."""
    able = {"spark", "trino"} | ({"pyiceberg"} if kind == "orc" else set())
    deeds = make_deeds(count=200)
    deeds.create(by="spark", **{"format-version": version, "write.format.default": kind}, **MERGE_ON_READ)
    deeds.move([("amount", ">", 9.5)], by="spark")
    formats = {name for (name,) in deeds.spark(f"SELECT DISTINCT file_format FROM {files(deeds)}")}
    assert formats == {kind.upper()}
    check(deeds, able)
    deeds.spark(f"ALTER TABLE {deeds.cold} RENAME COLUMN note TO remark")
    deeds.pair.cold_renamed("note", "remark")
    deeds.move([("id", "<", 150)], by="spark")
    check(deeds, able)
    deeds.delete([("id", "<", 100)], by="spark")
    deleted = {tuple(row) for row in deeds.spark(f"SELECT content, file_format FROM {deeds.cold}.all_delete_files")}
    assert deleted == {(1, "PUFFIN" if version == "3" else kind.upper())}
    check(deeds, able)
    deeds.pair.produce(20)
    deeds.move(by="spark")
    check(deeds, able)
    assert not deeds.pair.unmoved()


def check(deeds, names):
    """As `deeds.check`, in clients that read the cold table's files."""
    for name in names:
        assert_same(deeds.readers[name], f"merged.{deeds.pair.topic}", deeds.pair.columns(), deeds.pair.rows())
    deeds.pair.look()
    unmoved = [deeds.pair.hot_row(position) for position in deeds.pair.unmoved()]
    assert_same(deeds.pyiceberg, f"hotset.{deeds.pair.topic}$unmoved", deeds.pair.hot_columns(), unmoved)


# Manifests, and what is learnt of them.


def test_cold_manifests_are_named_as_they_are(make_deeds):
    """Same paths, lengths, specs, counts, bounds and snapshots; and after them those of hot files. Entries keep their sequence numbers."""
    deeds = make_deeds(count=200)
    deeds.create(by="spark", partitioned="days(at)", **{"format-version": "2"}, **MERGE_ON_READ)
    deeds.move(before(60), by="spark")
    deeds.move([("amount", ">", 9.5)], by="spark")
    deeds.delete([("id", "<", 50)], by="spark")
    deeds.check("pyiceberg")
    columns = "path, length, partition_spec_id, added_snapshot_id, content, added_data_files_count, existing_data_files_count, added_delete_files_count"
    cold = deeds.spark(f"SELECT {columns}, partition_summaries FROM {files(deeds, what='manifests')}")
    both = deeds.spark(f"SELECT {columns}, partition_summaries FROM {files(deeds, 'merged', 'manifests')}")
    assert both[: len(cold)] == cold and len(both) > len(cold)
    entries = "SELECT data_file.file_path, status, snapshot_id, sequence_number, file_sequence_number FROM {}"
    cold = set(deeds.spark(entries.format(files(deeds, what="entries"))))
    both = set(deeds.spark(entries.format(files(deeds, "merged", "entries"))))
    assert cold and cold < both
    assert min(number for *_, number, _ in both - cold) > max(number for *_, number, _ in cold)


def test_what_a_file_holds_is_learnt_once_and_not_read_where_its_manifest_proves_it(make_deeds, lake_isk, lake):
    """Files that are gone from the store cannot be read; nothing needs to be."""
    deeds = make_deeds(count=150, partitions=1)
    deeds.create()
    deeds.move(before(40))
    proven = data_files(deeds)
    hidden = hide(lake, proven)
    assert sorted(deeds.pair.unmoved()) == unmoved(deeds), "the manifests prove it"
    show(lake, hidden)
    deeds.move([("amount", ">", 5.5)])
    others = data_files(deeds) - proven
    assert sorted(deeds.pair.unmoved()) == unmoved(deeds)
    hidden = hide(lake, others)
    lake_isk.restart()
    deeds.pair.produce(5)
    assert sorted(deeds.pair.unmoved()) == unmoved(deeds), "it was learnt before"
    show(lake, hidden)
    deeds.move([("amount", ">", 3.5)])
    hidden = hide(lake, data_files(deeds) - others - proven)
    address = f"{lake_isk.catalog_uri}/v1/namespaces/hotset/tables/{deeds.pair.topic}$unmoved"
    answer = requests.get(address, timeout=60)
    assert answer.status_code >= 400 and next(iter(hidden)) in answer.text, "what cannot be told is an error"
    show(lake, hidden)
    deeds.check("pyiceberg")


def data_files(deeds):
    """The keys of the cold table's data files."""
    return {task.file.file_path.removeprefix(f"s3://{BUCKET}/") for task in deeds.cold_table().scan().plan_files()}


def hide(lake, keys):
    store, hidden = lake.boto3(), {}
    for key in keys:
        hidden[key] = store.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        store.delete_object(Bucket=BUCKET, Key=key)
    return hidden


def show(lake, hidden):
    for key, body in hidden.items():
        lake.boto3().put_object(Bucket=BUCKET, Key=key, Body=body)


def unmoved(deeds):
    return sorted(deeds.pyiceberg.rows(f"hotset.{deeds.pair.topic}$unmoved", ["kafka_partition", "kafka_offset"]))


# Partition specs.


@pytest.mark.parametrize("version", ["1", "3"])
def test_specs_that_changed_between_moves(make_deeds, version):
    """Twice, by Spark: files under all of them lie beside each other, and each client plans each file by its own."""
    deeds = make_deeds(count=160)
    deeds.create(by="spark", partitioned="days(at)", **{"format-version": version})
    deeds.move(before(40), by="spark")
    deeds.check("pyiceberg")
    deeds.spark(f"ALTER TABLE {deeds.cold} REPLACE PARTITION FIELD days(at) WITH bucket(4, id)")
    deeds.spark(f"ALTER TABLE {deeds.cold} ADD PARTITION FIELD note")
    deeds.move([("kafka_offset", ">=", 60), ("kafka_offset", "<", 90)], by="spark")
    deeds.check("pyiceberg")
    deeds.spark(f"ALTER TABLE {deeds.cold} DROP PARTITION FIELD note")
    deeds.spark(f"ALTER TABLE {deeds.cold} DROP PARTITION FIELD bucket(4, id)")
    deeds.spark(f"ALTER TABLE {deeds.cold} ADD PARTITION FIELD kafka_partition")
    deeds.spark(f"ALTER TABLE {deeds.cold} ADD PARTITION FIELD truncate(100, kafka_offset)")
    deeds.move([("amount", ">", 9.5)], by="spark")
    cold = {spec for (spec,) in deeds.spark(f"SELECT DISTINCT spec_id FROM {files(deeds)}")}
    both = {spec for (spec,) in deeds.spark(f"SELECT DISTINCT spec_id FROM {files(deeds, 'merged')}")}
    assert len(cold) == 3 and cold < both, (cold, both)
    deeds.check()
    filtered(deeds)
    if version != "1":
        modes = ", ".join(f"'{key}' = '{mode}'" for key, mode in MERGE_ON_READ.items())
        deeds.spark(f"ALTER TABLE {deeds.cold} SET TBLPROPERTIES ({modes})")
    deeds.delete([("id", ">=", 20), ("id", "<", 110)], by="spark")
    # DuckDB refuses a v1 manifest with entries that were there before, in a table that is v2 by now (FINDINGS).
    names = [name for name in ALL_READERS if (name, version) != ("duckdb", "1")]
    deeds.check(*names)
    deeds.compact()
    deeds.move(by="spark")
    deeds.check(*names)
    filtered(deeds, names)


def filtered(deeds, names=ALL_READERS):
    """Conditions on columns that one spec or another prunes by, in every client."""
    rows = deeds.pair.rows()
    for condition in (
        [("kafka_partition", "=", 1), ("kafka_offset", ">=", 30), ("kafka_offset", "<", 80)],
        [("id", ">=", 50), ("id", "<", 60)],
        [("amount", ">", 12.5), ("kafka_partition", "=", 0)],
    ):
        want = sorted((row["kafka_partition"], row["kafka_offset"]) for row in rows if holds(condition, row))
        assert want
        for name in names:
            got = deeds.readers[name].rows(f"merged.{deeds.pair.topic}", ["kafka_partition", "kafka_offset"], where=sql(condition))
            assert sorted(got) == want, (name, condition)


def test_partitioned_by_kafkas_partition_and_thousands_of_offsets(make_deeds):
    """As a table of a topic is best partitioned: each file proves what it holds, and what is moved twice, or in part, does not."""
    deeds = make_deeds(count=2300)
    deeds.create(by="spark", partitioned="kafka_partition, truncate(1000, kafka_offset)")
    deeds.move(before(1500), by="spark")
    partitions = {tuple(of) for (of,) in deeds.spark(f"SELECT partition FROM {files(deeds)}")}
    assert partitions == {(partition, start) for partition in (0, 1) for start in (0, 1000)}
    deeds.check()
    deeds.move([("kafka_offset", ">=", 1400), ("kafka_offset", "<", 2100)], by="spark")
    deeds.check("pyiceberg", "duckdb")
    deeds.pair.delete_records(1, 1200)
    deeds.delete([("kafka_offset", ">=", 900), ("kafka_offset", "<", 1100)], by="spark")
    deeds.check()
    filtered_by_offset(deeds)


def filtered_by_offset(deeds):
    for condition in ([("kafka_partition", "=", 1), ("kafka_offset", ">=", 2000)], [("kafka_offset", ">=", 1090), ("kafka_offset", "<", 1110)]):
        want = sum(holds(condition, row) for row in deeds.pair.rows())
        for name in ALL_READERS:
            assert deeds.readers[name].count(f"merged.{deeds.pair.topic}", where=sql(condition)) == want, (name, condition)


# Equality deletes.


def test_rows_that_flink_upserts_by_equality_deletes(make_deeds, lake_isk, lake):
    """Flink moves records into a table that keeps the last of each key: it deletes older rows by the key's value. PyIceberg reads no such table."""
    fields = {"id": Field("long", "long"), "note": Field(["null", "string"], "string", None)}
    deeds = make_deeds(0, partitions=1, fields=fields)
    pair, topic = deeds.pair, deeds.pair.topic
    pair.produce(90, make=lambda n: {"id": n % 20, "note": f"n{n}"})
    columns = {"id": "bigint", "note": "string"} | {name: SPARK_COLUMNS[name] for name in METADATA_COLUMNS}
    listed = ", ".join(f"{name} {kind}{' NOT NULL' if name == 'id' else ''}" for name, kind in columns.items())
    deeds.spark(f"CREATE TABLE {deeds.cold} ({listed}) USING iceberg TBLPROPERTIES ('format-version' = '2')")
    deeds.spark(f"ALTER TABLE {deeds.cold} SET IDENTIFIER FIELDS id")
    pair.cold_created({"id": "long", "note": "string"} | METADATA_COLUMNS)
    for first, end in ((0, 30), (30, 55), (55, 70)):
        # A key of null has no place in such a table: tombstones stay hot.
        chosen = f"kafka_offset >= {first} AND kafka_offset < {end} AND id IS NOT NULL"
        statement = (
            f"INSERT INTO lake.coldset.`{topic}` /*+ OPTIONS('upsert-enabled' = 'true') */ "
            f"SELECT {', '.join(f'`{name}`' for name in columns)} FROM isk.hotset.`{topic}` WHERE {chosen}"
        )
        flink.run([flink.catalog("isk", lake_isk.catalog_uri), lake.flink_catalog(), statement])
        upserted(pair, first, end)
        for name in ("spark", "trino", "duckdb"):
            assert_same(deeds.readers[name], f"merged.{topic}", pair.columns(), pair.rows())
        pair.look()
    kinds = {content for (content,) in deeds.spark(f"SELECT content FROM {deeds.cold}.all_delete_files")}
    assert 2 in kinds, "Flink wrote no equality deletes"
    unmoved = [pair.hot_row(position) for position in pair.unmoved()]
    assert len(unmoved) < 40
    assert_same(deeds.pyiceberg, f"hotset.{topic}$unmoved", pair.hot_columns(), unmoved)


def upserted(pair, first, end):
    """Rows of these offsets were moved, and of each key the last one stayed."""
    pair.moved([("kafka_offset", ">=", first), ("kafka_offset", "<", end), ("id", ">=", 0)])
    names = pair.cold_columns
    last = {}
    for row in sorted(pair.cold, key=lambda row: row[names["kafka_offset"]]):
        last[row[names["id"]]] = row
    pair.cold[:] = last.values()
