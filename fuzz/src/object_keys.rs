//! Names of objects, and of tables: what is read is printed as it was, and what is printed is read.

use isk_model::{
    ContentDigest, DataFileKey, DeleteFileKey, KafkaPartition, LeaderEpoch, ObjectKey, Offset,
    OffsetRange, RenderDigest, SchemaVersion, TopicId, TopicName, split_folder,
};
use isk_virtual_table::topic_of;

/// A text that may be an object's key, and keys made of its bytes.
pub(crate) fn keys(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        read(text);
    }
    let data_key = made(data);
    let keys = [
        ObjectKey::Delete(DeleteFileKey {
            topic: data_key.topic.clone(),
            columns: data_key.columns,
            topic_id: data_key.topic_id,
            partition: data_key.partition,
            range: data_key.range,
        }),
        ObjectKey::Data(data_key),
    ];
    for key in keys {
        let text = key.to_string();
        assert_eq!(text.parse(), Ok(key), "{text}");
        read(&text);
    }
}

fn read(text: &str) {
    let key = match text.parse::<ObjectKey>() {
        Ok(key) => key,
        Err(error) => return assert!(error.key.chars().count() <= 300),
    };
    assert_eq!(key.to_string(), text);
    let (topic, rules) = split_folder(text.split('/').next().unwrap());
    assert_eq!(topic, key.topic().as_str());
    assert_eq!(rules.map(str::to_owned), key.columns().map(|digest| digest.to_string()));
    if let ObjectKey::Data(data) = &key {
        // Names are in the order of offsets.
        let folder = text.split('/').next().unwrap();
        let from = |start| DataFileKey::names_from(folder, data.topic_id, data.partition, start);
        let start = data.range.start();
        assert!(from(start).as_str() < text && from(Offset(start.0 + 1)).as_str() > text);
    }
}

/// A key of these bytes, as if there were zeros behind them.
fn made(mut data: &[u8]) -> DataFileKey {
    let mut next = |count: usize| {
        let (own, rest) = data.split_at(count.min(data.len()));
        data = rest;
        own.iter().fold(0, |number: u128, &byte| number << 8 | u128::from(byte))
    };
    let letter = b'a' + (next(1) % 26) as u8;
    let start = (next(8) as i64).unsigned_abs() >> 1;
    let end = start + 1 + (next(4) as u64);
    let mut digest = || (next(1) & 1 == 1).then(|| ContentDigest(next(16)));
    let [layout, covered, columns] = [digest(), digest(), digest()];
    DataFileKey {
        topic: TopicName::new(&char::from(letter).to_string()).unwrap(),
        columns,
        topic_id: TopicId(next(16)),
        partition: KafkaPartition((next(4) as u32 >> 1) as i32),
        range: OffsetRange::new(Offset(start as i64), Offset(end as i64)).unwrap(),
        leader_epoch: LeaderEpoch((next(4) as u32 >> 1) as i32 - 1),
        schema: SchemaVersion { value: next(4) as u32, key: next(4) as u32 },
        render: RenderDigest(next(8) as u64),
        layout,
        covered,
        declared_size: next(8) as u64,
    }
}

/// A name of a table: its topic, whichever view of it that is.
pub(crate) fn tables(data: &[u8]) {
    let Ok(table) = std::str::from_utf8(data) else { return };
    let topic = topic_of(table);
    assert!(table.starts_with(topic) && !topic.contains(['$', '~']), "{topic:?} of {table:?}");
    assert_eq!(topic_of(topic), topic);
    for sign in ['$', '~'] {
        assert_eq!(topic_of(&format!("{topic}{sign}{table}")), topic);
    }
    if TopicName::new(table).is_ok() {
        assert_eq!(topic, table);
    }
}
