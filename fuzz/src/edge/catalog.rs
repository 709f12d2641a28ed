//! Requests to the catalog, over tables that are made up.

use std::sync::{Arc, LazyLock, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{Method, Request, Response};
use isk_access::Access;
use isk_catalog_http::{CatalogService, CatalogSettings, SchemaService, VendedS3, router};
use isk_model::{ColumnRules, SchemaFormat};
use isk_virtual_table::{
    ContentFile, LoadedTable, PinError, ScanFile, ScanPlan, ScanRequest, SchemaReport, ServiceError,
};
use serde_json::Value;
use tower_service::Service as _;

use crate::edge::asked::Asked;
use crate::edge::connection::RUNTIME;

/// What was asked of the service behind the catalog.
#[derive(Default)]
pub(crate) struct Tables {
    /// Namespaces and tables, and topics in `hotset`.
    names: Mutex<Vec<(String, String)>>,
    scans: Mutex<Vec<ScanRequest>>,
}

impl Tables {
    /// Every table is there whose name is a topic's.
    fn note(&self, namespace: &str, table: &str) -> Result<(), ServiceError> {
        self.names.lock().unwrap().push((namespace.to_owned(), table.to_owned()));
        match (namespace, isk_model::TopicName::new(table)) {
            ("hotset", Ok(_)) => Ok(()),
            _ => {
                Err(ServiceError::NoSuchTable { namespace: namespace.into(), table: table.into() })
            }
        }
    }
}

impl SchemaService for Tables {
    async fn topic_schema(&self, topic: &str, _: bool) -> Result<SchemaReport, ServiceError> {
        self.note("hotset", topic)?;
        Err(ServiceError::Unsupported { what: topic.to_owned(), reason: "it is made up".into() })
    }

    async fn pin_schema(
        &self,
        topic: &str,
        schema: Option<(SchemaFormat, String)>,
    ) -> Result<SchemaReport, PinError> {
        self.note("hotset", topic)?;
        match schema {
            Some((_, text)) => Err(PinError::Invalid(text)),
            None => Err(PinError::Conflict("it is made up".to_owned())),
        }
    }

    async fn discover_anew(&self, topic: &str) -> Result<SchemaReport, PinError> {
        Ok(self.topic_schema(topic, false).await?)
    }
}

impl CatalogService for Tables {
    fn namespaces(&self) -> Vec<String> {
        ["errors", "hotset", "merged"].map(str::to_owned).to_vec()
    }

    async fn tables(&self, namespace: &str) -> Result<Vec<String>, ServiceError> {
        match namespace {
            "hotset" => Ok((0..20).map(|n| format!("table-{n:02}")).collect()),
            other => Err(ServiceError::NoSuchNamespace(other.to_owned())),
        }
    }

    async fn table_exists(&self, namespace: &str, table: &str) -> Result<(), ServiceError> {
        self.note(namespace, table)
    }

    async fn load_table(
        &self,
        namespace: &str,
        table: &str,
        _: Option<&Arc<ColumnRules>>,
    ) -> Result<LoadedTable, ServiceError> {
        self.note(namespace, table)?;
        let location = format!("s3://hotset/{table}");
        let snapshot = |id: u8| {
            format!(r#"{{"snapshot-id":{id},"timestamp-ms":{id},"manifest-list":"s3://hotset/m"}}"#)
        };
        let metadata = format!(
            r#"{{"format-version":2,"current-snapshot-id":2,"snapshots":[{},{}],
                "refs":{{"main":{{"snapshot-id":2,"type":"branch"}}}}}}"#,
            snapshot(1),
            snapshot(2)
        );
        Ok(LoadedTable {
            metadata_location: format!("{location}/metadata/v1.metadata.json"),
            metadata: metadata.into(),
            credential_prefixes: vec![location.clone()],
            location,
        })
    }

    async fn plan_scan(
        &self,
        namespace: &str,
        table: &str,
        _: Option<&Arc<ColumnRules>>,
        request: &ScanRequest,
    ) -> Result<ScanPlan, ServiceError> {
        self.note(namespace, table)?;
        self.scans.lock().unwrap().push(request.clone());
        if table == "wide" && request.part.is_none() {
            return Ok(ScanPlan { snapshot_id: 2, parts: vec![(0, 1)], ..ScanPlan::default() });
        }
        let file = ContentFile {
            uri: format!("s3://hotset/{table}/data/x"),
            spec_id: 0,
            partition: (1, 1024),
            size: 1000,
            records: 10,
        };
        let file = ScanFile { file, deletes: vec![], split_offsets: vec![4], stats: [].into() };
        Ok(ScanPlan { snapshot_id: 2, files: vec![file], ..ScanPlan::default() })
    }

    async fn parts(
        &self,
        namespace: &str,
        tables: &[String],
    ) -> Result<Vec<Vec<(String, String)>>, ServiceError> {
        Ok(tables.iter().map(|table| vec![(namespace.to_owned(), table.clone())]).collect())
    }

    async fn ready(&self) -> Result<(), ServiceError> {
        Ok(())
    }

    fn metrics_text(&self) -> String {
        String::new()
    }
}

