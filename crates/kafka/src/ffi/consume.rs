//! Reading one partition from an explicit offset, in batches, without a consumer group.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;

use isk_model::{LeaderEpoch, RecordHeader, TimestampType};
use rdkafka::bindings as rd;

use super::{Client, Code, code};

/// A topic as one client knows it. Keeping it spares the next read of the topic its metadata lookup.
struct Topic {
    raw: NonNull<rd::rd_kafka_topic_t>,
    name: CString,
    /// Keeps the client alive until the topic is gone.
    _client: Arc<Client>,
}

// SAFETY: librdkafka's topic handles may be used from any thread.
unsafe impl Send for Topic {}
// SAFETY: as above.
unsafe impl Sync for Topic {}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: owned here; the client still lives.
        unsafe { rd::rd_kafka_topic_destroy(self.raw.as_ptr()) };
    }
}

/// The topic last read through a client, kept for the next read.
#[derive(Default)]
pub(crate) struct TopicCache(Option<Arc<Topic>>);

impl TopicCache {
    /// Whether the topic kept is this one.
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.0.as_ref().is_some_and(|topic| topic.name.as_bytes() == name.as_bytes())
    }

    fn get(&mut self, client: &Arc<Client>, name: &str) -> Result<Arc<Topic>, Code> {
        if let Some(topic) = &self.0
            && topic.name.as_bytes() == name.as_bytes()
        {
            return Ok(Arc::clone(topic));
        }
        let name = CString::new(name).map_err(|_| Code::new(code::INVALID_TOPIC))?;
        // SAFETY: the client and the name are valid; a null configuration means the client's own.
        let raw = unsafe { rd::rd_kafka_topic_new(client.raw(), name.as_ptr(), null_mut()) };
        let raw = NonNull::new(raw).ok_or_else(last_error)?;
        let topic = Arc::new(Topic { raw, name, _client: Arc::clone(client) });
        self.0 = Some(Arc::clone(&topic));
        Ok(topic)
    }
}

fn last_error() -> Code {
    // SAFETY: reads a thread-local of librdkafka.
    Code::new(unsafe { rd::rd_kafka_last_error() } as i32)
}

/// A partition being read into a queue of its own. Dropping it stops the reading and discards what
/// is queued; nothing of it can show in the next assignment, which has another queue.
pub(crate) struct Assignment {
    topic: Arc<Topic>,
    partition: i32,
    queue: NonNull<rd::rd_kafka_queue_t>,
    pointers: Vec<*mut rd::rd_kafka_message_t>,
}

// SAFETY: queues may be used from any thread; `pointers` is empty between calls.
unsafe impl Send for Assignment {}

impl Assignment {
    /// Starts reading a partition at `offset`. One client reads a partition once at a time.
    pub(crate) fn start(
        client: &Arc<Client>,
        topics: &mut TopicCache,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<Self, Code> {
        let topic = topics.get(client, topic)?;
        // SAFETY: client and topic are valid; the queue is freed on drop, after the stop.
        unsafe {
            let queue =
                NonNull::new(rd::rd_kafka_queue_new(client.raw())).ok_or_else(last_error)?;
            let started = rd::rd_kafka_consume_start_queue(
                topic.raw.as_ptr(),
                partition,
                offset,
                queue.as_ptr(),
            );
            if started != 0 {
                let failed = last_error();
                rd::rd_kafka_queue_destroy(queue.as_ptr());
                return Err(failed);
            }
            Ok(Self { topic, partition, queue, pointers: Vec::new() })
        }
    }

    /// Takes what is queued, up to `max`; if nothing is, waits up to `timeout_ms` for the first.
    pub(crate) fn next_batch(&mut self, max: usize, timeout_ms: c_int) -> Batch<'_> {
        self.pointers.clear();
        self.pointers.reserve(max);
        // A call waits its whole time-out for its array to fill: so wait for one, then take the
        // rest without waiting.
        let waited = self.consume(1, timeout_ms);
        if waited > 0 {
            self.consume(max - 1, 0);
        }
        Batch { pointers: &mut self.pointers, topic: &self.topic, partition: self.partition }
    }

    fn consume(&mut self, max: usize, timeout_ms: c_int) -> usize {
        if max == 0 {
            return 0;
        }
        self.pointers.reserve(max);
        let old = self.pointers.len();
        // SAFETY: the vector has room for `max` more pointers; librdkafka writes as many as it
        // returns, and they are ours from then on.
        unsafe {
            let got = rd::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                timeout_ms,
                self.pointers.as_mut_ptr().add(old),
                max,
            );
            let got = usize::try_from(got).unwrap_or(0);
            self.pointers.set_len(old + got);
            got
        }
    }

    /// How many messages the client has fetched that nobody took.
    pub(crate) fn queued(&self) -> usize {
        // SAFETY: the queue is ours.
        unsafe { rd::rd_kafka_queue_length(self.queue.as_ptr()) }
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        // SAFETY: topic and queue are valid. The stop waits until the client's threads have let go
        // of the queue, so it can be freed.
        unsafe {
            rd::rd_kafka_consume_stop(self.topic.raw.as_ptr(), self.partition);
            rd::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// Messages taken from a client. They are freed with the batch.
pub(crate) struct Batch<'a> {
    pointers: &'a mut Vec<*mut rd::rd_kafka_message_t>,
    topic: &'a Topic,
    partition: i32,
}

impl Batch<'_> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        self.pointers.iter().map(|raw| Message { raw: *raw, batch: self, life: PhantomData })
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for message in self.pointers.drain(..) {
            // SAFETY: ours since it was taken from the queue, and no `Message` outlives the batch.
            unsafe { rd::rd_kafka_message_destroy(message) };
        }
    }
}

