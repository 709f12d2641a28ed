//! The columns that JSON values without a schema get, from what was seen of them.
//!
//! Types form a lattice: a `long` widens to a `double`, objects and lists to those of both's members and elements,
//! and whatever else differs to JSON text, which anything widens to. So the order of what is seen makes no difference
//! to types, and more of it only widens them.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::observed::{JsonKind, Observed};

/// The column of all that has no column of its own.
pub const REST: &str = "_rest";

/// The word of a JSON Schema that names such a column.
pub(crate) const REST_WORD: &str = "isk.rest";

/// How deep columns nest. What lies deeper is JSON text.
pub const MAX_DEPTH: usize = 16;

/// A longer name is none of a column.
const MAX_NAME: usize = 255;

/// Where an object at the top has more different keys than [`Limits::keys`], those that fewer than one in so many records
/// have are no columns.
const RARE: u64 = 20;

/// How many columns JSON without a schema may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Columns in all, nested ones and the one of the rest too.
    pub columns: usize,
    /// An object of more different keys is a map: JSON text.
    pub keys: usize,
}

/// The type of a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// `boolean`.
    Boolean,
    /// `long`.
    Long,
    /// `double`.
    Double,
    /// `string`.
    Text,
    /// `string`, the value's JSON text.
    Json,
    /// `list`.
    List(Box<Shape>),
    /// `struct`.
    Object(Vec<(String, Shape)>),
}

impl Shape {
    /// The columns of records of which this was seen, that had the columns `before`: these stay, and only widen. It
    /// is an object.
    pub fn of_records(observed: &Observed, before: Option<&Self>, limits: Limits) -> Self {
        let seen = fields(observed, limits, 0);
        let before = match before {
            Some(Self::Object(fields)) => fields.as_slice(),
            _ => &[],
        };
        fit(before, merged(before, seen), observed, limits)
    }

    /// The JSON Schema of records of this shape.
    pub fn json_schema(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, true);
        out
    }

    fn write(&self, out: &mut String, top: bool) {
        let name = match self {
            Self::Json => return out.push_str("{}"),
            Self::Boolean => "boolean",
            Self::Long => "integer",
            Self::Double => "number",
            Self::Text => "string",
            Self::List(_) => "array",
            Self::Object(_) => "object",
        };
        out.push_str(&format!("{{\"type\":\"{name}\""));
        match self {
            Self::List(element) => {
                out.push_str(",\"items\":");
                element.write(out, false);
            }
            Self::Object(fields) => {
                if top {
                    out.push_str(&format!(",\"{REST_WORD}\":\"{REST}\""));
                }
                out.push_str(",\"properties\":{");
                for (at, (name, shape)) in fields.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    out.push_str(&serde_json::Value::from(name.as_str()).to_string());
                    out.push(':');
                    shape.write(out, false);
                }
                out.push('}');
            }
            _ => {}
        }
        out.push('}');
    }

    /// How many columns it takes.
    fn columns(&self) -> usize {
        match self {
            Self::List(element) => 1 + element.columns(),
            Self::Object(fields) => 1 + fields.iter().map(|(_, f)| f.columns()).sum::<usize>(),
            _ => 1,
        }
    }
}

/// The type of the values at one place; `None` where nothing but nulls, empty lists and empty objects was seen.
fn shape(observed: &Observed, limits: Limits, depth: usize) -> Option<Shape> {
    let seen = |kind: JsonKind| observed.count(kind) > 0;
    let number = seen(JsonKind::Long) || seen(JsonKind::Double);
    let groups = [
        seen(JsonKind::Boolean),
        number,
        seen(JsonKind::Text),
        seen(JsonKind::List),
        seen(JsonKind::Object),
    ];
    let groups = groups.into_iter().filter(|group| *group).count();
    if seen(JsonKind::Odd) || groups > 1 {
        return Some(Shape::Json);
    }
    if groups == 0 {
        return None;
    }
    Some(if seen(JsonKind::Boolean) {
        Shape::Boolean
    } else if seen(JsonKind::Double) {
        Shape::Double
    } else if number {
        Shape::Long
    } else if seen(JsonKind::Text) {
        Shape::Text
    } else if depth >= MAX_DEPTH {
        Shape::Json
    } else if seen(JsonKind::List) {
        Shape::List(Box::new(shape(observed.elements()?, limits, depth + 1)?))
    } else if observed.members().len() > limits.keys {
        Shape::Json
    } else {
        let fields = fields(observed, limits, depth + 1);
        (!fields.is_empty()).then_some(Shape::Object(fields))?
    })
}

