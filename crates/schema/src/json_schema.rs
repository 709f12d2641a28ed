//! JSON Schemas to types: what of a schema says which columns its values have.
//!
//! Drafts 4 to 2020-12 are read alike: what they say of types differs little. Nothing a schema says about
//! which values are allowed (`required`, `pattern`, bounds, ...) matters here.

use std::collections::HashSet;
use std::sync::Arc;

use isk_model::{SchemaFormat, SchemaReference};

use crate::avro::{Kind, Logical, RecordField, TimeUnit, ValueType};
use crate::error::SchemaError;
use crate::json_connect as connect;
use crate::json_document::{Documents, Node, Scope};
use crate::json_meet::{
    Meaning, alternatives, json, meet, record, rest_field, rest_text_field, unify,
};
use crate::shape::REST_WORD;

/// The most schemas that are looked at, each as often as it is referred to.
const MAX_SCHEMAS: usize = 20_000;
/// How many schemas may be open at once, by nesting and by reference.
const MAX_OPEN: usize = 200;
/// The deepest nesting of columns. What lies deeper is shown as JSON text.
const MAX_DEPTH: usize = 64;

/// Reads one JSON Schema and the schemas it refers to by name.
pub(crate) fn parse(text: &str, references: &[SchemaReference]) -> Result<ValueType, SchemaError> {
    let main = document(text, "the top")?;
    let references: Vec<(String, Node)> = references
        .iter()
        .map(|r| Ok((r.name.clone(), document(&r.text, &format!("reference {:?}", r.name))?)))
        .collect::<Result<_, SchemaError>>()?;
    let (documents, scope) = Documents::new(&main, &references);
    let mut mapper = Mapper { documents, open: Vec::new(), seen: 0 };
    let place = Place { scope: &scope, path: "", depth: 0 };
    Ok(mapper.schema(&main, place)?.ty())
}

fn document(text: &str, at: &str) -> Result<Node, SchemaError> {
    serde_json::from_str(text).map_err(|e| SchemaError::of(SchemaFormat::Json, at, e.to_string()))
}

struct Mapper<'a> {
    documents: Documents<'a>,
    /// The schemas being read: to meet one again is recursion.
    open: Vec<&'a Node>,
    seen: usize,
}

#[derive(Clone, Copy)]
struct Place<'p, 'a> {
    scope: &'p Scope<'a>,
    /// For messages: names from the top.
    path: &'p str,
    /// How deep the column is nested.
    depth: usize,
}

impl Place<'_, '_> {
    fn at(&self) -> &str {
        if self.path.is_empty() { "the top" } else { self.path }
    }

    fn below(&self, segment: &str) -> String {
        if self.path.is_empty() { segment.to_owned() } else { format!("{}.{segment}", self.path) }
    }
}

impl<'a> Mapper<'a> {
    fn schema(&mut self, node: &'a Node, place: Place<'_, 'a>) -> Result<Meaning, SchemaError> {
        match node {
            Node::Object(_) => {}
            Node::Bool(_) => return Ok(Meaning::Any),
            _ => {
                let reason = "a schema is an object or a boolean";
                return Err(SchemaError::of(SchemaFormat::Json, place.at(), reason));
            }
        }
        self.seen += 1;
        let too_large = |what: String| {
            Err(SchemaError::TooLarge { reason: format!("{what} (at {})", place.at()) })
        };
        if self.seen > MAX_SCHEMAS {
            return too_large(format!("more than {MAX_SCHEMAS} schemas, references followed"));
        }
        if self.open.len() >= MAX_OPEN {
            return too_large(format!("schemas nest deeper than {MAX_OPEN} levels"));
        }
        if place.depth > MAX_DEPTH || self.open.iter().any(|open| std::ptr::eq(*open, node)) {
            return Ok(Meaning::Type(json()));
        }
        self.open.push(node);
        let scope = place.scope.inside(node);
        let meaning = self.object(node, Place { scope: &scope, ..place });
        self.open.pop();
        meaning
    }

