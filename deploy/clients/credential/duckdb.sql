-- DuckDB 1.5 or newer, where ISK asks who comes in.
INSTALL httpfs; LOAD httpfs;
INSTALL iceberg; LOAD iceberg;
CREATE SECRET isk (TYPE iceberg, CLIENT_ID 'id', CLIENT_SECRET 'secret', OAUTH2_SERVER_URI 'http://127.0.0.1:11001/v1/oauth/tokens');
ATTACH 'isk' AS isk (TYPE iceberg, ENDPOINT 'http://127.0.0.1:11001', SECRET isk);
