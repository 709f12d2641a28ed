//! librdkafka, as far as ISK uses it: the only unsafe code of this crate.
//!
//! The `rdkafka` crate wraps neither ListOffsets nor DescribeTopics, nor batch consumption without a
//! consumer group, so these are called through its bindings. Every raw handle has one owner that
//! frees it; no raw pointer leaves this module.
//!
//! Error codes are read as plain integers wherever librdkafka stores them in a struct: a newer
//! broker's unknown code would be no value of the bindings' enum.

#![allow(unsafe_code)]

mod admin;
mod client;
mod consume;
mod token;

use std::ffi::{CStr, c_char};

use rdkafka::bindings as rd;

pub(crate) use admin::{AdminQueue, DescribedTopic, ListedOffset};
pub(crate) use client::Client;
pub(crate) use consume::{Assignment, Headers, Message, TopicCache};

/// An error code with librdkafka's name and text of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Code {
    pub(crate) code: i32,
    /// For example `UNKNOWN_TOPIC_OR_PART: Broker: Unknown topic or partition`.
    pub(crate) text: String,
}

/// Error codes that the rest of the crate decides by. Negative ones are librdkafka's own.
pub(crate) mod code {
    pub(crate) const TRANSPORT: i32 = -195;
    pub(crate) const BAD_MSG: i32 = -199;
    pub(crate) const PARTITION_EOF: i32 = -191;
    pub(crate) const UNKNOWN_PARTITION: i32 = -190;
    pub(crate) const UNKNOWN_TOPIC: i32 = -188;
    pub(crate) const ALL_BROKERS_DOWN: i32 = -187;
    pub(crate) const TIMED_OUT: i32 = -185;
    pub(crate) const AUTHENTICATION: i32 = -169;
    pub(crate) const UNSUPPORTED_FEATURE: i32 = -165;
    pub(crate) const NOENT: i32 = -156;
    pub(crate) const NOT_AVAILABLE: i32 = -149;
    pub(crate) const AUTO_OFFSET_RESET: i32 = -140;
    pub(crate) const LOG_TRUNCATION: i32 = -139;
    pub(crate) const OFFSET_OUT_OF_RANGE: i32 = 1;
    pub(crate) const CORRUPT: i32 = 2;
    pub(crate) const UNKNOWN_TOPIC_OR_PART: i32 = 3;
    pub(crate) const LEADER_NOT_AVAILABLE: i32 = 5;
    pub(crate) const NOT_LEADER: i32 = 6;
    pub(crate) const REQUEST_TIMED_OUT: i32 = 7;
    pub(crate) const REPLICA_NOT_AVAILABLE: i32 = 9;
    pub(crate) const NETWORK_EXCEPTION: i32 = 13;
    pub(crate) const INVALID_TOPIC: i32 = 17;
    pub(crate) const TOPIC_AUTHORIZATION_FAILED: i32 = 29;
    pub(crate) const CLUSTER_AUTHORIZATION_FAILED: i32 = 31;
    pub(crate) const KAFKA_STORAGE_ERROR: i32 = 56;
    pub(crate) const SASL_AUTHENTICATION_FAILED: i32 = 58;
    pub(crate) const FENCED_LEADER_EPOCH: i32 = 74;
    pub(crate) const UNKNOWN_LEADER_EPOCH: i32 = 75;
    pub(crate) const OFFSET_NOT_AVAILABLE: i32 = 78;
    pub(crate) const UNKNOWN_TOPIC_ID: i32 = 100;
}

impl Code {
    /// Looks the name and the text of a code up.
    pub(crate) fn new(code: i32) -> Self {
        let text = match rd::rd_kafka_resp_err_t::try_from(code) {
            // SAFETY: both functions take any enum value and return static strings.
            Ok(known) => unsafe {
                let name = text(rd::rd_kafka_err2name(known));
                format!("{name}: {}", text(rd::rd_kafka_err2str(known)))
            },
            Err(_) => format!("error code {code}"),
        };
        Self { code, text }
    }

    /// The code with a text more exact than the general one.
    fn with_text(code: i32, detail: String) -> Self {
        if detail.is_empty() { Self::new(code) } else { Self { code, text: detail } }
    }
}

/// Copies a C string; empty for null.
///
/// # Safety
/// `pointer` is null or a NUL-terminated string that lives during the call.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// Copies what a librdkafka function wrote to an error buffer.
fn buffer_text(buffer: &[u8]) -> String {
    let end = buffer.iter().position(|b| *b == 0).unwrap_or(buffer.len());
    String::from_utf8_lossy(&buffer[..end]).into_owned()
}
