"""Random histories of a topic and its cold table. After each step merged is what the model says, row by row; queries that run
during a step see what was before it, or what is after it, or something in between, and no record twice.

$ISK_TEST_HISTORY_STEPS and $ISK_TEST_HISTORY_SEEDS (numbers with commas) say how long and which.
A failure tells its seed and all steps up to it.
"""

import contextlib
import os
import random
import threading
from collections import Counter

import pytest
from pyiceberg.transforms import IdentityTransform, TruncateTransform
from pyiceberg.types import IntegerType, LongType, StringType
from stack import clients
from stack.moves import Deeds
from stack.pair import Field, Pair
from stack.readers import Readers
from stack.replicas import Replicas

STEPS = int(os.environ.get("ISK_TEST_HISTORY_STEPS", "40"))
SEEDS = [int(seed) for seed in os.environ.get("ISK_TEST_HISTORY_SEEDS", "1,2").split(",")]
PARTITIONS = 2

TYPES = {"long": LongType(), "int": IntegerType(), "string": StringType()}


class History:
    """Chooses steps and does them."""

    def __init__(self, seed: int, deeds: Deeds, restart) -> None:
        self.random = random.Random(seed)
        self.deeds, self.restart = deeds, restart
        self.made = self.specs = 0
        # How often each is chosen, beside the others.
        self.kinds = {
            self.produce: 6,
            self.move_prefix: 4,
            self.move_part: 3,
            self.move_filtered: 3,
            self.move_all: 1,
            self.move_twice: 1,
            self.double: 0.5,
            self.rewrite: 2,
            self.compact: 0.7,
            self.change_spec: 0.5,
            self.delete_by_offset: 2,
            self.delete_on_read: 0.7,
            self.delete_by_value: 1,
            self.delete_records: 2,
            self.expire_snapshots: 1,
            self.add_cold_column: 1,
            self.rename_cold_column: 1,
            self.drop_cold_column: 0.5,
            self.reorder_cold_columns: 0.5,
            self.add_hot_field: 1,
            self.drop_hot_field: 0.5,
            self.widen_hot_field: 0.5,
            self.restart_service: 0.7,
        }

    @property
    def pair(self) -> Pair:
        return self.deeds.pair

    def step(self) -> str:
        """Does one thing, and says what it was."""
        (kind,) = self.random.choices(list(self.kinds), list(self.kinds.values()))
        return f"{kind.__name__} {kind()}"

    # Kafka.

    def produce(self):
        partition = self.random.choice([None, *range(PARTITIONS)])
        count = self.random.choice([1, 5, 30])
        self.pair.produce(count, partition)
        return count, partition

    def delete_records(self):
        partition = self.random.randrange(PARTITIONS)
        start, end = self.pair.starts.get(partition, 0), self.pair.ends.get(partition, 0)
        before = self.random.randint(start, start + (end - start) // 2)
        self.pair.delete_records(partition, before)
        return partition, before

    def add_hot_field(self):
        name = self._name("field")
        field = self.random.choice([Field(["null", "string"], "string", None), Field("long", "long", self.made), Field(["null", "int"], "int", None)])
        self.pair.evolve(self.pair.fields | {name: field})
        self.pair.produce(3)
        return name, field.kind, field.default

    def drop_hot_field(self):
        fewer = {name: {kept: f for kept, f in self.pair.fields.items() if kept != name} for name in self.pair.fields}
        droppable = [name for name, fields in fewer.items() if name not in ("id", "amount") and self.pair.may_evolve(fields)]
        if len(droppable) < 2:
            return None
        name = self.random.choice(droppable)
        self.pair.evolve(fewer[name])
        self.pair.produce(3)
        return name

    def widen_hot_field(self):
        narrow = [name for name, f in self.pair.fields.items() if f.avro == "int"]
        if not narrow:
            return None
        self.pair.evolve(self.pair.fields | {narrow[0]: Field("long", "long", 0)})
        self.pair.produce(3)
        return narrow[0]

    # Moves.

    def move_prefix(self):
        partition = self.random.randrange(PARTITIONS)
        start, end = self.pair.starts.get(partition, 0), self.pair.ends.get(partition, 0)
        return self._move([("kafka_partition", "=", partition), ("kafka_offset", "<", self.random.randint(start, end))])

    def move_part(self):
        end = max(self.pair.ends.values())
        first = self.random.randint(0, end)
        return self._move([("kafka_offset", ">=", first), ("kafka_offset", "<", first + self.random.randint(1, 40))])

    def move_filtered(self):
        return self._move([("amount", self.random.choice("<>"), self.random.randint(0, 60) + 0.25)])

    def move_all(self):
        return self._move([])

    def move_twice(self):
        condition = [("kafka_offset", "<", self.random.randint(0, max(self.pair.ends.values())))]
        return self._move(condition), self._move(condition)

    def double(self):
        """A mover that does not ask what was moved: cold itself has rows twice."""
        first = self.random.randint(0, max(self.pair.ends.values()))
        return self._move([("kafka_offset", ">=", first), ("kafka_offset", "<", first + 3)], unmoved=False)

    def _move(self, condition, unmoved=True):
        self._widen_cold()
        # DuckDB inserts into no partitioned table.
        movers = {"pyiceberg": 6, "spark": 2} | ({} if self.specs else {"duckdb": 2})
        (mover,) = self.random.choices(list(movers), list(movers.values()))
        return mover, condition, self.deeds.move(condition, by=mover, unmoved=unmoved)

    def _widen_cold(self):
        """As a mover has to before it can write what is wider."""
        names = {key: name for name, key in self.pair.cold_columns.items()}
        for hot, key in self.pair.matches().items():
            if self.pair.hot_columns()[hot] == "long" and self.pair.cold_kinds[key] == "int":
                with self.deeds.cold_table().update_schema() as schema:
                    schema.update_column(names[key], LongType())
                self.pair.cold_kinds[key] = "long"

    # Cold.

    def rewrite(self):
        self.deeds.rewrite()
        return ""

    def compact(self):
        self.deeds.compact()
        return ""

    def change_spec(self):
        """Later files are partitioned otherwise than those that are there."""
        fields = [("kafka_partition", IdentityTransform()), ("kafka_offset", TruncateTransform(50))]
        with self.deeds.cold_table().update_spec() as spec:
            if self.specs % 3 == 2:
                spec.remove_field("part_0").remove_field("part_1")
            else:
                spec.add_field(*fields[self.specs % 3], f"part_{self.specs % 3}")
        self.specs += 1
        return self.specs

    def delete_by_offset(self):
        condition = self._few()
        return condition, self.deeds.delete(condition)

    def delete_on_read(self):
        """Rows are hidden by position deletes: Spark writes them, as the table's properties tell it."""
        condition = self._few()
        return condition, self.deeds.delete(condition, by="spark")

    def _few(self):
        first = self.random.randint(0, max(self.pair.ends.values()))
        partition = self.random.randrange(PARTITIONS)
        return [("kafka_partition", "=", partition), ("kafka_offset", ">=", first), ("kafka_offset", "<", first + self.random.randint(1, 20))]

    def delete_by_value(self):
        names = {key: name for name, key in self.pair.cold_columns.items()}
        key = self.pair.matches().get("id")
        if key is None:
            return None
        first = self.random.randint(0, self.pair.produced)
        condition = [(names[key], ">=", first), (names[key], "<", first + 10)]
        return condition, self.deeds.delete(condition)

    def expire_snapshots(self):
        table = self.deeds.cold_table()
        old = [s.snapshot_id for s in table.snapshots() if s.snapshot_id != table.metadata.current_snapshot_id]
        if old:
            table.maintenance.expire_snapshots().by_ids(old).commit()
        return len(old)

    def add_cold_column(self):
        """One that only hot has so far, or one of cold alone."""
        # Kinds of nested fields are lists.
        kinds = {name: field.kind for name, field in self.pair.fields.items() if isinstance(field.kind, str)}
        only_hot = [name for name, kind in kinds.items() if name not in self.pair.matches() and kind in TYPES]
        if only_hot and self.random.random() < 0.7:
            name = self.random.choice(only_hot)
            kind = self.pair.fields[name].kind
        else:
            name, kind = self._name("cold"), self.random.choice(list(TYPES))
        with self.deeds.cold_table().update_schema() as schema:
            schema.add_column(name, TYPES[kind])
        self.pair.cold_added(name, kind)
        return name, kind

    def rename_cold_column(self):
        old, new = self.random.choice(self._own_columns()), self._name("renamed")
        with self.deeds.cold_table().update_schema() as schema:
            schema.rename_column(old, new)
        self.pair.cold_renamed(old, new)
        return old, new

    def drop_cold_column(self):
        names = self._own_columns()
        if len(names) < 3:
            return None
        name = self.random.choice(names)
        with self.deeds.cold_table().update_schema() as schema:
            schema.delete_column(name)
        self.pair.cold_dropped(name)
        return name

    def reorder_cold_columns(self):
        name = self.random.choice(list(self.pair.cold_columns))
        with self.deeds.cold_table().update_schema() as schema:
            schema.move_first(name)
        self.pair.cold_ordered([name, *(other for other in self.pair.cold_columns if other != name)])
        return name

    def _own_columns(self):
        return [name for name in self.pair.cold_columns if not name.startswith("kafka_")]

    def _name(self, stem):
        self.made += 1
        return f"{stem}_{self.made}"

    # The service.

    def restart_service(self):
        self.restart()
        return ""


# What a query may end with while the service restarts, or where Kafka has forgotten what it was planned with.
MAY_FAIL = {"restart_service", "delete_records"}


class Watch:
    """Reads merged over and over, in a thread of its own."""

    def __init__(self, catalog_uri: str, topic: str) -> None:
        self.catalog, self.topic = clients.pyiceberg_catalog(catalog_uri), topic
        self.queries = 0

    @contextlib.contextmanager
    def watching(self, positions):
        """What was read in the meantime is between what the model says at both ends. Yields a function that says which step it was."""
        before, seen, failures, stop, kind = Counter(positions()), [], [], threading.Event(), []

        def read():
            while not stop.is_set():
                try:
                    rows = self.catalog.load_table(f"merged.{self.topic}").scan(selected_fields=("kafka_partition", "kafka_offset")).to_arrow()
                    seen.append(Counter(zip(rows["kafka_partition"].to_pylist(), rows["kafka_offset"].to_pylist(), strict=True)))
                except Exception as failure:
                    failures.append(failure)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield kind.append
        finally:
            stop.set()
            thread.join()
        if failures and not MAY_FAIL & set(kind):
            raise failures[0]
        after = Counter(positions())
        for rows in seen:
            lost, surplus = (before & after) - rows, rows - (before | after)
            assert not lost and not surplus, f"a query during the step: {sorted(lost.elements())} lost, {sorted(surplus.elements())} too many"
        self.queries += len(seen)


def live(pair, readers, service, seed, count):
    """Goes through a history of so many steps."""
    deeds = Deeds(pair, readers)
    pair.produce(30)
    deeds.create(**{"write.delete.mode": "merge-on-read"})
    history, steps = History(seed, deeds, service.restart), []
    watch, both = Watch(service.catalog_uri, pair.topic), 0
    try:
        for _ in range(count):
            steps.append("")
            with watch.watching(pair.positions) as tell:
                steps[-1] = history.step()
                tell(steps[-1].split()[0])
            deeds.check("pyiceberg")
            both += bool(pair.cold and pair.unmoved())
        deeds.check("spark")
    except BaseException:
        done = "\n".join(f"{number:3} {step or '(failed in it)'}" for number, step in enumerate(steps, 1))
        print(f"seed {seed}, step {len(steps)}:\n{done}")
        raise
    assert both > count // 4, "hardly ever was there something in both"
    assert watch.queries > count


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_history(make_pair, readers, lake_isk, seed):
    live(make_pair(PARTITIONS), readers, lake_isk, seed, STEPS)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", SEEDS[:1])
def test_a_random_history_on_replicas(broker, registry, lake, make_pair, tmp_path, seed):
    """Each load and each range of a file comes from one of two: what one has learnt of cold, the other goes by."""
    with Replicas(broker, registry, tmp_path, lake.isk_environment()) as replicas, Readers(replicas, lake) as readers:
        live(make_pair(PARTITIONS), readers, replicas, seed + 100, STEPS)


def test_what_one_replica_saw_in_cold_does_not_come_back_on_the_other(broker, registry, lake, make_pair, tmp_path):
    """The other sees the cold table for the first time when the rows are deleted from it, and their files from the store."""
    with Replicas(broker, registry, tmp_path, lake.isk_environment()) as replicas, Readers(replicas, lake) as readers:
        pair = make_pair(PARTITIONS)
        deeds = Deeds(pair, readers)
        pair.produce(30)
        deeds.create()
        one, other = (clients.pyiceberg_catalog(isk.catalog_uri) for isk in replicas.both)

        def positions(catalog):
            rows = catalog.load_table(f"merged.{pair.topic}").scan(selected_fields=("kafka_partition", "kafka_offset")).to_arrow()
            return sorted(zip(rows["kafka_partition"].to_pylist(), rows["kafka_offset"].to_pylist(), strict=True))

        # By the lake itself, and past both: hot's rows are inserted as they are.
        rows = one.load_table(f"hotset.{pair.topic}").scan().to_arrow()
        deeds.cold_table().append(rows)
        pair.moved()
        assert positions(one) == pair.positions()
        deeds.delete([("kafka_partition", "=", 0), ("kafka_offset", ">=", 3), ("kafka_offset", "<", 9)])
        deeds.spark(f"CALL direct.system.expire_snapshots(table => 'coldset.{pair.topic}', older_than => now(), retain_last => 1)")
        want = pair.positions()
        assert (0, 3) not in want
        assert positions(other) == want
        assert positions(one) == want
