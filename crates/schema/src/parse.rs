//! Avro schema texts to [`ValueType`]s.
//!
//! The parser is lenient where producers are (names outside Avro's character rules, unknown
//! attributes, misplaced logical types) and strict where a table's shape depends on it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use isk_model::SchemaReference;
use serde_json::{Map, Value};

use crate::avro::{EnumType, FixedType, Kind, RecordField, RecordType, RecursiveType, ValueType};
use crate::error::SchemaError;
use crate::logical::logical_type;

/// The most types a schema may have once named types stand wherever they are used. Definitions that
/// use each other twice double with each level, so without a bound a page of JSON fills the memory.
const MAX_TYPES: usize = 20_000;
/// The deepest nesting of types.
const MAX_DEPTH: usize = 64;

/// Parses one Avro schema. `references` are the schemas it names, each after those it names itself.
pub fn parse(text: &str, references: &[SchemaReference]) -> Result<ValueType, SchemaError> {
    let mut parser = Parser::default();
    for reference in references {
        parser.text(&reference.text)?;
    }
    parser.text(text)
}

/// A type, and how large it is with every named type in place.
#[derive(Clone)]
struct Sized {
    ty: ValueType,
    types: usize,
    depth: usize,
}

enum Named {
    /// Its definition is being read: to meet it now is recursion. The names it had before.
    Open(Vec<String>),
    Done(Sized),
}

#[derive(Default)]
struct Parser {
    named: HashMap<String, Named>,
}

/// Where the parser stands: the enclosing namespace, and the path for messages.
#[derive(Clone, Copy)]
struct Place<'a> {
    namespace: &'a str,
    path: &'a str,
}

impl Place<'_> {
    fn at(&self) -> &str {
        if self.path.is_empty() { "the top" } else { self.path }
    }

    fn invalid(&self, reason: impl Into<String>) -> SchemaError {
        SchemaError::invalid(self.at(), reason)
    }

    fn below(&self, segment: &str) -> String {
        if self.path.is_empty() { segment.to_owned() } else { format!("{}.{segment}", self.path) }
    }
}

impl Parser {
    fn text(&mut self, text: &str) -> Result<ValueType, SchemaError> {
        let json: Value = serde_json::from_str(text)
            .map_err(|e| SchemaError::invalid("the top", e.to_string()))?;
        Ok(self.schema(&json, Place { namespace: "", path: "" })?.ty)
    }

    fn schema(&mut self, json: &Value, place: Place<'_>) -> Result<Sized, SchemaError> {
        match json {
            Value::String(name) => self.reference(name, place),
            Value::Array(branches) => self.union(branches, place),
            Value::Object(object) => self.object(object, place),
            _ => Err(place.invalid("a type is a name, a list of branches or an object")),
        }
    }

    fn reference(&self, name: &str, place: Place<'_>) -> Result<Sized, SchemaError> {
        if let Some(kind) = primitive(name) {
            return Ok(Sized { ty: ValueType::plain(kind), types: 1, depth: 1 });
        }
        let full = qualify(name, place.namespace);
        // A short name may also mean a type without namespace, as older producers write.
        let found = self.named.get_key_value(&full).or_else(|| self.named.get_key_value(name));
        match found {
            Some((_, Named::Done(sized))) => Ok(sized.clone()),
            Some((name, Named::Open(aliases))) => {
                let ty = RecursiveType { name: name.clone(), aliases: aliases.clone() };
                let ty = ValueType::plain(Kind::Recursive(Arc::new(ty)));
                Ok(Sized { ty, types: 1, depth: 1 })
            }
            None => Err(place.invalid(format!("type {full} is not defined"))),
        }
    }

    fn union(&mut self, branches: &[Value], place: Place<'_>) -> Result<Sized, SchemaError> {
        let mut types = Vec::with_capacity(branches.len());
        let mut size = Size::default();
        let mut seen = HashSet::new();
        for branch in branches {
            let branch = self.schema(branch, place)?;
            if matches!(branch.ty.kind, Kind::Union(_)) {
                return Err(place.invalid("a union holds another union directly"));
            }
            let name = branch.ty.full_name().unwrap_or(branch.ty.short_name()).to_owned();
            if seen.contains(&name) {
                return Err(place.invalid(format!("a union holds two branches of type {name}")));
            }
            seen.insert(name);
            types.push(size.add(branch, place)?);
        }
        size.over(ValueType::plain(Kind::Union(types.into())))
    }

