//! What the catalog knows: namespaces, tables, and how a commit changes one.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use iceberg::spec::{
    FormatVersion, Schema, SortOrder, TableMetadata, TableMetadataBuilder, UnboundPartitionSpec,
};
use iceberg::{TableRequirement, TableUpdate};
use serde::Deserialize;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::budget::Budget;
use super::names::{Namespace, TableName, key_of};
use super::refusal::Refusal;

/// The most namespaces and the most tables.
const MAX_ENTRIES: usize = 1_000;

/// Tables without a version of their own are of this one.
const FORMAT_VERSION: FormatVersion = FormatVersion::V2;

type Result<T> = std::result::Result<T, Refusal>;

/// A table as it was when it was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// Where the metadata lies; none while the table is only staged.
    pub(crate) metadata_location: Option<String>,
    pub(crate) metadata: Arc<TableMetadata>,
}

/// `CreateTableRequest`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Creation {
    pub(crate) name: String,
    location: Option<String>,
    schema: Schema,
    partition_spec: Option<UnboundPartitionSpec>,
    write_order: Option<SortOrder>,
    #[serde(default)]
    stage_create: bool,
    #[serde(default)]
    properties: HashMap<String, String>,
}

/// `CommitTableRequest`.
#[derive(Debug, Deserialize)]
pub(crate) struct Commit {
    requirements: Vec<TableRequirement>,
    updates: Vec<TableUpdate>,
}

#[derive(Debug)]
struct Table {
    metadata_location: String,
    metadata: Arc<TableMetadata>,
    /// How many metadata files came before this one.
    version: u32,
}

#[derive(Debug, Default)]
struct State {
    namespaces: BTreeMap<Namespace, BTreeMap<String, String>>,
    tables: BTreeMap<TableName, Table>,
}

/// The catalog of one bucket. Commits happen one after the other.
#[derive(Debug)]
pub(crate) struct Catalog {
    bucket: String,
    /// The bucket's folder.
    folder: PathBuf,
    budget: Budget,
    state: Mutex<State>,
}

impl Catalog {
    pub(crate) fn new(root: &Path, bucket: &str, budget: Budget) -> Self {
        let folder = root.join(bucket);
        Self { bucket: bucket.to_owned(), folder, budget, state: Mutex::default() }
    }

    /// The namespaces directly below `parent`.
    pub(crate) async fn namespaces(&self, parent: Option<&Namespace>) -> Result<Vec<Namespace>> {
        let state = self.state.lock().await;
        if let Some(parent) = parent {
            state.namespace(parent)?;
        }
        Ok(state.namespaces.keys().filter(|n| n.is_child_of(parent)).cloned().collect())
    }

    pub(crate) async fn create_namespace(
        &self,
        namespace: Namespace,
        properties: BTreeMap<String, String>,
    ) -> Result<()> {
        let mut state = self.state.lock().await;
        if state.namespaces.contains_key(&namespace) {
            return Err(Refusal::AlreadyExists(format!("namespace {namespace}")));
        }
        room(state.namespaces.len(), "namespaces")?;
        state.namespaces.insert(namespace, properties);
        Ok(())
    }

    pub(crate) async fn namespace(
        &self,
        namespace: &Namespace,
    ) -> Result<BTreeMap<String, String>> {
        self.state.lock().await.namespace(namespace).cloned()
    }

    pub(crate) async fn tables(&self, namespace: &Namespace) -> Result<Vec<TableName>> {
        let state = self.state.lock().await;
        state.namespace(namespace)?;
        Ok(state.tables.keys().filter(|table| table.namespace == *namespace).cloned().collect())
    }

    pub(crate) async fn load(&self, name: &TableName) -> Result<Loaded> {
        self.state.lock().await.table(name).map(Table::loaded)
    }

