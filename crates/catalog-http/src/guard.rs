//! Who asks, and whether they may: decided before any handler, from the route alone.
//!
//! What a request's body names, and what a listing shows, is for the handlers to look at.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use isk_access::{Caller, Claimed, Permit, Right, TableName};
use isk_listen::ClientCertificate;
use isk_model::{ColumnRules, Histogram};
use isk_virtual_table::{COLDSET, HOTSET, ServiceError};
use tokio::sync::Semaphore;

use crate::audit::Audited;
use crate::cold_names::is_read;
use crate::coldset::ColdWrite;
use crate::error::ApiError;
use crate::handlers::App;
use crate::names::SEPARATOR;
use crate::routes::Operation;
use crate::service::CatalogService;

/// The longest body of a request that is signed.
const MAX_SIGNED_BODY: usize = 16 << 20;

/// Those that are held at a time, until it is known who signed them.
static SIGNED_BODIES: Semaphore = Semaphore::const_new(8);

/// The caller, as handlers get it.
pub(crate) type By = Extension<Caller>;

/// What it takes to come through to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    Nothing,
    /// To be known.
    Known,
    /// To have the right on the table that the path names.
    Table(Right),
    /// To have the right on the table of the topic that the path names.
    Topic(Right),
    /// To have the right on everything there is.
    Everything(Right),
    /// The same; which one, the method and path tell.
    Upstream,
}

impl Need {
    /// What an operation needs.
    pub(crate) fn of(operation: Operation) -> Self {
        match operation {
            Operation::Healthz
            | Operation::Readyz
            | Operation::OpenApi
            | Operation::ApiDescription
            | Operation::Tokens => Self::Nothing,
            // These say nothing of any table, list only what may be seen, or have a body that names the tables.
            Operation::Config
            | Operation::ListNamespaces
            | Operation::LoadNamespace
            | Operation::NamespaceExists
            | Operation::ListTables
            | Operation::ListViews
            | Operation::NoView
            | Operation::DropReport
            | Operation::CreateNamespace
            | Operation::Refuse(_)
            | Operation::Write(
                ColdWrite::CreateTable
                | ColdWrite::RegisterTable
                | ColdWrite::RenameTable
                | ColdWrite::CommitTransaction,
            ) => Self::Known,
            Operation::TableExists => Self::Table(Right::List),
            Operation::LoadTable
            | Operation::LoadCredentials
            | Operation::PlanScan
            | Operation::FetchPlan
            | Operation::CancelPlan
            | Operation::FetchTasks => Self::Table(Right::Read),
            Operation::Write(ColdWrite::UpdateTable | ColdWrite::DropTable) => {
                Self::Table(Right::Write)
            }
            // Its handler shows values only to who may read them.
            Operation::TopicSchema => Self::Topic(Right::List),
            Operation::PinSchema | Operation::DiscoverAnew => Self::Topic(Right::Write),
            // They name topics of all kinds.
            Operation::Metrics => Self::Everything(Right::List),
            Operation::Upstream => Self::Upstream,
        }
    }
}

/// What the guard of one route knows.
pub(crate) struct Guarded<S> {
    pub app: App<S>,
    pub operation: Operation,
    /// How long the route's requests take.
    pub took: Arc<Histogram>,
    pub need: Need,
}

impl<S> Clone for Guarded<S> {
    fn clone(&self) -> Self {
        let (operation, took) = (self.operation, Arc::clone(&self.took));
        Self { app: self.app.clone(), operation, took, need: self.need }
    }
}

/// Lets a request through, with its caller, or refuses it; and has it written down.
pub(crate) async fn guard<S: CatalogService>(
    State(Guarded { app, operation, took, need }): State<Guarded<S>>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let _took = Took(took, Instant::now());
    if need == Need::Nothing
        || (need == (Need::Everything(Right::List)) && app.settings.open_metrics)
    {
        return next.run(request).await;
    }
    let table = params.as_ref().ok().and_then(|params| app.named_table(need, params));
    let audited = Audited::of(app.access.audit(), operation, &mut request, table);
    let mut caller = None;
    let (let_in, response) = match app.let_in(need, params, &mut request, &mut caller).await {
        Ok(_permit) => (true, next.run(request).await),
        Err(error) => (false, error.into_response()),
    };
    if let Some(audited) = audited {
        audited.ended(caller.as_ref(), let_in, response.status());
    }
    response
}

