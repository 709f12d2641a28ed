//! Field ids that stay: which id a nested field has had since it was first seen.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::SchemaError;
use crate::metadata::FIRST_VALUE_FIELD_ID;

/// An Iceberg field id, unique within a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldId(pub i32);

/// Ids of fields nested in keys begin here, those of values end here.
const FIRST_KEY_FIELD_ID: i32 = 1_000_000;
/// Where keys' ids end; the range above is for tables that join this one with another.
const END_OF_KEY_FIELD_IDS: i32 = 2_000_000;

/// Whose fields a schema describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Value,
    Key,
}

impl Part {
    /// The root of the part's paths, and a prefix of its digests.
    pub(crate) fn root(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Key => "key",
        }
    }
}

/// The field ids of one topic's table. To be persisted: it is the truth about ids, also when the
/// registry has forgotten versions.
///
/// It only grows: what was given out for a schema text stays, so that a table of an old
/// version has the same ids whenever it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldIdMap {
    /// The next free id of value fields.
    next_value: i32,
    /// The next free id of fields nested in keys. They have their own range, so that ids do not depend
    /// on which subject got a version first.
    next_key: i32,
    /// What each path meant when it was last seen.
    latest: BTreeMap<String, KnownField>,
    /// The ids given for schema texts already walked, by the text's digest, then by path.
    walked: BTreeMap<String, BTreeMap<String, i32>>,
}

/// A field as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownField {
    id: i32,
    shape: Shape,
}

/// As much of a field's type as decides whether it is still the same field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// A struct, list or map; the name says which.
    Nested(String),
    /// A decimal of this many digits, and this many behind the point.
    Decimal(u32, u32),
    /// Any other type, by Iceberg's name of it.
    Primitive(String),
}

impl Shape {
    /// Whether a column of this shape may become one of shape `new` and stay the same column
    /// (Iceberg specification, "Schema Evolution").
    fn widens_to(&self, new: &Self) -> bool {
        match (self, new) {
            (Self::Primitive(a), Self::Primitive(b)) => {
                a == b || matches!((&**a, &**b), ("int", "long") | ("float", "double"))
            }
            (Self::Decimal(p, s), Self::Decimal(new_p, new_s)) => s == new_s && p <= new_p,
            _ => self == new,
        }
    }
}

/// A nested field of a schema being walked, before it has an id.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// Its own name, and the names it had before.
    pub names: Vec<String>,
    pub shape: Shape,
}

impl Default for FieldIdMap {
    fn default() -> Self {
        Self {
            next_value: FIRST_VALUE_FIELD_ID.0,
            next_key: FIRST_KEY_FIELD_ID,
            latest: BTreeMap::new(),
            walked: BTreeMap::new(),
        }
    }
}

impl FieldIdMap {
    /// The ids given for a text walked before.
    pub(crate) fn walked(&self, digest: &str) -> Option<&BTreeMap<String, i32>> {
        self.walked.get(digest)
    }

    /// Begins to walk a text.
    pub(crate) fn walk(&self, part: Part) -> Walk {
        Walk { part, map: self.clone(), given: BTreeMap::new() }
    }

    fn take_id(&mut self, part: Part) -> Result<i32, SchemaError> {
        let (next, end) = match part {
            Part::Value => (&mut self.next_value, FIRST_KEY_FIELD_ID),
            Part::Key => (&mut self.next_key, END_OF_KEY_FIELD_IDS),
        };
        if *next >= end {
            return Err(SchemaError::IdsExhausted);
        }
        *next += 1;
        Ok(*next - 1)
    }
}

/// One schema text being walked. Nothing is kept unless [`Walk::finish`] is reached.
pub(crate) struct Walk {
    part: Part,
    map: FieldIdMap,
    given: BTreeMap<String, i32>,
}

impl Walk {
    /// Gives ids to the fields of one struct (or the parts of a list or map) at `parent`, in order.
    /// A name known there keeps its id; then a name known by an alias takes the alias' id along with
    /// all that is nested in it; the rest are new.
    pub(crate) fn siblings(
        &mut self,
        parent: &str,
        fields: &[Candidate],
    ) -> Result<Vec<i32>, SchemaError> {
        let own: BTreeSet<&str> =
            fields.iter().filter_map(|f| f.names.first()).map(String::as_str).collect();
        for field in fields {
            let Some((name, aliases)) = field.names.split_first() else { continue };
            if self.map.latest.contains_key(&child(parent, name)) {
                continue;
            }
            let renamed = aliases
                .iter()
                .filter(|alias| !own.contains(alias.as_str()))
                .find(|alias| self.map.latest.contains_key(&child(parent, alias)));
            if let Some(alias) = renamed {
                self.rename(&child(parent, alias), &child(parent, name));
            }
        }
        fields
            .iter()
            .map(|field| {
                let name = field.names.first().map_or("", String::as_str);
                self.field(child(parent, name), &field.shape)
            })
            .collect()
    }

    fn field(&mut self, path: String, shape: &Shape) -> Result<i32, SchemaError> {
        let id = match self.map.latest.get(&path) {
            Some(known) if known.shape.widens_to(shape) => known.id,
            _ => {
                self.forget_nested(&path);
                self.map.take_id(self.part)?
            }
        };
        self.map.latest.insert(path.clone(), KnownField { id, shape: shape.clone() });
        self.given.insert(path, id);
        Ok(id)
    }

    /// Moves a field and all that is nested in it to another path.
    fn rename(&mut self, from: &str, to: &str) {
        for path in self.at_and_below(from) {
            if let Some(known) = self.map.latest.remove(&path) {
                self.map.latest.insert(format!("{to}{}", &path[from.len()..]), known);
            }
        }
    }

    fn forget_nested(&mut self, path: &str) {
        for nested in self.at_and_below(path) {
            self.map.latest.remove(&nested);
        }
    }

    fn at_and_below(&self, path: &str) -> Vec<String> {
        let prefix = format!("{path}{SEPARATOR}");
        let below = self.map.latest.range(prefix.clone()..).map(|(p, _)| p);
        let below = below.take_while(|p| p.starts_with(&prefix)).cloned();
        std::iter::once(path.to_owned()).chain(below).collect()
    }

    /// Keeps the walk under the text's digest.
    pub(crate) fn finish(self, digest: String) -> FieldIdMap {
        let mut map = self.map;
        map.walked.insert(digest, self.given);
        map
    }
}

/// Stands between the segments of a path: no field's name can hold it.
const SEPARATOR: char = '\u{1f}';

/// The path of a field below `parent`.
pub(crate) fn child(parent: &str, name: &str) -> String {
    format!("{parent}{SEPARATOR}{name}")
}
