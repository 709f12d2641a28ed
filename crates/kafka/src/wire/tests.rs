//! Batches as other encoders make them, whole and broken.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction as WireAborted, EpochEndOffset, FetchableTopicResponse, PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchResponse, ProducerId};
use kafka_protocol::protocol::{Encodable, StrBytes};
use kafka_protocol::records::{
    Compression, Record as Made, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use proptest::prelude::*;

use super::aborted::Aborted;
use super::answer::{self, AbortedTransaction, Partition};
use super::batch::{BatchError, Batches};
use super::records::Records;
use super::unpack::Unpacker;

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

type Read = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

/// Record `n`: keys, values and headers come and go.
fn made(n: i64, producer: Option<i64>, control: bool) -> Made {
    let text = |what: &str| Bytes::from(format!("{what} {n} {}", "x".repeat((n % 90) as usize)));
    let headers = (0..n % 3).map(|h| {
        let value = (h == 0).then(|| text("header"));
        (StrBytes::from_string(format!("h{h}")), value)
    });
    Made {
        transactional: producer.is_some(),
        control,
        delete_horizon: false,
        partition_leader_epoch: 3,
        producer_id: producer.unwrap_or(-1),
        producer_epoch: if producer.is_some() { 0 } else { -1 },
        timestamp_type: TimestampType::Creation,
        offset: n,
        sequence: i32::try_from(n).unwrap(),
        timestamp: 1_000_000 - 7 * n,
        key: (n % 4 != 1).then(|| text("key")),
        value: (n % 5 != 2).then(|| text("value")),
        headers: headers.collect(),
    }
}

fn encode(records: &[Made], compression: Compression) -> Vec<u8> {
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression };
    RecordBatchEncoder::encode(&mut out, records, &options).unwrap();
    out.to_vec()
}

fn batch(offsets: std::ops::Range<i64>, compression: Compression) -> Vec<u8> {
    encode(&offsets.map(|n| made(n, None, false)).collect::<Vec<_>>(), compression)
}

/// The marker that ends a producer's transaction.
fn marker(offset: i64, producer: i64, commit: bool) -> Vec<u8> {
    let mut record = made(offset, Some(producer), true);
    record.key = Some(Bytes::copy_from_slice(&[0, 0, 0, u8::from(commit)]));
    record.headers.clear();
    encode(&[record], Compression::None)
}

fn transaction(offsets: std::ops::Range<i64>, producer: i64) -> Vec<u8> {
    encode(&offsets.map(|n| made(n, Some(producer), false)).collect::<Vec<_>>(), Compression::Lz4)
}

fn expected(offsets: impl Iterator<Item = i64>) -> Vec<Read> {
    let bytes = |b: Option<Bytes>| b.map(|b| b.to_vec());
    offsets
        .map(|n| made(n, None, false))
        .map(|r| {
            let headers = r.headers.into_iter().map(|(k, v)| (k.as_bytes().to_vec(), bytes(v)));
            (r.offset, r.timestamp, bytes(r.key), bytes(r.value), headers.collect())
        })
        .collect()
}

/// All visible records, and the offset behind the last whole batch.
fn read(records: &[u8], listed: &[AbortedTransaction]) -> Result<(Vec<Read>, i64), BatchError> {
    let mut unpacker = Unpacker::default();
    let mut aborted = Aborted::new(listed.to_vec());
    let (mut all, mut next) = (Vec::new(), 0);
    for batch in Batches::new(records) {
        let batch = batch?;
        batch.check()?;
        next = batch.last_offset + 1;
        if aborted.hides(&batch, &mut unpacker)? {
            continue;
        }
        let owned = |b: Option<&[u8]>| b.map(<[u8]>::to_vec);
        for record in Records::new(&batch, unpacker.unpack(&batch)?) {
            let r = record?;
            let headers = r.headers.map(|h| (h.key.to_vec(), owned(h.value))).collect();
            all.push((r.offset, r.timestamp_ms, owned(r.key), owned(r.value), headers));
        }
    }
    Ok((all, next))
}

