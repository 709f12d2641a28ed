//! JSON documents that keep the order of their members, and what `$ref`s among them mean.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value. Numbers are of no interest to a schema's types but by their kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Whole(i64),
    Number,
    Text(String),
    List(Vec<Node>),
    /// The members in the document's order.
    Object(Vec<(String, Node)>),
}

impl Node {
    /// An object's member; the last of that name, as parsers do.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        let found = self.members().iter().rfind(|(n, _)| n == name);
        found.map(|(_, node)| node)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An object's members, of anything else none.
    pub(crate) fn members(&self) -> &[(String, Node)] {
        match self {
            Self::Object(members) => members,
            _ => &[],
        }
    }

    /// A list's items, of anything else none.
    pub(crate) fn items(&self) -> &[Node] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// What a JSON pointer (RFC 6901) as a URL's fragment points to.
    fn pointed(&self, pointer: &str) -> Option<&Node> {
        pointer.split('/').skip(1).try_fold(self, |node, segment| {
            let name = unescaped(segment);
            match node {
                Self::List(items) => items.get(name.parse::<usize>().ok()?),
                _ => node.get(&name),
            }
        })
    }
}

/// Undoes a URL's percent encoding, then a pointer's own.
fn unescaped(segment: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), segment.as_bytes());
    while let [first, more @ ..] = rest {
        let hex = more.get(..2).filter(|h| h.iter().all(u8::is_ascii_hexdigit));
        let hex = hex.and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                out.push(byte);
                rest = &more[2..];
            }
            None => {
                out.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&out).replace("~1", "/").replace("~0", "~")
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Whole(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value).map_or(Node::Number, Node::Whole))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Object(members))
    }
}

/// Where a schema stands: what references in it are relative to.
#[derive(Debug, Clone)]
pub(crate) struct Scope<'a> {
    /// The schema that `#` means.
    root: &'a Node,
    /// Its identifier.
    base: String,
}

impl<'a> Scope<'a> {
    /// The scope inside of a schema, which may have an identifier of its own.
    pub(crate) fn inside(&self, node: &'a Node) -> Self {
        match identifier(node) {
            Some(id) => Self { root: node, base: join(&self.base, id) },
            None => self.clone(),
        }
    }
}

/// The identifier a schema gives itself (`id` until draft 4); a fragment alone is an anchor.
fn identifier(node: &Node) -> Option<&str> {
    let id = node.text("$id").or_else(|| node.text("id"))?;
    (!id.starts_with('#')).then(|| id.trim_end_matches('#'))
}

/// All that references can reach.
pub(crate) struct Documents<'a> {
    /// Schemas by their identifiers, by the names they are referred to by, and by identifier and anchor.
    by_name: HashMap<String, Scope<'a>>,
}

impl<'a> Documents<'a> {
    /// Looks through a schema and the schemas it refers to, under their names.
    pub(crate) fn new(main: &'a Node, references: &'a [(String, Node)]) -> (Self, Scope<'a>) {
        let mut documents = Self { by_name: HashMap::new() };
        for (name, node) in references {
            let scope = Scope { root: node, base: name.clone() };
            documents.by_name.insert(name.trim_end_matches('#').to_owned(), scope.inside(node));
            documents.collect(node, &scope);
        }
        let scope = Scope { root: main, base: String::new() };
        documents.collect(main, &scope);
        (documents, scope)
    }

    /// Notes the names of a schema and of those in it. Names in what is no schema do no harm.
    fn collect(&mut self, node: &'a Node, scope: &Scope<'a>) {
        let scope = scope.inside(node);
        if identifier(node).is_some() {
            self.by_name.insert(scope.base.clone(), scope.clone());
        }
        let old = node.text("$id").or_else(|| node.text("id")).and_then(|id| id.strip_prefix('#'));
        for anchor in [old, node.text("$anchor"), node.text("$dynamicAnchor")].into_iter().flatten()
        {
            let named = Scope { root: node, base: scope.base.clone() };
            self.by_name.insert(format!("{}#{anchor}", scope.base), named);
        }
        for (_, member) in node.members() {
            self.collect(member, &scope);
        }
        for item in node.items() {
            self.collect(item, &scope);
        }
    }

    /// The schema that a reference means, and the scope it stands in.
    pub(crate) fn resolve(
        &self,
        reference: &str,
        scope: &Scope<'a>,
    ) -> Option<(&'a Node, Scope<'a>)> {
        let (document, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let scope = match document {
            "" => scope,
            _ => self
                .by_name
                .get(document)
                .or_else(|| self.by_name.get(&join(&scope.base, document)))?,
        };
        let node = match fragment {
            "" => scope.root,
            pointer if pointer.starts_with('/') => scope.root.pointed(pointer)?,
            anchor => self.by_name.get(&format!("{}#{anchor}", scope.base))?.root,
        };
        Some((node, scope.clone()))
    }
}

/// A relative reference beside an identifier (RFC 3986, as far as schemas use it).
fn join(base: &str, reference: &str) -> String {
    let scheme = reference.split_once(':').map_or("", |(scheme, _)| scheme);
    let absolute = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric());
    let relative = reference.strip_prefix("./").unwrap_or(reference);
    if absolute {
        return reference.to_owned();
    }
    if relative.starts_with('/') {
        let host = base
            .find("://")
            .map_or(0, |at| base[at + 3..].find('/').map_or(base.len(), |slash| at + 3 + slash));
        return format!("{}{relative}", &base[..host]);
    }
    let folder = base.rfind('/').map_or("", |slash| &base[..=slash]);
    format!("{folder}{relative}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_join_their_base() {
        for (base, reference, joined) in [
            ("", "a.json", "a.json"),
            ("http://h/x/root.json", "a.json", "http://h/x/a.json"),
            ("http://h/x/root.json", "./a.json", "http://h/x/a.json"),
            ("http://h/x/root.json", "/a.json", "http://h/a.json"),
            ("http://h", "/a.json", "http://h/a.json"),
            ("http://h/x", "urn:uuid:1", "urn:uuid:1"),
            ("x", "https://h/a", "https://h/a"),
        ] {
            assert_eq!(join(base, reference), joined, "{base} {reference}");
        }
    }

    #[test]
    fn members_keep_their_order_and_pointers_their_way() {
        let node: Node = serde_json::from_str(
            r#"{"b":1,"a":{"x/y":[2,{"~ ü":true}]},"b":1.5,"c":18446744073709551615}"#,
        )
        .unwrap();
        let names: Vec<_> = node.members().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "a", "b", "c"]);
        assert_eq!(node.get("b"), Some(&Node::Number));
        assert_eq!(node.pointed("/a/x~1y/1/~0%20%C3%BC"), Some(&Node::Bool(true)));
        assert_eq!(node.pointed("/a/x~1y/2"), None);
        assert_eq!(node.pointed("/a/%zz"), None);
    }
}
