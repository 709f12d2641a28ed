//! One librdkafka client: made from properties, freed off the caller's thread.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::bindings as rd;

use super::{Code, buffer_text, code, text, token};
use crate::config::{KafkaConfig, is_secret};
use crate::error::KafkaError;
use crate::metrics::{KafkaMetrics, add};
use crate::tokens::{Token, Tokens};

/// What a client's callbacks note, for error messages and metrics.
#[derive(Debug, Default)]
pub(crate) struct ClientState {
    last_error: Mutex<Option<(Instant, String)>>,
    authentication: Mutex<Option<String>>,
    topic: Mutex<Option<Code>>,
    fetched: AtomicU64,
    metrics: Arc<KafkaMetrics>,
    /// Where it gets tokens, if it logs in with them.
    pub(super) tokens: Option<Arc<Tokens>>,
}

impl ClientState {
    /// What the client last complained of, if that was not long ago.
    pub(crate) fn last_error(&self) -> Option<String> {
        // The client repeats an unchanged complaint every 30 seconds only.
        let fresh = Duration::from_secs(60);
        let last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(at, _)| at.elapsed() < fresh).map(|(_, text)| text.clone())
    }

    /// The brokers' refusal of our credentials, unless they have let us in since.
    pub(crate) fn authentication_error(&self) -> Option<String> {
        self.authentication.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A broker has answered, so our credentials are good.
    pub(crate) fn let_in(&self) {
        self.authentication.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Bytes of this client's Fetch answers so far.
    pub(crate) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// What is wrong with the topic being read, since the last call: librdkafka tells it by the
    /// error callback when the topic is missing or must not be read.
    pub(crate) fn take_topic_error(&self) -> Option<Code> {
        self.topic.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, text: &str) {
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((Instant::now(), text.to_owned()));
    }
}

/// A librdkafka client of consumer type without a group.
pub(crate) struct Client {
    rk: NonNull<rd::rd_kafka_t>,
    state: Arc<ClientState>,
    /// The password that it was last given, where that may change.
    password: Mutex<Option<String>>,
    /// The token that it was last given here.
    token: Mutex<Option<Arc<Token>>>,
}

// SAFETY: librdkafka's client handle may be used from any thread and from several at once.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Makes a client. Needs no network: brokers are connected to in the background.
    pub(crate) fn new(
        properties: &BTreeMap<String, String>,
        metrics: Arc<KafkaMetrics>,
        tokens: Option<Arc<Tokens>>,
    ) -> Result<Self, KafkaError> {
        add(&metrics.clients_opened, 1);
        let state = Arc::new(ClientState { metrics, tokens, ..ClientState::default() });
        let conf = Conf::new(properties, &state)?;
        if state.tokens.is_some() {
            token::ask_us(conf.0);
        }
        let mut reason = [0u8; 512];
        // On success the client takes the configuration over. On failure it should stay ours, but
        // librdkafka has already freed the interceptors in it, and destroying it would free them
        // twice: so the few KiB are leaked.
        let conf = std::mem::ManuallyDrop::new(conf);
        // SAFETY: conf is valid. `state` outlives the client: `Drop` releases it last.
        let rk = unsafe {
            rd::rd_kafka_new(
                rd::rd_kafka_type_t::RD_KAFKA_CONSUMER,
                conf.0,
                reason.as_mut_ptr().cast::<c_char>(),
                reason.len(),
            )
        };
        match NonNull::new(rk) {
            Some(rk) => {
                let password = Mutex::new(properties.get("sasl.password").cloned());
                let client = Self { rk, state, password, token: Mutex::default() };
                if client.state.tokens.is_some() {
                    token::answer_in_background(&client)?;
                }
                Ok(client)
            }
            None => Err(KafkaError::Create(buffer_text(&reason))),
        }
    }

    /// Logs in with the password as it is now, from the next connection on.
    pub(crate) fn renew_login(&self, config: &KafkaConfig) {
        let Some((user, password)) = config.renewed_login() else { return };
        let mut given = self.password.lock().unwrap_or_else(PoisonError::into_inner);
        if given.as_deref() == Some(password.as_str()) {
            return;
        }
        let (Ok(c_user), Ok(c_password)) = (CString::new(user), CString::new(password.as_str()))
        else {
            tracing::warn!(
                "the new password of the brokers contains a NUL character; the old one holds"
            );
            return;
        };
        // SAFETY: the handle and both texts are valid for the call, which copies the texts.
        let error = unsafe {
            rd::rd_kafka_sasl_set_credentials(self.raw(), c_user.as_ptr(), c_password.as_ptr())
        };
        if error.is_null() {
            *given = Some(password);
        } else {
            // SAFETY: the error is ours to free.
            unsafe { rd::rd_kafka_error_destroy(error) };
            tracing::warn!(
                "the brokers' new password was not taken by librdkafka; the old one holds"
            );
        }
    }

    /// Logs in with this token, from the next connection on.
    pub(crate) fn give_token(&self, token: &Arc<Token>) {
        let Some(tokens) = &self.state.tokens else { return };
        let mut given = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if given.as_ref().is_some_and(|given| Arc::ptr_eq(given, token)) {
            return;
        }
        match token::give(self.raw(), token, tokens) {
            Ok(()) => *given = Some(Arc::clone(token)),
            Err(reason) => tracing::warn!(reason, "librdkafka does not take a token"),
        }
    }

    /// The brokers do not take the token that it was last given here.
    pub(crate) fn token_refused(&self) {
        let given = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(tokens), Some(given)) = (&self.state.tokens, &*given) {
            tokens.refused(given);
        }
    }

    pub(super) fn raw(&self) -> *mut rd::rd_kafka_t {
        self.rk.as_ptr()
    }

    pub(crate) fn state(&self) -> &ClientState {
        &self.state
    }

    /// Runs the error callbacks that wait in the client's queue. Never blocks.
    pub(crate) fn serve_callbacks(&self) {
        // SAFETY: the handle lives as long as self.
        unsafe { rd::rd_kafka_poll(self.raw(), 0) };
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        struct Last(NonNull<rd::rd_kafka_t>, Arc<ClientState>);
        // SAFETY: as for Client.
        unsafe impl Send for Last {}
        impl Last {
            fn destroy(self) {
                // SAFETY: this is the only owner; all topics and queues of the client hold an
                // `Arc<Client>` and are gone. The state is released after the last callback.
                unsafe { rd::rd_kafka_destroy(self.0.as_ptr()) };
                drop(self.1);
            }
        }
        let last = Last(self.rk, Arc::clone(&self.state));
        // It takes about 100 ms, which no async worker has to spare.
        let spawned = std::thread::Builder::new()
            .name("kafka-client-close".into())
            .spawn(move || last.destroy());
        if let Err(error) = spawned {
            tracing::warn!(%error, "a Kafka client is leaked: no thread to close it on");
        }
    }
}

