//! A catalog in memory, served over real HTTP.

// Each test binary uses its own part of this.
#![allow(dead_code, clippy::unwrap_used)]

pub mod upstream;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use isk_access::Access;
use isk_catalog_http::{CatalogService, CatalogSettings, SchemaService, VendedS3, router, serve};
use isk_coldset::Upstream;
use isk_listen::Port;
use isk_model::{ColumnRules, SchemaFormat, SchemaVersion};
use isk_outbound::Authorities;
use isk_schema::JsonKind;
use isk_virtual_table::{
    ColumnReport, ContentFile, Counted, LoadedTable, Origin, PinError, Sample, SampledValue,
    ScanFile, ScanPlan, ScanRequest, SchemaReport, ServiceError,
};

/// Tables of `hotset` in memory. The table `broken` and those named `down…` fail.
pub struct Memory {
    pub tables: Vec<String>,
    /// Whether there is an upstream catalog.
    pub has_coldset: bool,
    /// The number of the version that `load_table` answers with.
    pub version: Mutex<u32>,
}

impl SchemaService for Memory {
    async fn topic_schema(&self, topic: &str, samples: bool) -> Result<SchemaReport, ServiceError> {
        self.load_table("hotset", topic, None).await?;
        let sampled = SampledValue { partition: 0, offset: 3, value: b"{\"a\":1}".to_vec() };
        let seen =
            Counted { of: 2, kinds: vec![(JsonKind::Long, 2)], always: true, confidence: 0.3 };
        let column = ColumnReport {
            path: vec!["a".to_owned()],
            field_id: 100,
            ty: "long".to_owned(),
            json: false,
            seen: Some(seen),
        };
        let rest = ColumnReport { path: vec!["_rest".to_owned()], seen: None, ..column.clone() };
        Ok(SchemaReport {
            topic: topic.to_owned(),
            origin: Origin::Discovered,
            version: SchemaVersion { value: 5000, key: 0 },
            schema: Some((SchemaFormat::Json, "{}".to_owned())),
            columns: vec![column, rest],
            sample: Some(Sample { records: 2, objects: 2, ..Sample::default() }),
            sampled_ms: 1,
            samples: if samples { vec![sampled] } else { Vec::new() },
        })
    }

    async fn pin_schema(
        &self,
        topic: &str,
        schema: Option<(SchemaFormat, String)>,
    ) -> Result<SchemaReport, PinError> {
        if let Some((_, text)) = schema {
            return Err(PinError::Invalid(text));
        }
        Ok(self.topic_schema(topic, false).await?)
    }

    async fn discover_anew(&self, topic: &str) -> Result<SchemaReport, PinError> {
        if topic == "described" {
            return Err(PinError::Conflict("the registry has it".to_owned()));
        }
        Ok(self.topic_schema(topic, false).await?)
    }
}

impl CatalogService for Memory {
    fn namespaces(&self) -> Vec<String> {
        let all = if self.has_coldset { &["coldset", "hotset"][..] } else { &["hotset"] };
        all.iter().map(|&name| name.to_owned()).collect()
    }

    async fn tables(&self, namespace: &str) -> Result<Vec<String>, ServiceError> {
        match namespace {
            "hotset" => Ok(self.tables.clone()),
            other => Err(ServiceError::NoSuchNamespace(other.to_owned())),
        }
    }

    async fn table_exists(&self, namespace: &str, table: &str) -> Result<(), ServiceError> {
        if self.tables(namespace).await?.iter().any(|name| name == table) {
            Ok(())
        } else {
            Err(ServiceError::NoSuchTable { namespace: namespace.into(), table: table.into() })
        }
    }

    async fn load_table(
        &self,
        namespace: &str,
        table: &str,
        columns: Option<&Arc<ColumnRules>>,
    ) -> Result<LoadedTable, ServiceError> {
        let text = || "the broker".to_owned();
        match table {
            "down" => {
                return Err(ServiceError::Unavailable { what: text(), reason: "down".into() });
            }
            "gone" => return Err(ServiceError::Gone { key: text(), reason: "gone".into() }),
            "broken" => return Err(ServiceError::Internal("broken".into())),
            "recursive" => {
                return Err(ServiceError::Unsupported { what: text(), reason: "loop".into() });
            }
            _ => self.table_exists(namespace, table).await?,
        }
        let version = *self.version.lock().unwrap();
        let rules = columns.map_or_else(String::new, |rules| format!("~{}", rules.digest()));
        Ok(LoadedTable {
            metadata_location: format!(
                "s3://hotset/{table}{rules}/metadata/v{version}.metadata.json"
            ),
            metadata: metadata(table).into(),
            location: format!("s3://hotset/{table}{rules}"),
            credential_prefixes: vec![format!("s3://hotset/{table}{rules}")],
        })
    }