/// A catalog, and what it asked for.
struct Behind {
    router: Router,
    tables: Arc<Tables>,
}

static BEHIND: LazyLock<Behind> = LazyLock::new(|| {
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
    let settings = CatalogSettings { max_page_size: 7, ..CatalogSettings::new(vended) };
    let tables = Arc::<Tables>::default();
    let router = router(Arc::clone(&tables), settings, None, Access::open(0));
    Behind { router, tables }
});

/// An answer, read to its end, and what was asked for behind it.
pub(crate) struct Answered {
    pub answer: Response<Vec<u8>>,
    pub names: Vec<(String, String)>,
    pub scans: Vec<ScanRequest>,
}

pub(crate) fn ask(request: Request<Body>) -> Answered {
    let answer = RUNTIME.block_on(async {
        let answer = BEHIND.router.clone().call(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Response::from_parts(parts, body.to_vec())
    });
    let names = std::mem::take(&mut *BEHIND.tables.names.lock().unwrap());
    let scans = std::mem::take(&mut *BEHIND.tables.scans.lock().unwrap());
    Answered { answer, names, scans }
}

/// A request whose path and query are as they are written.
pub(crate) fn requests(data: &[u8]) {
    let Some(asked) = Asked::read(data) else { return };
    let query: Vec<String> =
        asked.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    let target = format!("{}{mark}{}", asked.path, query.join("&"));
    let mut request = Request::builder().method(asked.method.clone()).uri(target);
    for (name, value) in &asked.headers {
        request = request.header(name, value);
    }
    let Ok(request) = request.body(Body::from(asked.body.to_vec())) else { return };
    let segments: Vec<String> = request.uri().path().split('/').filter_map(decoded).collect();
    let Answered { answer, names, .. } = ask(request);
    for (namespace, table) in &names {
        let of_a_topic = asked.path.starts_with("/api/") && namespace == "hotset";
        assert!(of_a_topic || segments.contains(namespace), "{namespace:?} of {segments:?}");
        assert!(segments.contains(table), "{table:?} of {segments:?}");
    }
    let status = answer.status().as_u16();
    assert!(status != 500, "{:?}", String::from_utf8_lossy(answer.body()));
    if status >= 400 && asked.method != Method::HEAD {
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(body["error"]["code"], status, "{body}");
        assert!(body["error"]["message"].is_string() && body["error"]["type"].is_string());
    }
}

/// A part of a path as it is meant.
fn decoded(part: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut rest = part.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        match digits.and_then(|digits| std::str::from_utf8(digits).ok()) {
            Some(digits) if byte == b'%' => {
                out.push(u8::from_str_radix(digits, 16).unwrap());
                rest = &after[2..];
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(out).ok()
}