/// A configuration that no client has taken over yet.
struct Conf(*mut rd::rd_kafka_conf_t);

impl Conf {
    fn new(
        properties: &BTreeMap<String, String>,
        state: &Arc<ClientState>,
    ) -> Result<Self, KafkaError> {
        // SAFETY: no preconditions; the result is never null.
        let conf = Self(unsafe { rd::rd_kafka_conf_new() });
        for (key, value) in properties {
            conf.set(key, value)?;
        }
        let opaque = Arc::as_ptr(state).cast_mut().cast::<c_void>();
        // SAFETY: conf is valid; the callbacks have the signatures librdkafka asks for, and `opaque`
        // is a ClientState that outlives the client.
        unsafe {
            rd::rd_kafka_conf_set_opaque(conf.0, opaque);
            rd::rd_kafka_conf_set_log_cb(conf.0, Some(on_log));
            rd::rd_kafka_conf_set_error_cb(conf.0, Some(on_error));
            rd::rd_kafka_conf_interceptor_add_on_new(
                conf.0,
                c"isk-metrics".as_ptr(),
                Some(on_new),
                opaque,
            );
        }
        Ok(conf)
    }

    fn set(&self, key: &str, value: &str) -> Result<(), KafkaError> {
        let refuse = |reason: String| KafkaError::Config { key: key.to_owned(), reason };
        let no_nul = |_| refuse("it contains a NUL character".into());
        let c_key = CString::new(key).map_err(no_nul)?;
        let c_value = CString::new(value).map_err(no_nul)?;
        let mut reason = [0u8; 512];
        // SAFETY: all pointers are valid for the call.
        let result = unsafe {
            rd::rd_kafka_conf_set(
                self.0,
                c_key.as_ptr(),
                c_value.as_ptr(),
                reason.as_mut_ptr().cast::<c_char>(),
                reason.len(),
            )
        };
        match result {
            rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK => Ok(()),
            // librdkafka quotes the value in its message.
            _ if is_secret(key) => Err(refuse("librdkafka does not accept its value".into())),
            _ => Err(refuse(buffer_text(&reason))),
        }
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        // SAFETY: still ours; `Client::new` keeps this from running once a client was tried.
        unsafe { rd::rd_kafka_conf_destroy(self.0) };
    }
}

/// # Safety
/// Called by librdkafka with a null client or one whose opaque is a `ClientState`.
unsafe extern "C" fn on_log(
    rk: *const rd::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    message: *const c_char,
) {
    // SAFETY: both are C strings that live during the call.
    let (facility, message) = unsafe { (text(facility), text(message)) };
    // The levels are syslog's.
    match level {
        ..=3 => tracing::warn!(target: "isk_kafka::librdkafka", facility, "{message}"),
        4 => tracing::info!(target: "isk_kafka::librdkafka", facility, "{message}"),
        _ => tracing::debug!(target: "isk_kafka::librdkafka", facility, "{message}"),
    }
    if level <= 3 && !rk.is_null() {
        // SAFETY: rk is valid during the call.
        let opaque = unsafe { rd::rd_kafka_opaque(rk) };
        // SAFETY: see above; the state outlives the client.
        if let Some(state) = unsafe { opaque.cast::<ClientState>().as_ref() } {
            state.note(&message);
        }
    }
}

