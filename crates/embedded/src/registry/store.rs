//! What the registry knows: schemas with global ids, subjects with versions. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The most bytes of schema text kept.
const MAX_TEXT: usize = 64 << 20;

/// A refusal: Confluent's error code (its first three digits are the HTTP status) and a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u32,
    pub(crate) message: String,
}

fn refuse<T>(code: u32, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

/// Another schema that a schema uses, as the wire has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Reference {
    name: String,
    subject: String,
    version: u32,
}

/// A schema as the wire has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Schema {
    pub(crate) schema: String,
    #[serde(rename = "schemaType", default = "avro", skip_serializing_if = "is_avro")]
    pub(crate) schema_type: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) references: Vec<Reference>,
}

fn avro() -> String {
    "AVRO".to_owned()
}

/// Confluent's registry leaves the type out when it is Avro.
fn is_avro(schema_type: &String) -> bool {
    schema_type == "AVRO"
}

impl Schema {
    pub(crate) fn avro(text: &str) -> Self {
        Self { schema: text.to_owned(), schema_type: avro(), references: Vec::new() }
    }

    /// What makes two schemas one: JSON without white space and order of members, other text as it
    /// is. Syntax is checked, meaning is not.
    fn identity(&self) -> Result<String, Refusal> {
        let bad =
            |cause: String| refuse(42201, format!("invalid {} schema: {cause}", self.schema_type));
        let text = match self.schema_type.as_str() {
            "AVRO" | "JSON" => {
                let json: serde_json::Value = match serde_json::from_str(&self.schema) {
                    Ok(json) => json,
                    // A bare type name is Avro too.
                    Err(_) if is_primitive(&self.schema) => self.schema.as_str().into(),
                    Err(cause) => return bad(cause.to_string()),
                };
                if self.schema_type == "AVRO" && !looks_like_avro(&json) {
                    return bad("neither a type name, a union nor an object with a type".to_owned());
                }
                json.to_string()
            }
            "PROTOBUF" => self.schema.clone(),
            other => return refuse(42201, format!("unknown schema type {other:?}")),
        };
        let references = serde_json::to_string(&self.references).unwrap_or_default();
        Ok(format!("{} {references} {text}", self.schema_type))
    }
}

fn is_primitive(name: &str) -> bool {
    let names = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
    names.contains(&name.trim())
}

fn looks_like_avro(json: &serde_json::Value) -> bool {
    match json {
        serde_json::Value::String(name) => !name.is_empty(),
        serde_json::Value::Array(branches) => branches.iter().all(looks_like_avro),
        serde_json::Value::Object(members) => members.contains_key("type"),
        _ => false,
    }
}

#[derive(Debug, Clone)]
struct Version {
    version: u32,
    id: i32,
    deleted: bool,
}

/// A version of a subject as the wire has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Registered {
    pub(crate) subject: String,
    pub(crate) version: u32,
    pub(crate) id: i32,
    #[serde(flatten)]
    pub(crate) schema: Schema,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    /// By id; the first has id 1.
    schemas: Vec<Schema>,
    ids: BTreeMap<String, i32>,
    subjects: BTreeMap<String, Vec<Version>>,
    configs: BTreeMap<String, String>,
    global_config: Option<String>,
    bytes: usize,
}

/// Which version of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Latest,
    Number(u32),
}

impl std::str::FromStr for Which {
    type Err = Refusal;
    fn from_str(text: &str) -> Result<Self, Refusal> {
        match (text, text.parse()) {
            ("latest" | "-1", _) => Ok(Self::Latest),
            (_, Ok(number)) if number > 0 => Ok(Self::Number(number)),
            _ => refuse(42202, format!("{text:?} is no version: a number from 1 on, or latest")),
        }
    }
}

impl Store {
    /// The id of a schema under a subject; known schemas keep their id, new ones get the next.
    pub(crate) fn register(&mut self, subject: &str, schema: Schema) -> Result<i32, Refusal> {
        let identity = schema.identity()?;
        for used in &schema.references {
            let found = self.version(&used.subject, Which::Number(used.version));
            if let Err(cause) = found {
                return refuse(42201, format!("reference {:?}: {}", used.name, cause.message));
            }
        }
        let id = match self.ids.get(&identity) {
            Some(id) => *id,
            None => self.add(identity, schema)?,
        };
        let versions = self.subjects.entry(subject.to_owned()).or_default();
        if !versions.iter().any(|v| v.id == id && !v.deleted) {
            let version = versions.iter().map(|v| v.version).max().unwrap_or(0) + 1;
            versions.push(Version { version, id, deleted: false });
        }
        Ok(id)
    }

    fn add(&mut self, identity: String, schema: Schema) -> Result<i32, Refusal> {
        self.bytes += identity.len() + schema.schema.len();
        if self.bytes > MAX_TEXT {
            return refuse(42201, "the embedded registry is full");
        }
        self.schemas.push(schema);
        let id = i32::try_from(self.schemas.len()).unwrap_or(i32::MAX);
        self.ids.insert(identity, id);
        Ok(id)
    }