    /// One file of Kafka partition 1; the table `wide` in one part.
    async fn plan_scan(
        &self,
        namespace: &str,
        table: &str,
        columns: Option<&Arc<ColumnRules>>,
        request: &ScanRequest,
    ) -> Result<ScanPlan, ServiceError> {
        let loaded = self.load_table(namespace, table, columns).await?;
        let file = |name: &str| ContentFile {
            uri: format!("s3://hotset/{table}/data/{name}"),
            spec_id: 0,
            partition: (1, 1024),
            size: 1000,
            records: 10,
        };
        let plan = ScanPlan {
            snapshot_id: 2,
            credential_prefixes: loaded.credential_prefixes,
            ..ScanPlan::default()
        };
        if table == "wide" && request.part.is_none() {
            return Ok(ScanPlan { parts: vec![(0, 1)], ..plan });
        }
        let data = ScanFile {
            file: file("data"),
            deletes: vec![0],
            split_offsets: vec![4],
            stats: [].into(),
        };
        Ok(ScanPlan { files: vec![data], deletes: vec![file("delete")], ..plan })
    }

    async fn parts(
        &self,
        namespace: &str,
        tables: &[String],
    ) -> Result<Vec<Vec<(String, String)>>, ServiceError> {
        let own = |namespace: &str, table: &String| (namespace.to_owned(), table.clone());
        let parts = tables.iter().map(|table| match namespace {
            "merged" => vec![own("hotset", table), own("coldset", table)],
            other => vec![own(other, table)],
        });
        Ok(parts.collect())
    }

    async fn ready(&self) -> Result<(), ServiceError> {
        if self.tables.is_empty() {
            return Err(ServiceError::Unavailable { what: "Kafka".into(), reason: "empty".into() });
        }
        Ok(())
    }

    fn metrics_text(&self) -> String {
        "isk_up 1\n".to_owned()
    }
}

/// Table metadata with two snapshots, the older of which nothing points at.
fn metadata(table: &str) -> String {
    let snapshot = |id: u32| {
        format!(
            r#"{{"snapshot-id":{id},"sequence-number":{id},"timestamp-ms":170000000000{id},
            "manifest-list":"s3://hotset/{table}/metadata/snap-{id}.avro",
            "summary":{{"operation":"append"}},"schema-id":0}}"#
        )
    };
    format!(
        r#"{{"format-version":2,"table-uuid":"9c12d441-03fe-4693-9a96-a0705ddf69c1",
        "location":"s3://hotset/{table}","last-sequence-number":2,"last-updated-ms":1700000000002,
        "last-column-id":2,"current-schema-id":0,
        "schemas":[{{"type":"struct","schema-id":0,"fields":[
            {{"id":1,"name":"kafka_partition","required":true,"type":"int"}},
            {{"id":2,"name":"kafka_offset","required":true,"type":"long"}}]}}],
        "default-spec-id":0,"partition-specs":[{{"spec-id":0,"fields":[]}}],
        "last-partition-id":999,"default-sort-order-id":0,
        "sort-orders":[{{"order-id":0,"fields":[]}}],
        "properties":{{}},"current-snapshot-id":2,
        "refs":{{"main":{{"snapshot-id":2,"type":"branch"}}}},
        "snapshots":[{},{}],
        "snapshot-log":[{{"snapshot-id":2,"timestamp-ms":1700000000002}}],"metadata-log":[]}}"#,
        snapshot(1),
        snapshot(2),
    )
}

/// The settings of the tests' catalog.
pub fn settings() -> CatalogSettings {
    let vended = VendedS3 {
        endpoint: "http://localhost:11000".into(),
        region: "us-east-1".into(),
        access_key_id: "id".into(),
        secret_access_key: "secret".into(),
        session_token: "token".into(),
        path_style: true,
        expires_at_ms: String::new(),
        refresh_endpoint: String::new(),
    };
    CatalogSettings { max_page_size: 3, default_page_size: 2, ..CatalogSettings::new(vended) }
}

/// A running catalog.
pub struct Catalog {
    pub address: SocketAddr,
    pub memory: Arc<Memory>,
    pub client: reqwest::Client,
}

impl Catalog {
    /// Serves these tables on a free port until the test's runtime ends.
    pub async fn start(tables: &[&str]) -> Self {
        Self::with(tables, None).await
    }

    /// The same before an upstream catalog.
    pub async fn with(tables: &[&str], upstream: Option<Upstream>) -> Self {
        Self::guarded(tables, upstream, Access::open(0)).await
    }

    /// The same, for whom `access` lets in.
    pub async fn guarded(tables: &[&str], upstream: Option<Upstream>, access: Access) -> Self {
        let tables = tables.iter().map(|&name| name.to_owned()).collect();
        let has_coldset = upstream.is_some();
        let memory = Arc::new(Memory { tables, has_coldset, version: Mutex::new(1) });
        let router = router(Arc::clone(&memory), settings(), upstream, access);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let forever = std::future::pending();
        tokio::spawn(serve(listener, router, Port::default(), forever));
        Self {
            address,
            memory,
            client: Authorities::new(None).unwrap().client().unwrap().build().unwrap(),
        }
    }

    /// A request without a body.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    /// The answer to a request line as it is: no client tidies the path up.
    pub async fn raw(&self, method: &str, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// The status and the JSON (null where there is none) of an answer.
    pub async fn json(&self, method: &str, path: &str) -> (u16, serde_json::Value) {
        let response = self.request(method, path).send().await.unwrap();
        let status = response.status().as_u16();
        let body = response.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }
}