/// # Safety
/// Called by librdkafka with the opaque that was set: a `ClientState`.
unsafe extern "C" fn on_error(
    _rk: *mut rd::rd_kafka_t,
    err: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: see above.
    let (reason, state) = unsafe { (text(reason), opaque.cast::<ClientState>().as_ref()) };
    let Some(state) = state else { return };
    match err {
        // It says less than what came before it.
        code::ALL_BROKERS_DOWN => {}
        // No broker said that; who needs the token is told by whoever asks for it.
        code::AUTHENTICATION if reason.starts_with(token::FAILED) => state.note(&reason),
        code::AUTHENTICATION | code::SASL_AUTHENTICATION_FAILED => {
            state.note(&reason);
            let mut last = state.authentication.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some(reason);
        }
        code::UNKNOWN_TOPIC
        | code::UNKNOWN_PARTITION
        | code::UNKNOWN_TOPIC_OR_PART
        | code::INVALID_TOPIC
        | code::TOPIC_AUTHORIZATION_FAILED => {
            let mut last = state.topic.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some(Code { code: err, text: reason });
        }
        _ => state.note(&reason),
    }
}

/// # Safety
/// Called by librdkafka while a client is made, with the opaque given at registration.
unsafe extern "C" fn on_new(
    rk: *mut rd::rd_kafka_t,
    _conf: *const rd::rd_kafka_conf_t,
    opaque: *mut c_void,
    _reason: *mut c_char,
    _reason_size: usize,
) -> rd::rd_kafka_resp_err_t {
    // SAFETY: rk is the client being made; the name is static, the opaque outlives the client.
    unsafe {
        rd::rd_kafka_interceptor_add_on_response_received(
            rk,
            c"isk-metrics".as_ptr(),
            Some(on_response),
            opaque,
        )
    }
}

/// Counts the bytes of Fetch answers.
///
/// # Safety
/// Called by librdkafka with the opaque given at registration.
#[allow(clippy::too_many_arguments)]
unsafe extern "C" fn on_response(
    _rk: *mut rd::rd_kafka_t,
    _socket: c_int,
    _broker_name: *const c_char,
    _broker_id: i32,
    api_key: i16,
    _api_version: i16,
    _correlation_id: i32,
    size: usize,
    _round_trip_us: i64,
    _err: rd::rd_kafka_resp_err_t,
    opaque: *mut c_void,
) -> rd::rd_kafka_resp_err_t {
    const FETCH: i16 = 1;
    if api_key == FETCH {
        // SAFETY: see above.
        if let Some(state) = unsafe { opaque.cast::<ClientState>().as_ref() } {
            add(&state.metrics.wire_bytes, size as u64);
            add(&state.fetched, size as u64);
        }
    }
    rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// Asks all brokers for the names and partitions of all topics. Blocks.
///
/// Names with their partitions, or the error code.
pub(super) fn all_topics(
    client: &Client,
    timeout_ms: c_int,
) -> Result<Vec<(String, Vec<i32>)>, Code> {
    let mut metadata: *const rd::rd_kafka_metadata = null_mut();
    // SAFETY: the handle is valid; on success `metadata` owns a tree freed below.
    let err =
        unsafe { rd::rd_kafka_metadata(client.raw(), 1, null_mut(), &mut metadata, timeout_ms) };
    if err as i32 != 0 {
        return Err(Code::new(err as i32));
    }
    // SAFETY: librdkafka filled the arrays with the lengths it states, all alive until destroyed.
    // Fields are read through pointers: the structs hold error codes (see the module's note).
    unsafe {
        let topics = (*metadata).topics;
        let count = usize::try_from((*metadata).topic_cnt).unwrap_or(0);
        let listed = (0..count)
            .map(|i| {
                let topic = topics.add(i);
                let partitions = usize::try_from((*topic).partition_cnt).unwrap_or(0);
                let ids = (0..partitions).map(|p| (*(*topic).partitions.add(p)).id).collect();
                (text((*topic).topic), ids)
            })
            .collect();
        rd::rd_kafka_metadata_destroy(metadata);
        Ok(listed)
    }
}

/// Asks some broker which brokers there are, and which of them answers for the cluster. Blocks.
pub(super) fn refresh_brokers(client: &Client, timeout_ms: c_int) {
    let mut metadata: *const rd::rd_kafka_metadata = null_mut();
    // SAFETY: the handle is valid; on success `metadata` owns a tree that is freed at once.
    unsafe {
        let asked = rd::rd_kafka_metadata(client.raw(), 0, null_mut(), &mut metadata, timeout_ms);
        if asked as i32 == 0 {
            rd::rd_kafka_metadata_destroy(metadata);
        }
    }
}

/// The cluster's id, or `None` when no broker told it in time. Blocks.
pub(super) fn cluster_id(client: &Client, timeout_ms: c_int) -> Option<String> {
    // SAFETY: the handle is valid; the result is null or a string that is ours to free.
    unsafe {
        let id = rd::rd_kafka_clusterid(client.raw(), timeout_ms);
        if id.is_null() {
            return None;
        }
        let copy = text(id);
        rd::rd_kafka_mem_free(client.raw(), id.cast::<c_void>());
        Some(copy)
    }
}
