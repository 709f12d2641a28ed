//! Questions to the brokers through librdkafka's admin API, awaited without blocking a thread.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as rd;
use tokio::sync::Notify;

use super::client::{self, Client};
use super::{Code, code, text};

/// After so long without an answer it is asked which brokers there are.
const SILENCE: Duration = Duration::from_millis(500);

/// One partition's answer to ListOffsets.
#[derive(Debug, Clone)]
pub(crate) struct ListedOffset {
    pub(crate) partition: i32,
    /// The offset; negative where the broker found none.
    pub(crate) offset: i64,
    /// -1 where the broker gave none.
    pub(crate) leader_epoch: i32,
    /// The timestamp of the record found, or -1.
    pub(crate) timestamp_ms: i64,
    /// Zero when the partition was answered.
    pub(crate) error: i32,
}

/// One topic's answer to DescribeTopics.
#[derive(Debug, Clone)]
pub(crate) struct DescribedTopic {
    pub(crate) name: String,
    /// Zero where the broker gave none.
    pub(crate) id: u128,
    pub(crate) internal: bool,
    pub(crate) partitions: Vec<i32>,
    pub(crate) error: Option<Code>,
    /// Whether its records may be read, where that was asked for and answered.
    pub(crate) readable: bool,
}

/// A queue for the answer to one question. Dropping it abandons the question.
pub(crate) struct AdminQueue {
    client: Arc<Client>,
    queue: NonNull<rd::rd_kafka_queue_t>,
    arrived: Arc<Notify>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for AdminQueue {}
// SAFETY: as above; the queue is locked inside librdkafka.
unsafe impl Sync for AdminQueue {}

/// # Safety
/// Called by librdkafka under the queue's lock with the opaque given below: a `Notify`.
unsafe extern "C" fn on_arrival(_rk: *mut rd::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: the queue's owner keeps the Notify until it has switched this callback off.
    if let Some(arrived) = unsafe { opaque.cast::<Notify>().as_ref() } {
        arrived.notify_one();
    }
}

impl Drop for AdminQueue {
    fn drop(&mut self) {
        // SAFETY: the queue is ours. Switching the callback off takes the queue's lock, so that it
        // is not running afterwards.
        unsafe {
            rd::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, null_mut());
            rd::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// Options of one admin request.
struct Options(*mut rd::rd_kafka_AdminOptions_t);

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by rd_kafka_AdminOptions_new and owned here.
        unsafe { rd::rd_kafka_AdminOptions_destroy(self.0) };
    }
}

/// An answer.
struct Event(NonNull<rd::rd_kafka_event_t>);

// SAFETY: an event has one owner and is tied to no thread.
unsafe impl Send for Event {}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: owned here.
        unsafe { rd::rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}

impl AdminQueue {
    /// Opens a queue. `None` when librdkafka is out of memory.
    pub(crate) fn new(client: &Arc<Client>) -> Option<Self> {
        let arrived = Arc::new(Notify::new());
        // SAFETY: the client lives as long as the queue; so does the Notify (see `Drop`).
        let queue = unsafe {
            let queue = NonNull::new(rd::rd_kafka_queue_new(client.raw()))?;
            rd::rd_kafka_queue_cb_event_enable(
                queue.as_ptr(),
                Some(on_arrival),
                Arc::as_ptr(&arrived).cast_mut().cast::<c_void>(),
            );
            queue
        };
        Some(Self { client: Arc::clone(client), queue, arrived })
    }

    /// Asks for offsets of partitions of one topic. `specs` holds partitions with what is asked of
    /// them: -2 the log start, -1 the end, -3 the record with the greatest timestamp, or a timestamp
    /// in milliseconds. `committed` asks for the last stable offset as the end.
    pub(crate) async fn list_offsets(
        &self,
        topic: &str,
        specs: &[(i32, i64)],
        committed: bool,
        timeout: Duration,
    ) -> Result<Vec<ListedOffset>, Code> {
        self.ask_list_offsets(topic, specs, committed, timeout)?;
        let event = self.answer(timeout).await?;
        // SAFETY: the result and its infos live as long as the event; their error codes are read as
        // integers.
        unsafe {
            let result = rd::rd_kafka_event_ListOffsets_result(event.0.as_ptr());
            if result.is_null() {
                return Err(Code::new(code::UNSUPPORTED_FEATURE));
            }
            let mut count = 0;
            let infos = rd::rd_kafka_ListOffsets_result_infos(result, &mut count);
            Ok((0..count)
                .map(|i| {
                    let info = *infos.add(i);
                    let partition = rd::rd_kafka_ListOffsetsResultInfo_topic_partition(info);
                    ListedOffset {
                        partition: (*partition).partition,
                        offset: (*partition).offset,
                        leader_epoch: rd::rd_kafka_topic_partition_get_leader_epoch(partition),
                        timestamp_ms: rd::rd_kafka_ListOffsetsResultInfo_timestamp(info),
                        error: (&raw const (*partition).err).cast::<i32>().read(),
                    }
                })
                .collect())
        }
    }

