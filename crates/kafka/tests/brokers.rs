//! Against real brokers: set `ISK_TEST_BOOTSTRAP`. Without it each test says that it did not run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

mod common;

use std::time::{Duration, Instant};

use common::{
    cluster, create, eventually, impatient, range, read, read_limited, tp, write, writer,
};
use isk_kafka::{FetchError, FetchLimits, FetchPath, KafkaCluster, KafkaError};
use isk_model::{KafkaPartition, Offset, TimestampType, TopicName};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_read_exactly_in_blocks_counted_from_their_start() {
    let brokers = brokers_or_return!();
    let topic = create(&brokers, "plain", 1, &[]).await;
    let tp = tp(&topic, 0);
    write(&writer(&brokers, &[]), &tp, 0, 20_000);
    let cluster = cluster(&brokers);
    for (start, end) in [(0, 20_000), (0, 1), (19_999, 20_000), (8191, 8193), (100, 17_000)] {
        let rows = read(&cluster, &tp, range(start, end)).await.unwrap();
        assert_eq!(rows.len() as i64, end - start);
        for (row, n) in rows.iter().zip(start..) {
            assert_eq!(row.offset, n);
            assert_eq!(row.key, Some(n.to_string()));
            assert_eq!(row.value, Some(common::value_of(n)));
        }
    }
    let mut stream = cluster.fetch(&tp, range(10, 20_000), FetchLimits::default());
    let mut sizes = Vec::new();
    while let Some(block) = stream.next().await {
        let block = block.unwrap();
        let first = block.get(0).unwrap();
        assert_eq!(first.timestamp_ms, 1_000_000 + first.offset.0);
        assert_eq!(first.timestamp_type, TimestampType::CreateTime);
        assert_eq!(first.headers().next().unwrap().key, b"n");
        assert!(block.last_leader_epoch().is_some());
        sizes.push(block.len());
    }
    assert_eq!(sizes, [8192, 8192, 20_000 - 10 - 2 * 8192]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nulls_and_empties_are_told_apart() {
    let brokers = brokers_or_return!();
    let topic = create(&brokers, "nulls", 1, &[]).await;
    let writer = writer(&brokers, &[]);
    let record = || BaseRecord::<[u8], [u8]>::to(topic.as_str()).partition(0);
    let headers = OwnedHeaders::new()
        .insert(Header { key: "null", value: None::<&[u8]> })
        .insert(Header { key: "empty", value: Some(b"") })
        .insert(Header { key: "null", value: Some(b"again") });
    writer.send(record().key(b"k")).map_err(|(e, _)| e).unwrap();
    writer.send(record().payload(b"v")).map_err(|(e, _)| e).unwrap();
    writer.send(record().key(b"").payload(b"").headers(headers)).map_err(|(e, _)| e).unwrap();
    writer.flush(Duration::from_secs(10)).unwrap();
    let mut stream = cluster(&brokers).fetch(&tp(&topic, 0), range(0, 3), FetchLimits::default());
    let block = stream.next().await.unwrap().unwrap();
    let rows: Vec<_> = block.iter().map(|r| (r.key, r.value)).collect();
    let expected: [(Option<&[u8]>, Option<&[u8]>); 3] =
        [(Some(b"k"), None), (None, Some(b"v")), (Some(b""), Some(b""))];
    assert_eq!(rows, expected);
    let headers: Vec<_> = block.get(2).unwrap().headers().map(|h| (h.key, h.value)).collect();
    let expected: [(&[u8], Option<&[u8]>); 3] =
        [(b"null", None), (b"empty", Some(b"")), (b"null", Some(b"again"))];
    assert_eq!(headers, expected);
    assert!(stream.next().await.is_none());
    let cluster = cluster(&brokers);
    let mut stream =
        cluster.fetch_without_headers(&tp(&topic, 0), range(0, 3), FetchLimits::default());
    let block = stream.next().await.unwrap().unwrap();
    assert_eq!(block.get(2).unwrap().headers().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_committed_records_are_read_up_to_the_last_stable_offset() {
    let brokers = brokers_or_return!();
    let topic = create(&brokers, "transactions", 1, &[]).await;
    let tp = tp(&topic, 0);
    let id = format!("{topic}-writer");
    let writer = writer(&brokers, &[("transactional.id", &id)]);
    let patience = Duration::from_secs(30);
    writer.init_transactions(patience).unwrap();
    // 0..10 committed, marker 10; 11..21 aborted, marker 21; 22..32 committed, marker 32; 33.. open.
    for (from, commit) in [(0, Some(true)), (10, Some(false)), (20, Some(true)), (30, None)] {
        writer.begin_transaction().unwrap();
        write(&writer, &tp, from, from + 10);
        match commit {
            Some(true) => writer.commit_transaction(patience).unwrap(),
            Some(false) => writer.abort_transaction(patience).unwrap(),
            None => {}
        }
    }
    let cluster = impatient(&brokers);
    let offsets = async || cluster.offsets(&topic, &[tp.partition]).await.unwrap()[&tp.partition];
    eventually("the last marker", async || offsets().await.last_stable == Offset(33)).await;
    let keys = |rows: Vec<common::Read>| -> Vec<i64> {
        rows.into_iter().map(|r| r.key.unwrap().parse().unwrap()).collect()
    };
    let committed: Vec<i64> = (0..10).chain(20..30).collect();
    // The end of the log as readers see it is a marker: only the end of the partition proves it.
    assert_eq!(keys(read(&cluster, &tp, range(0, 33)).await.unwrap()), committed);
    // A range that holds nothing but aborted records and markers.
    assert_eq!(keys(read(&cluster, &tp, range(10, 22)).await.unwrap()), Vec::<i64>::new());
    assert_eq!(keys(read(&cluster, &tp, range(5, 25)).await.unwrap()), [5, 6, 7, 8, 9, 20, 21, 22]);
    // Behind it an open transaction: nothing may be shown, and the range is not complete.
    let error = read(&cluster, &tp, range(22, 40)).await.unwrap_err();
    assert!(matches!(error, FetchError::EndNotReached { reached: Offset(33), .. }), "{error}");
    // A fetch that waits at the open transaction gets its records once they are committed.
    let waiting = {
        let (cluster, tp) = (common::cluster(&brokers), tp.clone());
        tokio::spawn(async move { read(&cluster, &tp, range(22, 44)).await })
    };
    writer.commit_transaction(patience).unwrap();
    let expected: Vec<i64> = (20..40).collect();
    assert_eq!(keys(waiting.await.unwrap().unwrap()), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_range_is_complete_with_the_records_that_are_left() {
    let brokers = brokers_or_return!();
    let config = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("min.compaction.lag.ms", "0"),
    ];
    let topic = create(&brokers, "compacted", 1, &config).await;
    let tp = tp(&topic, 0);
    let writer = writer(&brokers, &[]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = now.as_millis() as i64;
    for n in 0..1000 {
        let (key, value) = (format!("k{}", n % 10), n.to_string());
        let record = BaseRecord::to(topic.as_str()).partition(0).key(&key).payload(&value);
        writer.send(record.timestamp(now)).map_err(|(e, _)| e).unwrap();
    }
    writer.flush(Duration::from_secs(10)).unwrap();
    let cluster = cluster(&brokers);
    let mut next = 1000;
    eventually("compaction", async || {
        // A new record rolls the segment, so that the cleaner may touch it.
        let record = BaseRecord::to(topic.as_str()).partition(0).key("roll").payload("r");
        writer.send(record).map_err(|(e, _)| e).unwrap();
        writer.flush(Duration::from_secs(10)).unwrap();
        next += 1;
        read(&cluster, &tp, range(0, 1000)).await.unwrap().len() == 10
    })
    .await;
    let left = read(&cluster, &tp, range(0, 1000)).await.unwrap();
    let offsets: Vec<i64> = left.iter().map(|r| r.offset).collect();
    assert_eq!(offsets, (990..1000).collect::<Vec<_>>());
    assert_eq!(read(&cluster, &tp, range(100, 500)).await.unwrap(), []);
    assert_eq!(read(&cluster, &tp, range(500, 993)).await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_are_named_as_expired() {
    let brokers = brokers_or_return!();
    let topic = create(&brokers, "expired", 1, &[]).await;
    let tp = tp(&topic, 0);
    write(&writer(&brokers, &[]), &tp, 0, 1000);
    let cluster = cluster(&brokers);
    assert_eq!(read(&cluster, &tp, range(0, 1000)).await.unwrap().len(), 1000);
    common::delete_records(&brokers, &tp, 600).await;
    let begun = Instant::now();
    let error = read(&cluster, &tp, range(100, 700)).await.unwrap_err();
    assert!(
        matches!(error, FetchError::Expired { offset: Offset(100), log_start: Offset(600), .. }),
        "{error}"
    );
    assert!(!error.is_transient());
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(read(&cluster, &tp, range(600, 1000)).await.unwrap().len(), 400);
    let offsets = cluster.offsets(&topic, &[tp.partition]).await.unwrap()[&tp.partition];
    assert_eq!((offsets.log_start, offsets.last_stable), (Offset(600), Offset(1000)));
    assert!(offsets.leader_epoch.0 >= 0);
    // Past the end: not expired.
    let error = read(&cluster, &tp, range(5000, 5001)).await.unwrap_err();
    assert!(matches!(error, FetchError::Rewritten { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_under_its_name_is_noticed() {
    let brokers = brokers_or_return!();
    let topic = create(&brokers, "again", 1, &[]).await;
    let tp = tp(&topic, 0);
    let cluster = impatient(&brokers);
    write(&writer(&brokers, &[]), &tp, 0, 100);
    let id = cluster.topic(&topic).await.unwrap().unwrap().id;
    let limits = FetchLimits { topic_id: Some(id), ..FetchLimits::default() };
    assert_eq!(read_limited(&cluster, &tp, range(0, 50), limits).await.unwrap().len(), 50);
    common::delete_topic(&brokers, &topic).await;
    eventually("the deletion", async || cluster.topic(&topic).await.unwrap().is_none()).await;
    common::create_named(&brokers, &topic, 1, &[]).await;
    write(&writer(&brokers, &[]), &tp, 500, 700);
    let again = cluster.topic(&topic).await.unwrap().unwrap().id;
    assert_ne!(id, again);
    let error = read_limited(&cluster, &tp, range(0, 50), limits).await.unwrap_err();
    assert!(matches!(error, FetchError::Rewritten { .. } | FetchError::Timeout { .. }), "{error}");
    let limits = FetchLimits { topic_id: Some(again), ..FetchLimits::default() };
    let rows = read_limited(&cluster, &tp, range(0, 50), limits).await.unwrap();
    assert_eq!(rows[0].key.as_deref(), Some("500"));
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_found_by_time() {
    let brokers = brokers_or_return!();
    let topic = create(&brokers, "times", 2, &[]).await;
    let cluster = cluster(&brokers);
    let (zero, one) = (KafkaPartition(0), KafkaPartition(1));
    write(&writer(&brokers, &[]), &tp(&topic, 0), 0, 100);
    let ask = async |ms| cluster.offsets_for_times(&topic, &[(zero, ms), (one, ms)]).await.unwrap();
    let found = ask(1_000_040).await;
    assert_eq!((found[&zero], found[&one]), (Some(Offset(40)), None));
    assert_eq!(ask(1_000_100).await[&zero], None);
    assert_eq!(ask(-5).await[&zero], Some(Offset(0)));
    let greatest = cluster.max_timestamps(&topic, &[zero, one]).await.unwrap();
    assert_eq!((greatest[&zero], greatest[&one]), (Some((Offset(99), 1_000_099)), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_times_are_looked_up_together() {
    let brokers = brokers_or_return!();
    let topic = create(&brokers, "many-times", 100, &[]).await;
    let cluster = cluster(&brokers);
    let writer = writer(&brokers, &[]);
    for partition in 0..100 {
        write(&writer, &tp(&topic, partition), 0, 100);
    }
    // Clocks that run out of order, and no answer for one partition that does not exist.
    let asked: Vec<(KafkaPartition, i64)> = (0..100)
        .flat_map(|p| (0..9).map(move |n| (KafkaPartition(p), 1_000_000 + n * 10)))
        .collect();
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        let found = cluster.first_offsets_at(&topic, &asked).await.unwrap();
        times.push(begun.elapsed());
        let expected = asked.iter().map(|(_, time)| Some(Offset(time - 1_000_000)));
        assert!(found.into_iter().eq(expected));
    }
    times.sort();
    eprintln!("9 times of 100 partitions: median {:?}, worst {:?}", times[10], times[19]);
    let late = [(KafkaPartition(0), 1_000_050), (KafkaPartition(0), 2_000_000)];
    let found = cluster.first_offsets_at(&topic, &late).await.unwrap();
    assert_eq!(found, [Some(Offset(50)), None]);
    let missing = TopicName::new("there-is-no-such-topic").unwrap();
    let error = cluster.first_offsets_at(&missing, &late).await.unwrap_err();
    assert!(matches!(error, KafkaError::NoSuchTopic { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_holds_the_last_stable_offset_back() {
    let brokers = brokers_or_return!();
    let topic = create(&brokers, "held", 1, &[]).await;
    let cluster = cluster(&brokers);
    write(&writer(&brokers, &[]), &tp(&topic, 0), 0, 10);
    let open = writer(&brokers, &[("transactional.id", topic.as_str())]);
    open.init_transactions(Duration::from_secs(10)).unwrap();
    open.begin_transaction().unwrap();
    write(&open, &tp(&topic, 0), 10, 15);
    let ends = async || {
        let zero = [KafkaPartition(0)];
        let written = cluster.high_watermarks(&topic, &zero).await.unwrap()[&zero[0]];
        let stable = cluster.offsets(&topic, &zero).await.unwrap()[&zero[0]].last_stable;
        (written.0, stable.0)
    };
    assert_eq!(ends().await, (15, 10));
    open.abort_transaction(Duration::from_secs(10)).unwrap();
    eventually("the marker", async || ends().await == (16, 16)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_described() {
    let brokers = brokers_or_return!();
    let topic = create(&brokers, "described", 3, &[("cleanup.policy", "compact")]).await;
    let cluster = cluster(&brokers);
    let described = cluster.topic(&topic).await.unwrap().unwrap();
    assert_ne!(described.id.0, 0);
    assert!(!described.internal);
    assert_eq!(described.partitions, [0, 1, 2].map(KafkaPartition));
    assert!(cluster.topics().await.unwrap().contains(&described));
    assert_eq!(cluster.topic_config(&topic).await.unwrap()["cleanup.policy"], "compact");
    let missing = TopicName::new("there-is-no-such-topic").unwrap();
    assert_eq!(cluster.topic(&missing).await.unwrap(), None);
    let error = cluster.offsets(&missing, &[KafkaPartition(0)]).await.unwrap_err();
    assert!(matches!(error, KafkaError::NoSuchTopic { .. }), "{error}");
    let error = cluster.topic_config(&missing).await.unwrap_err();
    assert!(matches!(error, KafkaError::NoSuchTopic { .. }), "{error}");
    let error = cluster.offsets(&topic, &[KafkaPartition(7)]).await.unwrap_err();
    assert!(matches!(error, KafkaError::NoSuchTopic { .. }), "{error}");
    let id = cluster.cluster_id().await.unwrap();
    assert!(!id.is_empty());
    for tp in [tp(&missing, 0), tp(&topic, 7)] {
        let error = read(&cluster, &tp, range(0, 1)).await.unwrap_err();
        assert!(matches!(error, FetchError::NoSuchPartition { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_offsets_of_a_hundred_partitions_are_one_quick_question() {
    let brokers = brokers_or_return!();
    let topic = create(&brokers, "hundred", 100, &[]).await;
    let cluster = cluster(&brokers);
    let all: Vec<_> = (0..100).map(KafkaPartition).collect();
    cluster.offsets(&topic, &all).await.unwrap();
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        assert_eq!(cluster.offsets(&topic, &all).await.unwrap().len(), 100);
        times.push(begun.elapsed());
    }
    times.sort();
    eprintln!("offsets of 100 partitions, warm: median {:?}, worst {:?}", times[10], times[19]);
    assert!(times[10] < Duration::from_millis(100), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pooled_clients_never_mix_ranges_up() {
    let brokers = brokers_or_return!();
    let topics =
        [create(&brokers, "pool-a", 2, &[]).await, create(&brokers, "pool-b", 1, &[]).await];
    let tps = [tp(&topics[0], 0), tp(&topics[0], 1), tp(&topics[1], 0)];
    let writer = writer(&brokers, &[]);
    // Each partition's records carry numbers of their own.
    let base = |i: usize| 1_000_000 * i as i64;
    for (i, tp) in tps.iter().enumerate() {
        write(&writer, tp, base(i), base(i) + 30_000);
    }
    let mut config = common::config(&brokers);
    config.max_concurrent_fetches = 3;
    let cluster = KafkaCluster::connect(config).unwrap();
    let mut seed = 42u64;
    let mut random = |below: i64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as i64 % below
    };
    let mut running = tokio::task::JoinSet::new();
    for round in 0..200 {
        let i = random(3) as usize;
        let start = random(29_000);
        let longest = if round % 3 == 0 { 30_000 } else { 300 };
        let end = (start + 1 + random(longest)).min(30_000);
        let (cluster, tp) = (cluster.clone(), tps[i].clone());
        let abandon = round % 7 == 0;
        running.spawn(async move {
            if abandon {
                let mut stream = cluster.fetch(&tp, range(start, end), FetchLimits::default());
                stream.next().await.unwrap().unwrap();
                return;
            }
            let rows = read(&cluster, &tp, range(start, end)).await.unwrap();
            assert_eq!(rows.len() as i64, end - start);
            for (row, n) in rows.iter().zip(start..) {
                assert_eq!((row.offset, row.key.clone()), (n, Some((base(i) + n).to_string())));
            }
        });
        if running.len() >= 6 {
            running.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    let metrics = cluster.metrics().snapshot();
    eprintln!("200 ranges: {metrics:?}");
    assert_eq!(metrics.fetch_errors, 0);
    assert!(metrics.clients_opened < 60, "{metrics:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn little_more_is_fetched_than_was_asked_for() {
    let brokers = brokers_or_return!();
    let topic = create(&brokers, "overfetch", 1, &[]).await;
    let tp = tp(&topic, 0);
    // A broker answers with whole batches at least.
    let writer = writer(&brokers, &[("batch.size", "16384")]);
    let value = "v".repeat(200);
    for _ in 0..300_000 {
        let record = BaseRecord::<(), _>::to(topic.as_str()).partition(0).payload(&value);
        writer.send(record).map_err(|(e, _)| e).unwrap();
    }
    writer.flush(Duration::from_secs(60)).unwrap();
    let cluster = cluster(&brokers);
    for (span, most) in [(10, 600 << 10), (100_000, (100_000 * 210) + (16 << 20))] {
        let before = cluster.metrics().snapshot();
        assert_eq!(read(&cluster, &tp, range(1000, 1000 + span)).await.unwrap().len() as i64, span);
        let after = cluster.metrics().snapshot();
        let wire = after.wire_bytes - before.wire_bytes;
        let records = after.records_fetched - before.records_fetched;
        eprintln!("{span} records asked for: {records} records, {wire} bytes fetched");
        assert!(wire < most, "{span}: {wire}");
        assert!(wire >= 200 * span as u64 && records >= span as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_larger_than_every_buffer_is_read() {
    let brokers = brokers_or_return!();
    let config = [("max.message.bytes", "20000000")];
    let topic = create(&brokers, "large", 1, &config).await;
    let tp = tp(&topic, 0);
    let writer = writer(&brokers, &[]);
    let value = "L".repeat(10 << 20);
    for _ in 0..3 {
        let record = BaseRecord::<(), _>::to(topic.as_str()).partition(0).payload(&value);
        writer.send(record).map_err(|(e, _)| e).unwrap();
    }
    writer.flush(Duration::from_secs(60)).unwrap();
    let cluster = cluster(&brokers);
    let mut stream = cluster.fetch(&tp, range(0, 3), FetchLimits::default());
    let mut sizes = Vec::new();
    while let Some(block) = stream.next().await {
        let block = block.unwrap();
        sizes.push((block.len(), block.payload_bytes()));
    }
    // Two would exceed a block's bytes.
    assert_eq!(sizes, [(1, 10 << 20); 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_come_up_later_are_found() {
    let brokers = brokers_or_return!();
    let topic = create(&brokers, "later", 1, &[]).await;
    let tp = tp(&topic, 0);
    write(&writer(&brokers, &[]), &tp, 0, 10);
    // A port that nobody listens on yet; later it leads to the broker.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let cluster = impatient(&port.to_string());
    let error = cluster.offsets(&topic, &[tp.partition]).await.unwrap_err();
    assert!(matches!(error, KafkaError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&port.to_string()) && text.contains("refused"), "{text}");
    let error = read(&cluster, &tp, range(0, 10)).await.unwrap_err();
    assert!(matches!(error, FetchError::Timeout { .. }), "{error}");
    assert!(error.is_transient() && error.to_string().contains("refused"), "{error}");
    let waiting = {
        let (cluster, tp) = (cluster.clone(), tp.clone());
        tokio::spawn(async move { read(&cluster, &tp, range(0, 10)).await })
    };
    let listener = TcpListener::bind(port).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(&brokers).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        }
    });
    assert_eq!(waiting.await.unwrap().unwrap().len(), 10);
    assert_eq!(cluster.offsets(&topic, &[tp.partition]).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_fetch_that_its_reader_left_is_no_error() {
    let brokers = brokers_or_return!();
    let topic = create(&brokers, "left", 1, &[]).await;
    let tp = tp(&topic, 0);
    write(&writer(&brokers, &[]), &tp, 0, 200_000);
    let cluster = cluster(&brokers);
    let other = cluster.clone();
    // On the one worker there is, so that the fetch's own task does not run while this one sleeps.
    let leaving = tokio::spawn(async move {
        for _ in 0..20 {
            let mut stream = other.fetch(&tp, range(0, 200_000), FetchLimits::default());
            stream.next().await.unwrap().unwrap();
            drop(stream);
            std::thread::sleep(Duration::from_millis(400));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    leaving.await.unwrap();
    assert_eq!(cluster.metrics().snapshot().fetch_errors, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_of_fetching_give_the_same_blocks() {
    let brokers = brokers_or_return!();
    let topic = create(&brokers, "both", 1, &[]).await;
    let tp = tp(&topic, 0);
    let mut end = 0;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        for size in ["1000000", "4000"] {
            let more = [("compression.type", codec), ("batch.size", size)];
            let writer = writer(&brokers, &more);
            write(&writer, &tp, end, end + 5_000);
            for n in 0..10 {
                let record = BaseRecord::<_, [u8]>::to(topic.as_str()).partition(0).key("gone");
                writer.send(record.timestamp(n)).map_err(|(e, _)| e).unwrap();
            }
            writer.flush(Duration::from_secs(10)).unwrap();
            end += 5_010;
        }
        let id = format!("{topic}-{codec}");
        let more = [("transactional.id", id.as_str()), ("compression.type", codec)];
        let writer = writer(&brokers, &more);
        let patience = Duration::from_secs(30);
        writer.init_transactions(patience).unwrap();
        for commit in [true, false, true] {
            writer.begin_transaction().unwrap();
            write(&writer, &tp, end, end + 100);
            if commit {
                writer.commit_transaction(patience).unwrap();
            } else {
                writer.abort_transaction(patience).unwrap();
            }
            end += 101;
        }
    }
    let cluster = cluster(&brokers);
    let offsets = async || cluster.offsets(&topic, &[tp.partition]).await.unwrap()[&tp.partition];
    eventually("the last marker", async || offsets().await.last_stable == Offset(end)).await;
    for (start, end) in [(0, end), (7, end - 1), (5_009, 5_010), (5_100, 30_500), (end - 1, end)] {
        let [ours, theirs] = [FetchPath::Batches, FetchPath::Librdkafka]
            .map(|path| common::blocks(&brokers, path, &tp, range(start, end)));
        let (ours, theirs) = (ours.await, theirs.await);
        assert_eq!(ours.len(), theirs.len(), "{start}..{end}");
        assert!(ours == theirs, "{start}..{end}: the blocks differ");
        assert!(end - start < 300 || !ours.is_empty());
    }
}
