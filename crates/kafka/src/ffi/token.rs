//! Tokens for librdkafka's OAUTHBEARER: it asks for them on a thread of its own, and is given them before it needs one.

use std::ffi::{CString, c_char, c_void};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rdkafka::bindings as rd;

use super::client::{Client, ClientState};
use super::text;
use crate::error::KafkaError;
use crate::tokens::{Token, Tokens};

/// How librdkafka begins what it says of a failure that it was told here.
pub(super) const FAILED: &str = "Failed to acquire SASL OAUTHBEARER token";

/// Has librdkafka ask here for tokens: at once, and whenever four fifths of one's life are over.
pub(super) fn ask_us(conf: *mut rd::rd_kafka_conf_t) {
    // SAFETY: conf is a configuration whose opaque is a `ClientState`; the callback has the signature that is asked for.
    unsafe {
        rd::rd_kafka_conf_set_oauthbearer_token_refresh_cb(conf, Some(on_refresh));
        // Not through the queue that is served now and then only.
        rd::rd_kafka_conf_enable_sasl_queue(conf, 1);
    }
}

/// Has the questions answered by a thread of the client's.
pub(super) fn answer_in_background(client: &Client) -> Result<(), KafkaError> {
    // SAFETY: the handle is valid; the error, if there is one, is ours to free.
    unsafe {
        let error = rd::rd_kafka_sasl_background_callbacks_enable(client.raw());
        if error.is_null() {
            return Ok(());
        }
        let reason = text(rd::rd_kafka_error_string(error));
        rd::rd_kafka_error_destroy(error);
        Err(KafkaError::Create(reason))
    }
}

/// Gives a client a token; its connections that wait for one go on.
pub(super) fn give(rk: *mut rd::rd_kafka_t, token: &Token, tokens: &Tokens) -> Result<(), String> {
    let nul = |_| "it or an extension contains a NUL character".to_owned();
    let value = CString::new(token.text.as_str()).map_err(nul)?;
    let principal = CString::new(tokens.client_id()).map_err(nul)?;
    let pairs = tokens.extensions().iter().flat_map(|(key, value)| [key, value]);
    let pairs = pairs.map(|text| CString::new(text.as_str()).map_err(nul));
    let pairs: Vec<CString> = pairs.collect::<Result<_, _>>()?;
    let mut pairs: Vec<*const c_char> = pairs.iter().map(|text| text.as_ptr()).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let expires = now + token.expires.saturating_duration_since(Instant::now());
    let mut reason = [0u8; 512];
    // SAFETY: the handle and all texts are valid for the call, which copies them.
    let failed = unsafe {
        rd::rd_kafka_oauthbearer_set_token(
            rk,
            value.as_ptr(),
            i64::try_from(expires.as_millis()).unwrap_or(i64::MAX),
            principal.as_ptr(),
            pairs.as_mut_ptr(),
            pairs.len(),
            reason.as_mut_ptr().cast::<c_char>(),
            reason.len(),
        )
    };
    match failed {
        rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        // Of a value that it does not take it says the value.
        _ => Err("it is over, or has characters that no token has".to_owned()),
    }
}

/// # Safety
/// Called by librdkafka on the client's background thread, with the opaque that was set: a `ClientState`.
unsafe extern "C" fn on_refresh(
    rk: *mut rd::rd_kafka_t,
    _config: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: see above; the state outlives the client.
    let state = unsafe { opaque.cast::<ClientState>().as_ref() };
    let Some(tokens) = state.and_then(|state| state.tokens.as_ref()) else { return };
    let renewed = tokens.renewed().map_err(|error| error.to_string());
    let Err(reason) = renewed.and_then(|token| give(rk, &token, tokens)) else { return };
    let reason = CString::new(reason).unwrap_or_else(|_| c"no token".to_owned());
    // SAFETY: the handle and the text are valid for the call. It asks again in ten seconds.
    unsafe { rd::rd_kafka_oauthbearer_set_token_failure(rk, reason.as_ptr()) };
}
