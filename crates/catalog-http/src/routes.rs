//! The table of routes: the router, the list of endpoints and the description follow it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;
use isk_access::Access;
use isk_coldset::Upstream;
use isk_model::Histogram;

use crate::cold::Cold;
use crate::coldset::{self, ColdWrite};
use crate::guard::{By, Guarded, Need, guard};
use crate::handlers::{self as h, App};
use crate::plan::{self, Plans};
use crate::service::CatalogService;
use crate::settings::CatalogSettings;
use crate::trace::trace;
use crate::{measures, tokens, topic_schema, warehouse};

/// One route of the catalog.
#[derive(Debug)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, its parameters in braces. There is no `prefix`: the catalog has one warehouse.
    pub path: &'static str,
    /// What is done.
    pub operation: Operation,
}

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// The client's configuration.
    Config,
    /// Namespaces under a parent.
    ListNamespaces,
    /// A namespace's properties.
    LoadNamespace,
    /// Whether a namespace exists.
    NamespaceExists,
    /// The tables of a namespace.
    ListTables,
    /// A table as it is now.
    LoadTable,
    /// New keys for a table's files.
    LoadCredentials,
    /// Whether a table exists.
    TableExists,
    /// The views of a namespace: none.
    ListViews,
    /// A view: there is none.
    NoView,
    /// A scan, planned.
    PlanScan,
    /// A scan that was planned, again.
    FetchPlan,
    /// A scan that is not needed any more.
    CancelPlan,
    /// A part of a planned scan.
    FetchTasks,
    /// A scan report, dropped.
    DropReport,
    /// The creation of a namespace, refused; one that exists is said to exist.
    CreateNamespace,
    /// A write to a table: refused, but in a `coldset` that is writable.
    Write(ColdWrite),
    /// A write, refused; the text names it.
    Refuse(&'static str),
    /// A bearer token for a client's secret.
    Tokens,
    /// Anything below the warehouse `coldset`, for the upstream catalog.
    Upstream,
    /// The process answers.
    Healthz,
    /// What is behind the service answers.
    Readyz,
    /// Counters and gauges.
    Metrics,
    /// The description of all this.
    OpenApi,
    /// A topic's schema, and what is known of it.
    TopicSchema,
    /// A schema, pinned as a topic's.
    PinSchema,
    /// A topic's schema, found anew.
    DiscoverAnew,
    /// The description of what lies below `/api/v1`.
    ApiDescription,
}

impl Operation {
    /// Whether clients are told of it in `GET /v1/config`. A client does without what is not listed.
    fn is_listed(self, writable: bool) -> bool {
        match self {
            Self::ListNamespaces
            | Self::LoadNamespace
            | Self::NamespaceExists
            | Self::ListTables
            | Self::LoadTable
            | Self::LoadCredentials
            | Self::TableExists
            | Self::PlanScan
            | Self::FetchPlan
            | Self::CancelPlan
            | Self::FetchTasks => true,
            Self::CreateNamespace | Self::Write(_) => writable,
            _ => false,
        }
    }
}

const NAMESPACES: &str = "/v1/namespaces";
const NAMESPACE: &str = "/v1/namespaces/{namespace}";
const TABLES: &str = "/v1/namespaces/{namespace}/tables";
const TABLE: &str = "/v1/namespaces/{namespace}/tables/{table}";
const CREDENTIALS: &str = "/v1/namespaces/{namespace}/tables/{table}/credentials";
const PLAN: &str = "/v1/namespaces/{namespace}/tables/{table}/plan/{plan-id}";
const VIEWS: &str = "/v1/namespaces/{namespace}/views";
const VIEW: &str = "/v1/namespaces/{namespace}/views/{view}";
const TOPIC_SCHEMA: &str = "/api/v1/topics/{topic}/schema";
/// `path` stands for all the rest, slashes too.
const UPSTREAM: &str = "/v1/coldset/{path}";

const fn route(method: Method, path: &'static str, operation: Operation) -> Route {
    Route { method, path, operation }
}

