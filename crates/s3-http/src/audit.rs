//! What the audit log says of requests to the gateway.

use std::sync::{Arc, OnceLock};

use http::{Method, Request, StatusCode};
use isk_access::{Audit, Event, S3Caller, TableName};
use isk_listen::ClientAddress;

/// Where the gate tells whose request it is, and of which tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked(Arc<OnceLock<(Option<String>, Vec<TableName>)>>);

impl Asked {
    /// Tells it; a vended key's tables are those that it was vended with.
    pub(crate) fn tell(&self, caller: Option<&S3Caller>, tables: Vec<TableName>) {
        let name = caller.map(|caller| caller.caller().name.clone());
        let tables = match caller {
            Some(S3Caller::Vended(scope)) => scope.tables.clone(),
            _ => tables,
        };
        // Told once.
        let _ = self.0.set((name, tables));
    }
}

/// A request that the audit log tells of.
pub(crate) struct Audited {
    audit: Audit,
    event: Event,
    asked: Asked,
}

impl Audited {
    /// A request for an object, or for a list of them.
    pub(crate) fn of<B>(audit: &Audit, request: &mut Request<B>) -> Option<Self> {
        if !audit.is_on() {
            return None;
        }
        let asked = Asked::default();
        request.extensions_mut().insert(asked.clone());
        let names_an_object = request.uri().path().trim_start_matches('/').contains('/');
        let action = match *request.method() {
            Method::GET if names_an_object => "read object",
            Method::HEAD if names_an_object => "look at object",
            Method::GET | Method::HEAD => "list objects",
            Method::DELETE => "delete object",
            _ => "write object",
        };
        let event = Event {
            port: "gateway",
            principal: None,
            from: request.extensions().get().map(|ClientAddress(peer)| peer.ip()),
            action,
            tables: Vec::new(),
            allowed: false,
            status: 0,
        };
        Some(Self { audit: audit.clone(), event, asked })
    }

    /// Writes down how it ended, with others that are alike.
    pub(crate) fn ended(self, status: StatusCode) {
        let Self { audit, mut event, asked } = self;
        if let Some((principal, tables)) = asked.0.get() {
            event.principal.clone_from(principal);
            event.tables.clone_from(tables);
        }
        event.allowed = ![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
        event.status = status.as_u16();
        audit.gather(event);
    }
}
