//! What Kafka Connect's JSON Schemas say beyond JSON Schema: widths of numbers, bytes, logical types.

use crate::avro::{Kind, Logical, TimeUnit, ValueType};
use crate::json_document::Node;

const DATE: &str = "org.apache.kafka.connect.data.Date";
const TIME: &str = "org.apache.kafka.connect.data.Time";
const TIMESTAMP: &str = "org.apache.kafka.connect.data.Timestamp";
const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
const MAX_PRECISION: u32 = 38;

/// The place of a property among its siblings; those without one are last.
pub(crate) fn index(node: &Node) -> i64 {
    match node.get("connect.index") {
        Some(Node::Whole(index)) => *index,
        _ => i64::MAX,
    }
}

/// The type of an `integer`.
pub(crate) fn integer(node: &Node) -> ValueType {
    let (kind, logical) = match (node.text("title"), node.text("connect.type")) {
        (Some(DATE), Some("int32")) => (Kind::Int, Some(Logical::Date)),
        (Some(TIME), Some("int32")) => (Kind::Int, Some(Logical::Time(TimeUnit::Millis))),
        (Some(TIMESTAMP), Some("int64")) => {
            (Kind::Long, Some(Logical::Timestamp(TimeUnit::Millis)))
        }
        (_, Some("int8" | "int16" | "int32")) => (Kind::Int, None),
        _ => (Kind::Long, None),
    };
    ValueType { kind, logical }
}

/// The type of a `number`.
pub(crate) fn number(node: &Node) -> ValueType {
    match node.text("connect.type") {
        Some("float32") => ValueType::plain(Kind::Float),
        Some("bytes") => ValueType { kind: Kind::Double, logical: decimal(node) },
        _ => ValueType::plain(Kind::Double),
    }
}

/// The type of a `string` that holds bytes as Base64.
pub(crate) fn bytes(node: &Node) -> Option<ValueType> {
    let is_bytes = node.text("connect.type") == Some("bytes");
    is_bytes.then(|| ValueType { kind: Kind::Bytes, logical: decimal(node) })
}

fn decimal(node: &Node) -> Option<Logical> {
    if node.text("title") != Some(DECIMAL) {
        return None;
    }
    let parameters = node.get("connect.parameters")?;
    let digits = |name: &str| match parameters.get(name)? {
        Node::Text(digits) => digits.parse::<u32>().ok(),
        Node::Whole(digits) => u32::try_from(*digits).ok(),
        _ => None,
    };
    let scale = digits("scale")?;
    let precision = digits("connect.decimal.precision").unwrap_or(MAX_PRECISION);
    let valid = (1..=MAX_PRECISION).contains(&precision) && scale <= precision;
    valid.then_some(Logical::Decimal { precision, scale })
}