    /// Creates a table, or, staged, says what it would be.
    pub(crate) async fn create(&self, name: TableName, creation: Creation) -> Result<Loaded> {
        let mut state = self.state.lock().await;
        state.vacant(&name)?;
        let staged = creation.stage_create;
        let metadata = self.first_metadata(&name, creation)?;
        if staged {
            return Ok(Loaded { metadata_location: None, metadata: Arc::new(metadata) });
        }
        let table = self.write(metadata, 0).await?;
        let loaded = table.loaded();
        state.tables.insert(name, table);
        Ok(loaded)
    }

    /// Takes the updates all together if every requirement is met, and creates a table that was staged.
    pub(crate) async fn commit(&self, name: TableName, commit: Commit) -> Result<Loaded> {
        let mut state = self.state.lock().await;
        let table = self.committed(&state, &name, commit).await?;
        let loaded = table.loaded();
        state.tables.insert(name, table);
        Ok(loaded)
    }

    /// Several commits, to a table each: all of them, or none.
    pub(crate) async fn commit_all(&self, commits: Vec<(TableName, Commit)>) -> Result<()> {
        let mut state = self.state.lock().await;
        let mut tables = BTreeMap::new();
        for (name, commit) in commits {
            let table = self.committed(&state, &name, commit).await?;
            if tables.insert(name.clone(), table).is_some() {
                return Err(Refusal::Invalid(format!("{name} is committed to twice at once")));
            }
        }
        state.tables.extend(tables);
        Ok(())
    }

    /// The table as it is after a commit. Its metadata file is written, and known to nobody yet.
    async fn committed(&self, state: &State, name: &TableName, commit: Commit) -> Result<Table> {
        let Commit { requirements, updates } = commit;
        let before = state.tables.get(name);
        if before.is_none() && !requirements.contains(&TableRequirement::NotExist) {
            return Err(Refusal::NoSuchTable(name.clone()));
        }
        let refused = |error| Refusal::of_metadata(name, &error);
        for requirement in &requirements {
            requirement.check(before.map(|table| &*table.metadata)).map_err(refused)?;
        }
        let (builder, version) = match before {
            Some(table) => {
                let location = Some(table.metadata_location.clone());
                let metadata = TableMetadata::clone(&table.metadata);
                (TableMetadataBuilder::new_from_metadata(metadata, location), table.version + 1)
            }
            None => {
                state.vacant(name)?;
                let metadata = self.staged_metadata(name, &updates)?;
                (TableMetadataBuilder::new_from_metadata(metadata, None), 0)
            }
        };
        let applied = updates.into_iter().try_fold(builder, |b, update| update.apply(b));
        let metadata = applied.and_then(TableMetadataBuilder::build).map_err(refused)?.metadata;
        self.write(metadata, version).await
    }

    /// What a staged table is before its commit is applied.
    fn staged_metadata(&self, name: &TableName, updates: &[TableUpdate]) -> Result<TableMetadata> {
        let creation = creation_in(name, updates)?;
        let schema = creation.schema.clone();
        let metadata = self.first_metadata(name, creation)?;
        if metadata.current_schema().as_struct() != schema.as_struct() {
            return Err(Refusal::Invalid(format!(
                "{name}: the schema's field ids are not those that staging the table answered"
            )));
        }
        Ok(metadata)
    }

    /// Forgets a table and, asked to, removes its files.
    pub(crate) async fn drop_table(&self, name: &TableName, purge: bool) -> Result<()> {
        let mut state = self.state.lock().await;
        let folder = self.folder.join(self.key(state.table(name)?.metadata.location())?);
        state.tables.remove(name);
        if purge && tokio::fs::try_exists(&folder).await? {
            tokio::fs::remove_dir_all(&folder).await?;
        }
        Ok(())
    }