/// The columns of objects' members, in the order that they mostly stand in.
fn fields(observed: &Observed, limits: Limits, depth: usize) -> Vec<(String, Shape)> {
    let crowded = depth == 0 && observed.members().len() > limits.keys;
    let objects = observed.count(JsonKind::Object);
    let mut members: Vec<_> = observed
        .members()
        .filter(|(name, ..)| is_column_name(name, depth == 0))
        .filter(|(.., value)| !crowded || value.total().saturating_mul(RARE) >= objects)
        .collect();
    members.sort_by_key(|(name, place, _)| (*place, *name));
    let shaped = members
        .into_iter()
        .filter_map(|(name, _, value)| Some((name.to_owned(), shape(value, limits, depth)?)));
    shaped.collect()
}

fn is_column_name(name: &str, top: bool) -> bool {
    let is_rest = top && name.to_lowercase() == REST;
    !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control) && !is_rest
}

/// The narrowest type that values of both can be shown under.
fn join(a: &Shape, b: Shape) -> Shape {
    match (a, b) {
        (a, b) if *a == b => b,
        (Shape::Long, Shape::Double) | (Shape::Double, Shape::Long) => Shape::Double,
        (Shape::List(a), Shape::List(b)) => Shape::List(Box::new(join(a, *b))),
        (Shape::Object(a), Shape::Object(b)) => Shape::Object(merged(a, b)),
        _ => Shape::Json,
    }
}

/// The fields of both: those of `before` in their order, then the others.
fn merged(before: &[(String, Shape)], seen: Vec<(String, Shape)>) -> Vec<(String, Shape)> {
    let mut seen_shapes: HashMap<String, Shape> = seen.iter().cloned().collect();
    let mut out: Vec<(String, Shape)> = before
        .iter()
        .map(|(name, shape)| {
            let joined = match seen_shapes.remove(name) {
                Some(seen) => join(shape, seen),
                None => shape.clone(),
            };
            (name.clone(), joined)
        })
        .collect();
    out.extend(seen.into_iter().filter(|(name, _)| seen_shapes.contains_key(name)));
    out
}

/// What of the fields there are columns for. What was there before stays; of the others, those that most records have
/// come first.
fn fit(
    before: &[(String, Shape)],
    wanted: Vec<(String, Shape)>,
    observed: &Observed,
    limits: Limits,
) -> Shape {
    let had: HashMap<&str, &Shape> = before.iter().map(|(name, s)| (name.as_str(), s)).collect();
    // Types change in any case; what is new among them takes room.
    let mut chosen: Vec<Option<Shape>> = wanted
        .iter()
        .map(|(name, shape)| had.get(name.as_str()).map(|old| restricted(old, shape)))
        .collect();
    let taken: usize = chosen.iter().flatten().map(Shape::columns).sum();
    // One is the rest's.
    let mut left = limits.columns.saturating_sub(taken + 1);
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|&at| {
        let name = wanted[at].0.as_str();
        let seen = observed.get(name).map_or(0, Observed::total);
        (!had.contains_key(name), Reverse(seen), name)
    });
    for at in order {
        let shape = &wanted[at].1;
        let has = chosen[at].as_ref().map_or(0, Shape::columns);
        let more = shape.columns().saturating_sub(has);
        if more <= left {
            left -= more;
            chosen[at] = Some(shape.clone());
        } else if has == 0 && left > 0 {
            left -= 1;
            chosen[at] = Some(Shape::Json);
        }
    }
    let fields = wanted.into_iter().zip(chosen);
    Shape::Object(fields.filter_map(|((name, _), shape)| Some((name, shape?))).collect())
}

/// A type as wide as `new`, with no more fields than `old`.
fn restricted(old: &Shape, new: &Shape) -> Shape {
    match (old, new) {
        (Shape::List(old), Shape::List(new)) => Shape::List(Box::new(restricted(old, new))),
        (Shape::Object(old), Shape::Object(new)) => {
            let names: HashSet<&str> = old.iter().map(|(name, _)| name.as_str()).collect();
            let kept = new.iter().filter(|(name, _)| names.contains(name.as_str()));
            // The fields of before come first, in their order.
            let pairs = old.iter().zip(kept);
            Shape::Object(
                pairs.map(|((name, old), (_, new))| (name.clone(), restricted(old, new))).collect(),
            )
        }
        _ => new.clone(),
    }
}
