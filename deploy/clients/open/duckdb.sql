-- DuckDB 1.5 or newer.
INSTALL httpfs; LOAD httpfs;
INSTALL iceberg; LOAD iceberg;
ATTACH 'isk' AS isk (TYPE iceberg, ENDPOINT 'http://127.0.0.1:11001', AUTHORIZATION_TYPE 'none');