    fn ask_list_offsets(
        &self,
        topic: &str,
        specs: &[(i32, i64)],
        committed: bool,
        timeout: Duration,
    ) -> Result<(), Code> {
        let topic = c_string(topic)?;
        let op = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
        let options = self.options(op, timeout);
        let isolation = if committed {
            rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED
        } else {
            rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
        };
        let capacity = c_int::try_from(specs.len()).unwrap_or(0);
        // SAFETY: the list is made, filled, copied by the call and freed here; the names are valid
        // during the calls.
        unsafe {
            let error = rd::rd_kafka_AdminOptions_set_isolation_level(options.0, isolation);
            if !error.is_null() {
                let failed = Code::new(rd::rd_kafka_error_code(error) as i32);
                rd::rd_kafka_error_destroy(error);
                return Err(failed);
            }
            let list = rd::rd_kafka_topic_partition_list_new(capacity);
            for (partition, spec) in specs {
                let added = rd::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), *partition);
                (*added).offset = *spec;
            }
            rd::rd_kafka_ListOffsets(self.client.raw(), list, options.0, self.queue.as_ptr());
            rd::rd_kafka_topic_partition_list_destroy(list);
        }
        Ok(())
    }

    /// Asks what the topics of these names are, and `with_rights` what may be done with them. Unknown ones carry an
    /// error each.
    pub(crate) async fn describe_topics(
        &self,
        names: &[&str],
        with_rights: bool,
        timeout: Duration,
    ) -> Result<Vec<DescribedTopic>, Code> {
        self.ask_describe_topics(names, with_rights, timeout)?;
        let event = self.answer(timeout).await?;
        // SAFETY: everything reached from the result lives as long as the event.
        unsafe {
            let result = rd::rd_kafka_event_DescribeTopics_result(event.0.as_ptr());
            if result.is_null() {
                return Err(Code::new(code::UNSUPPORTED_FEATURE));
            }
            let mut count = 0;
            let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
            Ok((0..count).map(|i| described(*topics.add(i))).collect())
        }
    }

    fn ask_describe_topics(
        &self,
        names: &[&str],
        with_rights: bool,
        timeout: Duration,
    ) -> Result<(), Code> {
        let names: Vec<CString> = names.iter().map(|n| c_string(n)).collect::<Result<_, _>>()?;
        let mut pointers: Vec<*const c_char> = names.iter().map(|n| n.as_ptr()).collect();
        let op = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = self.options(op, timeout);
        // SAFETY: the names live during the calls; librdkafka copies them; the collection is freed.
        unsafe {
            let refused = rd::rd_kafka_AdminOptions_set_include_authorized_operations(
                options.0,
                c_int::from(with_rights),
            );
            if !refused.is_null() {
                rd::rd_kafka_error_destroy(refused);
                return Err(Code::new(code::UNSUPPORTED_FEATURE));
            }
            let collection =
                rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            rd::rd_kafka_DescribeTopics(
                self.client.raw(),
                collection,
                options.0,
                self.queue.as_ptr(),
            );
            rd::rd_kafka_TopicCollection_destroy(collection);
        }
        Ok(())
    }

    /// Asks for a topic's configuration, defaults included.
    pub(crate) async fn topic_config(
        &self,
        topic: &str,
        timeout: Duration,
    ) -> Result<BTreeMap<String, String>, Code> {
        self.ask_topic_config(topic, timeout)?;
        let event = self.answer(timeout).await?;
        // SAFETY: everything reached from the result lives as long as the event.
        unsafe {
            let result = rd::rd_kafka_event_DescribeConfigs_result(event.0.as_ptr());
            if result.is_null() {
                return Err(Code::new(code::UNSUPPORTED_FEATURE));
            }
            let mut count = 0;
            let resources = rd::rd_kafka_DescribeConfigs_result_resources(result, &mut count);
            if count == 0 {
                return Ok(BTreeMap::new());
            }
            let resource = *resources;
            let error = rd::rd_kafka_ConfigResource_error(resource) as i32;
            if error != 0 {
                let detail = text(rd::rd_kafka_ConfigResource_error_string(resource));
                return Err(Code::with_text(error, detail));
            }
            let entries = rd::rd_kafka_ConfigResource_configs(resource, &mut count);
            Ok((0..count)
                .map(|i| {
                    let entry = *entries.add(i);
                    let name = text(rd::rd_kafka_ConfigEntry_name(entry));
                    (name, text(rd::rd_kafka_ConfigEntry_value(entry)))
                })
                .collect())
        }
    }

    fn ask_topic_config(&self, topic: &str, timeout: Duration) -> Result<(), Code> {
        let topic = c_string(topic)?;
        let op = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
        let options = self.options(op, timeout);
        // SAFETY: the resource is made, copied by the call and freed here.
        unsafe {
            let mut resource = rd::rd_kafka_ConfigResource_new(
                rd::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC,
                topic.as_ptr(),
            );
            rd::rd_kafka_DescribeConfigs(
                self.client.raw(),
                &mut resource,
                1,
                options.0,
                self.queue.as_ptr(),
            );
            rd::rd_kafka_ConfigResource_destroy(resource);
        }
        Ok(())
    }

    fn options(&self, op: rd::rd_kafka_admin_op_t, timeout: Duration) -> Options {
        let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX).clamp(1, 3_600_000);
        let mut reason = [0u8; 256];
        // SAFETY: the client is valid; the time-out lies in the range the function accepts.
        unsafe {
            let options = rd::rd_kafka_AdminOptions_new(self.client.raw(), op);
            rd::rd_kafka_AdminOptions_set_request_timeout(
                options,
                millis,
                reason.as_mut_ptr().cast::<c_char>(),
                reason.len(),
            );
            Options(options)
        }
    }

    /// Waits for the answer; an answer that is an error as a whole becomes one.
    async fn answer(&self, timeout: Duration) -> Result<Event, Code> {
        // librdkafka sends many questions to the broker that was named as the controller when it last
        // asked, and asks anew after minutes only: were that one gone, all would wait for it.
        let look_around = async {
            loop {
                tokio::time::sleep(SILENCE).await;
                let client = Arc::clone(&self.client);
                let ms = c_int::try_from(SILENCE.as_millis()).unwrap_or(c_int::MAX);
                let looked = move || client::refresh_brokers(&client, ms);
                // However it goes: the question is still there.
                let _ = tokio::task::spawn_blocking(looked).await;
            }
        };
        let waited = tokio::time::timeout(timeout, async {
            loop {
                // SAFETY: the queue is valid; an event polled from it is ours.
                let polled = unsafe { rd::rd_kafka_queue_poll(self.queue.as_ptr(), 0) };
                if let Some(event) = NonNull::new(polled) {
                    return Event(event);
                }
                self.arrived.notified().await;
            }
        });
        let waited = tokio::select! {
            waited = waited => waited,
            never = look_around => never,
        };
        let Ok(event) = waited else {
            return Err(Code::new(code::TIMED_OUT));
        };
        // SAFETY: the event is valid; the string lives as long as it.
        unsafe {
            match rd::rd_kafka_event_error(event.0.as_ptr()) as i32 {
                0 => Ok(event),
                failed => {
                    let detail = text(rd::rd_kafka_event_error_string(event.0.as_ptr()));
                    Err(Code::with_text(failed, detail))
                }
            }
        }
    }

    /// Names and partitions of all topics, without ids. Blocks.
    pub(crate) fn all_topics_blocking(
        client: &Client,
        timeout: Duration,
    ) -> Result<Vec<(String, Vec<i32>)>, Code> {
        client::all_topics(client, c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX))
    }

    /// The cluster's id. Blocks.
    pub(crate) fn cluster_id_blocking(client: &Client, timeout: Duration) -> Option<String> {
        client::cluster_id(client, c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX))
    }
}