    pub(crate) fn schema(&self, id: i32) -> Result<&Schema, Refusal> {
        let found = usize::try_from(id).ok().and_then(|id| self.schemas.get(id.checked_sub(1)?));
        found.map_or_else(|| refuse(40403, format!("Schema {id} not found")), Ok)
    }

    /// Every live version that has this id, as `(subject, version)`.
    pub(crate) fn users(&self, id: i32) -> Result<Vec<(String, u32)>, Refusal> {
        self.schema(id)?;
        let all = self.subjects.iter().flat_map(|(subject, versions)| {
            let live = versions.iter().filter(move |v| v.id == id && !v.deleted);
            live.map(move |v| (subject.clone(), v.version))
        });
        Ok(all.collect())
    }

    pub(crate) fn subjects(&self, deleted_too: bool) -> Vec<String> {
        let live =
            self.subjects.iter().filter(|(_, all)| all.iter().any(|v| deleted_too || !v.deleted));
        live.map(|(subject, _)| subject.clone()).collect()
    }

    fn live(&self, subject: &str) -> Result<Vec<&Version>, Refusal> {
        let all = self.subjects.get(subject).into_iter().flatten();
        let live: Vec<_> = all.filter(|v| !v.deleted).collect();
        if live.is_empty() {
            return refuse(40401, format!("Subject '{subject}' not found."));
        }
        Ok(live)
    }

    pub(crate) fn versions(&self, subject: &str) -> Result<Vec<u32>, Refusal> {
        Ok(self.live(subject)?.iter().map(|v| v.version).collect())
    }

    pub(crate) fn version(&self, subject: &str, which: Which) -> Result<Registered, Refusal> {
        let live = self.live(subject)?;
        let found = match which {
            Which::Latest => live.last(),
            Which::Number(number) => live.iter().find(|v| v.version == number),
        };
        let Some(found) = found else {
            let Which::Number(number) = which else { return refuse(40402, "Version not found.") };
            return refuse(40402, format!("Version {number} not found."));
        };
        self.registered(subject, found)
    }

    fn registered(&self, subject: &str, version: &Version) -> Result<Registered, Refusal> {
        let schema = self.schema(version.id)?.clone();
        let Version { version, id, .. } = *version;
        Ok(Registered { subject: subject.to_owned(), version, id, schema })
    }

    /// The version of a subject that holds this schema.
    pub(crate) fn lookup(&self, subject: &str, schema: &Schema) -> Result<Registered, Refusal> {
        let live = self.live(subject)?;
        let id = self.ids.get(&schema.identity()?);
        match live.into_iter().find(|v| Some(&v.id) == id) {
            Some(found) => self.registered(subject, found),
            None => refuse(40403, "Schema not found"),
        }
    }

    /// Deletes one version, or all; answers their numbers. Ids stay readable, as in Confluent's
    /// registry, so that old records can still be decoded.
    pub(crate) fn delete(
        &mut self,
        subject: &str,
        which: Option<Which>,
        permanent: bool,
    ) -> Result<Vec<u32>, Refusal> {
        if permanent {
            return self.delete_for_good(subject, which);
        }
        let numbers = match which {
            None => self.versions(subject)?,
            Some(which) => vec![self.version(subject, which)?.version],
        };
        for version in self.subjects.get_mut(subject).into_iter().flatten() {
            version.deleted |= numbers.contains(&version.version);
        }
        Ok(numbers)
    }

    fn delete_for_good(
        &mut self,
        subject: &str,
        which: Option<Which>,
    ) -> Result<Vec<u32>, Refusal> {
        let Some(versions) = self.subjects.get_mut(subject) else {
            return refuse(40401, format!("Subject '{subject}' not found."));
        };
        let newest = versions.iter().map(|v| v.version).max();
        let meant = |v: &Version| match which {
            None => true,
            Some(Which::Latest) => Some(v.version) == newest,
            Some(Which::Number(number)) => v.version == number,
        };
        if versions.iter().any(|v| meant(v) && !v.deleted) {
            return refuse(
                40405,
                format!(
                    "Subject '{subject}' was not deleted first before being permanently deleted"
                ),
            );
        }
        let gone: Vec<u32> = versions.iter().filter(|v| meant(v)).map(|v| v.version).collect();
        versions.retain(|v| !meant(v));
        if versions.is_empty() {
            self.subjects.remove(subject);
        }
        Ok(gone)
    }

    /// The compatibility level of a subject, or the global one for `None`.
    pub(crate) fn config(&self, subject: Option<&str>, or_global: bool) -> Result<String, Refusal> {
        let global = || self.global_config.clone().unwrap_or_else(|| "NONE".to_owned());
        match subject {
            None => Ok(global()),
            Some(subject) => match self.configs.get(subject) {
                Some(level) => Ok(level.clone()),
                None if or_global => Ok(global()),
                None => refuse(
                    40408,
                    format!(
                        "Subject '{subject}' does not have subject-level compatibility configured"
                    ),
                ),
            },
        }
    }

