-- ClickHouse. It takes the gateway's keys from here and not with the table: access-key and secret-key stand for
-- ISK_S3_ACCESS_KEY_ID and ISK_S3_SECRET_ACCESS_KEY, or for isk and the secret that ISK made in its data_dir.
SET allow_database_iceberg = 1;
CREATE DATABASE isk ENGINE = DataLakeCatalog('http://127.0.0.1:11001/v1', 'access-key', 'secret-key')
  SETTINGS catalog_type = 'rest', warehouse = 'isk', vended_credentials = 0, storage_endpoint = 'http://127.0.0.1:11000/hotset';
