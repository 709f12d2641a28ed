//! `POST /v1/oauth/tokens`: bearer tokens for clients that have an id and a secret (RFC 6749, section 4.4), and
//! new ones for those that have a token (RFC 8693), as Iceberg's REST clients ask for them.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use isk_access::{GrantError, Granted};
use serde_json::json;

use crate::error::ApiError;
use crate::handlers::{Answer, App, drain};
use crate::service::CatalogService;

/// The longest request for a token.
const MAX_BODY: usize = 64 << 10;

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

pub(crate) async fn tokens<S: CatalogService>(
    State(app): State<App<S>>,
    request: Request,
) -> Answer {
    let headers = request.headers().clone();
    let body = drain(request, MAX_BODY).await?;
    if app.access.is_open() {
        return Err(ApiError::no_tokens());
    }
    let form = Form(&body);
    let client =
        basic(&headers).or_else(|| Some((form.get("client_id")?, form.get("client_secret")?)));
    let granted = match form.get("grant_type").as_deref() {
        Some("client_credentials") => match &client {
            Some((id, secret)) => app.access.grant(id, secret),
            None => Err(GrantError::InvalidClient),
        },
        Some(TOKEN_EXCHANGE) => {
            let token = form.get("subject_token").unwrap_or_default();
            match app.access.exchange(&token).await {
                // A client whose token has expired says who it is.
                Err(error) => match &client {
                    Some((id, secret)) => app.access.grant(id, secret),
                    None => Err(error),
                },
                granted => granted,
            }
        }
        _ => {
            let what = "grant_type is neither client_credentials nor token exchange";
            return Ok(refusal(StatusCode::BAD_REQUEST, "unsupported_grant_type", what));
        }
    };
    Ok(match granted {
        Ok(Granted { token, expires_in }) => {
            let body = json!({
                "access_token": token, "token_type": "bearer", "expires_in": expires_in,
                "issued_token_type": ACCESS_TOKEN,
            });
            no_store(Json(body).into_response())
        }
        Err(error @ GrantError::InvalidClient) => {
            refusal(StatusCode::UNAUTHORIZED, "invalid_client", &error.to_string())
        }
        Err(error @ GrantError::Unsigned) => {
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "server_error", &error.to_string())
        }
    })
}

/// A form's fields.
struct Form<'a>(&'a [u8]);

impl Form<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let mut fields = form_urlencoded::parse(self.0);
        fields.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

/// Client id and secret of `Authorization: Basic …`.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

/// The errors of OAuth2 have a form of their own (RFC 6749, section 5.2).
fn refusal(status: StatusCode, error: &str, description: &str) -> Response {
    let body = json!({ "error": error, "error_description": description });
    let mut response = no_store((status, Json(body)).into_response());
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Basic realm=\"isk\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
