-- Snowflake. NOT RUN: written by its documentation alone. It reaches ISK over the internet, so both ports need a public
-- name, TLS with a certificate that the public trusts (isk.example.com here), and s3.external_url. It reads files with the
-- keys that come with a table; its documentation names Amazon S3 for that and no other endpoint, so whether it goes to this gateway is not known.
CREATE CATALOG INTEGRATION isk
  CATALOG_SOURCE = ICEBERG_REST
  TABLE_FORMAT = ICEBERG
  CATALOG_NAMESPACE = 'hotset'
  REST_CONFIG = (
    CATALOG_URI = 'https://isk.example.com'
    CATALOG_NAME = 'isk'
    ACCESS_DELEGATION_MODE = VENDED_CREDENTIALS
  )
  REST_AUTHENTICATION = (
    TYPE = OAUTH
    OAUTH_TOKEN_URI = 'https://isk.example.com/v1/oauth/tokens'
    OAUTH_CLIENT_ID = 'id'
    OAUTH_CLIENT_SECRET = 'secret'
    OAUTH_ALLOWED_SCOPES = ('catalog')
  )
  ENABLED = TRUE;