    /// All that one schema says, its own words and those it refers to.
    fn object(&mut self, node: &'a Node, place: Place<'_, 'a>) -> Result<Meaning, SchemaError> {
        let mut meaning = self.own(node, place)?;
        for name in ["$ref", "$dynamicRef", "$recursiveRef"] {
            if let Some(reference) = node.text(name) {
                let referred = match self.documents.resolve(reference, place.scope) {
                    Some((node, scope)) => self.schema(node, Place { scope: &scope, ..place })?,
                    // Nobody has it: any value may be there.
                    None => Meaning::Type(json()),
                };
                meaning = meet(meaning, referred);
            }
        }
        for part in node.get("allOf").map_or(&[][..], Node::items) {
            meaning = meet(meaning, self.schema(part, place)?);
        }
        for name in ["oneOf", "anyOf"] {
            let Some(list) = node.get(name) else { continue };
            let parts = list.items().iter().map(|part| self.schema(part, place));
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            meaning = alternatives(meaning, parts);
        }
        // What an object has in some cases only, it has among its columns.
        for name in ["then", "else"] {
            if let (Some(part), true) = (node.get(name), meaning.is_record()) {
                let part = self.schema(part, place)?;
                meaning = alternatives(meaning, vec![part]);
            }
        }
        Ok(meaning)
    }

    /// What a schema says by its own `type`, or without one by words that only one type has.
    fn own(&mut self, node: &'a Node, place: Place<'_, 'a>) -> Result<Meaning, SchemaError> {
        let types: Vec<&str> = match node.get("type") {
            None => return self.untyped(node, place),
            Some(Node::Text(ty)) => vec![ty],
            Some(list) => list
                .items()
                .iter()
                .filter_map(|ty| if let Node::Text(ty) = ty { Some(ty.as_str()) } else { None })
                .collect(),
        };
        let real: Vec<&str> = types.iter().copied().filter(|ty| *ty != "null").collect();
        if real.is_empty() && !types.is_empty() {
            return Ok(Meaning::Null);
        }
        let meanings = real.into_iter().map(|ty| self.typed(ty, node, place));
        let types: Vec<ValueType> =
            meanings.map(|m| m.map(Meaning::ty)).collect::<Result<_, _>>()?;
        Ok(Meaning::Type(unify(types)))
    }

    fn typed(
        &mut self,
        ty: &str,
        node: &'a Node,
        place: Place<'_, 'a>,
    ) -> Result<Meaning, SchemaError> {
        Ok(Meaning::Type(match ty {
            "boolean" => ValueType::plain(Kind::Boolean),
            "integer" => connect::integer(node),
            "number" => connect::number(node),
            "string" => string(node),
            "array" => self.array(node, place)?,
            "object" => self.members(node, place)?,
            _ => json(),
        }))
    }

    fn untyped(&mut self, node: &'a Node, place: Place<'_, 'a>) -> Result<Meaning, SchemaError> {
        if let Some(values) = node.get("enum").map(Node::items) {
            return Ok(of_values(values.iter()));
        }
        if let Some(value) = node.get("const") {
            return Ok(of_values([value].into_iter()));
        }
        let says = |name: &str| node.get(name).is_some();
        if says("properties") || says("patternProperties") {
            return self.typed("object", node, place);
        }
        if says("items") || says("prefixItems") {
            return self.typed("array", node, place);
        }
        Ok(Meaning::Any)
    }

    fn array(&mut self, node: &'a Node, place: Place<'_, 'a>) -> Result<ValueType, SchemaError> {
        let path = place.below("element");
        let place = Place { path: &path, depth: place.depth + 1, ..place };
        let mut elements = Vec::new();
        // A list of schemas, one for each of the first elements, and what the others are.
        for name in ["prefixItems", "items", "additionalItems"] {
            match node.get(name) {
                Some(Node::List(schemas)) => {
                    for schema in schemas {
                        elements.push(self.schema(schema, place)?.ty());
                    }
                }
                Some(Node::Bool(false)) | None => {}
                Some(_) if name == "additionalItems" && elements.is_empty() => {}
                Some(schema) => elements.push(self.schema(schema, place)?.ty()),
            }
        }
        let element = if elements.is_empty() { json() } else { unify(elements) };
        Ok(ValueType::plain(Kind::Array(Arc::new(element))))
    }