/// All routes.
pub static ROUTES: &[Route] = &[
    route(Method::GET, "/v1/config", Operation::Config),
    route(Method::POST, "/v1/oauth/tokens", Operation::Tokens),
    route(Method::GET, NAMESPACES, Operation::ListNamespaces),
    route(Method::POST, NAMESPACES, Operation::CreateNamespace),
    route(Method::GET, NAMESPACE, Operation::LoadNamespace),
    route(Method::HEAD, NAMESPACE, Operation::NamespaceExists),
    route(Method::DELETE, NAMESPACE, Operation::Refuse("dropping a namespace")),
    route(
        Method::POST,
        "/v1/namespaces/{namespace}/properties",
        Operation::Refuse("changing a namespace's properties"),
    ),
    route(
        Method::POST,
        "/v1/namespaces/{namespace}/register",
        Operation::Write(ColdWrite::RegisterTable),
    ),
    route(Method::GET, TABLES, Operation::ListTables),
    route(Method::POST, TABLES, Operation::Write(ColdWrite::CreateTable)),
    route(Method::GET, TABLE, Operation::LoadTable),
    route(Method::HEAD, TABLE, Operation::TableExists),
    route(Method::POST, TABLE, Operation::Write(ColdWrite::UpdateTable)),
    route(Method::DELETE, TABLE, Operation::Write(ColdWrite::DropTable)),
    route(Method::GET, CREDENTIALS, Operation::LoadCredentials),
    route(Method::POST, "/v1/namespaces/{namespace}/tables/{table}/plan", Operation::PlanScan),
    route(Method::GET, PLAN, Operation::FetchPlan),
    route(Method::DELETE, PLAN, Operation::CancelPlan),
    route(Method::POST, "/v1/namespaces/{namespace}/tables/{table}/tasks", Operation::FetchTasks),
    route(Method::POST, "/v1/namespaces/{namespace}/tables/{table}/metrics", Operation::DropReport),
    route(Method::POST, "/v1/tables/rename", Operation::Write(ColdWrite::RenameTable)),
    route(Method::POST, "/v1/transactions/commit", Operation::Write(ColdWrite::CommitTransaction)),
    route(Method::GET, VIEWS, Operation::ListViews),
    route(Method::POST, VIEWS, Operation::Refuse("creating a view")),
    route(Method::GET, VIEW, Operation::NoView),
    route(Method::HEAD, VIEW, Operation::NoView),
    route(Method::POST, VIEW, Operation::Refuse("replacing a view")),
    route(Method::DELETE, VIEW, Operation::Refuse("dropping a view")),
    route(Method::POST, "/v1/views/rename", Operation::Refuse("renaming a view")),
    route(Method::GET, UPSTREAM, Operation::Upstream),
    route(Method::HEAD, UPSTREAM, Operation::Upstream),
    route(Method::POST, UPSTREAM, Operation::Upstream),
    route(Method::DELETE, UPSTREAM, Operation::Upstream),
    route(Method::GET, "/healthz", Operation::Healthz),
    route(Method::GET, "/readyz", Operation::Readyz),
    route(Method::GET, "/metrics", Operation::Metrics),
    route(Method::GET, "/openapi.yaml", Operation::OpenApi),
    route(Method::GET, TOPIC_SCHEMA, Operation::TopicSchema),
    route(Method::PUT, TOPIC_SCHEMA, Operation::PinSchema),
    route(Method::DELETE, TOPIC_SCHEMA, Operation::DiscoverAnew),
    route(Method::GET, "/api/openapi.yaml", Operation::ApiDescription),
];

/// The routes that clients are told of, as the specification writes them; with those that write where
/// `coldset` is writable.
pub fn endpoints(writable: bool) -> Vec<String> {
    let listed = ROUTES.iter().filter(|route| route.operation.is_listed(writable));
    listed
        .map(|route| {
            format!("{} {}", route.method, route.path.replacen("/v1/", "/v1/{prefix}/", 1))
        })
        .collect()
}

