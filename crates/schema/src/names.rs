//! Column names: what a field's name becomes when engines could not tell it from another.

use std::collections::HashSet;

use crate::error::SchemaError;

/// Checks a field's name, and makes it safe: a dot would be read as nesting.
pub(crate) fn column_name(name: &str, at: &str) -> Result<String, SchemaError> {
    let bad = |reason| SchemaError::BadName { name: name.to_owned(), at: at.to_owned(), reason };
    if name.is_empty() {
        return Err(bad("it is empty"));
    }
    if name.chars().any(char::is_control) {
        return Err(bad("it holds a control character"));
    }
    Ok(name.replace('.', "_"))
}

/// Gives siblings names that differ, ignoring case, from each other's and from `reserved`. `names`
/// come with their field ids; the lowest id has the first choice. The result is in the order given.
pub(crate) fn distinct(names: &[(i32, String)], reserved: &[&str]) -> Vec<String> {
    let wanted: HashSet<String> = names.iter().map(|(_, name)| name.to_lowercase()).collect();
    let mut taken: HashSet<String> = reserved.iter().map(|name| (*name).to_owned()).collect();
    let mut by_age: Vec<usize> = (0..names.len()).collect();
    by_age.sort_by_key(|&i| names[i].0);
    let mut out = vec![String::new(); names.len()];
    for i in by_age {
        let plain = &names[i].1;
        let mut chosen = plain.clone();
        let mut suffix = 2u32;
        // A suffixed name leaves a sibling its plain name.
        while taken.contains(&chosen.to_lowercase())
            || (suffix > 2 && wanted.contains(&chosen.to_lowercase()))
        {
            chosen = format!("{plain}_{suffix}");
            suffix += 1;
        }
        taken.insert(chosen.to_lowercase());
        out[i] = chosen;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[(i32, &str)], reserved: &[&str], expected: &[&str]) {
        let names: Vec<_> = names.iter().map(|(id, n)| (*id, (*n).to_owned())).collect();
        assert_eq!(distinct(&names, reserved), expected);
    }

    #[test]
    fn the_oldest_column_keeps_the_plain_name() {
        check(&[(1, "a"), (2, "b")], &[], &["a", "b"]);
        check(&[(1, "ID"), (2, "id"), (3, "Id")], &[], &["ID", "id_2", "Id_3"]);
        check(&[(9, "ID"), (2, "id")], &[], &["ID_2", "id"]);
        check(&[(1, "a"), (2, "A"), (3, "a_2")], &[], &["a", "A_3", "a_2"]);
        check(&[(1, "Kafka_Offset")], &["kafka_offset"], &["Kafka_Offset_2"]);
        check(&[(1, "É"), (2, "é")], &[], &["É", "é_2"]);
    }

    #[test]
    fn names_no_engine_could_take_are_refused() {
        assert_eq!(column_name("a.b c", "r").unwrap(), "a_b c");
        assert!(column_name("", "r").is_err());
        let error = column_name("a\nb", "order").unwrap_err().to_string();
        assert!(error.contains("a\\nb") && error.contains("order"), "{error}");
    }
}
