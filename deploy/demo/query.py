"""Asks the demo's catalogs with DuckDB, an engine that knows nothing of Kafka.

`query.py COMMAND CATALOG_URI LAKE_URI ...` attaches the catalog of topics as `isk` and the lake's own
catalog as `direct`, and then:

  create TOPIC             makes the cold table, empty, with the columns that the topic's table has
  move TOPIC ENDS FILTER   inserts rows from hot into cold, all where FILTER is empty; counts both and
                           merged, before and after
  sql                      prints an analysis over merged, and its answer
  counts NAMESPACE TABLE.. prints the tables' row counts as JSON, each counted twice: `count(*)`, and
                           by reading every offset
  audit NAMESPACE.TABLE ENDS  prints as JSON what the table holds of each Kafka partition

ENDS names the Kafka partitions and where each ends: `0:6701,1:6688`. Rows behind the ends are left out,
so that numbers can be compared while records arrive.
"""

import importlib.resources
import json
import sys

import duckdb

ANALYSIS = """SELECT TransactionType AS type, count(*) AS transactions, sum(TransactionAmount) AS amount,
       max(TransactionTime) AS newest
  FROM isk.merged.transactions
 GROUP BY 1 ORDER BY 2 DESC"""

NAMESPACES = ("hotset", "coldset", "merged")


def connect(catalog_uri, lake_uri):
    connection = duckdb.connect(config={"autoinstall_known_extensions": False})
    for extension in ("avro", "httpfs", "iceberg"):
        package = importlib.resources.files(f"duckdb_extension_{extension}")
        folder = package / "extensions" / f"v{duckdb.__version__}"
        connection.execute(f"LOAD '{folder / extension}.duckdb_extension'")
    for name, uri in (("isk", catalog_uri), ("direct", lake_uri)):
        connection.execute(
            f"ATTACH '{name}' AS {name} (TYPE iceberg, ENDPOINT '{uri}', AUTHORIZATION_TYPE 'none')"
        )
    return connection


def below(ends):
    """The condition that keeps the rows in front of the ends."""
    pairs = (pair.split(":") for pair in ends.split(","))
    return " OR ".join(f"kafka_partition = {p} AND kafka_offset < {end}" for p, end in pairs)


def create(connection, topic):
    connection.execute("CREATE SCHEMA IF NOT EXISTS direct.coldset")
    statement = f"""CREATE TABLE direct.coldset.{topic} AS
  SELECT * FROM isk.hotset.{topic} WHERE false"""
    connection.execute(statement)
    print(f"{statement};\n")


def move(connection, topic, ends, condition):
    def counted(label):
        query = "SELECT " + ", ".join(
            f"(SELECT count(*) FROM isk.{namespace}.{topic} WHERE {below(ends)})"
            for namespace in NAMESPACES
        )
        numbers = connection.execute(query).fetchone()
        return f"{label:>45}" + "".join(f"{number:12,}" for number in numbers)

    before = counted("before the move")
    statement = f"""INSERT INTO direct.coldset.{topic}
  SELECT * FROM isk.hotset."{topic}$unmoved\""""
    if condition:
        statement += f"\n   WHERE {condition}"
    moved = connection.execute(statement).fetchone()[0]
    print(f"{statement};  ->  {moved:,} rows moved\n")
    title = "rows that were there when the move began"
    print(f"{title:>45}" + "".join(f"{namespace:>12}" for namespace in NAMESPACES))
    print(before)
    print(counted("after the move") + "\n")


def sql(connection):
    side_by_side = "SELECT " + ",\n       ".join(
        f"(SELECT count(*) FROM isk.{namespace}.transactions) AS {namespace}"
        for namespace in NAMESPACES
    )
    for statement in (ANALYSIS, side_by_side):
        print(statement + ";")
        print(connection.sql(statement))


def counts(connection, namespace, *tables):
    answer = {}
    for table in tables:
        name = f'isk.{namespace}."{table}"'
        query = f"""SELECT count(*), (SELECT count(kafka_offset + kafka_partition) FROM {name})
                      FROM {name}"""
        answer[table] = connection.execute(query).fetchone()
    print(json.dumps(answer))


def audit(connection, table, ends):
    namespace, table = table.split(".", 1)
    query = f"""SELECT kafka_partition, count(*), count(DISTINCT kafka_offset), min(kafka_offset),
                       max(kafka_offset), sum(hash(t)::HUGEINT)
                  FROM isk.{namespace}."{table}" t WHERE {below(ends)} GROUP BY 1"""
    keys = ("rows", "offsets", "first", "last", "digest")
    answer = {}
    for partition, *numbers, digest in connection.execute(query).fetchall():
        answer[partition] = dict(zip(keys, (*numbers, str(digest))))
    print(json.dumps(answer))


COMMANDS = {command.__name__: command for command in (create, move, sql, counts, audit)}

if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    name, catalog_uri, lake_uri, *arguments = sys.argv[1:]
    COMMANDS[name](connect(catalog_uri, lake_uri), *arguments)
