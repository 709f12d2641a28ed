-- ClickHouse where ISK asks who comes in. NOT RUN. It takes the gateway's keys from here and not with the table: access-key and
-- secret-key stand for some s3_keys of the same principal in the access file.
SET allow_database_iceberg = 1;
CREATE DATABASE isk ENGINE = DataLakeCatalog('http://127.0.0.1:11001/v1')
  SETTINGS catalog_type = 'rest', warehouse = 'isk', vended_credentials = 0, storage_endpoint = 'http://127.0.0.1:11000/hotset',
    aws_access_key_id = 'access-key', aws_secret_access_key = 'secret-key',
    catalog_credential = 'id:secret', oauth_server_uri = 'http://127.0.0.1:11001/v1/oauth/tokens';