#[test]
fn batches_of_all_codecs_are_read() {
    for codec in CODECS {
        let mut bytes = batch(5..2000, codec);
        bytes.extend(batch(2000..2001, codec));
        // A gap, as compaction leaves it.
        bytes.extend(batch(3000..3100, codec));
        let (all, next) = read(&bytes, &[]).unwrap();
        assert!(all == expected((5..2001).chain(3000..3100)), "{codec:?}");
        assert_eq!(next, 3100);
    }
}

#[test]
fn snappy_is_read_in_the_framing_of_java_as_well() {
    let raw = batch(0..10, Compression::None);
    let body = &raw[61..];
    let mut packed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for part in body.chunks(100) {
        let block = snap::raw::Encoder::new().compress_vec(part).unwrap();
        packed.extend(u32::try_from(block.len()).unwrap().to_be_bytes());
        packed.extend(block);
    }
    let mut bytes = raw[..61].to_vec();
    bytes.extend(packed);
    seal(&mut bytes, 2);
    assert!(read(&bytes, &[]).unwrap().0 == expected(0..10));
}

/// Sets a batch's codec, length and checksum.
fn seal(bytes: &mut [u8], codec: u8) {
    bytes[22] = bytes[22] & !7 | codec;
    let len = u32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&len.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
}

#[test]
fn only_committed_records_are_read() {
    let listed = |producer_id, first_offset| AbortedTransaction { producer_id, first_offset };
    let log = [
        transaction(0..10, 7),
        batch(10..12, Compression::None),
        transaction(12..14, 8),
        marker(14, 7, false),
        // The same producer, committed.
        transaction(15..17, 7),
        marker(17, 7, true),
        transaction(18..20, 8),
        marker(20, 8, false),
        // And aborted again.
        transaction(21..22, 7),
        marker(22, 7, false),
    ]
    .concat();
    let listed = [listed(7, 21), listed(8, 12), listed(7, 0)];
    let (all, next) = read(&log, &listed).unwrap();
    let offsets: Vec<i64> = all.iter().map(|r| r.0).collect();
    assert_eq!((offsets, next), (vec![10, 11, 15, 16], 23));
    let committed = read(&log, &[]).unwrap().0;
    assert_eq!(committed.len(), 23 - 4);
}

#[test]
fn append_times_and_wrong_headers() {
    let mut bytes = batch(0..3, Compression::None);
    bytes[22] |= 1 << 3;
    bytes[35..43].copy_from_slice(&77i64.to_be_bytes());
    seal(&mut bytes, 0);
    assert!(read(&bytes, &[]).unwrap().0.iter().all(|r| r.1 == 77));
    let wrong = |at: usize, byte: u8| {
        let mut bytes = batch(0..3, Compression::None);
        bytes[at] = byte;
        seal(&mut bytes, 0);
        read(&bytes, &[]).unwrap_err()
    };
    // One record more and one less than there are, a last offset before the last record.
    assert!(matches!(wrong(60, 4), BatchError::Invalid(_)));
    assert!(matches!(wrong(60, 2), BatchError::Invalid(_)));
    assert!(matches!(wrong(26, 1), BatchError::Invalid(_)));
    assert!(matches!(wrong(16, 1), BatchError::Magic(1)));
    let mut unknown = batch(0..3, Compression::None);
    seal(&mut unknown, 5);
    assert!(matches!(read(&unknown, &[]), Err(BatchError::Invalid(_))));
    let backwards = [batch(5..9, Compression::None), batch(3..4, Compression::None)].concat();
    assert!(matches!(read(&backwards, &[]), Err(BatchError::Invalid(_))));
}

