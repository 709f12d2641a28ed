-- Flink SQL, with iceberg-flink-runtime and iceberg-aws-bundle.
CREATE CATALOG isk WITH (
  'type' = 'iceberg',
  'catalog-type' = 'rest',
  'uri' = 'http://127.0.0.1:11001',
  'io-impl' = 'org.apache.iceberg.aws.s3.S3FileIO',
  'cache-enabled' = 'false'
);
