"""Asks the demo's catalog with DuckDB, an engine that knows nothing of Kafka.

`query.py sql CATALOG_URI` prints a query and its answer, `query.py counts CATALOG_URI TABLE...` prints
the tables' row counts, each counted twice (`count(*)`, and by reading every offset), as JSON.
"""

import importlib.resources
import json
import sys

import duckdb

SQL = """SELECT TransactionType AS type, count(*) AS transactions, sum(TransactionAmount) AS amount,
       max(TransactionTime) AS newest
  FROM isk.hotset.transactions
 GROUP BY 1 ORDER BY 2 DESC"""


def connect(catalog_uri):
    connection = duckdb.connect(config={"autoinstall_known_extensions": False})
    for extension in ("avro", "httpfs", "iceberg"):
        package = importlib.resources.files(f"duckdb_extension_{extension}")
        folder = package / "extensions" / f"v{duckdb.__version__}"
        connection.execute(f"LOAD '{folder / extension}.duckdb_extension'")
    connection.execute(
        f"ATTACH 'demo' AS isk (TYPE iceberg, ENDPOINT '{catalog_uri}', AUTHORIZATION_TYPE 'none')"
    )
    return connection


def show(catalog_uri):
    connection = connect(catalog_uri)
    print(SQL + ";")
    print(connection.sql(SQL))
    total = connection.execute("SELECT count(*) FROM isk.hotset.transactions").fetchone()[0]
    print(f"SELECT count(*) FROM isk.hotset.transactions;  ->  {total}")


def counts(catalog_uri, tables):
    connection = connect(catalog_uri)
    answer = {}
    for table in tables:
        query = f"""SELECT count(*), (SELECT count(kafka_offset + kafka_partition) FROM isk.hotset."{table}")
                      FROM isk.hotset."{table}" """
        answer[table] = connection.execute(query).fetchone()
    print(json.dumps(answer))


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "sql":
        show(sys.argv[2])
    elif len(sys.argv) > 3 and sys.argv[1] == "counts":
        counts(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(__doc__)