/// One message, borrowed from its batch: a record, the end of the partition, or an error.
pub(crate) struct Message<'a> {
    raw: *mut rd::rd_kafka_message_t,
    batch: &'a Batch<'a>,
    life: PhantomData<&'a ()>,
}

impl<'a> Message<'a> {
    /// Zero for a record; else what it says instead.
    pub(crate) fn error(&self) -> i32 {
        // SAFETY: the message lives; the code is read as an integer (see the module's note).
        unsafe { (&raw const (*self.raw).err).cast::<i32>().read() }
    }

    /// The error's text, where there is an error.
    pub(crate) fn error_text(&self) -> String {
        let general = Code::new(self.error()).text;
        // SAFETY: in a message that is an error, the payload is its text.
        unsafe {
            let payload = bytes((*self.raw).payload, (*self.raw).len);
            payload
                .map(|b| String::from_utf8_lossy(b).trim_end_matches('\0').to_owned())
                .filter(|detail| !detail.is_empty())
                .unwrap_or(general)
        }
    }

    /// Whether the message is of the partition that is being read.
    pub(crate) fn is_of_assignment(&self) -> bool {
        // SAFETY: the message lives, and its topic with it.
        unsafe {
            let topic = (*self.raw).rkt;
            (*self.raw).partition == self.batch.partition
                && (topic == self.batch.topic.raw.as_ptr()
                    || (!topic.is_null()
                        && CStr::from_ptr(rd::rd_kafka_topic_name(topic))
                            == self.batch.topic.name.as_c_str()))
        }
    }

    pub(crate) fn offset(&self) -> i64 {
        // SAFETY: the message lives.
        unsafe { (*self.raw).offset }
    }

    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: the key lives as long as the message, which lives as long as the batch.
        unsafe { bytes((*self.raw).key, (*self.raw).key_len) }
    }

    pub(crate) fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: as for the key.
        unsafe { bytes((*self.raw).payload, (*self.raw).len) }
    }

    /// Milliseconds since the epoch (-1: none) and where they come from.
    pub(crate) fn timestamp(&self) -> (i64, TimestampType) {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message lives.
        let millis = unsafe { rd::rd_kafka_message_timestamp(self.raw, &mut kind) };
        match kind {
            rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => {
                (millis, TimestampType::CreateTime)
            }
            rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => {
                (millis, TimestampType::LogAppendTime)
            }
            rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => {
                (-1, TimestampType::NotAvailable)
            }
        }
    }

    /// The leader epoch of the record's batch, where the broker gives one.
    pub(crate) fn leader_epoch(&self) -> Option<LeaderEpoch> {
        // SAFETY: the message lives.
        let epoch = unsafe { rd::rd_kafka_message_leader_epoch(self.raw) };
        (epoch >= 0).then_some(LeaderEpoch(epoch))
    }

    /// The record's headers in their order. Each call parses them anew where there are none, which
    /// costs several allocations: call it once.
    pub(crate) fn headers(&self) -> Headers<'a> {
        let mut raw = null_mut();
        // SAFETY: the message lives; headers are parsed into it on demand and belong to it.
        let found = unsafe { rd::rd_kafka_message_headers(self.raw, &mut raw) };
        let raw = if found as i32 == 0 { raw } else { null_mut() };
        Headers { raw, next: 0, life: PhantomData }
    }
}

impl Headers<'_> {
    /// Headers that were not looked at.
    pub(crate) fn skipped() -> Self {
        Self { raw: null_mut(), next: 0, life: PhantomData }
    }
}

/// The headers of a message.
#[derive(Clone)]
pub(crate) struct Headers<'a> {
    raw: *mut rd::rd_kafka_headers_t,
    next: usize,
    life: PhantomData<&'a ()>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = RecordHeader<'a>;

    fn next(&mut self) -> Option<RecordHeader<'a>> {
        if self.raw.is_null() {
            return None;
        }
        let mut name: *const c_char = null();
        let mut value: *const c_void = null();
        let mut size = 0;
        // SAFETY: the headers belong to a living message; name and value live as long as it.
        unsafe {
            let found =
                rd::rd_kafka_header_get_all(self.raw, self.next, &mut name, &mut value, &mut size);
            if found as i32 != 0 || name.is_null() {
                return None;
            }
            self.next += 1;
            Some(RecordHeader { key: CStr::from_ptr(name).to_bytes(), value: bytes(value, size) })
        }
    }
}

/// Null is Kafka's null; an empty value has an address.
///
/// # Safety
/// `start` is null or points to `len` bytes that live as long as `'a`.
unsafe fn bytes<'a>(start: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) })
}
