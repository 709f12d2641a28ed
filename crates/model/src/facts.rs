//! What is learnt of a file's columns when it is encoded, and told in manifests.

/// The metrics of one column of one data file, in the terms of Iceberg's manifests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnMetrics {
    /// The number of values, nulls among them.
    pub value_count: u64,
    /// The number of nulls; `None` where it is not certain.
    pub null_count: Option<u64>,
    /// The column's encoded bytes.
    pub column_size: u64,
    /// A lower bound of all non-null values: Iceberg's single-value binary serialization
    /// (specification, appendix D); `None` where none is certain.
    pub lower: Option<Vec<u8>>,
    /// An upper bound, likewise.
    pub upper: Option<Vec<u8>>,
}