    /// The members of an object: columns, a map, or its JSON text where nothing is said of them.
    fn members(&mut self, node: &'a Node, place: Place<'_, 'a>) -> Result<ValueType, SchemaError> {
        let properties = node.get("properties").map_or(&[][..], Node::members);
        if let (Some(rest), true) = (node.text(REST_WORD), place.path.is_empty()) {
            let mut fields = self.fields(properties, place)?;
            fields.retain(|field| field.name != rest);
            fields.push(rest_text_field(rest));
            return Ok(ValueType::plain(record(fields)));
        }
        let patterns = node.get("patternProperties").map_or(&[][..], Node::members);
        let additional = node.get("additionalProperties");
        let path = place.below("value");
        let inner = Place { path: &path, depth: place.depth + 1, ..place };
        let mut others = Vec::new();
        for (_, schema) in patterns {
            others.push(self.schema(schema, inner)?.ty());
        }
        match additional {
            Some(Node::Bool(true)) => others.push(json()),
            Some(Node::Bool(false)) | None => {}
            Some(schema) => others.push(self.schema(schema, inner)?.ty()),
        }
        if properties.is_empty() {
            // An object of which nothing is said has any members.
            let open = match additional {
                None => true,
                Some(said) => *said == Node::Bool(true) && patterns.is_empty(),
            };
            if open {
                return Ok(json());
            }
            return Ok(ValueType::plain(match others.is_empty() {
                true => record(Vec::new()),
                false => Kind::Map(Arc::new(unify(others))),
            }));
        }
        let mut fields = self.fields(properties, place)?;
        if !others.is_empty() {
            fields.push(rest_field(&fields, unify(others)));
        }
        Ok(ValueType::plain(record(fields)))
    }

    fn fields(
        &mut self,
        properties: &'a [(String, Node)],
        place: Place<'_, 'a>,
    ) -> Result<Vec<RecordField>, SchemaError> {
        // Of members of one name the last counts.
        let mut seen = HashSet::new();
        let mut last: Vec<_> =
            properties.iter().rev().filter(|(name, _)| seen.insert(name.as_str())).collect();
        last.reverse();
        last.sort_by_key(|(_, schema)| connect::index(schema));
        let mut fields = Vec::with_capacity(last.len());
        for (name, schema) in last {
            let path = place.below(name);
            let inner = Place { path: &path, depth: place.depth + 1, ..place };
            fields.push(RecordField {
                name: name.clone(),
                aliases: Vec::new(),
                doc: schema.text("description").map(str::to_owned),
                ty: self.schema(schema, inner)?.ty(),
                default: None,
                proto: None,
            });
        }
        Ok(fields)
    }
}

fn string(node: &Node) -> ValueType {
    if let Some(bytes) = connect::bytes(node) {
        return bytes;
    }
    let logical = match node.text("format") {
        Some("date-time") => Some(Logical::Timestamp(TimeUnit::Micros)),
        Some("date") => Some(Logical::Date),
        Some("uuid") => Some(Logical::Uuid),
        _ => None,
    };
    ValueType { kind: Kind::String, logical }
}

/// What the listed values have in common.
fn of_values<'n>(values: impl Iterator<Item = &'n Node>) -> Meaning {
    let types: Vec<ValueType> = values
        .filter_map(|value| match value {
            Node::Null => None,
            Node::Bool(_) => Some(ValueType::plain(Kind::Boolean)),
            Node::Whole(_) => Some(ValueType::plain(Kind::Long)),
            Node::Number => Some(ValueType::plain(Kind::Double)),
            Node::Text(_) => Some(ValueType::plain(Kind::String)),
            Node::List(_) | Node::Object(_) => Some(json()),
        })
        .collect();
    if types.is_empty() { Meaning::Null } else { Meaning::Type(unify(types)) }
}