/// Counts how long a request took, also one whose client has left.
struct Took(Arc<Histogram>, Instant);

impl Drop for Took {
    fn drop(&mut self) {
        self.0.observe(self.1.elapsed());
    }
}

/// The namespace and the table that a route's path names.
fn path_names(need: Need, params: &RawPathParams) -> (&str, &str) {
    match need {
        Need::Topic(_) => (HOTSET, param(params, "topic")),
        _ => (param(params, "namespace"), param(params, "table")),
    }
}

fn param<'a>(params: &'a RawPathParams, name: &str) -> &'a str {
    params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
}

/// The token of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl<S: CatalogService> App<S> {
    /// Whether a request may go on, with the place that it takes; its caller is in it then.
    async fn let_in(
        &self,
        need: Need,
        params: Result<RawPathParams, RawPathParamsRejection>,
        request: &mut Request,
        known: &mut Option<Caller>,
    ) -> Result<Permit, ApiError> {
        let is_signed = Claimed::of(request.headers()).is_some();
        let caller = if is_signed {
            self.signer(request).await?
        } else {
            let token = bearer(request.headers()).map(str::to_owned);
            let certificate = request.extensions().get::<Arc<ClientCertificate>>().cloned();
            self.caller(token.as_deref(), certificate.as_deref()).await?
        };
        let caller = known.insert(caller);
        let permit = self.access.enter(caller);
        let permit = permit.ok_or_else(|| ApiError::too_many(&caller.name))?;
        match need {
            Need::Nothing | Need::Known => {}
            Need::Everything(right) => self.allow_everything(caller, right)?,
            Need::Upstream => {
                let path = request.uri().path().strip_prefix("/v1/coldset/").unwrap_or_default();
                let reads = is_read(request.method(), path);
                self.allow_everything(caller, if reads { Right::Read } else { Right::Write })?;
                self.whole(caller, &[TableName::all_of(COLDSET)], "the coldset")?;
            }
            Need::Table(right) | Need::Topic(right) => {
                let params = params.map_err(|error| ApiError::bad_request(error.body_text()))?;
                let (namespace, table) = path_names(need, &params);
                // A topic's schema names all of its columns.
                let whole = matches!(need, Need::Topic(_));
                self.allow(caller, right, namespace, table, whole).await?;
            }
        }
        request.extensions_mut().insert(caller.clone());
        Ok(permit)
    }

    /// The table that a path names, for the audit log.
    fn named_table(&self, need: Need, params: &RawPathParams) -> Option<TableName> {
        if need == Need::Upstream {
            return Some(TableName::all_of(COLDSET));
        }
        let (namespace, table) = path_names(need, params);
        let namespace = namespace.replace(SEPARATOR, ".");
        (!table.is_empty()).then(|| TableName::new(&namespace, table))
    }

    /// Who signed a request. Its body is read for that, a few at a time.
    async fn signer(&self, request: &mut Request) -> Result<Caller, ApiError> {
        if self.access.is_open() {
            return Ok(Caller::anyone());
        }
        let unknown = || ApiError::not_known("the signature's access key id is not known here");
        let named = Claimed::of(request.headers()).ok_or_else(unknown)?;
        if !self.access.has_s3_key(named.access_key_id) {
            return Err(unknown());
        }
        let _place = SIGNED_BODIES.acquire().await.map_err(|_| unknown())?;
        let body = std::mem::take(request.body_mut());
        let body = axum::body::to_bytes(body, MAX_SIGNED_BODY).await;
        let body = body.map_err(|error| ApiError::body_not_read(MAX_SIGNED_BODY, &error))?;
        let claimed = Claimed::of(request.headers()).ok_or_else(unknown)?;
        let sent = (request.method(), request.uri(), request.headers());
        let caller = self.access.signed(&claimed, sent, &body);
        let caller = caller.map_err(|refused| ApiError::not_known(&refused.0))?;
        *request.body_mut() = Body::from(body);
        Ok(caller)
    }

    /// Who sent a request: whose its token is, or else the connection's certificate.
    async fn caller(
        &self,
        token: Option<&str>,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Caller, ApiError> {
        if self.access.is_open() {
            return Ok(Caller::anyone());
        }
        let caller = match (token, certificate) {
            (Some(token), _) => self.access.bearer(token).await,
            (None, Some(shown)) => self.access.certificate(&shown.names, shown.not_after),
            (None, None) => {
                return Err(ApiError::not_known("the request says not whose it is"));
            }
        };
        caller.map_err(|refused| ApiError::not_known(&refused.0))
    }

    /// Whether a caller may do this with a table, or with the `whole` of it. One that it may not know of is not there.
    /// Tables of the hotset are the only ones that their handlers can show in part.
    pub(crate) async fn allow(
        &self,
        caller: &Caller,
        right: Right,
        namespace: &str,
        table: &str,
        whole: bool,
    ) -> Result<(), ApiError> {
        if self.access.is_open() {
            return Ok(());
        }
        let parts = self.parts(namespace, table).await?;
        let has = self.access.rights(caller, std::slice::from_ref(&parts)).await?;
        let has = has.first().copied().flatten();
        if has >= Some(right) {
            let in_part = !whole && (namespace == HOTSET || right == Right::List);
            return match in_part {
                true => Ok(()),
                false => self.whole(caller, &parts, &format!("{namespace}.{table}")),
            };
        }
        let namespace = namespace.replace(SEPARATOR, ".");
        match has {
            None => Err(ServiceError::NoSuchTable { namespace, table: table.to_owned() }.into()),
            Some(_) => {
                let verb = if right == Right::Write { "write" } else { "read" };
                let what = format!("{verb} {namespace}.{table}");
                Err(match self.access.right(caller, &parts) >= Some(right) {
                    true => ApiError::kept_by_kafka(&caller.name, &what),
                    false => ApiError::not_allowed(&caller.name, &what),
                })
            }
        }
    }

    /// Refuses a caller who is under rules about columns of a table that is made of `parts`.
    pub(crate) fn whole(
        &self,
        caller: &Caller,
        parts: &[TableName],
        what: &str,
    ) -> Result<(), ApiError> {
        match self.access.columns(caller, parts) {
            None => Ok(()),
            Some(_) => Err(ServiceError::Withheld {
                what: what.to_owned(),
                reason: "a topic's own table in hotset is all that is shown without some columns"
                    .to_owned(),
            }
            .into()),
        }
    }

    /// What a caller sees of the columns of a table; `None`: all of them.
    pub(crate) async fn columns(
        &self,
        caller: &Caller,
        namespace: &str,
        table: &str,
    ) -> Result<Option<Arc<ColumnRules>>, ApiError> {
        if self.access.is_open() {
            return Ok(None);
        }
        Ok(self.access.columns(caller, &self.parts(namespace, table).await?))
    }

    fn allow_everything(&self, caller: &Caller, right: Right) -> Result<(), ApiError> {
        // To whom Kafka says of each topic what it may, not all of them are open.
        let known_to_kafka = self.access.is_known_to_kafka(caller);
        if !known_to_kafka && self.access.may(caller, right, &[TableName::everything()]) {
            return Ok(());
        }
        Err(ApiError::not_allowed(
            &caller.name,
            "do that, which takes a right on all tables (\"*\")",
        ))
    }

    /// The tables that a caller must have a right on to have it on this one.
    pub(crate) async fn parts(
        &self,
        namespace: &str,
        table: &str,
    ) -> Result<Vec<TableName>, ApiError> {
        let parts = self.service.parts(namespace, &[table.to_owned()]).await?;
        Ok(parts.into_iter().flatten().map(named).collect())
    }

    /// Those of a namespace's tables that a caller may know of.
    pub(crate) async fn visible(
        &self,
        caller: &Caller,
        namespace: &str,
        tables: Vec<String>,
    ) -> Result<Vec<String>, ApiError> {
        if self.access.is_open() {
            return Ok(tables);
        }
        let parts = self.service.parts(namespace, &tables).await?;
        let parts: Vec<Vec<TableName>> =
            parts.into_iter().map(|parts| parts.into_iter().map(named).collect()).collect();
        let has = self.access.rights(caller, &parts).await?;
        let seen = tables.into_iter().zip(has).filter(|(_, has)| has.is_some());
        Ok(seen.map(|(table, _)| table).collect())
    }
}

fn named((namespace, table): (String, String)) -> TableName {
    TableName { namespace, table }
}
