//! The table of routes: the router, the list of endpoints and the description follow it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::from_fn;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;

use crate::handlers::{self as h, App};
use crate::service::CatalogService;
use crate::settings::CatalogSettings;
use crate::trace::trace;

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
    /// Whether a table exists.
    TableExists,
    /// The views of a namespace: none.
    ListViews,
    /// A view: there is none.
    NoView,
    /// A scan report, dropped.
    DropReport,
    /// A write, refused; the text names it.
    Refuse(&'static str),
    /// The process answers.
    Healthz,
    /// What is behind the service answers.
    Readyz,
    /// Counters and gauges.
    Metrics,
    /// The description of all this.
    OpenApi,
}

impl Operation {
    /// Whether clients are told of it in `GET /v1/config`. A client does without what is not listed.
    fn is_listed(self) -> bool {
        matches!(
            self,
            Self::ListNamespaces
                | Self::LoadNamespace
                | Self::NamespaceExists
                | Self::ListTables
                | Self::LoadTable
                | Self::TableExists
        )
    }
}

const NAMESPACES: &str = "/v1/namespaces";
const NAMESPACE: &str = "/v1/namespaces/{namespace}";
const TABLES: &str = "/v1/namespaces/{namespace}/tables";
const TABLE: &str = "/v1/namespaces/{namespace}/tables/{table}";
const VIEWS: &str = "/v1/namespaces/{namespace}/views";
const VIEW: &str = "/v1/namespaces/{namespace}/views/{view}";

const fn route(method: Method, path: &'static str, operation: Operation) -> Route {
    Route { method, path, operation }
}

/// All routes.
pub static ROUTES: &[Route] = &[
    route(Method::GET, "/v1/config", Operation::Config),
    route(Method::GET, NAMESPACES, Operation::ListNamespaces),
    route(Method::POST, NAMESPACES, Operation::Refuse("creating a namespace")),
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
        Operation::Refuse("registering a table"),
    ),
    route(Method::GET, TABLES, Operation::ListTables),
    route(Method::POST, TABLES, Operation::Refuse("creating a table")),
    route(Method::GET, TABLE, Operation::LoadTable),
    route(Method::HEAD, TABLE, Operation::TableExists),
    route(Method::POST, TABLE, Operation::Refuse("committing to a table")),
    route(Method::DELETE, TABLE, Operation::Refuse("dropping a table")),
    route(Method::POST, "/v1/namespaces/{namespace}/tables/{table}/metrics", Operation::DropReport),
    route(Method::POST, "/v1/tables/rename", Operation::Refuse("renaming a table")),
    route(Method::POST, "/v1/transactions/commit", Operation::Refuse("committing a transaction")),
    route(Method::GET, VIEWS, Operation::ListViews),
    route(Method::POST, VIEWS, Operation::Refuse("creating a view")),
    route(Method::GET, VIEW, Operation::NoView),
    route(Method::HEAD, VIEW, Operation::NoView),
    route(Method::POST, VIEW, Operation::Refuse("replacing a view")),
    route(Method::DELETE, VIEW, Operation::Refuse("dropping a view")),
    route(Method::POST, "/v1/views/rename", Operation::Refuse("renaming a view")),
    route(Method::GET, "/healthz", Operation::Healthz),
    route(Method::GET, "/readyz", Operation::Readyz),
    route(Method::GET, "/metrics", Operation::Metrics),
    route(Method::GET, "/openapi.yaml", Operation::OpenApi),
];

/// The routes that clients are told of, as the specification writes them.
pub fn endpoints() -> Vec<String> {
    let listed = ROUTES.iter().filter(|route| route.operation.is_listed());
    listed
        .map(|route| {
            format!("{} {}", route.method, route.path.replacen("/v1/", "/v1/{prefix}/", 1))
        })
        .collect()
}

/// The catalog as a router, with its own answers for unknown paths and methods.
pub fn router<S: CatalogService>(service: Arc<S>, settings: CatalogSettings) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        router = router.route(route.path, method_router::<S>(route));
    }
    router
        .fallback(h::no_route)
        .method_not_allowed_fallback(h::wrong_method)
        .layer(from_fn(trace))
        .with_state(App { service, settings: Arc::new(settings) })
}

fn method_router<S: CatalogService>(route: &Route) -> MethodRouter<App<S>> {
    // The table uses these four; anything else would be refused as a wrong method.
    let method = match route.method {
        Method::POST => MethodFilter::POST,
        Method::HEAD => MethodFilter::HEAD,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    };
    match route.operation {
        Operation::Config => on(method, h::config),
        Operation::ListNamespaces => on(method, h::list_namespaces::<S>),
        Operation::LoadNamespace => on(method, h::load_namespace::<S>),
        Operation::NamespaceExists => on(method, h::namespace_exists::<S>),
        Operation::ListTables => on(method, h::list_tables::<S>),
        Operation::LoadTable => on(method, h::load_table::<S>),
        Operation::TableExists => on(method, h::table_exists::<S>),
        Operation::ListViews => on(method, h::list_views::<S>),
        Operation::NoView => on(method, h::no_view::<S>),
        Operation::DropReport => on(method, h::drop_report::<S>),
        Operation::Refuse(what) => {
            on(method, move |app: State<App<S>>, request: Request| h::refuse(app, what, request))
        }
        Operation::Healthz => on(method, h::healthz),
        Operation::Readyz => on(method, h::readyz::<S>),
        Operation::Metrics => on(method, h::metrics::<S>),
        Operation::OpenApi => on(method, h::openapi),
    }
}