/// What remains of a log after damage is an error, or a prefix of its batches; never other rows.
fn assert_harmless(damaged: &[u8], whole: &[Read]) {
    if let Ok((all, _)) = read(damaged, &[]) {
        assert!(whole.starts_with(&all), "{} rows of {}", all.len(), whole.len());
        // A prefix ends where a batch does.
        assert!([0, 40, 80, 100].contains(&all.len()), "{} rows", all.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn cut_answers_are_errors_or_whole_batches(codec in 0..5usize) {
        let codec = CODECS[codec];
        let parts = [batch(0..40, codec), batch(40..80, codec), batch(80..100, codec)];
        let whole = parts.concat();
        let rows = expected(0..100);
        for cut in 0..whole.len() {
            let (all, next) = read(&whole[..cut], &[]).unwrap();
            prop_assert!(rows.starts_with(&all) && all.len() as i64 == next);
        }
    }

    #[test]
    fn flipped_bits_are_errors_or_harmless(
        codec in 0..5usize,
        flips in proptest::collection::vec((0..1_000_000usize, 0..8u8), 1..4),
    ) {
        let codec = CODECS[codec];
        let whole = [batch(0..40, codec), batch(40..80, codec), batch(80..100, codec)].concat();
        let first = batch(0..40, codec).len();
        let second = first + batch(40..80, codec).len();
        let mut damaged = whole.clone();
        for (at, bit) in flips {
            let at = at % whole.len();
            // Kafka's checksum does not cover where a batch lies.
            let unchecked = [0, first, second].iter().any(|start| (*start..start + 8).contains(&at));
            if !unchecked {
                damaged[at] ^= 1 << bit;
            }
        }
        assert_harmless(&damaged, &expected(0..100));
    }

    /// With the checksum made right again nothing may panic, or allocate without bound.
    #[test]
    fn wrong_but_sealed_batches_do_not_panic(
        codec in 0..5u8,
        flips in proptest::collection::vec((0..1_000_000usize, any::<u8>()), 1..6),
        cut in 0..200usize,
    ) {
        let mut bytes = batch(0..40, CODECS[codec as usize]);
        let len = bytes.len();
        for (at, byte) in flips {
            bytes[23 + at % (len - 23)] = byte;
        }
        bytes.truncate((len - cut.min(len - 61)).max(61));
        seal(&mut bytes, codec);
        let _ = read(&bytes, &[]);
    }

    #[test]
    fn nonsense_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), version in 4..13i16) {
        let _ = read(&bytes, &[]);
        let _ = answer::parse(&bytes, version, 0);
    }
}

fn answered(version: i16) -> (Bytes, PartitionData) {
    let aborted = WireAborted::default().with_producer_id(ProducerId(9)).with_first_offset(11);
    let mut data = PartitionData::default()
        .with_partition_index(3)
        .with_high_watermark(50)
        .with_last_stable_offset(40)
        .with_aborted_transactions(Some(vec![aborted]))
        .with_records(Some(Bytes::from_static(b"some records")));
    if version >= 11 {
        data = data.with_preferred_read_replica(BrokerId(5));
    }
    if version >= 12 {
        data = data.with_diverging_epoch(EpochEndOffset::default().with_epoch(1));
    }
    let topic = FetchableTopicResponse::default()
        .with_topic(StrBytes::from_static_str("t").into())
        .with_partitions(vec![data.clone()]);
    let response = FetchResponse::default().with_throttle_time_ms(8).with_responses(vec![topic]);
    let mut out = BytesMut::new();
    response.encode(&mut out, version).unwrap();
    (out.freeze(), data)
}

#[test]
fn answers_of_all_versions_are_read() {
    for version in 4..=12 {
        let (bytes, _) = answered(version);
        let answer = answer::parse(&bytes, version, 3).unwrap();
        let partition = Partition {
            error: 0,
            last_stable_offset: 40,
            aborted: vec![AbortedTransaction { producer_id: 9, first_offset: 11 }],
            preferred_read_replica: if version >= 11 { 5 } else { -1 },
            diverging: version >= 12,
            records: b"some records",
        };
        assert_eq!((answer.throttle_ms, answer.error), (8, 0));
        assert_eq!(answer.partition, Some(partition), "version {version}");
        assert_eq!(answer::parse(&bytes, version, 4).unwrap().partition, None);
        for cut in 0..bytes.len() {
            assert_eq!(answer::parse(&bytes[..cut], version, 3), None);
        }
    }
}

#[test]
fn what_unpacks_to_too_much_is_refused() {
    let value = Bytes::from(vec![0; 1 << 20]);
    let record = Made { value: Some(value), ..made(0, None, false) };
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let bytes = encode(std::slice::from_ref(&record), codec);
        let batch = Batches::new(&bytes).next().unwrap().unwrap();
        let mut unpacker = Unpacker::default();
        let refused = unpacker.unpack_up_to(&batch, 1 << 19).unwrap_err();
        assert!(refused.to_string().contains("too many bytes"), "{refused}");
        assert!(unpacker.unpack_up_to(&batch, 2 << 20).is_ok());
    }
}