/// # Safety
/// `topic` is a description that lives during the call.
unsafe fn described(topic: *const rd::rd_kafka_TopicDescription_t) -> DescribedTopic {
    // SAFETY: the caller's promise; what the functions return belongs to the description.
    unsafe {
        let error = rd::rd_kafka_TopicDescription_error(topic);
        let error = if error.is_null() { 0 } else { rd::rd_kafka_error_code(error) as i32 };
        let id = rd::rd_kafka_TopicDescription_topic_id(topic);
        let id = if id.is_null() {
            0
        } else {
            let high = rd::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
            let low = rd::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
            (u128::from(high) << 64) | u128::from(low)
        };
        let mut count = 0;
        let infos = rd::rd_kafka_TopicDescription_partitions(topic, &mut count);
        let mut rights = 0;
        let operations = rd::rd_kafka_TopicDescription_authorized_operations(topic, &mut rights);
        let read = rd::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ as i32;
        // They are read as integers: a later broker may name one that the binding does not know.
        let readable = !operations.is_null()
            && (0..rights).any(|i| operations.add(i).cast::<i32>().read() == read);
        DescribedTopic {
            readable,
            name: text(rd::rd_kafka_TopicDescription_name(topic)),
            id,
            internal: rd::rd_kafka_TopicDescription_is_internal(topic) != 0,
            partitions: (0..count)
                .map(|i| rd::rd_kafka_TopicPartitionInfo_partition(*infos.add(i)))
                .collect(),
            error: (error != 0).then(|| Code::new(error)),
        }
    }
}

fn c_string(text: &str) -> Result<CString, Code> {
    CString::new(text).map_err(|_| Code::new(code::INVALID_TOPIC))
}
