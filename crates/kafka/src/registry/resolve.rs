//! From the registry's answers to schemas with their references in order.

use std::collections::{BTreeMap, HashSet};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use isk_model::{RegistrySchemaId, SchemaFormat, SchemaReference, WriterId};
use serde::Deserialize;

use super::http::Http;
use super::{RegisteredSchema, RegistryError};
use crate::metrics::add;

/// How deep references may nest.
const MAX_DEPTH: usize = 32;
/// How many schemas one schema may refer to, directly and indirectly.
const MAX_REFERENCES: usize = 1000;
/// How many versions of a subject are read at the same time.
const PARALLEL_VERSIONS: usize = 8;

/// `GET /schemas/ids/{id}`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaById {
    schema: String,
    schema_type: Option<String>,
    references: Option<Vec<Reference>>,
}

/// `GET /subjects/{subject}/versions/{version}`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubjectVersion {
    id: i32,
    version: u32,
    schema: String,
    schema_type: Option<String>,
    references: Option<Vec<Reference>>,
}

#[derive(Deserialize, Clone, Debug)]
struct Reference {
    name: Option<String>,
    subject: String,
    version: i64,
}

/// The schema of an id, or of a GUID, which only newer registries know.
pub(super) async fn schema_by_id(
    http: &Http,
    id: WriterId,
) -> Result<Option<RegisteredSchema>, RegistryError> {
    let kind = match id {
        WriterId::Id(_) => "ids",
        WriterId::Guid(_) => "guids",
    };
    let path = ["schemas", kind, &id.to_string()];
    let Some(found) = http.get::<SchemaById>(&path).await? else {
        add(&http.metrics.unknown_ids, 1);
        return Ok(None);
    };
    let what = format!("schema {id}");
    let format = format(&what, found.schema_type)?;
    let references = resolve(http, &what, format, found.references.unwrap_or_default()).await?;
    let id = id.id().unwrap_or(RegistrySchemaId(0));
    Ok(Some(RegisteredSchema { version: 0, id, format, text: found.schema, references }))
}

/// The names of all subjects, in order.
pub(super) async fn subjects(http: &Http, most: usize) -> Result<Vec<String>, RegistryError> {
    let mut names: Vec<String> = http.get(&["subjects"]).await?.unwrap_or_default();
    if names.len() > most {
        let reason =
            format!("it lists {} subjects; at most {most} are looked through", names.len());
        return Err(RegistryError::Config(reason));
    }
    names.sort_unstable();
    Ok(names)
}

/// The subject's versions; those in `known` are not read again.
pub(super) async fn subject_versions(
    http: &Http,
    subject: &str,
    known: &BTreeMap<u32, RegisteredSchema>,
) -> Result<BTreeMap<u32, RegisteredSchema>, RegistryError> {
    let listed: Option<Vec<u32>> = http.get(&["subjects", subject, "versions"]).await?;
    let listed = listed.unwrap_or_default();
    let mut versions: BTreeMap<u32, RegisteredSchema> =
        listed.iter().filter_map(|version| Some((*version, known.get(version)?.clone()))).collect();
    let unseen: Vec<u32> = listed.into_iter().filter(|v| !versions.contains_key(v)).collect();
    let read: Vec<Option<RegisteredSchema>> = futures::stream::iter(unseen)
        .map(|version| subject_version(http, subject, version))
        .buffered(PARALLEL_VERSIONS)
        .try_collect()
        .await?;
    versions.extend(read.into_iter().flatten().map(|schema| (schema.version, schema)));
    Ok(versions)
}

/// `None` when the version was deleted since it was listed.
async fn subject_version(
    http: &Http,
    subject: &str,
    version: u32,
) -> Result<Option<RegisteredSchema>, RegistryError> {
    let path = ["subjects", subject, "versions", &version.to_string()];
    let Some(found) = http.get::<SubjectVersion>(&path).await? else { return Ok(None) };
    let what = format!("version {version} of subject {subject}");
    let format = format(&what, found.schema_type)?;
    let references = resolve(http, &what, format, found.references.unwrap_or_default()).await?;
    Ok(Some(RegisteredSchema {
        version: found.version,
        id: RegistrySchemaId(found.id),
        format,
        text: found.schema,
        references,
    }))
}

/// Reads bytes as each kind of answer that a registry gives.
pub(super) fn read_any(bytes: &[u8]) {
    if let Ok(found) = serde_json::from_slice::<SchemaById>(bytes) {
        let _ = format("a schema", found.schema_type);
    }
    let _ = serde_json::from_slice::<SubjectVersion>(bytes);
    let _ = serde_json::from_slice::<Vec<u32>>(bytes);
}

fn format(what: &str, schema_type: Option<String>) -> Result<SchemaFormat, RegistryError> {
    // Registries leave the type out for Avro.
    let Some(schema_type) = schema_type else { return Ok(SchemaFormat::Avro) };
    SchemaFormat::of_name(&schema_type)
        .ok_or_else(|| RegistryError::UnsupportedType { what: what.to_owned(), schema_type })
}

async fn resolve(
    http: &Http,
    what: &str,
    format: SchemaFormat,
    references: Vec<Reference>,
) -> Result<Vec<SchemaReference>, RegistryError> {
    let mut walk = Walk { http, what, format, found: Vec::new(), seen: HashSet::new() };
    walk.visit(references, 0).await?;
    Ok(walk.found)
}

/// A walk through references, depth first: a schema's text follows those it refers to.
struct Walk<'a> {
    http: &'a Http,
    what: &'a str,
    /// Of the schema that refers: what it refers to is of the same.
    format: SchemaFormat,
    found: Vec<SchemaReference>,
    seen: HashSet<(String, String, i64)>,
}

impl Walk<'_> {
    fn visit(
        &mut self,
        references: Vec<Reference>,
        depth: usize,
    ) -> BoxFuture<'_, Result<(), RegistryError>> {
        async move {
            if depth >= MAX_DEPTH && !references.is_empty() {
                return Err(self.unresolved(format!("they nest deeper than {MAX_DEPTH}")));
            }
            for reference in references {
                // What was seen is there already; a circle, which no registry accepts, ends. Avro knows
                // a schema by the names in its text, the others by the names it is referred to by.
                let name = match self.format {
                    SchemaFormat::Avro => String::new(),
                    _ => reference.name.clone().unwrap_or_default(),
                };
                if !self.seen.insert((name, reference.subject.clone(), reference.version)) {
                    continue;
                }
                if self.seen.len() > MAX_REFERENCES {
                    return Err(self.unresolved(format!("they are more than {MAX_REFERENCES}")));
                }
                let version = reference.version.to_string();
                let path = ["subjects", &reference.subject, "versions", &version];
                let Some(found) = self.http.get::<SubjectVersion>(&path).await? else {
                    return Err(self.unresolved(format!(
                        "version {version} of subject {} does not exist",
                        reference.subject
                    )));
                };
                let format = format(self.what, found.schema_type)?;
                if format != self.format {
                    return Err(self.unresolved(format!(
                        "version {version} of subject {} is of type {format}, not {}",
                        reference.subject, self.format
                    )));
                }
                self.visit(found.references.unwrap_or_default(), depth + 1).await?;
                let name = reference.name.unwrap_or(reference.subject);
                self.found.push(SchemaReference { name, text: found.schema });
            }
            Ok(())
        }
        .boxed()
    }

    fn unresolved(&self, reason: String) -> RegistryError {
        RegistryError::References { what: self.what.to_owned(), reason }
    }
}
