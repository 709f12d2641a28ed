//! Several writer schemas in one topic: all rows under the newest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use support::{Plain, block, decoder, framed, rows};

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
}

fn field(ty: &str) -> String {
    record(&format!(r#"{{"name":"f","type":{ty}}}"#))
}

/// What `payload`, written with `writer`, is in the column of `reader`'s only field; or why not.
fn shown(writer: &str, reader: &str, payload: &[u8]) -> Result<Plain, String> {
    let batch = decoder(&[writer, reader]).decode(&block([Some(framed(1, payload))])).unwrap();
    match batch.failures.first() {
        Some(failure) => Err(failure.cause.clone()),
        None => Ok(rows(&batch)[0][0].clone()),
    }
}

#[test]
fn values_are_promoted_as_avro_says() {
    let float = |f: f64| Plain::Float(f.to_bits());
    let text = |s: &str| Plain::Text(s.to_owned());
    let millis = r#"{"type":"long","logicalType":"timestamp-millis"}"#;
    let micros = r#"{"type":"long","logicalType":"timestamp-micros"}"#;
    let nanos = r#"{"type":"long","logicalType":"timestamp-nanos"}"#;
    let date = r#"{"type":"int","logicalType":"date"}"#;
    let decimal =
        |s: u32| format!(r#"{{"type":"bytes","logicalType":"decimal","precision":4,"scale":{s}}}"#);
    let old = r#"{"type":"enum","name":"E","symbols":["A","B"]}"#;
    let new = r#"{"type":"enum","name":"E","symbols":["C","B"],"default":"C"}"#;
    let cases: &[(&str, &str, &[u8], Plain)] = &[
        (r#""int""#, r#""long""#, &[5], Plain::Int(-3)),
        (r#""int""#, r#""float""#, &[6], float(3.0)),
        (r#""int""#, r#""double""#, &[6], float(3.0)),
        (r#""long""#, r#""float""#, &[6], float(3.0)),
        (r#""long""#, r#""double""#, &[6], float(3.0)),
        (r#""float""#, r#""double""#, &1.5f32.to_le_bytes(), float(1.5)),
        (r#""string""#, r#""bytes""#, &[2, b'x'], Plain::Bytes(b"x".to_vec())),
        (r#""bytes""#, r#""string""#, &[2, b'x'], text("x")),
        (r#""int""#, r#"["null","long"]"#, &[6], Plain::Int(3)),
        (r#"["null","int"]"#, r#""long""#, &[2, 6], Plain::Int(3)),
        (r#"["null","int"]"#, r#""long""#, &[0], Plain::Null),
        (
            r#"["int","string"]"#,
            r#"["string","null","long"]"#,
            &[0, 6],
            Plain::Struct(vec![Plain::Null, Plain::Int(3)]),
        ),
        // The same type before one it could be promoted to.
        (r#""int""#, r#"["long","int"]"#, &[6], Plain::Struct(vec![Plain::Null, Plain::Int(3)])),
        (
            r#"{"type":"array","items":"int"}"#,
            r#"{"type":"array","items":["null","long"]}"#,
            &[2, 6, 0],
            Plain::List(vec![Plain::Int(3)]),
        ),
        (old, new, &[0], text("C")),
        (old, new, &[2], text("B")),
        (old, r#"{"type":"enum","name":"F","symbols":["A"]}"#, &[0], text("A")),
        (millis, micros, &[2], Plain::Int(1000)),
        (micros, millis, &[2], Plain::Int(1)),
        (nanos, millis, &[1], Plain::Int(-1)),
        (r#""int""#, millis, &[2], Plain::Int(1000)),
        (millis, r#""long""#, &[2], Plain::Int(1)),
        (date, millis, &[2], Plain::Int(86_400_000_000)),
        (&decimal(1), &decimal(2), &[2, 7], Plain::Int(70)),
        (&decimal(2), &decimal(1), &[2, 70], Plain::Int(7)),
        (
            &decimal(1),
            r#"{"type":"fixed","name":"D","size":3,"logicalType":"decimal","precision":5,"scale":1}"#,
            &[2, 7],
            Plain::Int(7),
        ),
    ];
    for (writer, reader, payload, expected) in cases {
        let result = shown(&field(writer), &field(reader), payload);
        assert_eq!(result.as_ref(), Ok(expected), "{writer} as {reader}");
    }
}

#[test]
fn what_cannot_be_resolved_is_a_failure_that_names_the_field() {
    let old = r#"{"type":"enum","name":"E","symbols":["A","B"]}"#;
    let decimal =
        |s: u32| format!(r#"{{"type":"bytes","logicalType":"decimal","precision":4,"scale":{s}}}"#);
    let cases: &[(&str, &str, &[u8], &str)] = &[
        (r#""long""#, r#""int""#, &[2], "field f: the writer's long cannot be read as int"),
        (r#""string""#, r#"["null","int"]"#, &[0], "none of the union's"),
        (old, r#"{"type":"enum","name":"E","symbols":["B"]}"#, &[0], "enum symbol A"),
        (r#"["int","string"]"#, r#""int""#, &[2, 0], "string cannot be read as int"),
        (
            r#"{"type":"fixed","name":"F","size":2}"#,
            r#"{"type":"fixed","name":"F","size":3}"#,
            &[0, 0],
            "type F",
        ),
        (&decimal(2), &decimal(1), &[2, 71], "scale"),
    ];
    for (writer, reader, payload, why) in cases {
        let cause = shown(&field(writer), &field(reader), payload).unwrap_err();
        assert!(cause.contains(why), "{writer} as {reader}: {cause}");
    }
}

#[test]
fn fields_are_matched_by_name_then_alias_and_filled_with_defaults() {
    let writer = record(
        r#"{"name":"gone","type":{"type":"map","values":["null","bytes"]}},
           {"name":"old","type":"int"},{"name":"same","type":"string"}"#,
    );
    let reader = record(
        r#"{"name":"same","type":"string"},
           {"name":"new","aliases":["x","old"],"type":"long"},
           {"name":"d","type":"int","default":7},
           {"name":"n","type":["null","int"],"default":null},
           {"name":"u","type":["null","string"],"default":"in the second branch"},
           {"name":"r","type":{"type":"record","name":"I","fields":[
                {"name":"a","type":{"type":"array","items":"int"}},
                {"name":"b","type":"bytes","default":"\u00ff"}]},"default":{"a":[1,-2]}},
           {"name":"m","type":{"type":"map","values":"double"},"default":{"k":1.5}},
           {"name":"none","type":"string"}"#,
    );
    let payload = [&[2, 2, b'k', 2, 2, 9, 0][..], &[6], &[2, b's']].concat();
    let batch = decoder(&[&writer, &reader]).decode(&block([Some(framed(1, &payload))])).unwrap();
    assert!(batch.failures.is_empty(), "{:?}", batch.failures);
    let text = |s: &str| Plain::Text(s.to_owned());
    assert_eq!(
        rows(&batch)[0],
        [
            text("s"),
            Plain::Int(3),
            Plain::Int(7),
            Plain::Null,
            text("in the second branch"),
            Plain::Struct(vec![
                Plain::List([1, -2].map(Plain::Int).to_vec()),
                Plain::Bytes(vec![255])
            ]),
            Plain::Map(vec![("k".to_owned(), Plain::Float(1.5f64.to_bits()))]),
            Plain::Null,
        ]
    );
}

#[test]
fn writers_that_alternate_stay_in_order() {
    let one = record(r#"{"name":"a","type":"int"}"#);
    let two = record(r#"{"name":"b","type":"string"},{"name":"a","type":"long"}"#);
    let other = r#"{"type":"record","name":"Other","fields":[{"name":"a","type":"string"}]}"#;
    // The newest is last; the second to last cannot be resolved.
    let mut decoder = decoder(&[&one, other, &two]);
    let values: Vec<_> = (0..100u8)
        .map(|i| match i % 4 {
            0 => Some(framed(1, &[i])),
            1 => Some(framed(3, &[2, b'x', i - 1])),
            2 => Some(framed(2, &[2, b'x'])),
            _ => None,
        })
        .collect();
    let batch = decoder.decode(&block(values)).unwrap();
    for (i, row) in rows(&batch).into_iter().enumerate() {
        let half = |i: usize| Plain::Int((i / 2) as i128);
        let expected = match i % 4 {
            0 => [Plain::Null, if i % 128 < 64 || i < 128 { half(i) } else { Plain::Null }],
            1 => [Plain::Text("x".into()), half(i - 1)],
            _ => [Plain::Null, Plain::Null],
        };
        assert_eq!(row, expected, "row {i}");
    }
    assert_eq!(batch.failures.len(), 25);
    assert!(batch.failures.iter().all(|f| f.offset.0 % 4 == 2));
}

/// Of what a table does not show, all is skipped; what it shows, it shows under the writer's names.
#[test]
fn recursion_comes_and_goes() {
    let node = |more: &str| {
        format!(
            r#"{{"type":"record","name":"N","fields":[{{"name":"n","type":"int"}},
                {{"name":"next","type":["null",{more}]}}]}}"#
        )
    };
    let recursive = node(r#""N""#);
    let flat = node(r#"{"type":"record","name":"M","fields":[{"name":"n","type":"int"}]}"#);
    let plain = r#"{"type":"record","name":"N","fields":[{"name":"n","type":"int"}]}"#;
    // 1, within it 2, within it 3.
    let (three, two) = ([2, 2, 4, 2, 6, 0], [2, 2, 4]);
    let shown = |history: &[&str], id: i32, payload: &[u8]| {
        let batch = decoder(history).decode(&block([Some(framed(id, payload))])).unwrap();
        assert!(batch.failures.is_empty(), "{:?}", batch.failures);
        support::row(&batch, 0)
    };
    let text = |s: &str| Plain::Text(s.to_owned());
    let one = Plain::Int(1);
    let within = r#"{"n":2,"next":{"n":3,"next":null}}"#;
    assert_eq!(shown(&[&recursive], 1, &three), [one.clone(), text(within)]);
    assert_eq!(shown(&[&recursive], 1, &[2, 0]), [one.clone(), Plain::Null]);
    assert_eq!(shown(&[&flat, &recursive], 1, &two), [one.clone(), text(r#"{"n":2}"#)]);
    assert_eq!(shown(&[&recursive, plain], 1, &three), vec![one.clone()]);
    // The newest schema knows no end of it: what lies deeper is skipped.
    let struct_of = |n| Plain::Struct(vec![Plain::Int(n)]);
    assert_eq!(shown(&[&recursive, &flat], 1, &three), [one, struct_of(2)]);
}

#[test]
fn values_within_values_without_end_are_a_failure_and_no_crash() {
    let recursive = r#"{"type":"record","name":"N","fields":[{"name":"n","type":["null","N"]}]}"#;
    let mut both = decoder(&[recursive]);
    // A list of so many.
    let deep = |n: usize| framed(1, &[vec![2; n], vec![0]].concat());
    let batch = both.decode(&block([90, 100_000, 1].map(|n| Some(deep(n))))).unwrap();
    assert_eq!(batch.failures.len(), 1, "{:?}", batch.failures);
    assert!(batch.failures[0].cause.contains("deeper than 200 levels"));
    assert_eq!(batch.failures[0].row, 1);
    // A record that cannot but hold itself has no value.
    let endless = r#"{"type":"record","name":"N","fields":[{"name":"n","type":"N"}]}"#;
    let batch = decoder(&[endless]).decode(&block([Some(framed(1, &[]))])).unwrap();
    assert_eq!(batch.failures.len(), 1);
    // Few bytes do not become a long text.
    let wide: Vec<String> =
        (0..500).map(|i| format!(r#"{{"name":"{}{i}","type":"null"}}"#, "x".repeat(200))).collect();
    let wide = format!(
        r#"{{"type":"record","name":"N","fields":[{{"name":"n","type":{{"type":"array","items":"N"}}}},{}]}}"#,
        wide.join(",")
    );
    let batch = decoder(&[&wide]).decode(&block([Some(framed(1, &[2, 0, 0]))])).unwrap();
    assert!(batch.failures[0].cause.contains("too long"), "{:?}", batch.failures);
}

#[test]
fn a_topic_that_turns_from_records_to_a_union_of_records_shows_both() {
    let a = r#"{"type":"record","name":"A","fields":[{"name":"x","type":"int"}]}"#;
    let both =
        format!(r#"[{a},{{"type":"record","name":"B","fields":[{{"name":"y","type":"int"}}]}}]"#);
    let mut up = decoder(&[a, &both]);
    let values =
        || block([Some(framed(1, &[2])), Some(framed(2, &[0, 2])), Some(framed(2, &[2, 4]))]);
    let batch = up.decode(&values()).unwrap();
    let one = |i| Plain::Struct(vec![Plain::Int(i)]);
    let a_row = [Plain::Struct(vec![one(1), Plain::Null])];
    assert_eq!(rows(&batch), [a_row.clone(), a_row, [Plain::Struct(vec![Plain::Null, one(2)])]]);
}

#[test]
fn deep_unions_that_do_not_match_are_refused_at_once() {
    let nested = |leaf: &str| {
        (0..25).fold(format!("\"{leaf}\""), |inner, i| {
            format!(
                r#"{{"type":"record","name":"R{i}","fields":[{{"name":"f","type":["null",{inner}]}}]}}"#
            )
        })
    };
    let batch = decoder(&[&nested("string"), &nested("int")])
        .decode(&block([Some(framed(1, &[2]))]))
        .unwrap();
    assert_eq!(batch.failures.len(), 1);
}