    fn object(
        &mut self,
        object: &Map<String, Value>,
        place: Place<'_>,
    ) -> Result<Sized, SchemaError> {
        let ty = object.get("type").ok_or_else(|| place.invalid("`type` is missing"))?;
        let mut sized = match ty.as_str() {
            Some("record" | "error") => self.record(object, place)?,
            Some("enum") => {
                self.define(object, place, |name, aliases| enum_type(object, name, aliases, place))?
            }
            Some("fixed") => self
                .define(object, place, |name, aliases| fixed_type(object, name, aliases, place))?,
            Some("array") => self.container(object, "items", "element", Kind::Array, place)?,
            Some("map") => self.container(object, "values", "value", Kind::Map, place)?,
            // A name, or a type wrapped once more.
            _ => self.schema(ty, place)?,
        };
        if let Some(logical) = logical_type(object, &sized.ty.kind) {
            sized.ty.logical = Some(logical);
            // What stands under the type's name is the type with its logical type.
            if let Some(name) = sized.ty.full_name() {
                self.named.insert(name.to_owned(), Named::Done(sized.clone()));
            }
        }
        Ok(sized)
    }

    fn container(
        &mut self,
        object: &Map<String, Value>,
        attribute: &str,
        segment: &str,
        kind: impl FnOnce(Arc<ValueType>) -> Kind,
        place: Place<'_>,
    ) -> Result<Sized, SchemaError> {
        let inner = object
            .get(attribute)
            .ok_or_else(|| place.invalid(format!("`{attribute}` is missing")))?;
        let path = place.below(segment);
        let inner = self.schema(inner, Place { path: &path, ..place })?;
        let mut size = Size::default();
        let inner = size.add(inner, place)?;
        size.over(ValueType::plain(kind(Arc::new(inner))))
    }

    fn define(
        &mut self,
        object: &Map<String, Value>,
        place: Place<'_>,
        build: impl FnOnce(String, Vec<String>) -> Result<Kind, SchemaError>,
    ) -> Result<Sized, SchemaError> {
        let (name, aliases) = self.claim_name(object, place)?;
        let kind = build(name.clone(), aliases)?;
        let sized = Sized { ty: ValueType::plain(kind), types: 1, depth: 1 };
        self.named.insert(name, Named::Done(sized.clone()));
        Ok(sized)
    }

    /// Reads a definition's name and aliases, and marks the name as being defined.
    fn claim_name(
        &mut self,
        object: &Map<String, Value>,
        place: Place<'_>,
    ) -> Result<(String, Vec<String>), SchemaError> {
        let name = object
            .get("name")
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
            .ok_or_else(|| place.invalid("a record, enum or fixed type has no `name`"))?;
        let namespace = object.get("namespace").and_then(Value::as_str).unwrap_or(place.namespace);
        let full = qualify(name, namespace);
        let own_namespace = namespace_of(&full);
        let aliases: Vec<String> =
            strings(object, "aliases").into_iter().map(|a| qualify(&a, own_namespace)).collect();
        match self.named.insert(full.clone(), Named::Open(aliases.clone())) {
            Some(_) => Err(place.invalid(format!("type {full} is defined twice"))),
            None => Ok((full, aliases)),
        }
    }