/// The catalog as a router, with its own answers for unknown paths and methods. What concerns
/// `coldset` is asked of `upstream`, where there is one. Who comes in is for `access` to say.
pub fn router<S: CatalogService>(
    service: Arc<S>,
    settings: CatalogSettings,
    upstream: Option<Upstream>,
    access: Access,
) -> Router {
    let mut router = Router::new();
    let cold = upstream.map(|upstream| Arc::new(Cold::new(upstream)));
    let routes =
        ROUTES.iter().map(|route| (format!("{} {}", route.method, route.path), Arc::default()));
    let routes: Arc<[(String, Arc<Histogram>)]> = routes.collect();
    let took = Arc::clone(&routes);
    let settings = Arc::new(settings);
    let app = App { service, settings, cold, plans: Plans::new(), access, routes };
    for (route, (_, took)) in ROUTES.iter().zip(took.iter()) {
        let path = match route.operation {
            Operation::Upstream => route.path.replace("{path}", "{*path}"),
            _ => route.path.to_owned(),
        };
        let operation = route.operation;
        let took = Arc::clone(took);
        let guarded = Guarded { app: app.clone(), operation, took, need: Need::of(operation) };
        let guard = from_fn_with_state(guarded, guard::<S>);
        router = router.route(&path, method_router::<S>(route).route_layer(guard));
    }
    router
        .fallback(h::no_route)
        .method_not_allowed_fallback(h::wrong_method)
        .layer(from_fn(trace))
        .with_state(app)
}

fn method_router<S: CatalogService>(route: &Route) -> MethodRouter<App<S>> {
    // The table uses these five; anything else would be refused as a wrong method.
    let method = match route.method {
        Method::POST => MethodFilter::POST,
        Method::HEAD => MethodFilter::HEAD,
        Method::PUT => MethodFilter::PUT,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    };
    match route.operation {
        Operation::Config => on(method, coldset::config::<S>),
        Operation::ListNamespaces => on(method, h::list_namespaces::<S>),
        Operation::LoadNamespace => on(method, h::load_namespace::<S>),
        Operation::NamespaceExists => on(method, h::namespace_exists::<S>),
        Operation::ListTables => on(method, h::list_tables::<S>),
        Operation::LoadTable => on(method, h::load_table::<S>),
        Operation::LoadCredentials => on(method, h::load_credentials::<S>),
        Operation::TableExists => on(method, h::table_exists::<S>),
        Operation::ListViews => on(method, h::list_views::<S>),
        Operation::NoView => on(method, h::no_view::<S>),
        Operation::PlanScan => on(method, plan::plan_scan::<S>),
        Operation::FetchPlan => on(method, plan::fetch_plan::<S>),
        Operation::CancelPlan => on(method, plan::cancel_plan::<S>),
        Operation::FetchTasks => on(method, plan::fetch_tasks::<S>),
        Operation::DropReport => on(method, h::drop_report::<S>),
        Operation::CreateNamespace => on(method, coldset::create_namespace_here::<S>),
        Operation::Write(write) => write_router(method, write, route.path),
        Operation::Tokens => on(method, tokens::tokens::<S>),
        Operation::Upstream => on(method, warehouse::pass::<S>),
        Operation::Refuse(what) => {
            on(method, move |app: State<App<S>>, request: Request| h::refuse(app, what, request))
        }
        Operation::Healthz => on(method, h::healthz),
        Operation::Readyz => on(method, h::readyz::<S>),
        Operation::Metrics => on(method, measures::metrics::<S>),
        Operation::OpenApi => on(method, h::openapi),
        Operation::TopicSchema => on(method, topic_schema::get::<S>),
        Operation::PinSchema => on(method, topic_schema::put::<S>),
        Operation::DiscoverAnew => on(method, topic_schema::delete::<S>),
        Operation::ApiDescription => on(method, topic_schema::openapi),
    }
}

fn write_router<S: CatalogService>(
    method: MethodFilter,
    write: ColdWrite,
    path: &str,
) -> MethodRouter<App<S>> {
    if path.contains("{table}") {
        on(method, move |app: State<App<S>>, by: By, names, request: Request| {
            h::write_to(app, by, write, names, request)
        })
    } else if path.contains("{namespace}") {
        on(method, move |app: State<App<S>>, by: By, name, request: Request| {
            h::write_in(app, by, write, name, request)
        })
    } else {
        on(method, move |app: State<App<S>>, by: By, request: Request| {
            h::write_named(app, by, write, request)
        })
    }
}
