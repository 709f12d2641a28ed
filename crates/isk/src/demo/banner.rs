//! What to type to join in.

use super::Services;
use crate::serve::Server;

/// The demo's addresses and keys, and the lines that connect other engines.
pub fn text(server: &Server, services: &Services) -> String {
    let (catalog, s3) = (&server.catalog_uri, &server.s3_endpoint);
    let (key, secret) = (&server.credentials.access_key_id, &server.credentials.secret_access_key);
    let (kafka, registry) = (services.broker.bootstrap(), services.registry.url());
    let lake = services.lake.uri();
    format!(
        r#"isk demo: topics customers, accounts, branches and transactions are Iceberg tables.

  hotset.<topic>   what is in Kafka now
  coldset.<table>  Iceberg tables in a lake; coldset.transactions takes what is moved there
  merged.<topic>   both as one table, each record once

  Iceberg REST catalog  {catalog}
  S3 gateway            {s3}   (access key {key}, secret {secret})
  Kafka                 {kafka}   (in memory, for trying out: produce with any client)
  Schema registry       {registry}
  Lake                  {lake}   (its own Iceberg REST catalog and store, for trying out)

Connect:
  PyIceberg   from pyiceberg.catalog.rest import RestCatalog
              RestCatalog("isk", uri="{catalog}").load_table("merged.transactions").scan().to_arrow()
  DuckDB      INSTALL iceberg; LOAD iceberg;
              ATTACH 'isk' AS isk (TYPE iceberg, ENDPOINT '{catalog}', AUTHORIZATION_TYPE 'none');
              ATTACH 'direct' AS direct (TYPE iceberg, ENDPOINT '{lake}', AUTHORIZATION_TYPE 'none');
              SELECT count(*) FROM isk.hotset.transactions;
              SELECT count(*) FROM isk.coldset.transactions;
              SELECT count(*) FROM isk.merged.transactions;
              INSERT INTO direct.coldset.transactions SELECT * FROM isk.hotset."transactions$unmoved";
  Spark       spark-sql --packages org.apache.iceberg:iceberg-spark-runtime-4.0_2.13:1.10.1,org.apache.iceberg:iceberg-aws-bundle:1.10.1 \
                --conf spark.sql.catalog.isk=org.apache.iceberg.spark.SparkCatalog \
                --conf spark.sql.catalog.isk.type=rest --conf spark.sql.catalog.isk.uri={catalog} \
                --conf spark.sql.catalog.isk.io-impl=org.apache.iceberg.aws.s3.S3FileIO \
                --conf spark.sql.catalog.isk.cache-enabled=false
              SELECT count(*) FROM isk.merged.transactions;
  Trino       connector.name=iceberg
              iceberg.catalog.type=rest
              iceberg.rest-catalog.uri={catalog}
              iceberg.rest-catalog.vended-credentials-enabled=true
              # fs.native-s3.enabled before Trino 481
              fs.s3.enabled=true
              s3.endpoint={s3}
              s3.region=us-east-1
              s3.path-style-access=true
  S3          AWS_ACCESS_KEY_ID={key} AWS_SECRET_ACCESS_KEY={secret} AWS_REGION=us-east-1 \
                aws --endpoint-url {s3} s3 ls --recursive s3://hotset/transactions/data/
"#
    )
}