    fn first_metadata(&self, name: &TableName, creation: Creation) -> Result<TableMetadata> {
        let refused = |error| Refusal::of_metadata(name, &error);
        let mut properties = creation.properties;
        let version = match properties.remove("format-version").as_deref() {
            None => FORMAT_VERSION,
            Some("1") => FormatVersion::V1,
            Some("2") => FormatVersion::V2,
            Some("3") => FormatVersion::V3,
            Some(other) => {
                return Err(Refusal::Invalid(format!(
                    "{name}: format-version {other:?} is unknown"
                )));
            }
        };
        let default = || format!("s3://{}/{}", self.bucket, name.folder());
        let location = creation.location.unwrap_or_else(default);
        let location = location.trim_end_matches('/').to_owned();
        self.key(&location)?;
        let builder = TableMetadataBuilder::new(
            creation.schema,
            creation.partition_spec.unwrap_or_default(),
            creation.write_order.unwrap_or_else(SortOrder::unsorted_order),
            location,
            version,
            properties,
        );
        Ok(builder.and_then(TableMetadataBuilder::build).map_err(refused)?.metadata)
    }

    /// Writes a metadata file beside the table's other files.
    async fn write(&self, metadata: TableMetadata, version: u32) -> Result<Table> {
        let key = self.key(metadata.location())?;
        let key = format!("{key}/metadata/{version:05}-{}.metadata.json", Uuid::new_v4());
        let text = serde_json::to_vec(&metadata)?;
        self.budget.take(text.len() as u64)?;
        let path = self.folder.join(&key);
        if let Some(folder) = path.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        tokio::fs::write(&path, text).await?;
        let metadata_location = format!("s3://{}/{key}", self.bucket);
        Ok(Table { metadata_location, metadata: Arc::new(metadata), version })
    }

    fn key<'a>(&self, location: &'a str) -> Result<&'a str> {
        key_of(location, &self.bucket).map_err(Refusal::Invalid)
    }
}

impl State {
    fn namespace(&self, name: &Namespace) -> Result<&BTreeMap<String, String>> {
        self.namespaces.get(name).ok_or_else(|| Refusal::NoSuchNamespace(name.clone()))
    }

    fn table(&self, name: &TableName) -> Result<&Table> {
        self.tables.get(name).ok_or_else(|| Refusal::NoSuchTable(name.clone()))
    }

    /// Whether a table of this name can be made.
    fn vacant(&self, name: &TableName) -> Result<()> {
        self.namespace(&name.namespace)?;
        if self.tables.contains_key(name) {
            return Err(Refusal::AlreadyExists(format!("table {name}")));
        }
        room(self.tables.len(), "tables")
    }
}

impl Table {
    fn loaded(&self) -> Loaded {
        Loaded {
            metadata_location: Some(self.metadata_location.clone()),
            metadata: Arc::clone(&self.metadata),
        }
    }
}

fn room(count: usize, what: &str) -> Result<()> {
    if count < MAX_ENTRIES {
        return Ok(());
    }
    let message = format!("the embedded lake is for trying out and holds {MAX_ENTRIES} {what}");
    Err(Refusal::Invalid(message))
}

/// What the commit of a staged table says about its beginning. The updates are applied to it once more,
/// which changes nothing.
fn creation_in(name: &TableName, updates: &[TableUpdate]) -> Result<Creation> {
    let mut version = FORMAT_VERSION;
    let (mut schema, mut spec, mut order, mut location) = (None, None, None, None);
    for update in updates {
        match update {
            TableUpdate::UpgradeFormatVersion { format_version } => version = *format_version,
            TableUpdate::AddSchema { schema: added } => drop(schema.get_or_insert(added)),
            TableUpdate::AddSpec { spec: added } => drop(spec.get_or_insert(added)),
            TableUpdate::AddSortOrder { sort_order } => drop(order.get_or_insert(sort_order)),
            TableUpdate::SetLocation { location: set } => location = Some(set),
            _ => {}
        }
    }
    let Some(schema) = schema else {
        return Err(Refusal::Invalid(format!(
            "{name}: a commit that creates it must add a schema"
        )));
    };
    let version = (version as u8).to_string();
    Ok(Creation {
        name: name.name.clone(),
        location: location.cloned(),
        schema: schema.clone(),
        partition_spec: spec.cloned(),
        write_order: order.cloned(),
        stage_create: false,
        properties: HashMap::from([("format-version".to_owned(), version)]),
    })
}