    fn record(
        &mut self,
        object: &Map<String, Value>,
        place: Place<'_>,
    ) -> Result<Sized, SchemaError> {
        let (name, aliases) = self.claim_name(object, place)?;
        let fields = object
            .get("fields")
            .and_then(Value::as_array)
            .ok_or_else(|| place.invalid(format!("record {name} has no list `fields`")))?;
        let mut size = Size::default();
        let mut seen = HashSet::new();
        let mut out = Vec::with_capacity(fields.len());
        for field in fields {
            let field_name = field
                .get("name")
                .and_then(Value::as_str)
                .ok_or_else(|| place.invalid(format!("a field of record {name} has no `name`")))?;
            let path = place.below(field_name);
            let inner = Place { namespace: namespace_of(&name), path: &path };
            if !seen.insert(field_name) {
                return Err(inner.invalid(format!("record {name} has two fields of this name")));
            }
            let ty = field.get("type").ok_or_else(|| inner.invalid("`type` is missing"))?;
            let ty = self.schema(ty, inner)?;
            out.push(RecordField {
                name: field_name.to_owned(),
                aliases: field.as_object().map(|o| strings(o, "aliases")).unwrap_or_default(),
                doc: field.get("doc").and_then(Value::as_str).map(str::to_owned),
                ty: size.add(ty, inner)?,
                default: field.get("default").cloned(),
                proto: None,
            });
        }
        let record = RecordType { name: name.clone(), aliases, fields: out };
        let sized = size.over(ValueType::plain(Kind::Record(Arc::new(record))))?;
        self.named.insert(name, Named::Done(sized.clone()));
        Ok(sized)
    }
}

/// Adds up how large a type grows.
#[derive(Default)]
struct Size {
    types: usize,
    depth: usize,
}

impl Size {
    fn add(&mut self, inner: Sized, place: Place<'_>) -> Result<ValueType, SchemaError> {
        self.types += inner.types;
        self.depth = self.depth.max(inner.depth);
        if self.types > MAX_TYPES {
            return Err(SchemaError::TooLarge {
                reason: format!("more than {MAX_TYPES} types (at {})", place.at()),
            });
        }
        if self.depth >= MAX_DEPTH {
            return Err(SchemaError::TooLarge {
                reason: format!("types nest deeper than {MAX_DEPTH} levels (at {})", place.at()),
            });
        }
        Ok(inner.ty)
    }

    fn over(self, ty: ValueType) -> Result<Sized, SchemaError> {
        Ok(Sized { ty, types: self.types + 1, depth: self.depth + 1 })
    }
}

fn enum_type(
    object: &Map<String, Value>,
    name: String,
    aliases: Vec<String>,
    place: Place<'_>,
) -> Result<Kind, SchemaError> {
    let symbols = strings(object, "symbols");
    let listed = object.get("symbols").and_then(Value::as_array).map_or(0, Vec::len);
    if symbols.is_empty() || symbols.len() != listed {
        return Err(place.invalid(format!("enum {name} has no list `symbols` of names")));
    }
    let default = object.get("default").and_then(Value::as_str).map(str::to_owned);
    Ok(Kind::Enum(Arc::new(EnumType { name, aliases, symbols, default })))
}

fn fixed_type(
    object: &Map<String, Value>,
    name: String,
    aliases: Vec<String>,
    place: Place<'_>,
) -> Result<Kind, SchemaError> {
    let size = object
        .get("size")
        .and_then(Value::as_u64)
        // Arrow's lengths are 32-bit numbers.
        .and_then(|size| i32::try_from(size).ok())
        .and_then(|size| usize::try_from(size).ok())
        .ok_or_else(|| {
            place.invalid(format!("fixed type {name} has no `size` from 0 to 2^31-1"))
        })?;
    Ok(Kind::Fixed(Arc::new(FixedType { name, aliases, size })))
}

fn strings(object: &Map<String, Value>, attribute: &str) -> Vec<String> {
    let list = object.get(attribute).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn qualify(name: &str, namespace: &str) -> String {
    if name.contains('.') {
        name.trim_start_matches('.').to_owned()
    } else if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

fn namespace_of(full_name: &str) -> &str {
    full_name.rsplit_once('.').map_or("", |(namespace, _)| namespace)
}

fn primitive(name: &str) -> Option<Kind> {
    Some(match name {
        "null" => Kind::Null,
        "boolean" => Kind::Boolean,
        "int" => Kind::Int,
        "long" => Kind::Long,
        "float" => Kind::Float,
        "double" => Kind::Double,
        "bytes" => Kind::Bytes,
        "string" => Kind::String,
        _ => return None,
    })
}
