//! What the gateway needs of the service behind it.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use isk_model::ColumnRules;
use isk_virtual_table::{Listing, ObjectInfo, ObjectStream, Service, ServiceError};

/// The questions of the gateway. [`Service`] answers them from Kafka; tests answer from memory.
pub trait ObjectService: Send + Sync + 'static {
    /// The buckets, sorted.
    fn buckets(&self) -> Vec<String>;

    /// The tables whose rows the objects of a topic in a bucket hold, as namespace and name.
    fn parts(&self, bucket: &str, topic: &str) -> Vec<(String, String)>;

    /// What HEAD says of an object, to a caller under these rules about its table's columns.
    fn head_object(
        &self,
        bucket: &str,
        key: &str,
        columns: Option<&Arc<ColumnRules>>,
    ) -> impl Future<Output = Result<ObjectInfo, ServiceError>> + Send;

    /// A range of an object's bytes, for a caller under these rules; `range` lies within `0..size`.
    fn read_object(
        &self,
        bucket: &str,
        key: &str,
        columns: Option<&Arc<ColumnRules>>,
        range: Range<u64>,
    ) -> impl Future<Output = Result<ObjectStream, ServiceError>> + Send;

    /// The objects whose keys begin with `prefix` and sort behind `after`, at most `limit` entries.
    fn list_objects(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Listing, ServiceError>> + Send;
}

impl ObjectService for Service {
    fn buckets(&self) -> Vec<String> {
        Service::buckets(self)
    }

    fn parts(&self, bucket: &str, topic: &str) -> Vec<(String, String)> {
        self.parts_of_objects(bucket, topic)
    }

    fn head_object(
        &self,
        bucket: &str,
        key: &str,
        columns: Option<&Arc<ColumnRules>>,
    ) -> impl Future<Output = Result<ObjectInfo, ServiceError>> + Send {
        Service::head_object(self, bucket, key, columns)
    }

    fn read_object(
        &self,
        bucket: &str,
        key: &str,
        columns: Option<&Arc<ColumnRules>>,
        range: Range<u64>,
    ) -> impl Future<Output = Result<ObjectStream, ServiceError>> + Send {
        Service::read_object(self, bucket, key, columns, range)
    }

    fn list_objects(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Listing, ServiceError>> + Send {
        Service::list_objects(self, bucket, prefix, delimiter, after, limit)
    }
}
