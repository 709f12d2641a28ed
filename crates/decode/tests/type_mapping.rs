//! The tables of `docs/type-mapping.md` against values: each row has some here, in their format's bytes, and what the column shows of them.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::collections::BTreeSet;

use isk_decode::TopicDecoder;
use isk_model::{RegistrySchemaId, SchemaFormat};
use isk_schema::{CONFIGURED, FieldIdMap, SchemaText, table_schema};
use support::{Plain, block, decoder_of, framed, row};

const DOCUMENT: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/type-mapping.md"));

/// A field as the document has it, and pairs of bytes and what is shown: `!` and a part of the cause where the record fails.
type Case = (&'static str, &'static [(&'static [u8], &'static str)]);

const F32: [u8; 4] = 1.5f32.to_le_bytes();
const F64: [u8; 8] = 2.5f64.to_le_bytes();
const INFINITY: [u8; 8] = f64::NEG_INFINITY.to_le_bytes();
const NAN: [u8; 4] = f32::NAN.to_le_bytes();
const MAX: &[u8] = &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];

const AVRO: &[Case] = &[
    (r#""boolean""#, &[(&[1], "true"), (&[2], "!a boolean is 0 or 1")]),
    (r#""int""#, &[(&[3], "-2"), (MAX, "!no 32-bit number")]),
    (r#""long""#, &[(MAX, "9223372036854775807"), (&[0x80], "!ends within a number")]),
    (r#""float""#, &[(&F32, "1.5"), (&NAN, "NaN"), (&[0], "!4 bytes are needed")]),
    (r#""double""#, &[(&F64, "2.5"), (&INFINITY, "-inf")]),
    (
        r#""string""#,
        &[(&[2, b'x'], "\"x\""), (&[2, 0xff], "!not UTF-8"), (&[1], "!a length is -1")],
    ),
    (r#""bytes""#, &[(&[4, 0, 255], "00ff")]),
    (r#""null""#, &[(&[], "null")]),
    (
        r#"{"type":"enum","name":"E","symbols":["A","B"]}"#,
        &[(&[2], "\"B\""), (&[4], "!enum symbol 2 of 2")],
    ),
    (r#"{"type":"fixed","name":"F","size":3}"#, &[(&[1, 2, 3], "010203")]),
    (r#"{"type":"fixed","name":"F","size":0}"#, &[(&[], "")]),
    (r#"{"type":"array","items":"int"}"#, &[(&[4, 2, 4, 0], "[1, 2]"), (&[0], "[]")]),
    (r#"{"type":"map","values":"int"}"#, &[(&[2, 2, b'k', 2, 0], "{k: 1}")]),
    (
        r#"{"type":"record","name":"S","fields":[{"name":"a","type":"int"}]}"#,
        &[(&[2], "(1)"), (&[], "!field f.a: ")],
    ),
    (r#"{"type":"record","name":"S","fields":[]}"#, &[(&[], "true")]),
    (r#"["null","int"]"#, &[(&[0], "null"), (&[2, 2], "1"), (&[4], "!union branch 2 of 2")]),
    (r#"["null"]"#, &[(&[0], "null")]),
    (r#"["null","int","string"]"#, &[(&[0], "null"), (&[4, 2, b'x'], "(null, \"x\")")]),
    (r#"{"type":"int","logicalType":"date"}"#, &[(&[3], "-2")]),
    (r#"{"type":"int","logicalType":"time-millis"}"#, &[(&[2], "1000"), (&[1], "!no time of day")]),
    (
        r#"{"type":"long","logicalType":"time-micros"}"#,
        &[(&[2], "1"), (&[0x80, 0xc0, 0x9b, 0x9a, 0x84, 0x05], "!no time of day")],
    ),
    (
        r#"{"type":"long","logicalType":"timestamp-millis"}"#,
        &[(&[1], "-1000"), (MAX, "!out of range")],
    ),
    (r#"{"type":"long","logicalType":"timestamp-micros"}"#, &[(MAX, "9223372036854775807")]),
    (
        r#"{"type":"long","logicalType":"timestamp-nanos"}"#,
        &[(&[1], "-1"), (MAX, "9223372036854775")],
    ),
    (
        r#"{"type":"long","logicalType":"local-timestamp-millis"}"#,
        &[(&[2], "1000"), (MAX, "!out of range")],
    ),
    (r#"{"type":"long","logicalType":"local-timestamp-micros"}"#, &[(&[1], "-1")]),
    (r#"{"type":"long","logicalType":"local-timestamp-nanos"}"#, &[(&[1], "-1")]),
    (
        r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#,
        &[
            (&[2, 0xff], "-1"),
            (&[8, 0x3b, 0x9a, 0xc9, 0xff], "999999999"),
            (&[8, 0x3b, 0x9a, 0xca, 0], "!more than 9 digits"),
        ],
    ),
    (
        r#"{"type":"fixed","name":"F","size":4,"logicalType":"decimal","precision":9,"scale":2}"#,
        &[(&[0, 0, 1, 0], "256"), (&[0x7f, 0, 0, 0], "!more than 9 digits")],
    ),
    (r#"{"type":"bytes","logicalType":"decimal","precision":39,"scale":2}"#, &[(&[2, 5], "05")]),
    (r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":-2}"#, &[(&[2, 5], "05")]),
    (r#"{"type":"bytes","logicalType":"decimal","precision":2,"scale":9}"#, &[(&[2, 5], "05")]),
    (
        r#"{"type":"string","logicalType":"uuid"}"#,
        &[
            (b"\x4800000000-0000-0000-0000-0000000000ff", "000000000000000000000000000000ff"),
            (&[2, b'x'], "!no uuid"),
        ],
    ),
    (
        r#"{"type":"fixed","name":"F","size":16,"logicalType":"uuid"}"#,
        &[(&[7; 16], "07070707070707070707070707070707")],
    ),
    (
        r#"{"type":"fixed","name":"F","size":12,"logicalType":"duration"}"#,
        &[(&[1, 0, 0, 0, 2, 0, 0, 0, 255, 255, 255, 255], "(1, 2, 4294967295)")],
    ),
    (r#"{"type":"bytes","logicalType":"big-decimal"}"#, &[(&[2, 5], "05")]),
    (r#"{"type":"long","logicalType":"of-my-own"}"#, &[(&[2], "1")]),
    (r#"{"type":"long","logicalType":"time-millis"}"#, &[(MAX, "9223372036854775807")]),
    (
        r#"{"type":"record","name":"S","fields":[{"name":"next","type":["null","S"]}]}"#,
        &[(&[0], "(null)"), (&[2, 2, 0], r#"("{\"next\":{\"next\":null}}")"#)],
    ),
];

const JSON: &[Case] = &[
    (r#"{"type":"boolean"}"#, &[(b"true", "true"), (b"null", "null"), (b"1", "!")]),
    (
        r#"{"type":"integer"}"#,
        &[
            (b"1.0", "1"),
            (b"9223372036854775807", "9223372036854775807"),
            (b"1.5", "!"),
            (b"9223372036854775808", "!"),
        ],
    ),
    (r#"{"type":"number"}"#, &[(b"2.5", "2.5"), (b"0.1e1", "1.0"), (b"1e999", "!")]),
    (
        r#"{"type":"string"}"#,
        &[(br#""a\u00e9""#, "\"aé\""), (br#""\ud800""#, "!"), (b"\"\xff\"", "!")],
    ),
    (r#"{"type":"null"}"#, &[(b"null", "null"), (b"1", "!")]),
    (
        r#"{"type":"string","format":"date-time"}"#,
        &[(br#""1970-01-01T01:00:00.0000019+01:00""#, "1"), (br#""1970-01-01T00:00:00""#, "!")],
    ),
    (
        r#"{"type":"string","format":"date"}"#,
        &[(br#""1970-01-03""#, "2"), (br#""1970-02-30""#, "!")],
    ),
    (
        r#"{"type":"string","format":"uuid"}"#,
        &[
            (br#""00000000-0000-0000-0000-0000000000ff""#, "000000000000000000000000000000ff"),
            (br#""x""#, "!"),
        ],
    ),
    (r#"{"type":"string","format":"time"}"#, &[(br#""10:00:00Z""#, "\"10:00:00Z\"")]),
    (r#"{"type":"string","format":"email"}"#, &[(br#""no mail""#, "\"no mail\"")]),
    (r#"{"enum":["a","b"]}"#, &[(br#""c""#, "\"c\"")]),
    (r#"{"const":1}"#, &[(b"2", "2")]),
    (r#"{"type":"object","properties":{"a":{"type":"integer"}}}"#, &[(br#"{"b":2,"a":1}"#, "(1)")]),
    (
        r#"{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":true}"#,
        &[(br#"{"b":[2],"a":1}"#, "(1, {b: \"[2]\"})"), (br#"{"a":1,"a":1}"#, "!twice")],
    ),
    (
        r#"{"type":"object","additionalProperties":{"type":"number"}}"#,
        &[(br#"{"k":1}"#, "{k: 1.0}"), (br#"{"k":1,"k":2}"#, "!twice")],
    ),
    (r#"{"type":"object","additionalProperties":false}"#, &[(b"{}", "true")]),
    (r#"{"type":"object"}"#, &[(br#"{"a": 1}"#, r#""{\"a\": 1}""#)]),
    (r#"{"type":"array","items":{"type":"integer"}}"#, &[(b"[1,null]", "[1, null]")]),
    (r#"{"type":"array"}"#, &[(br#"[1,"x"]"#, r#"["1", "\"x\""]"#)]),
    (r#"{"type":["null","integer"]}"#, &[(b"null", "null"), (b"1", "1")]),
    (r#"{"oneOf":[{"type":"null"},{"type":"string"}]}"#, &[(br#""x""#, "\"x\"")]),
    (r#"{"type":["integer","number"]}"#, &[(b"1", "1.0")]),
    (r#"{"type":["integer","string"]}"#, &[(b"1", "\"1\""), (br#""x""#, r#""\"x\"""#)]),
    ("{}", &[(b"[ 1 ]", "\"[ 1 ]\"")]),
    (
        r#"{"type":"integer","connect.type":"int32"}"#,
        &[(b"-2147483648", "-2147483648"), (b"2147483648", "!")],
    ),
    (r#"{"type":"number","connect.type":"float32"}"#, &[(b"1.5", "1.5")]),
    (r#"{"type":"string","connect.type":"bytes"}"#, &[(br#""AP8=""#, "00ff"), (br#""?""#, "!")]),
    (
        r#"{"title":"org.apache.kafka.connect.data.Date","type":"integer","connect.type":"int32"}"#,
        &[(b"2", "2")],
    ),
    (
        r#"{"title":"org.apache.kafka.connect.data.Time","type":"integer","connect.type":"int32"}"#,
        &[(b"1", "1000"), (b"86400000", "!")],
    ),
    (
        r#"{"title":"org.apache.kafka.connect.data.Timestamp","type":"integer","connect.type":"int64"}"#,
        &[(b"1", "1000"), (b"9223372036854775807", "!")],
    ),
];

const TEN: &[u8] = &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
const FOUR: &[u8] = &[0x0d, 0xff, 0xff, 0xff, 0xff];
const EIGHT: &[u8] = &[0x09, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];

const PROTOBUF: &[Case] = &[
    (
        "double f = 1;",
        &[(&[9, 0, 0, 0, 0, 0, 0, 4, 64], "2.5"), (&[], "0.0"), (&[8, 1], "!another type")],
    ),
    ("float f = 1;", &[(&[13, 0, 0, 0xc0, 0x7f], "NaN"), (&[], "0.0")]),
    ("int32 f = 1;", &[(TEN, "-1"), (&[], "0")]),
    ("sint32 f = 1;", &[(&[8, 3], "-2")]),
    ("sfixed32 f = 1;", &[(FOUR, "-1")]),
    ("uint32 f = 1;", &[(&[8, 0xff, 0xff, 0xff, 0xff, 0x0f], "4294967295")]),
    ("fixed32 f = 1;", &[(FOUR, "4294967295")]),
    ("int64 f = 1;", &[(TEN, "-1")]),
    ("sint64 f = 1;", &[(&[8, 1], "-1")]),
    ("sfixed64 f = 1;", &[(EIGHT, "-1")]),
    ("uint64 f = 1;", &[(TEN, "18446744073709551615")]),
    ("fixed64 f = 1;", &[(EIGHT, "18446744073709551615")]),
    ("bool f = 1;", &[(&[8, 1], "true"), (&[], "false")]),
    ("string f = 1;", &[(b"\x0a\x01x", "\"x\""), (&[], "\"\""), (&[10, 1, 0xff], "!not UTF-8")]),
    ("bytes f = 1;", &[(&[10, 1, 0xff], "ff"), (&[10, 2, 0], "!")]),
    ("Color f = 1;", &[(&[], "\"RED\""), (&[8, 9], "\"9\"")]),
    ("Point f = 1;", &[(&[10, 2, 8, 1], "(1, 0)"), (&[], "null")]),
    ("Nothing f = 1;", &[(&[10, 0], "true"), (&[], "null")]),
    (
        "repeated int32 f = 1;",
        &[(&[10, 2, 1, 2], "[1, 2]"), (&[8, 1, 8, 2], "[1, 2]"), (&[], "[]")],
    ),
    ("repeated Point f = 1;", &[(&[10, 0, 10, 2, 16, 5], "[(0, 0), (0, 5)]")]),
    ("map<string, int64> f = 1;", &[(&[10, 5, 10, 1, b'k', 16, 1], "{k: 1}")]),
    ("map<int32, Point> f = 1;", &[(&[10, 2, 8, 7], "{7: (0, 0)}"), (&[10, 0, 10, 0], "!twice")]),
    ("optional int32 f = 1;", &[(&[], "null"), (&[8, 0], "0")]),
    ("oneof o { int32 f = 1; }", &[(&[], "null"), (&[8, 0], "0")]),
    (
        "Chain f = 1;",
        &[(&[10, 4, 18, 2, 8, 7], r#"(0, "{\"n\":7}")"#), (&[10, 2, 8, 1], "(1, null)")],
    ),
    (
        "google.protobuf.Timestamp f = 1;",
        &[
            (&[10, 5, 8, 1, 16, 0xcf, 0x0f], "1000001"),
            (&[10, 0], "0"),
            (&[10, 10, 8, 255, 255, 255, 255, 255, 255, 255, 255, 127], "!no timestamp"),
        ],
    ),
    ("google.protobuf.Duration f = 1;", &[(&[10, 4, 8, 1, 16, 2], "(1, 2)")]),
    ("google.protobuf.Int64Value f = 1;", &[(&[], "null"), (&[10, 0], "0"), (&[10, 2, 8, 5], "5")]),
    ("google.protobuf.UInt64Value f = 1;", &[(&[10, 2, 8, 5], "5")]),
    ("google.protobuf.StringValue f = 1;", &[(&[10, 3, 10, 1, b'x'], "\"x\"")]),
    ("google.protobuf.Any f = 1;", &[(&[10, 6, 10, 1, b't', 18, 1, 9], "(\"t\", 09)")]),
    ("google.protobuf.FieldMask f = 1;", &[(&[10, 3, 10, 1, b'a'], "([\"a\"])")]),
    ("google.protobuf.Empty f = 1;", &[(&[10, 0], "true")]),
    (
        "google.protobuf.Struct f = 1;",
        &[(&[10, 0], "\"{}\""), (&[], "null"), (&[10, 2, 10, 9], "!is no message")],
    ),
    (
        "google.protobuf.Value f = 1;",
        &[
            (&[10, 3, 26, 1, b'x'], r#""\"x\"""#),
            (&[10, 2, 8, 0], "null"),
            (&[10, 2, 32, 1], "\"true\""),
        ],
    ),
    ("google.protobuf.ListValue f = 1;", &[(&[10, 4, 10, 2, 32, 1], "\"[true]\"")]),
];

const PLAIN: &[Case] = &[
    ("string", &[(b"x", "\"x\""), (b"\xff", "!UTF-8")]),
    ("short", &[(&[0xff, 0xfe], "-2"), (&[1], "!")]),
    ("int", &[(&[0, 0, 1, 0], "256"), (&[1], "!")]),
    ("long", &[(&[0, 0, 0, 0, 0, 0, 1, 0], "256"), (&[1], "!")]),
    ("float", &[(&[0x3f, 0xc0, 0, 0], "1.5"), (&[1], "!")]),
    ("double", &[(&[0x40, 4, 0, 0, 0, 0, 0, 0], "2.5"), (&[1], "!")]),
    (
        "uuid",
        &[
            (b"00000000-0000-0000-0000-0000000000ff", "000000000000000000000000000000ff"),
            (b"x", "!"),
        ],
    ),
];

/// A schema with a field as the only one, and how its values begin.
fn of_field(section: &str, field: &str) -> (SchemaFormat, String, &'static [u8]) {
    match section {
        "Avro" => (
            SchemaFormat::Avro,
            format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{field}}}]}}"#),
            &[],
        ),
        "JSON Schema" => (
            SchemaFormat::Json,
            format!(r#"{{"type":"object","properties":{{"f":{field}}}}}"#),
            br#"{"f":"#,
        ),
        "Protobuf" => {
            let imports: String =
                ["any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers"]
                    .map(|name| format!("import \"google/protobuf/{name}.proto\"; "))
                    .concat();
            let text = format!(
                "syntax = \"proto3\"; {imports} message R {{ {field} }} message Point {{ int32 x = 1; int32 y = 2; }} \
                 message Nothing {{}} message Chain {{ int32 n = 1; Chain next = 2; }} enum Color {{ RED = 0; }}"
            );
            (SchemaFormat::Protobuf, text, &[0])
        }
        "Plain values" => (SchemaFormat::Plain, field.to_owned(), &[]),
        other => panic!("there is no section {other}"),
    }
}

fn decoder(format: SchemaFormat, text: String) -> TopicDecoder {
    let id = if format == SchemaFormat::Plain { CONFIGURED } else { RegistrySchemaId(1) };
    let schema = SchemaText { version: 1, id, format, text, references: Vec::new() };
    let table = table_schema(std::slice::from_ref(&schema), &[], &mut FieldIdMap::default());
    decoder_of(table.unwrap(), &[schema])
}

fn shown(value: &Plain) -> String {
    let list = |items: &[Plain]| items.iter().map(shown).collect::<Vec<_>>().join(", ");
    match value {
        Plain::Null => "null".to_owned(),
        Plain::Bool(b) => b.to_string(),
        Plain::Int(n) => n.to_string(),
        Plain::Float(bits) => format!("{:?}", f64::from_bits(*bits)),
        Plain::Text(text) => format!("{text:?}"),
        Plain::Bytes(bytes) => bytes.iter().map(|b| format!("{b:02x}")).collect(),
        Plain::List(items) => format!("[{}]", list(items)),
        Plain::Struct(items) => format!("({})", list(items)),
        Plain::Map(entries) => {
            let entry = |(key, value): &(String, Plain)| format!("{key}: {}", shown(value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// The fields that the document has, by section.
fn documented() -> BTreeSet<(&'static str, &'static str)> {
    let (mut section, mut rows) = ("", BTreeSet::new());
    for line in DOCUMENT.lines() {
        section = line.strip_prefix("## ").unwrap_or(section);
        let field = line.strip_prefix("| `").and_then(|rest| rest.split_once("` | "));
        if let Some((field, _)) = field.filter(|_| section != "When a schema changes") {
            rows.insert((section, field));
        }
    }
    rows
}

#[test]
fn each_row_of_the_document_has_values() {
    let mut left = documented();
    let mut wrong = Vec::new();
    let sections =
        [("Avro", AVRO), ("JSON Schema", JSON), ("Protobuf", PROTOBUF), ("Plain values", PLAIN)];
    for (section, cases) in sections {
        for (field, values) in cases {
            if !left.remove(&(section, *field)) {
                wrong.push(format!("{section}: {field} is no row of the document"));
            }
            let (format, text, before) = of_field(section, field);
            for (bytes, want) in *values {
                let mut payload = [before, bytes].concat();
                if format == SchemaFormat::Json {
                    payload.push(b'}');
                }
                if format != SchemaFormat::Plain {
                    payload = framed(1, &payload);
                }
                let batch = decoder(format, text.clone()).decode(&block([Some(payload)])).unwrap();
                let found = match batch.failures.first() {
                    Some(failure) => format!("!{}", failure.cause),
                    None => shown(&row(&batch, 0)[0]),
                };
                let holds = match want.strip_prefix('!') {
                    Some(part) => found.starts_with('!') && found.contains(part),
                    None => found == *want,
                };
                if !holds {
                    wrong.push(format!("{section}: {field}, {bytes:02x?} is {found}, not {want}"));
                }
            }
        }
    }
    wrong.extend(left.iter().map(|(section, field)| format!("{section}: {field} has no values")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
