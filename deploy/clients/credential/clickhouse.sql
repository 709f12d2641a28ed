-- ClickHouse where ISK asks who comes in.
SET allow_database_iceberg = 1;
CREATE DATABASE isk ENGINE = DataLakeCatalog('http://127.0.0.1:11001/v1')
  SETTINGS catalog_type = 'rest', warehouse = 'isk', vended_credentials = 1,
    catalog_credential = 'id:secret', oauth_server_uri = 'http://127.0.0.1:11001/v1/oauth/tokens';
