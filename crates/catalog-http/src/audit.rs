//! What the audit log says of requests to the catalog.

use std::sync::{Arc, OnceLock};

use axum::extract::Request;
use http::StatusCode;
use isk_access::{Audit, Caller, Event, TableName};
use isk_listen::ClientAddress;

use crate::cold_names::is_read;
use crate::coldset::ColdWrite;
use crate::routes::Operation;
use crate::vending::cold_table;

/// Where a handler tells which tables a request's body names.
#[derive(Debug, Clone, Default)]
pub(crate) struct NamedTables(Arc<OnceLock<Vec<TableName>>>);

impl NamedTables {
    /// Tells the names of the coldset's tables that a request changes.
    pub(crate) fn tell<'a>(&self, tables: impl IntoIterator<Item = &'a str>) {
        // Told once.
        let _ = self.0.set(tables.into_iter().map(cold_table).collect());
    }
}

/// A request that the audit log tells of.
pub(crate) struct Audited {
    audit: Audit,
    event: Event,
    named: NamedTables,
}

impl Audited {
    /// A request for an operation that reads or changes a table, of such a table where its path names one.
    pub(crate) fn of(
        audit: &Audit,
        operation: Operation,
        request: &mut Request,
        table: Option<TableName>,
    ) -> Option<Self> {
        let action = if audit.is_on() { action(operation, request)? } else { return None };
        let named = NamedTables::default();
        request.extensions_mut().insert(named.clone());
        let event = Event {
            port: "catalog",
            principal: None,
            from: request.extensions().get().map(|ClientAddress(peer)| peer.ip()),
            action,
            tables: table.into_iter().collect(),
            allowed: false,
            status: 0,
        };
        Some(Self { audit: audit.clone(), event, named })
    }

    /// Writes down how it ended. `let_in` says whether the guard let it through.
    pub(crate) fn ended(self, caller: Option<&Caller>, let_in: bool, status: StatusCode) {
        let Self { audit, mut event, named } = self;
        event.principal = caller.map(|caller| caller.name.clone());
        if let Some(tables) = named.0.get() {
            event.tables.clone_from(tables);
        }
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
        event.allowed = let_in && !refused;
        event.status = status.as_u16();
        audit.note(event);
    }
}

/// What an operation does to a table, in a word; `None` where it neither reads nor changes one.
fn action(operation: Operation, request: &Request) -> Option<&'static str> {
    Some(match operation {
        Operation::LoadTable => "load",
        Operation::LoadCredentials => "credentials",
        Operation::PlanScan | Operation::FetchPlan | Operation::FetchTasks => "plan",
        Operation::TopicSchema => "schema",
        Operation::PinSchema => "pin schema",
        Operation::DiscoverAnew => "discover schema",
        Operation::Write(write) => match write {
            ColdWrite::CreateTable => "create",
            ColdWrite::RegisterTable => "register",
            ColdWrite::UpdateTable | ColdWrite::CommitTransaction => "commit",
            ColdWrite::DropTable => "drop",
            ColdWrite::RenameTable => "rename",
        },
        Operation::Upstream => {
            let path = request.uri().path().strip_prefix("/v1/coldset/").unwrap_or_default();
            if is_read(request.method(), path) { "read upstream" } else { "change upstream" }
        }
        Operation::Config
        | Operation::ListNamespaces
        | Operation::LoadNamespace
        | Operation::NamespaceExists
        | Operation::ListTables
        | Operation::TableExists
        | Operation::ListViews
        | Operation::NoView
        | Operation::CancelPlan
        | Operation::DropReport
        | Operation::CreateNamespace
        | Operation::Refuse(_)
        | Operation::Tokens
        | Operation::Healthz
        | Operation::Readyz
        | Operation::Metrics
        | Operation::OpenApi
        | Operation::ApiDescription => return None,
    })
}
