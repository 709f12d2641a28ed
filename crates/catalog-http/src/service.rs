//! What the catalog needs of the service behind it.

use std::future::Future;
use std::sync::Arc;

use isk_model::ColumnRules;
use isk_virtual_table::{LoadedTable, ScanPlan, ScanRequest, Service, ServiceError};

use crate::topic_schema::SchemaService;

/// The questions of the catalog. [`Service`] answers them from Kafka; tests answer from memory.
pub trait CatalogService: SchemaService {
    /// The namespaces, sorted. All of them have one level.
    fn namespaces(&self) -> Vec<String>;

    /// The tables of a namespace, sorted by name.
    fn tables(
        &self,
        namespace: &str,
    ) -> impl Future<Output = Result<Vec<String>, ServiceError>> + Send;

    /// Whether a table exists.
    fn table_exists(
        &self,
        namespace: &str,
        table: &str,
    ) -> impl Future<Output = Result<(), ServiceError>> + Send;

    /// The table as it is at this moment, for a caller under these rules about its columns.
    fn load_table(
        &self,
        namespace: &str,
        table: &str,
        columns: Option<&Arc<ColumnRules>>,
    ) -> impl Future<Output = Result<LoadedTable, ServiceError>> + Send;

    /// A query's own plan of a table.
    fn plan_scan(
        &self,
        namespace: &str,
        table: &str,
        columns: Option<&Arc<ColumnRules>>,
        request: &ScanRequest,
    ) -> impl Future<Output = Result<ScanPlan, ServiceError>> + Send;

    /// For each of these tables, the tables whose rows it shows, as namespace and name: who may read it may read
    /// them all.
    fn parts(
        &self,
        namespace: &str,
        tables: &[String],
    ) -> impl Future<Output = Result<Vec<Vec<(String, String)>>, ServiceError>> + Send;

    /// Whether what is behind the service answers.
    fn ready(&self) -> impl Future<Output = Result<(), ServiceError>> + Send;

    /// Counters and gauges in the Prometheus text format.
    fn metrics_text(&self) -> String;
}

impl CatalogService for Service {
    fn namespaces(&self) -> Vec<String> {
        Service::namespaces(self)
    }

    fn tables(
        &self,
        namespace: &str,
    ) -> impl Future<Output = Result<Vec<String>, ServiceError>> + Send {
        Service::tables(self, namespace)
    }

    fn table_exists(
        &self,
        namespace: &str,
        table: &str,
    ) -> impl Future<Output = Result<(), ServiceError>> + Send {
        Service::table_exists(self, namespace, table)
    }

    fn load_table(
        &self,
        namespace: &str,
        table: &str,
        columns: Option<&Arc<ColumnRules>>,
    ) -> impl Future<Output = Result<LoadedTable, ServiceError>> + Send {
        Service::load_table(self, namespace, table, columns)
    }

    fn plan_scan(
        &self,
        namespace: &str,
        table: &str,
        columns: Option<&Arc<ColumnRules>>,
        request: &ScanRequest,
    ) -> impl Future<Output = Result<ScanPlan, ServiceError>> + Send {
        Service::plan_scan(self, namespace, table, columns, request)
    }

    fn parts(
        &self,
        namespace: &str,
        tables: &[String],
    ) -> impl Future<Output = Result<Vec<Vec<(String, String)>>, ServiceError>> + Send {
        Service::parts(self, namespace, tables)
    }

    fn ready(&self) -> impl Future<Output = Result<(), ServiceError>> + Send {
        Service::ready(self)
    }

    fn metrics_text(&self) -> String {
        Service::metrics_text(self)
    }
}
