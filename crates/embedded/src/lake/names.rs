//! Names of namespaces and tables, and where they lie. Pure.

use std::fmt;

/// Separates the levels of a namespace inside one path segment (Iceberg REST specification).
const LEVELS: char = '\u{1f}';

/// The longest name, in bytes: names become folders.
const MAX_NAME: usize = 128;

/// A namespace's levels, at least one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Namespace(Vec<String>);

impl Namespace {
    /// Takes the levels, or says what is wrong with one.
    pub(crate) fn new(levels: Vec<String>) -> Result<Self, String> {
        if levels.is_empty() {
            return Err("a namespace has at least one level".to_owned());
        }
        levels.iter().try_for_each(|level| check("namespace", level))?;
        Ok(Self(levels))
    }

    /// Reads a path segment or a `parent` parameter, already percent-decoded.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::new(text.split(LEVELS).map(str::to_owned).collect())
    }

    pub(crate) fn levels(&self) -> &[String] {
        &self.0
    }

    /// Whether this one lies directly below `parent`, or at the top where there is none.
    pub(crate) fn is_child_of(&self, parent: Option<&Self>) -> bool {
        let above = parent.map_or(&[][..], Self::levels);
        self.0.len() == above.len() + 1 && self.0.starts_with(above)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// A table's name in its namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TableName {
    pub(crate) namespace: Namespace,
    pub(crate) name: String,
}

impl TableName {
    /// Takes the names, or says what is wrong with one.
    pub(crate) fn new(namespace: Namespace, name: String) -> Result<Self, String> {
        check("table", &name)?;
        Ok(Self { namespace, name })
    }

    /// Where a table lies whose creator names no place: folders below the bucket, without a slash at
    /// either end.
    pub(crate) fn folder(&self) -> String {
        format!("{}/{}", self.namespace.levels().join("/"), self.name)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace, self.name)
    }
}

/// Whether a name may be a folder's.
fn check(kind: &str, name: &str) -> Result<(), String> {
    let fits = !name.is_empty() && name.len() <= MAX_NAME && name != "." && name != "..";
    if fits && !name.contains(|c: char| c == '/' || c == '\\' || c.is_control()) {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no name for a {kind} here: 1 to {MAX_NAME} bytes, no slash, no control \
         character, not \".\" or \"..\""
    ))
}

/// The key below the bucket that a location names, e.g. `a/b` of `s3://lake/a/b/` in bucket `lake`.
pub(crate) fn key_of<'a>(location: &'a str, bucket: &str) -> Result<&'a str, String> {
    let key = location.strip_prefix("s3://").and_then(|rest| rest.strip_prefix(bucket));
    let key = key.and_then(|rest| rest.strip_prefix('/')).map(|key| key.trim_end_matches('/'));
    match key {
        Some(key) if key.split('/').all(|folder| check("folder", folder).is_ok()) => Ok(key),
        _ => Err(format!(
            "{location:?} is no location for a table here: it must be s3://{bucket}/ and one or \
             more folders"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_stay_inside_the_bucket() {
        assert_eq!(key_of("s3://lake/a/b", "lake"), Ok("a/b"));
        assert_eq!(key_of("s3://lake/a/b/", "lake"), Ok("a/b"));
        for wrong in [
            "s3://lake",
            "s3://lake/",
            "s3://lakes/a",
            "s3://other/a",
            "s3a://lake/a",
            "/lake/a",
            "s3://lake/../a",
            "s3://lake/a/../../b",
            "s3://lake//a",
            "s3://lake/a/./b",
            "s3://lake/a\\..\\b",
        ] {
            assert!(key_of(wrong, "lake").is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_folders() {
        for (text, levels) in [("a", &["a"][..]), ("a\u{1f}b.c", &["a", "b.c"])] {
            assert_eq!(Namespace::parse(text).unwrap().levels(), levels);
        }
        let long = "n".repeat(129);
        for wrong in ["", "a\u{1f}", "a/b", "..", "a\u{1f}..", "a\nb", &long] {
            assert!(Namespace::parse(wrong).is_err(), "{wrong:?}");
        }
        let namespace = Namespace::parse("a\u{1f}b").unwrap();
        assert!(TableName::new(namespace.clone(), "..".into()).is_err());
        let table = TableName::new(namespace.clone(), "t$x".into()).unwrap();
        assert_eq!((table.folder(), table.to_string()), ("a/b/t$x".into(), "a.b.t$x".into()));
        let parent = Namespace::parse("a").unwrap();
        assert!(namespace.is_child_of(Some(&parent)) && !namespace.is_child_of(None));
        assert!(parent.is_child_of(None) && !parent.is_child_of(Some(&parent)));
    }
}
