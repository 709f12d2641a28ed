//! What a write's body says, held against what its caller may.
//!
//! A table's location decides what its keys open. So who may not write all of the coldset may not point a table at
//! another one's files.

use isk_access::{Access, Caller, Right, TableName};
use serde_json::Value;

use crate::cold::COLDSET;
use crate::cold_answer::WRITE_PATHS;
use crate::coldset::ColdWrite;
use crate::error::ApiError;
use crate::vending::cold_table;

/// Whether the caller may do the write with the tables that the body, or for a commit the path, names.
pub(crate) fn check(
    access: &Access,
    caller: &Caller,
    write: ColdWrite,
    table: &str,
    body: &[u8],
) -> Result<(), ApiError> {
    let all = [TableName::all_of(COLDSET)];
    if access.columns(caller, &all).is_some() {
        // The answers hold metadata, and what is written could copy what is hidden.
        let what = "change tables of coldset, where it does not see all columns";
        return Err(ApiError::not_allowed(&caller.name, what));
    }
    if access.may(caller, Right::Write, &all) {
        return Ok(());
    }
    let checks = Checks { access, caller };
    if write == ColdWrite::DropTable {
        return checks.table(table);
    }
    let body: Value = serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!("the request's body cannot be read: {error}"))
    })?;
    match write {
        ColdWrite::DropTable => Ok(()),
        ColdWrite::RegisterTable => Err(ApiError::not_allowed(
            &caller.name,
            "register tables, which takes the right to write all of coldset",
        )),
        ColdWrite::CreateTable => {
            let name = text(&body["name"]);
            checks.table(name)?;
            checks.location(name, &body["location"])?;
            checks.properties(&body["properties"])
        }
        ColdWrite::UpdateTable => checks.commit(table, &body),
        ColdWrite::RenameTable => {
            checks.table(text(&body["source"]["name"]))?;
            checks.table(text(&body["destination"]["name"]))
        }
        ColdWrite::CommitTransaction => {
            let changes = body["table-changes"].as_array().map_or(&[][..], Vec::as_slice);
            changes
                .iter()
                .try_for_each(|change| checks.commit(text(&change["identifier"]["name"]), change))
        }
    }
}

/// The tables that a write's body names.
pub(crate) fn tables(write: ColdWrite, body: &[u8]) -> Vec<String> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return Vec::new() };
    let names = match write {
        ColdWrite::CreateTable | ColdWrite::RegisterTable => vec![text(&body["name"])],
        ColdWrite::RenameTable => {
            vec![text(&body["source"]["name"]), text(&body["destination"]["name"])]
        }
        ColdWrite::CommitTransaction => {
            let changes = body["table-changes"].as_array().map_or(&[][..], Vec::as_slice);
            changes.iter().map(|change| text(&change["identifier"]["name"])).collect()
        }
        ColdWrite::UpdateTable | ColdWrite::DropTable => Vec::new(),
    };
    names.into_iter().filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

struct Checks<'a> {
    access: &'a Access,
    caller: &'a Caller,
}

impl Checks<'_> {
    fn table(&self, table: &str) -> Result<(), ApiError> {
        if self.access.may(self.caller, Right::Write, &[cold_table(table)]) {
            return Ok(());
        }
        Err(ApiError::not_allowed(&self.caller.name, &format!("write {COLDSET}.{table}")))
    }

    fn commit(&self, table: &str, commit: &Value) -> Result<(), ApiError> {
        self.table(table)?;
        let updates = commit["updates"].as_array().map_or(&[][..], Vec::as_slice);
        updates.iter().try_for_each(|update| match text(&update["action"]) {
            "set-location" => self.location(table, &update["location"]),
            "set-properties" => {
                self.properties(&update["updates"])?;
                // An older name of the same field.
                self.properties(&update["updated"])
            }
            _ => Ok(()),
        })
    }

    /// A new table's own folder ends in its name; no other table's files are below one that does.
    fn location(&self, table: &str, location: &Value) -> Result<(), ApiError> {
        let Some(location) = location.as_str() else { return Ok(()) };
        let last = location.trim_end_matches('/').rsplit('/').next();
        let plain = !location.split('/').any(|part| matches!(part, "." | ".."));
        if last == Some(table) && plain {
            return Ok(());
        }
        let what = format!("place {COLDSET}.{table} in a folder that is not called {table:?}");
        Err(ApiError::not_allowed(&self.caller.name, &what))
    }

    fn properties(&self, properties: &Value) -> Result<(), ApiError> {
        match WRITE_PATHS.iter().find(|name| !properties[**name].is_null()) {
            None => Ok(()),
            Some(name) => {
                let what = format!("set {name}, which takes the right to write all of coldset");
                Err(ApiError::not_allowed(&self.caller.name, &what))
            }
        }
    }
}
