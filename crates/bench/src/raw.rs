//! librdkafka's own limit: messages taken in batches and freed, nothing looked at but their length.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::ptr::null_mut;

use rdkafka::bindings as rd;

/// Consumes `records` messages of the first `partitions` partitions, from their starts.
pub(crate) fn consume(
    brokers: &str,
    topic: &str,
    partitions: i32,
    records: i64,
) -> anyhow::Result<()> {
    let properties = [
        ("bootstrap.servers", brokers),
        ("fetch.queue.backoff.ms", "2"),
        ("queued.min.messages", "10000000"),
        ("check.crcs", "true"),
    ];
    let topic = CString::new(topic)?;
    let mut reason = [0; 512];
    // SAFETY: a straight use of librdkafka's C interface; all strings outlive their calls, and every
    // handle is freed once, after what depends on it.
    unsafe {
        let conf = rd::rd_kafka_conf_new();
        for (key, value) in properties {
            let (key, value) = (CString::new(key)?, CString::new(value)?);
            rd::rd_kafka_conf_set(conf, key.as_ptr(), value.as_ptr(), reason.as_mut_ptr(), 512);
        }
        let kind = rd::rd_kafka_type_t::RD_KAFKA_CONSUMER;
        let client = rd::rd_kafka_new(kind, conf, reason.as_mut_ptr(), 512);
        if client.is_null() {
            anyhow::bail!("{}", CStr::from_ptr(reason.as_ptr()).to_string_lossy());
        }
        let handle = rd::rd_kafka_topic_new(client, topic.as_ptr(), null_mut());
        let queue = rd::rd_kafka_queue_new(client);
        for partition in 0..partitions {
            rd::rd_kafka_consume_start_queue(handle, partition, 0, queue);
        }
        let mut messages = vec![null_mut(); 4096];
        let mut count = 0;
        while count < records {
            let got =
                rd::rd_kafka_consume_batch_queue(queue, 10, messages.as_mut_ptr(), messages.len());
            for &message in &messages[..usize::try_from(got).unwrap_or(0)] {
                count += 1;
                rd::rd_kafka_message_destroy(message);
            }
        }
        for partition in 0..partitions {
            rd::rd_kafka_consume_stop(handle, partition);
        }
        rd::rd_kafka_queue_destroy(queue);
        rd::rd_kafka_topic_destroy(handle);
        rd::rd_kafka_destroy(client);
    }
    Ok(())
}