    /// Stores a compatibility level. It is not enforced.
    pub(crate) fn set_config(&mut self, subject: Option<&str>, level: &str) -> Result<(), Refusal> {
        let levels = [
            "NONE",
            "BACKWARD",
            "BACKWARD_TRANSITIVE",
            "FORWARD",
            "FORWARD_TRANSITIVE",
            "FULL",
            "FULL_TRANSITIVE",
        ];
        let level = level.to_ascii_uppercase();
        if !levels.contains(&level.as_str()) {
            return refuse(
                42203,
                format!("Invalid compatibility level {level:?}; one of {levels:?}"),
            );
        }
        match subject {
            None => self.global_config = Some(level),
            Some(subject) => {
                self.configs.insert(subject.to_owned(), level);
            }
        }
        Ok(())
    }

    /// Forgets a subject's compatibility level and answers it.
    pub(crate) fn unset_config(&mut self, subject: &str) -> Result<String, Refusal> {
        let level = self.config(Some(subject), false)?;
        self.configs.remove(subject);
        Ok(level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = r#"{"type":"long"}"#;

    fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> u32 {
        result.unwrap_err().code
    }

    #[test]
    fn the_same_schema_has_one_id_everywhere() {
        let mut store = Store::default();
        assert_eq!(store.register("a", Schema::avro(LONG)), Ok(1));
        assert_eq!(store.register("a", Schema::avro(r#"{ "type" : "long" }"#)), Ok(1));
        assert_eq!(store.register("b", Schema::avro(LONG)), Ok(1));
        assert_eq!(store.register("a", Schema::avro("\"string\"")), Ok(2));
        assert_eq!(store.versions("a"), Ok(vec![1, 2]));
        assert_eq!(store.users(1), Ok(vec![("a".into(), 1), ("b".into(), 1)]));
        assert_eq!(store.lookup("a", &Schema::avro(LONG)).unwrap().version, 1);
        assert_eq!(code(store.lookup("b", &Schema::avro("\"int\""))), 40403);
        assert_eq!(store.version("a", Which::Latest).unwrap().id, 2);
        assert_eq!(code(store.version("a", Which::Number(3))), 40402);
        assert_eq!(code(store.version("c", Which::Latest)), 40401);
        assert_eq!(code(store.schema(0)), 40403);
        assert_eq!(code(store.schema(-1)), 40403);
    }

    #[test]
    fn deleted_subjects_come_back_with_new_versions() {
        let mut store = Store::default();
        store.register("a", Schema::avro(LONG)).unwrap();
        assert_eq!(code(store.delete("a", None, true)), 40405);
        assert_eq!(store.delete("a", None, false), Ok(vec![1]));
        assert_eq!(code(store.delete("a", None, false)), 40401);
        assert_eq!((store.subjects(false).len(), store.subjects(true).len()), (0, 1));
        assert!(store.schema(1).is_ok(), "the id stays readable");
        assert_eq!(store.register("a", Schema::avro(LONG)), Ok(1));
        assert_eq!(store.versions("a"), Ok(vec![2]));
        store.delete("a", Some(Which::Number(2)), false).unwrap();
        assert_eq!(store.delete("a", None, true), Ok(vec![1, 2]));
        assert!(store.subjects(true).is_empty());
    }

    #[test]
    fn bad_schemas_and_references_are_refused() {
        let mut store = Store::default();
        for text in ["{", "7", "{\"name\":\"x\"}", ""] {
            assert_eq!(code(store.register("a", Schema::avro(text))), 42201, "{text}");
        }
        let mut using = Schema::avro(r#"{"type":"array","items":"x.Y"}"#);
        using.references = vec![Reference { name: "x.Y".into(), subject: "y".into(), version: 1 }];
        assert_eq!(code(store.register("a", using.clone())), 42201);
        store.register("y", Schema::avro(LONG)).unwrap();
        assert_eq!(store.register("a", using), Ok(2));
        let mut odd = Schema::avro(LONG);
        odd.schema_type = "XML".into();
        assert_eq!(code(store.register("a", odd)), 42201);
    }

    #[test]
    fn compatibility_is_stored() {
        let mut store = Store::default();
        assert_eq!(store.config(None, false), Ok("NONE".into()));
        assert_eq!(code(store.config(Some("a"), false)), 40408);
        assert_eq!(store.config(Some("a"), true), Ok("NONE".into()));
        store.set_config(Some("a"), "backward").unwrap();
        assert_eq!(store.unset_config("a"), Ok("BACKWARD".into()));
        assert_eq!(code(store.set_config(None, "SIDEWAYS")), 42203);
    }

    #[test]
    fn versions_parse() {
        assert_eq!("latest".parse(), Ok(Which::Latest));
        assert_eq!("-1".parse(), Ok(Which::Latest));
        assert_eq!("12".parse(), Ok(Which::Number(12)));
        for bad in ["0", "-2", "x", ""] {
            assert_eq!(code(bad.parse::<Which>()), 42202);
        }
    }
}
