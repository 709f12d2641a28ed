//! The access file: what it says is what its text says, read in another way, and no error shows a secret.

use isk_access::{AccessFile, Book, Caller, Right, Source, TableName};
use toml::{Table, Value};

/// Stands where a secret may have been written.
const SECRET: &str = "hush-hush";

/// Nothing is there that the file could name.
const PLACE: &str = "/nowhere/access.toml";

/// The text of a file. What it names is not looked for outside of its folder.
pub(crate) fn files(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.contains("env") || text.contains(SECRET) || text.contains("file") {
        return;
    }
    let file = AccessFile::new(PLACE);
    let Ok(table) = text.parse::<Table>() else {
        return assert!(file.parse(text).is_err());
    };
    if let Ok(book) = file.parse(text) {
        rights(&book, &table);
    }
    for secret in [
        format!("secrets = [{{ sha256 = \"{SECRET}\" }}]"),
        format!("secrets = [\"{SECRET}\"]"),
        format!("api_keys = \"{SECRET}\""),
        format!("s3_keys = [{{ access_key_id = \"x\", secret = \"{SECRET}\" }}]"),
        format!("s3_keys = [{{ access_key_id = [\"{SECRET}\"] }}]"),
    ] {
        let text = format!("{text}\n[[principal]]\nname = \"the last\"\n{secret}\n");
        let error = file.parse(&text).unwrap_err().to_string();
        assert!(!error.contains(SECRET), "{error}");
    }
}

/// Names that a text of patterns may mean.
fn names(patterns: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = patterns
        .flat_map(|pattern| ["", "a", "a.b"].map(|text| pattern.replace('*', text)))
        .chain(["bob".to_owned(), "hotset.orders".to_owned()])
        .collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(40);
    names
}

fn texts(rule: &Table, key: &str) -> Vec<String> {
    let texts = rule.get(key).and_then(Value::as_array).into_iter().flatten();
    texts.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Each caller's right on each table.
fn rights(book: &Book, table: &Table) {
    let rules = table.get("rule").and_then(Value::as_array).into_iter().flatten();
    let rules: Vec<&Table> = rules.filter_map(Value::as_table).collect();
    let all = |key: &str| names(rules.iter().flat_map(|rule| texts(rule, key)));
    let (principals, groups, tables) = (all("principals"), all("groups"), all("tables"));
    let group_of = |at: usize| groups.get(at % groups.len().max(1)).cloned().into_iter().collect();
    let said = book.rules.as_ref().unwrap();
    for (at, name) in principals.iter().enumerate() {
        let caller = Caller { name: name.clone(), groups: group_of(at), source: Source::Issuer };
        for full in &tables {
            let Some((namespace, table)) = full.split_once('.') else { continue };
            let right = said.right(&caller, &TableName::new(namespace, table));
            let fits = |rule: &&&Table| {
                let any = |key: &str, text: &str| texts(rule, key).iter().any(|p| fit(p, text));
                (any("principals", name) || caller.groups.iter().any(|group| any("groups", group)))
                    && any("tables", full)
            };
            let expected = rules.iter().filter(fits).filter_map(|rule| {
                match rule.get("allow").and_then(Value::as_str)? {
                    "list" => Some(Right::List),
                    "read" => Some(Right::Read),
                    _ => Some(Right::Write),
                }
            });
            assert_eq!(right, expected.max(), "{name} {:?} {full}", caller.groups);
        }
    }
}

/// Whether a name is one of a pattern's: after each sign of the pattern, where in the name what was seen may end.
fn fit(pattern: &str, text: &str) -> bool {
    let text = text.as_bytes();
    let mut ends = vec![false; text.len() + 1];
    ends[0] = true;
    for sign in pattern.bytes() {
        let mut last = false;
        let next = ends.iter().enumerate().map(|(at, &ended)| {
            last = match sign {
                b'*' => ended || last,
                _ => at > 0 && ends[at - 1] && text[at - 1] == sign,
            };
            last
        });
        ends = next.collect();
    }
    ends[text.len()]
}
